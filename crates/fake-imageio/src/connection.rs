// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of one connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use crate::fault::{Op, What};
use crate::journal::{ClosedBy, Transport};
use crate::service;
use crate::shared::Shared;
use crate::stream::{Conn, Cut, Socket, Stream};

/// Keeps the list of open connections and the log in step, however a connection ends.
pub(crate) struct Registration {
    pub(crate) conn: Arc<Conn>,
    shared: Arc<Shared>,
    ended: bool,
}

/// The connections that are open.
pub(crate) type Registry = Mutex<Vec<Arc<Conn>>>;

impl Registration {
    pub(crate) fn new(shared: &Arc<Shared>, transport: Transport) -> Self {
        let conn = shared.connect(transport);
        Self { conn, shared: Arc::clone(shared), ended: false }
    }

    /// To be called while the socket is still open: what the client sees must be in the log.
    fn end(&mut self, by: ClosedBy) {
        if !std::mem::replace(&mut self.ended, true) {
            let id = self.conn.id;
            log::debug!("connection {id} closed by {by:?}");
            self.shared.disconnect(id);
            self.shared.recorder.closed(id, by);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Unless something else ended it before, the end of the server does.
        self.end(ClosedBy::Shutdown);
    }
}

/// A socket as it was accepted.
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Serves a connection to its end.
pub(crate) async fn serve(mut registration: Registration, accepted: Accepted, tls: Option<TlsAcceptor>) {
    let conn = Arc::clone(&registration.conn);
    // Whatever is accepted is closed by the drop of a Stream, so that resets and closes are what
    // they should be.
    let socket = match accepted {
        Accepted::Tcp(tcp) => {
            // Without it small answers wait for the client's acknowledgements; an error only makes
            // it slower.
            let _ = tcp.set_nodelay(true);
            Socket::Tcp(tcp)
        }
        Accepted::Unix(unix) => Socket::Unix(unix),
    };
    let stream = Stream { socket, conn: Arc::clone(&conn) };
    if let Some(stream) = greet(&mut registration, stream, tls).await {
        converse(&mut registration, stream).await;
    }
}

/// Faults of accepting, then the TLS handshake.
async fn greet(
    registration: &mut Registration,
    mut stream: Stream,
    tls: Option<TlsAcceptor>,
) -> Option<Stream> {
    let conn = Arc::clone(&stream.conn);
    let shared = Arc::clone(&registration.shared);
    let fate = shared.script.fate(Op::Accept, conn.id, 0);
    fate.holds.pass().await;
    if let Some(what) = fate.what {
        match what {
            What::NoAnswer => {
                while !conn.is_cut() {
                    conn.changed.notified().await;
                }
            }
            What::Reset { .. } => conn.cut(Cut::Reset),
            _ => conn.cut(Cut::Close),
        }
        registration.end(ClosedBy::Fault);
        return None;
    }
    if let (Socket::Tcp(_), Some(tls)) = (&stream.socket, tls) {
        match handshake(stream, &tls, shared.config.inactivity_timeout).await {
            Ok(secured) => stream = secured,
            Err(by) => {
                registration.end(by);
                return None;
            }
        }
    }
    Some(stream)
}

async fn handshake(stream: Stream, tls: &TlsAcceptor, timeout: Option<Duration>) -> Result<Stream, ClosedBy> {
    let (Some(tcp), conn) = stream.into_tcp() else { return Err(ClosedBy::Client) };
    let accepting = tls.accept(tcp);
    let accepted = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, accepting).await.map_err(|_| ClosedBy::Inactivity)?,
        None => accepting.await,
    };
    let tls = accepted.map_err(|error: io::Error| {
        log::debug!("connection {}: no TLS: {error}", conn.id);
        ClosedBy::Client
    })?;
    Ok(Stream { socket: Socket::Tls(Box::new(tls)), conn })
}

async fn converse(registration: &mut Registration, stream: Stream) {
    let conn = Arc::clone(&stream.conn);
    let shared = Arc::clone(&registration.shared);
    let service = service_fn(|request| service::handle(Arc::clone(&shared), Arc::clone(&conn), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut idle = pin!(IdleTimer::new(shared.config.inactivity_timeout, &conn));
    loop {
        let step = poll_fn(|cx| {
            if conn.is_cut() {
                return Poll::Ready(conn.closed_by());
            }
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                if let Err(error) = result {
                    log::debug!("connection {}: {error}", conn.id);
                }
                return Poll::Ready(conn.closed_by());
            }
            idle.as_mut().poll_expired(&conn, cx).map(|()| ClosedBy::Inactivity)
        });
        tokio::select! {
            biased;
            by = step => {
                registration.end(by);
                return;
            }
            () = conn.changed.notified() => {
                if conn.close_when_idle.load(Ordering::SeqCst) && conn.is_idle() {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Expires when no byte has moved for a while and nothing but the client is waited for.
struct IdleTimer {
    timeout: Option<Duration>,
    sleep: Pin<Box<Sleep>>,
    seen: u64,
}

impl IdleTimer {
    fn new(timeout: Option<Duration>, conn: &Conn) -> Self {
        let sleep = Box::pin(tokio::time::sleep(timeout.unwrap_or(Duration::ZERO)));
        Self { timeout, sleep, seen: conn.activity.load(Ordering::Relaxed) }
    }

    fn poll_expired(mut self: Pin<&mut Self>, conn: &Conn, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timeout) = self.timeout else { return Poll::Pending };
        let activity = conn.activity.load(Ordering::Relaxed);
        let busy = conn.busy.load(Ordering::SeqCst);
        if busy || activity != self.seen {
            self.seen = activity;
            self.sleep.as_mut().reset(Instant::now() + timeout);
        }
        // While the handler is busy the sleep is not polled: the end of its work polls the
        // connection again.
        if busy { Poll::Pending } else { self.sleep.as_mut().poll(cx) }
    }
}
