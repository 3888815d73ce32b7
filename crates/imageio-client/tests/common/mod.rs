// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections to a fake server, by each way that leads there.
#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot tell")]

use std::error::Error as _;
use std::fmt::Debug;
use std::time::Duration;

use error_reporter::Report;
use fake_imageio::{Builder, Certificate, DEFAULT_TICKET, FakeServer};
use imageio_client::{
    Connection, Connector, Error, Result, Timeouts, TlsConfig, TransferUrl, TrustedUsers, UnixAddress,
};

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const TIMEOUTS: Timeouts = Timeouts::new(PATIENCE, PATIENCE, PATIENCE);

pub const MIB: usize = 1 << 20;

pub fn connector_to(url: &str, tls: Option<TlsConfig>, timeouts: Timeouts) -> Connector {
    Connector::new(TransferUrl::parse(url).unwrap(), tls, timeouts).unwrap()
}

/// To the server's URL, trusting its CA.
pub fn connector(server: &FakeServer) -> Connector {
    connector_with(server, TIMEOUTS)
}

pub fn connector_with(server: &FakeServer, timeouts: Timeouts) -> Connector {
    let tls = server.cafile().map(|cafile| TlsConfig::with_cafile(cafile).unwrap());
    connector_to(&server.url(), tls, timeouts)
}

pub fn connect(server: &FakeServer) -> Connection {
    connector(server).connect().unwrap()
}

/// A test over http, https and a unix socket, with a new server each time.
pub fn each_way(builder: &Builder, test: impl Fn(&str, FakeServer, Connector)) {
    let http = builder.clone().start().unwrap();
    let to_http = connector(&http);
    test("http", http, to_http);

    let https = builder.clone().tls(Certificate::default()).start().unwrap();
    let to_https = connector(&https);
    test("https", https, to_https);

    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock").to_str().unwrap().to_owned();
    let unix = builder.clone().unix_socket(&socket).start().unwrap();
    let to_unix = connector(&unix).through(UnixAddress::new(socket), TrustedUsers::new(None));
    test("unix", unix, to_unix);
}

/// The error of a call that must fail; also that it is one line, and that it keeps the ticket
/// secret.
#[track_caller]
pub fn error<T: Debug>(result: Result<T>) -> Error {
    let error = result.unwrap_err();
    let text = with_causes(&error);
    assert_eq!(text.lines().count(), 1, "{text:?}");
    let all = format!("{text} {error:?}");
    assert!(!all.contains(DEFAULT_TICKET), "{all}");
    error
}

/// An error's text and those of its causes, none of which tells what the next one does.
#[track_caller]
pub fn with_causes(error: &Error) -> String {
    if let Some(cause) = error.source() {
        assert!(!error.to_string().contains(&cause.to_string()), "{error}");
    }
    Report::new(error).to_string()
}

/// Bytes that differ from their neighbours.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 251 % 241) as u8).collect()
}

/// An abstract socket that no other process uses.
pub fn abstract_socket(name: &str) -> String {
    format!("\0imageio-{name}-{}", std::process::id())
}
