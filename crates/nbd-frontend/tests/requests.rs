// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request after the other: what succeeds, what is refused, and that the stream stays in step.

mod common;

use std::sync::{Arc, Mutex};

use block_device_traits::{BlockDevice, Capabilities, Errno, Error, MemoryDevice};
use common::*;

const SIZE: usize = MIB;

fn memory() -> (Arc<MemoryDevice>, Running) {
    let disk = Arc::new(MemoryDevice::new(SIZE));
    let server = Running::start(&disk);
    (disk, server)
}

fn with_capabilities(change: impl FnOnce(&mut Capabilities)) -> Running {
    let disk = MemoryDevice::new(SIZE);
    let mut capabilities = disk.capabilities();
    change(&mut capabilities);
    Running::start(&Arc::new(disk.with_capabilities(capabilities)))
}

#[test]
fn what_is_written_is_read_and_what_is_zeroed_is_zero() {
    let (disk, server) = memory();
    let mut client = server.client();
    client.write(1, 1000, &[7; 5000]);
    assert_eq!(client.reply(), (0, 1));
    assert_eq!(client.ask(ZERO, 0, 2000, 1000), 0);
    assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
    let expected = [vec![0; 1], vec![7; 1000], vec![0; 1000], vec![7; 3000], vec![0; 1]].concat();
    assert_eq!(client.read(999, 5002), expected);
    assert_eq!(disk.contents()[999..6001], expected);
    client.disconnect();
    let outcome = server.stop();
    assert_eq!((outcome.requests, outcome.errors), (4, 0));
    assert_eq!((outcome.bytes_read, outcome.bytes_written), (5002, 5000));
}

#[test]
fn refused_requests_change_nothing_and_keep_the_stream_in_step() {
    let (disk, server) = memory();
    let mut client = server.client();
    let end = SIZE as u64;
    for (kind, flags, offset, length, error) in [
        (WRITE, 0, end - 512, 1024, ENOSPC),
        (WRITE, 0, u64::MAX - 100, 512, ENOSPC),
        (WRITE, 0, 0, 32 * MIB, ENOSPC),
        (WRITE, 0, 0, 33 * MIB, ENOSPC),
        (WRITE, 2, 0, 512, EINVAL),
        (WRITE, 0x8000, 0, 512, EINVAL),
        (READ, 0, end - 512, 1024, EINVAL),
        (READ, 0, u64::MAX, 1, EINVAL),
        (READ, 0, 0, u32::MAX as usize, EINVAL),
        (READ, 4, 0, 512, EINVAL),
        (ZERO, 0, end - 512, 1024, ENOSPC),
        (ZERO, 0, 0, u32::MAX as usize, ENOSPC),
        (ZERO, 4, 0, 512, EINVAL),
        (FLUSH, 0, 512, 0, EINVAL),
        (TRIM, 0, SIZE as u64, 512, EINVAL),
        (TRIM, 2, 0, 512, EINVAL),
        (7, 0, 0, 512, EINVAL),
        (8, 0, 0, 512, EINVAL),
        (0x1234, 0, 0, 512, EINVAL),
    ] {
        client.request(kind, flags, 9, offset, length);
        if kind == WRITE {
            client.send(&[&vec![0xff; length]]);
        }
        assert_eq!(client.reply(), (error, 9), "{kind} {flags} {offset} {length}");
    }
    assert_eq!(client.read(0, 512), [0; 512]);
    client.disconnect();
    assert!(disk.contents().iter().all(|byte| *byte == 0));
    assert_eq!(server.stop().errors, 19);
}

#[test]
fn zero_length_requests_are_answered() {
    let (_, server) = memory();
    let mut client = server.client();
    for kind in [READ, WRITE, ZERO, TRIM] {
        assert_eq!(client.ask(kind, 0, 512, 0), 0);
    }
    assert_eq!(client.read(0, 512), [0; 512]);
}

#[test]
fn fua_is_accepted_on_every_command_and_passed_on() {
    let calls = Arc::new(Mutex::new(Vec::<Call>::new()));
    let seen = Arc::clone(&calls);
    let device = Hooked::new(SIZE, move |call| {
        seen.lock().unwrap().push(call);
        Ok(())
    });
    let server = Running::start(&device);
    let mut client = server.client();
    assert_eq!(client.ask(READ, 1, 0, 512), 0);
    client.receive(512);
    client.request(WRITE, 1, 1, 0, 512);
    client.send(&[&[1; 512]]);
    assert_eq!(client.reply(), (0, 1));
    assert_eq!(client.ask(ZERO, 1 | 2 | 16, 0, 512), 0);
    assert_eq!(client.ask(ZERO, 2, 0, 512), 0);
    assert_eq!(client.ask(TRIM, 1, 512, 1024), 0);
    assert_eq!(client.ask(FLUSH, 1, 0, 0), 0);
    let expected = [
        (READ, 0, 512, false),
        (WRITE, 0, 512, true),
        (ZERO, 0, 512, true),
        (ZERO, 0, 512, false),
        (TRIM, 512, 1024, true),
        (FLUSH, 0, 0, false),
    ];
    assert_eq!(*calls.lock().unwrap(), expected);
}

#[test]
fn what_the_device_cannot_do_is_refused() {
    let server = with_capabilities(|caps| {
        (caps.flush, caps.fua, caps.fast_zero, caps.trim) = (false, false, false, false);
    });
    let mut client = server.client();
    assert_eq!(client.ask(FLUSH, 0, 0, 0), EINVAL);
    assert_eq!(client.ask(READ, 1, 0, 512), EINVAL);
    assert_eq!(client.ask(ZERO, 16, 0, 512), EINVAL);
    assert_eq!(client.ask(TRIM, 0, 0, 512), EINVAL);
    assert_eq!(client.ask(ZERO, 2, 0, 512), 0);
}

#[test]
fn a_read_only_device_is_not_written_to() {
    let server = with_capabilities(|caps| caps.read_only = true);
    let mut client = server.client();
    client.write(1, 0, &[1; 512]);
    assert_eq!(client.reply(), (EPERM, 1));
    assert_eq!(client.ask(ZERO, 0, 0, 512), EPERM);
    assert_eq!(client.ask(TRIM, 0, 0, 512), EPERM);
    assert_eq!(client.read(0, 512), [0; 512]);
}

#[test]
fn payloads_of_64_mib_are_taken_and_longer_ones_skipped_or_cut_off() {
    let device = Arc::new(MemoryDevice::new(200 * MIB));
    let server = Running::start(&device);
    let mut client = server.client();
    client.write(1, MIB as u64, &vec![3; 64 * MIB]);
    assert_eq!(client.reply(), (0, 1));
    assert!(client.read(MIB as u64, 64 * MIB).iter().all(|byte| *byte == 3));
    assert_eq!(client.ask(READ, 0, 0, 64 * MIB + 1), EINVAL);
    for length in [64 * MIB + 1, 128 * MIB] {
        client.write(2, 0, &vec![4; length]);
        assert_eq!(client.reply(), (EINVAL, 2));
        assert_eq!(client.read(0, 512), [0; 512]);
    }
    // A request without a payload has no limit.
    assert_eq!(client.ask(ZERO, 0, 0, 200 * MIB), 0);
    client.request(WRITE, 0, 3, 0, 128 * MIB + 1);
    client.assert_closed();
    assert!(device.contents().iter().all(|byte| *byte == 0));
}

#[test]
fn errors_of_the_device_reach_the_client_and_harm_no_other_request() {
    let device = Hooked::new(SIZE, |(kind, offset, ..)| match (kind, offset) {
        (_, 512) => Err(Error::new(Errno::NoSpc, "the storage is full")),
        (ZERO, 1024) => Err(Error::new(Errno::NotSup, "not fast")),
        (FLUSH, _) => Err(Error::new(Errno::Io, "data may be lost")),
        _ => Ok(()),
    });
    let server = Running::start(&device);
    let mut client = server.client();
    assert_eq!(client.ask(READ, 0, 512, 512), ENOSPC);
    client.write(1, 512, &[1; 512]);
    assert_eq!(client.reply(), (ENOSPC, 1));
    assert_eq!(client.ask(ZERO, 16, 1024, 512), ENOTSUP);
    assert_eq!(client.ask(ZERO, 0, 1024, 512), EINVAL);
    assert_eq!(client.ask(FLUSH, 0, 0, 0), EIO);
    assert_eq!(client.read(0, 512), [0; 512]);
}

#[test]
fn a_panic_in_the_device_is_an_error_of_one_request() {
    let device = Hooked::new(SIZE, |(_, offset, ..)| {
        assert!(offset != 512, "this panic is part of the test");
        Ok(())
    });
    let server = Running::start(&device);
    let (mut client, mut other) = (server.client(), server.client());
    for _ in 0..20 {
        assert_eq!(client.ask(READ, 0, 512, 512), EIO);
        client.write(1, 512, &[1; 512]);
        assert_eq!(client.reply(), (EIO, 1));
    }
    assert_eq!(client.read(0, 512), [0; 512]);
    assert_eq!(other.read(0, 512), [0; 512]);
    client.disconnect();
    other.disconnect();
    assert_eq!(server.stop().errors, 40);
}

#[test]
fn a_stream_out_of_step_is_closed() {
    let (_, server) = memory();
    let mut client = server.client();
    client.send(&[&[0; 28]]);
    client.assert_closed();
    server.client().disconnect();
}
