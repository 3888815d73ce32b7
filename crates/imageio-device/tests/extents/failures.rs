// SPDX-License-Identifier: MIT OR Apache-2.0
//! All is data if the server doesn't tell extents, and the transfer goes on.

use std::time::Duration;

use block_device_traits::BlockDevice;
use fake_imageio::{Done, FakeServer, Fault, Op, OptionsMode, What};

use crate::common::{close_well, device, settings, start, status, write};
use crate::setup::{ALL_DATA, BLOCK, SIZE, SPARSE, map, read, sparse};

fn answer(text: String) -> What {
    What::Answer { status: 200, text, done: Done::Not, close: false }
}

/// Everything is data, and stays so, and all else goes on; the server was asked so many times.
#[track_caller]
fn assert_all_data(server: &FakeServer, attempts: usize) {
    let device = device(server);
    assert_eq!(map(&device), ALL_DATA);
    write(&device, 0, b"data").unwrap();
    device.zero(BLOCK, 4096, crate::common::NO_FUA).unwrap();
    assert_eq!(map(&device), ALL_DATA);
    assert_eq!(read(&device, 0, 8).unwrap(), b"data\0\0\0\0");
    close_well(server, &device);
    assert_eq!(server.log().of(Op::Extents).count(), attempts);
}

#[test]
fn a_refusal_is_no_fault_of_the_transfer() {
    for code in [400, 403, 404, 405, 416, 500, 503] {
        let server = sparse().start().unwrap();
        server.fault(Fault::on(Op::Extents).then(status(code)));
        assert_all_data(&server, 1);
    }
}

#[test]
fn nonsense_is_not_believed() {
    let extent = |start, length| format!(r#"{{"start":{start},"length":{length},"zero":true,"hole":false}}"#);
    let nonsense = [
        "<html>".to_owned(),
        "[]".to_owned(),
        "[".to_owned(),
        format!("[{}]", extent(0, SIZE - 1)),
        format!("[{}]", extent(0, SIZE + 1)),
        format!("[{}]", extent(1, SIZE - 1)),
        format!("[{},{}]", extent(0, BLOCK), extent(BLOCK + 1, SIZE - BLOCK - 1)),
        format!("[{}", extent(0, SIZE)),
    ];
    for text in nonsense {
        let server = sparse().start().unwrap();
        server.fault(Fault::on(Op::Extents).then(answer(text)));
        assert_all_data(&server, 1);
    }
    // It is the text, not the way in which it is answered.
    let server = sparse().start().unwrap();
    server.fault(Fault::on(Op::Extents).then(answer(format!("[{}]", extent(0, SIZE)))));
    let device = device(&server);
    assert_eq!(map(&device), [(SIZE, block_device_traits::ZERO)]);
    close_well(&server, &device);
}

#[test]
fn a_server_that_does_not_offer_extents_is_not_asked() {
    let old = sparse().options(OptionsMode::MissingKeys).max_writers(Some(1));
    for builder in [sparse().extents(false), old] {
        let server = builder.start().unwrap();
        let device = device(&server);
        assert_eq!(device.contexts(), ["base:allocation"]);
        assert_eq!(map(&device), ALL_DATA);
        close_well(&server, &device);
        assert_eq!(server.log().of(Op::Extents).count(), 0);
    }
}

#[test]
fn a_connection_that_breaks_is_no_answer_and_the_server_is_asked_again_a_few_times() {
    for what in [What::LoseAnswer, What::Close { after: 10 }, What::Reset { after: 10 }] {
        let server = sparse().start().unwrap();
        server.fault(Fault::on(Op::Extents).then(what.clone()));
        let device = device(&server);
        assert_eq!(map(&device), SPARSE);
        close_well(&server, &device);
        assert_eq!(server.log().of(Op::Extents).count(), 2);

        let server = sparse().start().unwrap();
        server.fault(Fault::on(Op::Extents).every().then(what));
        assert_all_data(&server, 3);
    }
}

#[test]
fn a_silent_server_is_not_asked_again() {
    let server = sparse().start().unwrap();
    server.fault(Fault::on(Op::Extents).then(What::NoAnswer));
    let timeouts =
        settings(&server).timeouts.with(|timeouts| timeouts.operation = Duration::from_millis(200));
    let device = start(settings(&server).with(|settings| settings.timeouts = timeouts));
    assert_eq!(map(&device), ALL_DATA);
    close_well(&server, &device);
    assert_eq!(server.log().of(Op::Extents).count(), 1);
}
