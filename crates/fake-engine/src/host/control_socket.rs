// SPDX-License-Identifier: MIT OR Apache-2.0
//! The imageio daemon, by its control socket (`ovirt_imageio/_internal/handlers/tickets.py` of
//! ovirt-imageio).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{Host, Removal, Ticket};
use crate::state::{TicketId, TicketStatus};

/// For how long a ticket is good unless it is extended, in seconds.
const TICKET_TIMEOUT: u64 = 300;

/// The time that an answer may take: the daemon is slow on a machine that runs many of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time that the removal of a ticket may take. The daemon would wait for a minute until nobody
/// uses the ticket.
const PATIENCE_WITH_REMOVAL: Duration = Duration::from_secs(1);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// An imageio daemon that is given its tickets by its control socket.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControlSocket {
    /// The unix socket.
    pub path: PathBuf,
    /// The address at which clients reach the daemon, such as `https://host:54322`.
    pub transfer_url: String,
    /// The address at which clients reach the daemon by way of a proxy, such as
    /// `https://engine:54323`.
    pub proxy_url: String,
}

impl ControlSocket {
    /// The daemon that listens at this unix socket, which clients reach by `transfer_url` and
    /// `proxy_url`.
    pub fn new(
        path: impl Into<PathBuf>,
        transfer_url: impl Into<String>,
        proxy_url: impl Into<String>,
    ) -> Self {
        Self { path: path.into(), transfer_url: transfer_url.into(), proxy_url: proxy_url.into() }
    }
}

impl Host for ControlSocket {
    fn add_ticket(&self, ticket: &Ticket) -> io::Result<()> {
        let message = json!({
            "uuid": ticket.id.secret(),
            "transfer_id": ticket.transfer,
            "size": ticket.size,
            "url": ticket.url,
            "timeout": TICKET_TIMEOUT,
            "inactivity_timeout": ticket.inactivity_timeout,
            "sparse": ticket.sparse,
            "dirty": ticket.dirty,
            "ops": [if ticket.writable { "write" } else { "read" }],
        });
        let (status, text) = self.ask(Method::PUT, &ticket.id, message.to_string())?;
        expect(status, &text)
    }

    fn ticket(&self, id: &TicketId) -> io::Result<Option<TicketStatus>> {
        let Some(info) = self.look_up(id)? else { return Ok(None) };
        Ok(Some(TicketStatus {
            active: info["active"].as_bool().unwrap_or_default(),
            idle: Duration::from_secs(info["idle_time"].as_u64().unwrap_or_default()),
            transferred: info["transferred"].as_u64(),
        }))
    }

    fn extend_ticket(&self, id: &TicketId) -> io::Result<()> {
        let message = json!({ "timeout": TICKET_TIMEOUT }).to_string();
        let (status, text) = self.ask(Method::PATCH, id, message)?;
        expect(status, &text)
    }

    fn remove_ticket(&self, id: &TicketId) -> io::Result<Removal> {
        let info = self.look_up(id)?.unwrap_or_default();
        if info["canceled"] == true && info["active"] == true {
            // It knows, and the request that waits for this is enough.
            return Ok(Removal::InUse);
        }
        match self.ask(Method::DELETE, id, String::new()) {
            // It waits for what is being carried out, and would say that it is in use.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Removal::InUse),
            Ok((StatusCode::CONFLICT, _)) => Ok(Removal::InUse),
            Ok((status, text)) => expect(status, &text).map(|()| Removal::Done),
            Err(error) => Err(error),
        }
    }

    fn urls(&self, id: &TicketId) -> Option<(String, String)> {
        let path = |base: &str| format!("{}/images/{}", base.trim_end_matches('/'), id.secret());
        Some((path(&self.transfer_url), path(&self.proxy_url)))
    }
}

fn expect(status: StatusCode, text: &[u8]) -> io::Result<()> {
    if status.is_success() {
        return Ok(());
    }
    // The daemon's words have the ticket in them.
    log::debug!("the imageio daemon answered {status} with {} bytes", text.len());
    Err(io::Error::other(format!("the imageio daemon answered {status}")))
}

impl ControlSocket {
    /// Returns what the daemon tells of a ticket; `None` if it doesn't know the ticket.
    fn look_up(&self, id: &TicketId) -> io::Result<Option<Value>> {
        let (status, text) = self.ask(Method::GET, id, String::new())?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        expect(status, &text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// One request on a connection of its own.
    fn ask(&self, method: Method, id: &TicketId, body: String) -> io::Result<(StatusCode, Bytes)> {
        // Requests are rare, and come from any thread: each has a runtime of its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let patience = if method == Method::DELETE { PATIENCE_WITH_REMOVAL } else { PATIENCE };
        let answer = async { tokio::time::timeout(patience, self.exchange(method, id, body)).await };
        runtime.block_on(answer).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn exchange(&self, method: Method, id: &TicketId, body: String) -> io::Result<(StatusCode, Bytes)> {
        let socket = UnixStream::connect(&self.path).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/tickets/{}", id.secret()))
            .header("host", "localhost")
            .body(Full::new(Bytes::from(body)))
            .map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(io::Error::other)?;
        connection.abort();
        Ok((status, body.to_bytes()))
    }
}
