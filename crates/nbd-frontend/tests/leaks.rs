// SPDX-License-Identifier: MIT OR Apache-2.0
//! In a process of its own, because it counts the process's files and threads.
#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use block_device_traits::MemoryDevice;
use common::{READ, Running};
use nbd_frontend::{Config, ExportInfo};

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("/proc is there").count()
}

#[test]
fn connections_leave_nothing_behind() {
    // One session at a time: a client that is served proves that all earlier ones are gone.
    let config = Config::default().with(|config| config.sessions = 1);
    let server = Running::with(&Arc::new(MemoryDevice::new(4096)), &ExportInfo::default(), config);
    let served = || {
        let mut client = server.client();
        for cookie in 0..8 {
            client.request(READ, 0, cookie, 0, 4096);
        }
        for _ in 0..8 {
            assert_eq!(client.reply().0, 0);
            client.receive(4096);
        }
        client
    };
    let first = server.client();
    let (files, threads) = (count("fd"), count("task"));
    drop(first);
    for round in 0..100 {
        match round % 3 {
            0 => served().disconnect(),
            1 => drop(served()),
            _ => drop(server.connect()),
        }
    }
    let _last = server.client();
    assert_eq!(count("fd"), files);
    // A thread that has been joined may take a moment to leave the process.
    assert!(count("task") <= threads + 20, "{} threads", count("task"));
    assert_eq!(server.handle.sessions(), 1);
    assert_eq!(server.stop().sessions, 102);
}
