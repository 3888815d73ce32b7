// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real imageio daemon.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use fake_imageio::{Certificate, Pki};
use serde_json::json;
use tempfile::TempDir;

use crate::http::{Client, Endpoint};
use crate::process::Daemon;
use crate::tools::IMAGEIO;

/// A ticket: what a transfer may do to which image.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Its id, the last part of the transfer URL.
    pub uuid: String,
    /// Size of the disk in bytes.
    pub size: u64,
    /// The image: `file:///path` or `nbd:unix:/path`.
    pub url: String,
    /// Without it, a ticket for reading only.
    pub writable: bool,
    /// The ticket is that of an incremental backup: the image's one bitmap tells what is dirty.
    pub dirty: bool,
    /// Whole seconds until an idle connection is closed; `None` for the daemon's 60.
    pub inactivity_timeout: Option<u64>,
}

/// A running daemon on 127.0.0.1 with a local and a control socket, ended when it is dropped.
#[derive(Debug)]
pub struct RealDaemon {
    addr: SocketAddr,
    pki: Option<Pki>,
    // Before the directory: fields are dropped in order, and the daemon uses it to its end.
    process: Daemon,
    dir: TempDir,
}

impl RealDaemon {
    /// Starts it; with certificates, for HTTPS.
    ///
    /// # Errors
    /// If its files cannot be written, or it ends before it is ready.
    ///
    /// # Panics
    /// If it is not installed.
    pub fn start(pki: Option<Pki>) -> io::Result<Self> {
        Self::start_with(&Settings { pki, ..Settings::default() })
    }

    /// A daemon without the unix socket for local clients, so that all of them come by TCP.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// If it is not installed.
    pub fn start_without_local_socket(pki: Option<Pki>) -> io::Result<Self> {
        Self::start_with(&Settings { pki, has_local_socket: false, ..Settings::default() })
    }

    /// Starts a daemon that logs each request: see [`reads`](Self::reads).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// If it is not installed.
    pub fn start_that_logs_requests() -> io::Result<Self> {
        Self::start_with(&Settings { level: "DEBUG", ..Settings::default() })
    }

    fn start_with(settings: &Settings) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("imageio-").tempdir()?;
        write_config(dir.path(), settings)?;
        let mut process = Daemon::spawn(Command::new(IMAGEIO.path()).arg("-c").arg(dir.path()))?;
        let mut port = None;
        process.wait_for_line(|line| {
            port = port.or_else(|| listening_port(line));
            line.contains("Ready for requests").then_some(())
        })?;
        let port = port.ok_or_else(|| io::Error::other("the daemon did not tell its port"))?;
        let pki = settings.pki.clone();
        Ok(Self { addr: (Ipv4Addr::LOCALHOST, port).into(), pki, process, dir })
    }

    /// Returns the address at which it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its certificates, with HTTPS.
    #[must_use]
    pub fn pki(&self) -> Option<&Pki> {
        self.pki.as_ref()
    }

    /// Its unix socket for local clients.
    #[must_use]
    pub fn local_socket(&self) -> String {
        self.dir.path().join("local").display().to_string()
    }

    /// Its unix socket for whoever gives it tickets.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// Returns the beginning of transfer URLs: scheme, address and port.
    #[must_use]
    pub fn base(&self) -> String {
        self.base_by(self.addr)
    }

    /// Returns the beginning of transfer URLs that lead through a proxy, which listens there.
    #[must_use]
    pub fn base_by(&self, addr: SocketAddr) -> String {
        format!("{}://{addr}", if self.pki.is_some() { "https" } else { "http" })
    }

    /// The transfer URL of a ticket.
    #[must_use]
    pub fn url(&self, uuid: &str) -> String {
        self.url_by(self.addr, uuid)
    }

    /// Returns the URL by way of a proxy that listens there.
    #[must_use]
    pub fn url_by(&self, addr: SocketAddr, uuid: &str) -> String {
        format!("{}/images/{uuid}", self.base_by(addr))
    }

    /// Adds a ticket.
    ///
    /// # Errors
    /// If the daemon refuses it.
    pub fn add_ticket(&self, ticket: &Ticket) -> io::Result<()> {
        let ops: &[&str] = if ticket.writable { &["read", "write"] } else { &["read"] };
        let mut message = json!({
            "uuid": ticket.uuid,
            "size": ticket.size,
            "url": ticket.url,
            "timeout": 3000,
            "sparse": true,
            "dirty": ticket.dirty,
            "ops": ops,
            "transfer_id": format!("transfer-{}", ticket.uuid),
        });
        if let Some(timeout) = ticket.inactivity_timeout {
            message["inactivity_timeout"] = timeout.into();
        }
        self.control("PUT", &ticket.uuid, message.to_string().as_bytes())
    }

    /// Removes a ticket, as the end of a transfer does.
    ///
    /// # Errors
    /// If the daemon refuses to.
    pub fn remove_ticket(&self, uuid: &str) -> io::Result<()> {
        self.control("DELETE", uuid, b"")
    }

    /// A ticket expires that nobody has extended.
    ///
    /// # Errors
    /// If the daemon refuses to.
    pub fn expire_ticket(&self, uuid: &str) -> io::Result<()> {
        self.control("PATCH", uuid, br#"{"timeout": 0}"#)
    }

    /// Removes a ticket, and tells what was read by it, as the log has it: first byte and length of
    /// each.
    ///
    /// # Errors
    /// If the daemon refuses to, or doesn't log requests.
    pub fn reads(&mut self, uuid: &str) -> io::Result<Vec<(u64, u64)>> {
        self.remove_ticket(uuid)?;
        let of_ticket = format!("transfer=transfer-{uuid}");
        let is_end = |line: &str| line.contains(" REMOVE ") && line.contains(&of_ticket);
        self.process.wait_for_line(|line| is_end(line).then_some(()))?;
        let lines = self.process.said().iter().filter(|line| line.contains(&of_ticket));
        Ok(lines.filter_map(|line| logged_read(line)).collect())
    }

    fn control(&self, method: &str, uuid: &str, body: &[u8]) -> io::Result<()> {
        let endpoint = Endpoint::Unix(self.control_socket().display().to_string());
        let answer = Client::connect(&endpoint)?.request(method, &format!("/tickets/{uuid}"), &[], body)?;
        if matches!(answer.status, 200 | 204) {
            return Ok(());
        }
        Err(io::Error::other(format!("{method} ticket: {answer:?}")))
    }
}

/// The daemons that the tests of a program share: a real daemon for HTTP and unix sockets, and one
/// for HTTPS, started when first used.
#[derive(Debug, Default)]
pub struct Daemons {
    plain: Mutex<Option<RealDaemon>>,
    tls: Mutex<Option<RealDaemon>>,
    tickets: AtomicU32,
}

impl Daemons {
    /// Does something with the daemon, one caller at a time.
    ///
    /// # Errors
    /// If the daemon can't be started, and those of `use_it`.
    pub fn with_daemon<T>(
        &self,
        tls: bool,
        use_it: impl FnOnce(&RealDaemon) -> io::Result<T>,
    ) -> io::Result<T> {
        let slot = if tls { &self.tls } else { &self.plain };
        let mut daemon = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if daemon.is_none() {
            let pki = tls.then(|| Pki::generate(&Certificate::default())).transpose()?;
            *daemon = Some(RealDaemon::start(pki)?);
        }
        // It was put there a moment ago.
        daemon.as_ref().map_or_else(|| Err(io::Error::other("no daemon")), use_it)
    }

    /// A ticket id that no other test has.
    #[must_use]
    pub fn new_uuid(&self) -> String {
        let n = self.tickets.fetch_add(1, Ordering::Relaxed);
        format!("00000000-1111-4222-8333-{n:012}")
    }
}

/// The port in a line such as `… remote.service listening on ('127.0.0.1', 43567)`.
fn listening_port(line: &str) -> Option<u16> {
    let (_, address) = line.split_once("remote.service listening on ")?;
    address.rsplit(", ").next()?.trim_end_matches(')').parse().ok()
}

/// The range in a line such as `… READ size=512 offset=0 close=False transfer=…`.
fn logged_read(line: &str) -> Option<(u64, u64)> {
    let (_, read) = line.split_once(" READ ")?;
    let number = |name| read.split(' ').find_map(|word| word.strip_prefix(name))?.parse().ok();
    Some((number("offset=")?, number("size=")?))
}

/// The settings of a daemon.
struct Settings {
    /// Certificates, for HTTPS.
    pki: Option<Pki>,
    /// The level of the log.
    level: &'static str,
    has_local_socket: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { pki: None, level: "INFO", has_local_socket: true }
    }
}

fn write_config(dir: &Path, settings: &Settings) -> io::Result<()> {
    let path = |name: &str| dir.join(name).display().to_string();
    if let Some(pki) = &settings.pki {
        for (name, pem) in [("ca.pem", &pki.ca_pem), ("cert.pem", &pki.cert_pem), ("key.pem", &pki.key_pem)] {
            std::fs::write(dir.join(name), pem)?;
        }
    }
    let tls = match settings.pki {
        Some(_) => format!(
            "enable = true\nca_file = {}\ncert_file = {}\nkey_file = {}",
            path("ca.pem"),
            path("cert.pem"),
            path("key.pem")
        ),
        None => "enable = false".to_owned(),
    };
    let config = format!(
        "[daemon]\npoll_interval = 0.1\ndrop_privileges = false\nsystemd_enable = false\nrun_dir = {run}\n\
         [tls]\n{tls}\n\
         [remote]\nhost = 127.0.0.1\nport = 0\n\
         [local]\nenable = {has_local_socket}\nsocket = {local}\n\
         [control]\ntransport = unix\nsocket = {control}\n\
         [profile]\nfilename = {profile}\n\
         [handlers]\nkeys = stderr\n\
         [logger_root]\nhandlers = stderr\nlevel = {level}\n",
        run = dir.display(),
        has_local_socket = settings.has_local_socket,
        local = path("local"),
        control = path("control"),
        profile = path("profile"),
        level = settings.level,
    );
    std::fs::create_dir(dir.join("conf.d"))?;
    std::fs::write(dir.join("conf.d/daemon.conf"), config)
}

#[cfg(test)]
mod tests {
    use super::{listening_port, logged_read};

    #[test]
    fn reads_are_in_the_log() {
        let line = "… [images] [127.0.0.1] READ size=512 offset=1024 close=False transfer=x";
        assert_eq!(logged_read(line), Some((1024, 512)));
        assert_eq!(logged_read("… WRITE size=512 offset=1024 flush=False"), None);
    }

    #[test]
    fn the_port_is_in_the_log() {
        let line =
            "2026-01-01 00:00:00,000 INFO (MainThread) [services] remote.service listening on ('::', 54322)";
        assert_eq!(listening_port(line), Some(54322));
        assert_eq!(listening_port("local.service listening on '/run/sock'"), None);
    }
}
