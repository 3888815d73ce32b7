// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks with zeroes, and what devices say of them.

use block_device_traits::{BlockDevice, Extent, Result, ZERO};
use fake_imageio::{Builder, FakeServer, Fault, Gate, Op, What};
use imageio_device::Device;

/// The size of the blocks in which the fake server tells what is zero, in bytes.
pub(crate) const BLOCK: u64 = 64 << 10;
pub(crate) const BLOCKS: u64 = 8;
pub(crate) const SIZE: u64 = BLOCKS * BLOCK;

/// A disk with data in the third and fourth block, and in the last.
pub(crate) fn sparse() -> Builder {
    let mut contents = vec![0; SIZE as usize];
    contents[2 * BLOCK as usize..4 * BLOCK as usize].fill(7);
    contents[SIZE as usize - 1] = 7;
    FakeServer::builder().contents(contents)
}

/// The extents that the server tells of it.
pub(crate) const SPARSE: [(u64, u64); 4] = [(2 * BLOCK, ZERO), (2 * BLOCK, 0), (3 * BLOCK, ZERO), (BLOCK, 0)];

pub(crate) const ALL_DATA: [(u64, u64); 1] = [(SIZE, 0)];

/// Length and status of all extents.
#[track_caller]
pub(crate) fn map(device: &Device) -> Vec<(u64, u64)> {
    pairs(device.extents(0, 0, SIZE, 100).unwrap())
}

pub(crate) fn pairs(extents: Vec<Extent>) -> Vec<(u64, u64)> {
    extents.into_iter().map(|extent| (extent.length, extent.status)).collect()
}

/// The server doesn't answer requests for extents before the gate is opened, though it may know by
/// then.
pub(crate) fn hold_extents(server: &FakeServer) -> Gate {
    let gate = Gate::new();
    server.fault(Fault::on(Op::Extents).then(What::Block(gate.clone())));
    gate
}

/// Returns the reads that the server was asked for: first byte and length.
pub(crate) fn reads(server: &FakeServer) -> Vec<(u64, u64)> {
    // One byte is read to find the size.
    server.log().of(Op::Get).filter(|get| get.size > 1).map(|get| (get.offset, get.size)).collect()
}

pub(crate) fn read(device: &Device, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0xee; len];
    device.read(offset, &mut buffer).map(|()| buffer)
}
