// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server counts the requests of its clients.

mod common;

use std::sync::Arc;

use block_device_traits::{Errno, Error, MemoryDevice};
use common::*;
use nbd_frontend::{Config, ExportInfo, ExportSnapshot, Requests, Server};

const CACHE: u16 = 5;

fn figures(Requests { requests, bytes, errors, .. }: Requests) -> (u64, u64, u64) {
    (requests, bytes, errors)
}

#[test]
fn requests_count_by_their_kind_with_their_bytes_or_errors() {
    let disk = threaded(&Arc::new(MemoryDevice::new(MIB)));
    let server = Server::new(disk, &ExportInfo::default(), Config::default()).unwrap();
    let statistics = server.statistics();
    assert_eq!(statistics.snapshot().exports, [ExportSnapshot::default()], "also before it runs");
    let server = Running::serving(server);
    let mut client = server.client();
    client.write(1, 0, &[7; 5000]);
    assert_eq!(client.reply(), (0, 1));
    client.read(0, 100);
    client.read(0, 200);
    assert_eq!(client.ask(ZERO, 0, 0, 4096), 0);
    assert_eq!(client.ask(TRIM, 0, 4096, 512), 0);
    assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
    assert_eq!(client.ask(CACHE, 0, 0, 512), 0);
    for kind in [READ, ZERO, TRIM, 0x1234] {
        assert_ne!(client.ask(kind, 0, MIB as u64, 512), 0);
    }
    let told = statistics.snapshot().exports[0];
    assert_eq!((told.clients, told.connected), (1, 1));
    client.disconnect();
    let _ = server.stop();
    let told = statistics.snapshot();
    assert_eq!((told.sessions, told.refused, told.exports.len()), (1, 0, 1));
    let told = told.exports[0];
    assert_eq!((told.clients, told.connected), (1, 0));
    assert_eq!(figures(told.reads), (3, 300, 1));
    assert_eq!(figures(told.writes), (1, 5000, 0));
    assert_eq!(figures(told.zeroes), (2, 4096, 1));
    assert_eq!(figures(told.trims), (2, 512, 1));
    assert_eq!(figures(told.flushes), (1, 0, 0));
    assert_eq!(figures(told.block_statuses), (0, 0, 0));
    assert_eq!(figures(told.others), (2, 0, 1));
}

#[test]
fn each_export_counts_for_itself() {
    let disk = || threaded(&Arc::new(MemoryDevice::new(MIB)));
    let named = |name: &str| ExportInfo::new(name);
    let mut server = Server::new(disk(), &named("a"), Config::default()).unwrap();
    server.add_export(disk(), &named("b")).unwrap();
    let statistics = server.statistics();
    let server = Running::serving(server);
    let mut clients = [server.connect(), server.connect(), server.connect()];
    for (client, name) in clients.iter_mut().zip(["b", "a", "b"]) {
        client.greet(3);
        assert_eq!(client.choose(name.as_bytes()), 1);
        client.read(0, 512);
    }
    clients.into_iter().for_each(Client::disconnect);
    let _ = server.stop();
    let told: Vec<_> =
        statistics.snapshot().exports.iter().map(|export| (export.clients, figures(export.reads))).collect();
    assert_eq!(told, [(1, (1, 512, 0)), (2, (2, 1024, 0))]);
}

#[test]
fn the_first_failure_is_known() {
    let disk = Hooked::new(MIB, |(kind, ..)| match kind {
        ZERO => Err(Error::new(Errno::NotSup, "not fast")),
        FLUSH => Err(Error::new(Errno::Io, "it is broken")),
        READ => Err(Error::new(Errno::Io, "it is broken, still")),
        _ => Ok(()),
    });
    let config = Config::default().with(|config| config.logs_failures = false);
    let server = Server::new(threaded(&disk), &ExportInfo::default(), config).unwrap();
    let statistics = server.statistics();
    let server = Running::serving(server);
    let mut client = server.client();
    assert_ne!(client.ask(ZERO, 16, 0, 4096), 0);
    assert_eq!(statistics.first_failure(), None, "a refusal is an answer");
    assert_ne!(client.ask(FLUSH, 0, 0, 0), 0);
    assert_ne!(client.ask(READ, 0, 0, 512), 0);
    assert_eq!(statistics.first_failure(), Some("it is broken"));
    client.disconnect();
    let _ = server.stop();
}
