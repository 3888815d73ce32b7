// SPDX-License-Identifier: MIT OR Apache-2.0
//! Socket activation (`sd_listen_fds(3)`): whoever starts this process may pass sockets to it that
//! listen already.
//!
//! systemd does so for a `.socket` unit, and libnbd for `[ imageio-nbd … ]` in the place of an NBD
//! URI.

use std::env;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use listenfd::ListenFd;
use nbd_frontend::Listener;
use rustix::net::sockopt::socket_acceptconn;

/// The sockets that were passed to this process; none, if it is not activated. The variables that
/// tell of them are unset, so that no child takes them for its own. To be called while there is one
/// thread.
pub(crate) fn listeners() -> Result<Vec<Listener>> {
    // Sockets that were meant for a parent are none of our business.
    let is_for_us = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let Some(told) = env::var_os("LISTEN_FDS").filter(|_| is_for_us) else { return Ok(Vec::new()) };
    let count = told.to_str().and_then(|count| count.parse().ok());
    ensure!(
        count.is_some_and(is_possible),
        "LISTEN_FDS: the number of sockets that were passed to this process is expected"
    );
    let mut passed = ListenFd::from_env();
    (0..passed.len()).map(|index| take(&mut passed, index)).collect()
}

/// Tells whether this number of files may be open.
fn is_possible(count: u64) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    count > 0 && limit.is_none_or(|limit| count <= limit)
}

fn take(passed: &mut ListenFd, index: usize) -> Result<Listener> {
    let number = 3 + index;
    let socket = take_stream_socket(passed, index)
        .with_context(|| format!("LISTEN_FDS: file descriptor {number} is not a unix or TCP socket"))?;
    ensure!(
        socket_acceptconn(&socket).unwrap_or(false),
        "LISTEN_FDS: the socket {number} is connected, and one that listens is expected: with systemd, Accept=no"
    );
    Ok(Listener::new(socket))
}

fn take_stream_socket(passed: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    // A socket that is not of this kind stays where it is.
    if let Ok(Some(unix)) = passed.take_unix_listener(index) {
        return Some(unix.into());
    }
    passed.take_tcp_listener(index).ok().flatten().map(Into::into)
}
