// SPDX-License-Identifier: MIT OR Apache-2.0
//! Zeroes are not read.

use block_device_traits::{BlockDevice, Errno};
use fake_imageio::{Fault, Op, What};

use crate::common::{NO_FUA, assert_fails_for_good, close_well, device, fragile, read_into, start, write};
use crate::setup::{BLOCK, map, read, reads, sparse};

const LEN: usize = BLOCK as usize;

#[test]
fn a_read_of_zeroes_asks_the_server_nothing() {
    let server = sparse().start().unwrap();
    let device = device(&server);
    assert_eq!(read(&device, 0, LEN).unwrap(), vec![0; LEN]);
    assert_eq!(reads(&server), [(0, BLOCK)], "nothing is known yet");
    map(&device);
    let before = server.log().requests.len();
    assert_eq!(read(&device, 0, 2 * LEN).unwrap(), vec![0; 2 * LEN]);
    assert_eq!(read_into(&device, BLOCK + 5, 10).unwrap(), [0; 10]);
    assert_eq!(server.log().requests.len(), before);
    close_well(&server, &device);
}

#[test]
fn zeroes_at_the_ends_of_a_read_are_left_out() {
    let server = sparse().start().unwrap();
    let device = device(&server);
    map(&device);
    let expected = [vec![0; LEN], vec![7; 2 * LEN], vec![0; LEN]].concat();
    assert_eq!(read(&device, BLOCK, 4 * LEN).unwrap(), expected);
    assert_eq!(read_into(&device, 3 * BLOCK, 2 * LEN).unwrap(), expected[2 * LEN..]);
    assert_eq!(read_into(&device, BLOCK, 2 * LEN).unwrap(), expected[..2 * LEN]);
    assert_eq!(reads(&server), [(2 * BLOCK, 2 * BLOCK), (3 * BLOCK, BLOCK), (2 * BLOCK, BLOCK)]);
    assert!(read(&device, 3 * BLOCK, 0).unwrap().is_empty());
    close_well(&server, &device);
}

#[test]
fn what_was_written_is_read_and_what_was_zeroed_is_not() {
    let server = sparse().start().unwrap();
    let device = device(&server);
    map(&device);
    write(&device, 10, b"data").unwrap();
    assert_eq!(read(&device, 9, 6).unwrap(), b"\0data\0");
    let before = reads(&server).len();
    assert_eq!(before, 1);
    device.zero(2 * BLOCK, BLOCK, NO_FUA).unwrap();
    assert_eq!(read(&device, 2 * BLOCK, LEN).unwrap(), vec![0; LEN]);
    assert_eq!(reads(&server).len(), before);
    close_well(&server, &device);
}

#[test]
fn after_the_end_zeroes_are_not_read_either() {
    let server = sparse().start().unwrap();
    let device = device(&server);
    map(&device);
    close_well(&server, &device);
    assert_eq!(read(&device, 0, 10).unwrap_err().errno(), Errno::Shutdown);
}

#[test]
fn where_data_may_be_lost_zeroes_are_no_exception() {
    let server = sparse().start().unwrap();
    let device = start(fragile(&server));
    map(&device);
    server.fault(Fault::on(Op::Put).then(What::LoseAnswer));
    write(&device, BLOCK, b"data").unwrap_err();
    assert_fails_for_good(&device, Errno::Io);
    let server = sparse().start().unwrap();
    let device = start(fragile(&server));
    map(&device);
    server.fault(Fault::on(Op::Put).then(What::LoseAnswer));
    write(&device, BLOCK, b"data").unwrap_err();
    assert!(device.extents(0, 0, BLOCK, 1).unwrap_err().to_string().contains("data may be lost"));
}
