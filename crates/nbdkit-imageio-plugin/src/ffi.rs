// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdkit's C interface. All unsafe code is here.

mod abi;
mod callbacks;
pub(crate) mod channel;
mod exit;
mod extent_list;
pub(crate) mod flags;
mod guard;
mod lend;
mod memory;
mod register;

#[cfg(test)]
pub(crate) use register::registered;
