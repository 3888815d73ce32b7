// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disk images to copy, and comparing disks.

use crate::TestResult;

/// The size of the tests' disks in bytes.
pub const SIZE: u64 = 24 << 20;

/// Bytes that don't compress, the same for the same seed.
#[must_use]
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut words = std::iter::repeat_with(|| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.by_ref().take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// A disk as guests leave them: data, long zeroes, and small pieces of either in the other.
#[must_use]
pub fn guest_disk(seed: u64) -> Vec<u8> {
    let mut disk = vec![0; SIZE as usize];
    let mut fill = |start: usize, len: usize| {
        disk[start..start + len].copy_from_slice(&noise(len, seed ^ start as u64));
    };
    // A boot sector, a large file, a file with a hole, scattered blocks, and the last sector.
    fill(0, 512);
    fill(1 << 20, 6 << 20);
    fill(8 << 20, (1 << 20) - 4096);
    fill(10 << 20, 1 << 20);
    for block in 0..64 {
        fill((14 << 20) + block * (64 << 10), 4096 + block * 512);
    }
    fill(SIZE as usize - 512, 512);
    disk
}

/// Compares, and says where the difference is.
///
/// # Errors
/// They differ.
pub fn same(what: &str, found: &[u8], expected: &[u8]) -> TestResult {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} bytes instead of {}", found.len(), expected.len()).into());
    }
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        None => Ok(()),
        Some(at) => Err(format!("{what} differs from byte {at} on").into()),
    }
}
