// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any oVirt disk transfer behind nbdkit: the block device of `imageio-nbd` as a plugin.
//!
//! # The life of a plugin
//! nbdkit calls, in this order: `load`; `config` for each parameter; `config_complete`;
//! `get_ready`, where all that can fail is tried, with no thread left behind; then it may fork;
//! `after_fork`, where threads start; `open`, the requests and `close` for each client, from many
//! threads at a time; `cleanup`, where the disk is flushed and all threads end; `unload`.
//! `--dump-plugin` stops after `config`. `cleanup` came with nbdkit 1.26.
//!
//! # The files
//! `ffi` has nbdkit's interface and all the unsafe code; the rest knows nothing of C. `plugin` is
//! the life above, `client` the requests.

mod client;
mod describe;
mod ffi;
mod logging;
mod plugin;
mod stats;
