// SPDX-License-Identifier: MIT OR Apache-2.0
//! The code that the tests of the whole share: real tools and how to find them, real and fake
//! servers, and the doors to the device.

pub mod daemon;
pub mod door;
pub mod http;
pub mod image;
pub mod installation;
pub mod instructions;
pub mod listening;
pub mod loop_device;
pub mod namespace;
pub mod pki;
pub mod process;
pub mod qemu;
pub mod report;
pub mod root;
pub mod run;
pub mod target;
pub mod tools;

/// The outcome of a test, with what it says when it fails.
pub type TestResult<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
