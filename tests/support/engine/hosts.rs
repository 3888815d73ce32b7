// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways to the host that serves a disk: one that doesn't answer, one that dies, the engine's
//! proxy.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fake_engine::{Builder, Delays, HostStatus, Phase};
use fault_proxy::Proxy;
use socket2::{Domain, Socket, Type};
use support::TestResult;
use support::daemon::RealDaemon;
use support::image::guest_disk;
use support::installation::{Installation, STORAGE_DOMAIN, VM, succeed};
use support::namespace::with_file_in_etc;
use support::process::{Daemon, PATIENCE};
use support::run::Ended;

use crate::Test;
use crate::jobs::Job;

pub(crate) const TESTS: &[Test] = &[
    ("a_host_that_refuses_connections_is_an_error", a_host_that_refuses_connections_is_an_error),
    ("a_host_that_dies_is_an_error", a_host_that_dies_is_an_error),
    ("the_proxy_is_used_where_the_host_cannot_be_reached", by_proxy),
];

/// In namespaces, where the system lets us have them.
pub(crate) const ON_A_HOST: &[Test] = &[("the_unix_socket_of_this_host_is_used", by_unix_socket)];

/// An installation whose clients are told these ways.
fn site(ways: impl FnOnce(&RealDaemon) -> TestResult<[String; 2]>) -> TestResult<Installation> {
    site_with(ways, |builder| builder)
}

fn site_with(
    ways: impl FnOnce(&RealDaemon) -> TestResult<[String; 2]>,
    choose: impl FnOnce(Builder) -> Builder,
) -> TestResult<Installation> {
    let none = Duration::ZERO;
    let delays = Delays::all(none);
    let site = Installation::by(ways, |builder| choose(builder.delays(delays)))?;
    fs::write(site.path("disk.img"), guest_disk(5))?;
    Ok(site)
}

/// A port that is taken, and where nobody listens.
struct Deserted(Socket);

impl Deserted {
    fn new() -> TestResult<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        Ok(Self(socket))
    }

    fn base(&self) -> TestResult<String> {
        let addr = self.0.local_addr()?.as_socket().ok_or("no address")?;
        Ok(format!("https://{addr}"))
    }
}

fn upload(site: &Installation, more: &[&str]) -> TestResult<Ended> {
    let upload = ["upload", "disk.img", "-s", STORAGE_DOMAIN, "-c", "lab"];
    Ok(site.imageio_nbd(&[&upload, more].concat()).output()?.into())
}

fn a_host_that_refuses_connections_is_an_error() -> TestResult {
    let (host, proxy) = (Deserted::new()?, Deserted::new()?);
    let site = site(|_| Ok([host.base()?, proxy.base()?]))?;
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
    let (host, mut proxy) = (Deserted::new()?, None);
    let site = site(|daemon| {
        let way = format!("https://{}", proxy.insert(Proxy::start(daemon.addr())?).addr());
        Ok([host.base()?, way])
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

/// By the hardware id that a host of oVirt has: the data takes the unix socket there, and the URL
/// elsewhere.
fn by_unix_socket() -> TestResult {
    const HERE: &str = "4c4c4544-0043-4b10-8056-b4c04f4d3232";
    for (id, is_here) in [(HERE, true), ("4c4c4544-0043-4b10-8056-b4c04f4d3233", false)] {
        with_file_in_etc("vdsm/vdsm.id", &format!("{id}\n"), || copy_on_host(HERE, is_here))?;
    }
    Ok(())
}

/// Backs up the disk, which a virtual machine has.
fn back_up(site: &Installation) -> TestResult {
    let disk = site.disk()?;
    site.engine.attach_disk(&site.vm(), &disk.id)?;
    succeed(site.imageio_nbd(&["backup", VM, "backups", "-c", "lab"]).output()?.into())?;
    let compare = "qemu-img compare -f raw -F qcow2 disk.img backups/*/*.qcow2";
    succeed(site.run("sh".as_ref(), ["-c", compare])?)?;
    Ok(())
}

/// In and out, where the engine has the host `here`, which is this one or isn't.
fn copy_on_host(id: &str, is_here: bool) -> TestResult {
    let mut proxy = None;
    let ways = |daemon: &RealDaemon| {
        let way = format!("https://{}", proxy.insert(Proxy::start(daemon.addr())?).addr());
        Ok([way.clone(), way])
    };
    let site = site_with(ways, |builder| {
        builder.host("other", "11-22", HostStatus::Up).host("here", id, HostStatus::Up)
    })?;
    let proxy = proxy.ok_or("no proxy")?;
    succeed(upload(&site, &[])?)?;
    let download =
        site.imageio_nbd(&["download", "disk", "copy", "--format", "raw", "-c", "lab"]).output()?;
    succeed(download.into())?;
    site.assert_same("copy", "raw", &site.disk()?)?;
    site.assert_same("disk.img", "raw", &site.disk()?)?;
    let mut hosts: Vec<_> = site.engine.transfers().into_iter().map(|transfer| transfer.host).collect();
    hosts.dedup();
    let chosen = site.engine.host(if is_here { "here" } else { "other" }).ok_or("no such host")?;
    assert_eq!(hosts, [chosen]);
    // A virtual machine is backed up by the host where it runs.
    site.engine.set_host_status("other", HostStatus::Down);
    back_up(&site)?;
    crate::serving::assert_all_well(&site);
    // The URL is asked if the server is there, and for its socket.
    assert_eq!(proxy.carried() < 1 << 20, is_here, "{} bytes", proxy.carried());
    Ok(())
}
