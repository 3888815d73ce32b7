// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes for the wire that need no allocation.

use std::ops::Deref;

/// Up to `N` bytes that are ready to be sent.
#[derive(Clone, Copy)]
pub struct Encoded<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Encoded<N> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// The caller knows that there is room.
    pub(super) fn with<const M: usize>(mut self, bytes: [u8; M]) -> Self {
        self.bytes[self.len..self.len + M].copy_from_slice(&bytes);
        self.len += M;
        self
    }
}

impl<const N: usize> Deref for Encoded<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> std::fmt::Debug for Encoded<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Encoded").field(&&**self).finish()
    }
}

impl<const N: usize> PartialEq for Encoded<N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<const N: usize> Eq for Encoded<N> {}
