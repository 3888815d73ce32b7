// SPDX-License-Identifier: MIT OR Apache-2.0
//! Primitives that threads share: the standard library's, or loom's where the models run.

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, mpsc},
    thread,
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Mutex, MutexGuard, mpsc},
    thread,
};
