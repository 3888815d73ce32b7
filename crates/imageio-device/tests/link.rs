// SPDX-License-Identifier: MIT OR Apache-2.0
//! The length of requests and the number of connections, where the server is far away and where it
//! is near.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;
use std::time::Duration;

use block_device_traits::BlockDevice;
use fake_imageio::{FakeServer, Op};
use fault_proxy::{Link, Relay};
use imageio_device::{Device, Settings, UrlSource};

use common::{settings, start};

const MIB: u64 = 1 << 20;
const THREADS: u64 = 12;

/// A server at the other end of a link, and the way there. Each direction is late by `delay`.
fn far_away(delay: Duration) -> (FakeServer, Relay, Settings) {
    let server = FakeServer::builder().size(64 * MIB).start().unwrap();
    let relay = Relay::start(server.addr(), Link::new(delay, None)).unwrap();
    let url = UrlSource::Inline(format!("http://{}{}", relay.addr(), server.path()));
    let auto = settings(&server).with(|settings| {
        settings.connections = None;
        settings.max_request = None;
        settings.replay_buffer = None;
    });
    (server, relay, auto.with(|settings| settings.url = url))
}

/// Short writes at many places, some at a time. Nothing in them takes time but the link.
fn write_here_and_there(device: &Device) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for place in 0..6 {
                    let offset = (thread * 6 + place) * 64 * 1024;
                    device.write(offset, vec![1; 4096].into(), false).unwrap();
                }
            });
        }
    });
}

/// The lengths of the PUTs for a write of 4 MiB.
fn puts_of_4_mib(server: &FakeServer, device: &Device) -> Vec<u64> {
    let before = server.log().requests.len();
    device.write(32 * MIB, vec![2; 4 << 20].into(), false).unwrap();
    let log = server.log();
    let puts = log.requests[before..].iter().filter(|request| request.op == Op::Put);
    puts.map(|request| request.size).collect()
}

#[test]
fn a_long_link_has_more_on_its_way() {
    let (server, _relay, settings) = far_away(Duration::from_millis(25));
    let device = start(settings);
    write_here_and_there(&device);
    // One was opened to ask what the server offers.
    let used = server.accepted() - 1;
    assert!((5..=8).contains(&used), "{used} connections");
    assert_eq!(puts_of_4_mib(&server, &device), [4 * MIB]);
    let mut found = vec![0; 4 << 20];
    device.read(32 * MIB, &mut found).unwrap();
    assert!(found.iter().all(|&byte| byte == 2));
    device.close().unwrap();
}

#[test]
fn numbers_are_kept_to_on_a_long_link() {
    let (server, _relay, settings) = far_away(Duration::from_millis(5));
    let device = start(settings.with(|settings| {
        settings.connections = Some(2);
        settings.max_request = Some(MIB);
    }));
    write_here_and_there(&device);
    assert_eq!(server.accepted() - 1, 2);
    assert_eq!(puts_of_4_mib(&server, &device), [MIB; 4]);
    device.close().unwrap();
}

#[test]
fn a_server_nearby_has_four_connections_and_requests_of_2_mib() {
    let (server, _relay, settings) = far_away(Duration::ZERO);
    let device = start(settings);
    write_here_and_there(&device);
    assert!(server.accepted() - 1 <= 4);
    assert_eq!(puts_of_4_mib(&server, &device), [2 * MIB; 2]);
    device.close().unwrap();
}
