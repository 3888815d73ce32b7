// SPDX-License-Identifier: MIT OR Apache-2.0
//! The outcome of a device's requests at a server that does as it should.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use block_device_traits::{BlockDevice, Errno, ZeroFlags};
use bytes::Bytes;
use common::{FUA, NO_FUA, close_well, device, error, settings, start};
use fake_imageio::{Backend, Certificate, FakeServer, Fault, Op, OptionsMode, What};
use imageio_device::{NoHole, Transfer};

/// Kind, offset, size and flush of each request but those of opening the transfer.
fn requests(server: &FakeServer) -> Vec<(Op, u64, u64, bool)> {
    let log = server.log();
    let of_device = log.requests.iter().filter(|request| request.connection > 1);
    of_device.map(|r| (r.op, r.offset, r.size, r.flush)).collect()
}

fn round_trip(server: &FakeServer, device: &dyn BlockDevice) {
    let data: Vec<u8> = (0..200_000).map(|i| (i % 251) as u8).collect();
    device.write(1000, Bytes::from(data.clone()), false).unwrap();
    device.write(300_000, Bytes::from_static(b"durable"), true).unwrap();
    device.zero(2000, 3000, NO_FUA).unwrap();
    device.flush().unwrap();
    let mut expected = vec![0; server.size() as usize];
    expected[1000..201_000].copy_from_slice(&data);
    expected[300_000..300_007].copy_from_slice(b"durable");
    expected[2000..5000].fill(0);
    assert!(server.contents().unwrap() == expected);
    let mut back = vec![1; expected.len()];
    device.read(0, &mut back).unwrap();
    assert!(back == expected);
}

#[test]
fn what_is_written_is_read_back() {
    for builder in [FakeServer::builder(), FakeServer::builder().tls(Certificate::default())] {
        let server = builder.start().unwrap();
        let device = device(&server);
        let capabilities = device.capabilities();
        assert!(capabilities.flush && capabilities.fua && capabilities.multi_conn);
        assert!(!capabilities.read_only && capabilities.fast_zero);
        assert_eq!(device.size(), server.size());
        round_trip(&server, &device);
        close_well(&server, &device);
    }
}

#[test]
fn old_servers_are_used_for_what_they_can_do() {
    for mode in [OptionsMode::MethodNotAllowed, OptionsMode::NoContent, OptionsMode::MissingKeys] {
        let server = FakeServer::builder().options(mode).start().unwrap();
        let device = device(&server);
        let capabilities = device.capabilities();
        assert!(!capabilities.flush && !capabilities.fua && !capabilities.read_only);
        round_trip(&server, &device);
        let log = server.log();
        assert!(log.of(Op::Put).all(|put| put.flush), "{mode:?}");
        assert_eq!((log.of(Op::Put).count(), log.of(Op::Flush).count()), (3, 0), "{mode:?}");
        close_well(&server, &device);
        assert_eq!(server.accepted(), 2, "{mode:?}");
    }
}

#[test]
fn a_server_that_serves_one_connection_at_a_time_works() {
    let server = FakeServer::builder().one_at_a_time(true).max_readers(Some(1)).max_writers(Some(1));
    let server = server.start().unwrap();
    let device = device(&server);
    round_trip(&server, &device);
    close_well(&server, &device);
    let log = server.log();
    assert_eq!(log.connections.len(), 2);
    assert!(log.connections[0].closed.unwrap() < log.connections[1].accepted);
}

#[test]
fn fua_is_one_request() {
    let server = FakeServer::builder().start().unwrap();
    let device = device(&server);
    device.write(5, Bytes::from_static(b"data"), true).unwrap();
    device.zero(100, 50, FUA).unwrap();
    assert_eq!(requests(&server), [(Op::Put, 5, 4, true), (Op::Zero, 100, 50, true)]);
    // Nothing is unflushed.
    device.flush().unwrap();
    close_well(&server, &device);
    assert_eq!(requests(&server).len(), 2);
}

#[test]
fn zeroes_are_written_where_the_server_has_no_zero() {
    let server = FakeServer::builder().zero(false).contents(vec![7; 1 << 20]).start().unwrap();
    let device = device(&server);
    device.zero(1, 500_000, NO_FUA).unwrap();
    device.zero(600_000, 5, FUA).unwrap();
    assert_eq!(requests(&server), [(Op::Put, 1, 500_000, false), (Op::Put, 600_000, 5, true)]);
    let mut expected = vec![7; 1 << 20];
    expected[1..500_001].fill(0);
    expected[600_000..600_005].fill(0);
    assert!(server.contents().unwrap() == expected);
    close_well(&server, &device);
}

#[test]
fn long_writes_go_out_in_steps_on_one_connection_and_the_last_one_flushes() {
    const STEP: u64 = 64 << 10;
    let data: Vec<u8> = (0..3 * STEP + 5).map(|i| (i % 251) as u8).collect();
    for fua in [true, false] {
        let server = FakeServer::builder().start().unwrap();
        let transfer =
            Transfer::open(settings(&server).with(|settings| settings.max_request = Some(STEP))).unwrap();
        let device = transfer.start().unwrap();
        device.write(10, data.clone().into(), fua).unwrap();
        // Each ends at the end of a block, so that no two are in one block.
        let steps = [(10, STEP - 10), (STEP, STEP), (2 * STEP, STEP), (3 * STEP, 15)];
        assert_eq!(requests(&server), steps.map(|(at, len)| (Op::Put, at, len, fua && len == 15)));
        assert!(server.read(10, data.len()).unwrap() == data);
        close_well(&server, &device);
        assert_eq!(server.accepted(), 2);
    }
    // A write of the greatest length is one request, and so is any where no length is given.
    for (max_request, len) in [(STEP, STEP), (0, 3 * STEP)] {
        let server = FakeServer::builder().start().unwrap();
        let device =
            Transfer::open(settings(&server).with(|settings| settings.max_request = Some(max_request)))
                .unwrap()
                .start()
                .unwrap();
        device.write(0, vec![1; len as usize].into(), false).unwrap();
        assert_eq!(requests(&server), [(Op::Put, 0, len, false)]);
        close_well(&server, &device);
    }
}

#[test]
fn a_lost_answer_to_one_step_keeps_no_other_step_from_being_written() {
    const STEP: u64 = 64 << 10;
    let data: Vec<u8> = (0..3 * STEP).map(|i| (i % 251) as u8).collect();
    let server = FakeServer::builder().start().unwrap();
    let device = start(settings(&server).with(|settings| settings.max_request = Some(STEP)));
    server.fault(Fault::on(Op::Put).then(What::LoseAnswer));
    device.write(512, data.clone().into(), false).unwrap();
    device.flush().unwrap();
    assert!(server.read(512, data.len()).unwrap() == data);
    device.close().unwrap();
}

#[test]
fn much_is_zeroed_in_steps_on_one_connection_and_the_last_one_flushes() {
    const STEP: u64 = 128 << 20;
    for (zero, op) in [(true, Op::Zero), (false, Op::Put)] {
        for flags in [FUA, NO_FUA] {
            let builder = FakeServer::builder().backend(Backend::Null).size(4 * STEP).zero(zero);
            let server = builder.start().unwrap();
            let device = device(&server);
            device.zero(7, 2 * STEP + 1, flags).unwrap();
            let expected = [(op, 7, STEP - 7, false), (op, STEP, STEP, false), (op, 2 * STEP, 8, flags.fua)];
            assert_eq!(requests(&server), expected);
            assert_eq!(server.accepted(), 2);
            close_well(&server, &device);
            assert_eq!(server.log().of(Op::Flush).count(), usize::from(!flags.fua));
        }
    }
}

#[test]
fn a_step_of_zeroes_is_not_cut_in_two() {
    let server = FakeServer::builder().size(128 << 20).start().unwrap();
    let device = device(&server);
    device.zero(0, 128 << 20, FUA).unwrap();
    assert_eq!(requests(&server), [(Op::Zero, 0, 128 << 20, true)]);
}

#[test]
fn a_zero_that_must_be_fast_succeeds_only_where_the_disk_is_known_to_be_zero() {
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    server.write(0, &[1; 256 << 10]).unwrap();
    let device = start(settings(&server).with(|settings| settings.no_hole = NoHole::Write));
    let zero = |offset, no_hole| device.zero(offset, 4096, ZeroFlags { fast: true, no_hole, fua: false });
    let refused = |result| assert_eq!(error(result).errno(), Errno::NotSup);
    const EMPTY: u64 = 512 << 10;
    refused(zero(EMPTY, false));
    assert_eq!(requests(&server), [], "the server isn't asked");
    device.extents(0, 0, 4096, 1).unwrap();
    assert_eq!(zero(EMPTY, false), Ok(()));
    refused(zero(0, false));
    refused(zero((256 << 10) - 1, false));
    refused(zero(EMPTY, true));
    device.write(EMPTY, Bytes::from_static(b"data"), false).unwrap();
    refused(zero(EMPTY, false));
    close_well(&server, &device);
}

#[test]
fn zeroes_that_are_to_stay_allocated_are_written_where_the_user_wants_that() {
    for (no_hole, sent) in [
        (NoHole::Ignore, vec![(Op::Zero, 4096, 5 << 20, true)]),
        (
            NoHole::Write,
            vec![
                (Op::Put, 4096, 2 << 20, true),
                (Op::Put, (2 << 20) + 4096, 2 << 20, true),
                (Op::Put, (4 << 20) + 4096, 1 << 20, true),
            ],
        ),
    ] {
        let server = FakeServer::builder().contents(vec![7; 8 << 20]).start().unwrap();
        let device = start(settings(&server).with(|settings| settings.no_hole = no_hole));
        device.zero(4096, 5 << 20, ZeroFlags { no_hole: true, ..FUA }).unwrap();
        assert_eq!(requests(&server), sent);
        let contents = server.contents().unwrap();
        assert!((0..).zip(contents).all(|(at, byte)| (byte == 0) == (4096..(5 << 20) + 4096).contains(&at)));
        // Nobody wants these to stay allocated.
        device.zero(0, 4096, NO_FUA).unwrap();
        assert_eq!(requests(&server).last(), Some(&(Op::Zero, 0, 4096, false)));
        close_well(&server, &device);
    }
}

#[test]
fn requests_past_the_end_are_refused_without_asking_the_server() {
    let server = FakeServer::builder().size(1000).start().unwrap();
    for (size, end) in [(None, 1000), (Some(600), 600)] {
        let device = start(settings(&server).with(|settings| settings.size = size));
        let data = |len| Bytes::from(vec![1; len]);
        assert_eq!(error(device.read(end - 1, &mut [0; 2])).errno(), Errno::Inval);
        assert_eq!(error(device.read(u64::MAX, &mut [0; 2])).errno(), Errno::Inval);
        assert_eq!(error(device.write(end - 1, data(2), false)).errno(), Errno::NoSpc);
        assert_eq!(error(device.zero(0, end + 1, NO_FUA)).errno(), Errno::NoSpc);
        assert_eq!(error(device.zero(2, u64::MAX, NO_FUA)).errno(), Errno::NoSpc);
        device.write(end - 1, data(1), false).unwrap();
        close_well(&server, &device);
    }
}

#[test]
fn a_server_without_flush_gets_durable_writes_only() {
    let server = FakeServer::builder().flush(false).start().unwrap();
    let device = device(&server);
    assert!(!device.capabilities().flush && !device.capabilities().fua);
    device.write(0, Bytes::from_static(b"data"), false).unwrap();
    device.zero(2, 1, NO_FUA).unwrap();
    device.flush().unwrap();
    assert_eq!(server.read(0, 4).unwrap(), b"da\0a");
    assert_eq!(requests(&server), [(Op::Put, 0, 4, true), (Op::Zero, 2, 1, true)]);
    close_well(&server, &device);
}

#[test]
fn a_read_only_device_reads_and_refuses_to_write() {
    for ticket_too in [true, false] {
        let builder = FakeServer::builder().read_only(ticket_too).contents(b"0123456789".to_vec());
        let server = builder.start().unwrap();
        let device = start(settings(&server).with(|settings| settings.read_only = true));
        assert!(device.capabilities().read_only && !device.capabilities().flush);
        let mut back = [0; 3];
        device.read(3, &mut back).unwrap();
        assert_eq!(&back, b"345");
        assert_eq!(error(device.write(0, Bytes::from_static(b"x"), false)).errno(), Errno::Perm);
        assert_eq!(error(device.zero(0, 1, FUA)).errno(), Errno::Perm);
        device.flush().unwrap();
        assert_eq!(requests(&server), [(Op::Get, 3, 3, false)]);
        close_well(&server, &device);
    }
}

#[test]
fn an_empty_disk_is_a_device_too() {
    let server = FakeServer::builder().size(0).start().unwrap();
    let device = device(&server);
    assert_eq!(device.size(), 0);
    device.read(0, &mut []).unwrap();
    device.zero(0, 0, FUA).unwrap();
    device.flush().unwrap();
    close_well(&server, &device);
}

#[test]
fn no_more_connections_are_used_than_anyone_wants() {
    // readers, writers, settings, read only; connections
    let cases = [
        (Some(8), Some(8), 4, false, 4),
        (Some(8), Some(2), 4, false, 2),
        (Some(3), Some(8), 4, false, 3),
        (Some(8), Some(8), 1, false, 1),
        (Some(8), Some(8), 16, false, 8),
        (Some(8), None, 4, false, 1),
        (None, Some(8), 4, false, 1),
        (Some(8), Some(1), 4, true, 4),
    ];
    for (readers, writers, connections, read_only, expected) in cases {
        let builder = FakeServer::builder().max_readers(readers).max_writers(writers);
        let server = builder.start().unwrap();
        let settings = settings(&server).with(|settings| {
            settings.connections = Some(connections);
            settings.read_only = read_only;
        });
        let transfer = Transfer::open(settings).unwrap();
        assert_eq!(transfer.connections(), expected);
        if read_only {
            continue;
        }
        let device = transfer.start().unwrap();
        common::use_connections(&server, &device, expected as usize, 7);
        assert_eq!(server.accepted(), 1 + expected as usize);
        // However many ask, no more are opened.
        std::thread::scope(|scope| {
            for _ in 0..2 * expected {
                scope.spawn(|| device.read(0, &mut [0; 4096]).unwrap());
            }
        });
        assert_eq!(server.accepted(), 1 + expected as usize);
        close_well(&server, &device);
    }
}
