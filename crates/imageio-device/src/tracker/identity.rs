// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that tell changes and connections apart.

/// The number of a change. A change that is sent again keeps its number, so the same number is the
/// same content.
pub(crate) type Number = u64;

/// The index of a place in the pool, which has one connection after another.
pub(crate) type Owner = usize;
