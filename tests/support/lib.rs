// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of the whole share: real tools and how to find them, the real daemon, and a raw HTTP client.

pub mod daemon;
pub mod http;
pub mod process;
pub mod qemu;
pub mod tools;
