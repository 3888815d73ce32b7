// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways to the host that serves a disk: one that doesn't answer, one that dies, the engine's proxy.

use std::net::TcpListener;
use std::time::Duration;

use fake_engine::{Delays, Phase};
use fault_proxy::Proxy;
use support::TestResult;
use support::daemon::RealDaemon;
use support::image::guest_disk;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};
use support::process::{Daemon, PATIENCE};
use support::run::Ended;

use crate::Test;
use crate::jobs::Job;

pub(crate) const TESTS: &[Test] = &[
    ("a_host_that_refuses_connections_is_an_error", a_host_that_refuses_connections_is_an_error),
    ("a_host_that_dies_is_an_error", a_host_that_dies_is_an_error),
    ("the_proxy_is_used_where_the_host_cannot_be_reached", by_proxy),
];

/// An installation whose clients are told these ways, with the disk `there`, which has been uploaded by another one.
fn site(ways: impl FnOnce(&RealDaemon) -> TestResult<[String; 2]>) -> TestResult<Installation> {
    let none = Duration::ZERO;
    let delays = Delays { disk: none, transfer: none, backup: none, job: none };
    let site = Installation::by(ways, |builder| builder.delays(delays))?;
    std::fs::write(site.path("disk.img"), guest_disk(5))?;
    Ok(site)
}

/// A port where nobody listens. It is the test's until the listener is dropped by the kernel's next one, long after.
fn deserted() -> TestResult<String> {
    Ok(format!("https://{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?))
}

fn upload(site: &Installation, more: &[&str]) -> TestResult<Ended> {
    let upload = ["upload", "disk.img", "-s", STORAGE_DOMAIN, "-c", "lab"];
    Ok(site.imageio_nbd(&[&upload, more].concat()).output()?.into())
}

fn a_host_that_refuses_connections_is_an_error() -> TestResult {
    let site = site(|_| Ok([deserted()?, deserted()?]))?;
    let ended = upload(&site, &[])?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("trying the engine's proxy instead"), "{ended:?}");
    let last = ended.err.lines().last().unwrap_or_default();
    assert!(last.contains("Connection refused"), "{ended:?}");
    assert_nothing_left(&site, &ended.err)
}

/// Nothing is left of an upload into a new disk.
fn assert_nothing_left(site: &Installation, said: &str) -> TestResult {
    site.assert_no_secret(said)?;
    let phases: Vec<_> = site.engine.transfers().iter().map(|transfer| transfer.phase).collect();
    assert_eq!(phases, [Phase::FinishedFailure], "{said}");
    assert!(site.engine.disks().is_empty() && site.engine.sessions() == 0, "{said}");
    Ok(())
}

/// It answers at first, and is gone in the middle of the data.
fn a_host_that_dies_is_an_error() -> TestResult {
    let mut proxy = None;
    let site = site(|daemon| {
        let way = format!("https://{}", proxy.insert(Proxy::start(daemon.addr())?).addr());
        Ok([way.clone(), way])
    })?;
    let proxy = proxy.ok_or("no proxy")?;
    let mut process = Daemon::spawn(Job::Upload.command(&site).arg("reconnect-timeout=1"))?;
    assert!(proxy.has_carried(1 << 20, PATIENCE), "nothing is uploaded");
    drop(proxy);
    let status = process.wait()?;
    let said = process.said().join("\n");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("which was made for this, has been removed"), "{said}");
    assert_nothing_left(&site, &said)
}

fn by_proxy() -> TestResult {
    let mut proxy = None;
    let site = site(|daemon| {
        let way = format!("https://{}", proxy.insert(Proxy::start(daemon.addr())?).addr());
        Ok([deserted()?, way])
    })?;
    let proxy = proxy.ok_or("no proxy")?;
    let ended = upload(&site, &["-v"])?;
    assert!(ended.err.contains("trying the engine's proxy instead"), "{ended:?}");
    site.assert_no_secret(&ended.err)?;
    succeed(ended)?;
    assert!(proxy.carried() > 8 << 20, "{} bytes", proxy.carried());
    site.assert_same("disk.img", "raw", &site.disk()?)?;
    crate::serving::assert_all_well(&site);
    Ok(())
}
