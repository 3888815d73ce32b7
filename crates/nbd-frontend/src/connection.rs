// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection from start to end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use block_device_traits::QueuedDevice;
use rustix::net::RecvFlags;
use socket2::{Domain, Socket, TcpKeepalive};

use crate::changes::Changes;
use crate::exports::Exports;
use crate::negotiate::{Failed, Timed, negotiate};
use crate::registry::{Control, Registered};
use crate::session::Session;
use crate::stats::Counters;
use crate::transport::Transport;
use crate::{Config, panic_message};

/// A peer that has vanished without a word is noticed after about this long, and half as long
/// again.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The time that a client with which TLS has failed may take to leave.
const LINGER: Duration = Duration::from_secs(1);

/// The number of bytes that a client's socket should take at once.
const SEND_BUFFER: usize = 4 << 20;

/// The state that all connections of a server share.
pub(crate) struct Service<'a, D> {
    pub(crate) exports: &'a Exports<D>,
    pub(crate) config: &'a Config,
    pub(crate) counters: &'a Counters,
    pub(crate) changes: &'a Arc<Changes>,
}

impl<D: QueuedDevice> Service<'_, D> {
    /// Serves a client until it has gone.
    pub(crate) fn serve(&self, client: &Registered) {
        let control = client.control();
        // A mistake of ours in one session must not take the others down.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.session(client))) {
            log::error!("client {}: the session failed: {}", control.id, panic_message(&*panic));
        }
        client.leave();
        finish(control);
        log::debug!("client {}: closed", control.id);
    }

    fn session(&self, client: &Registered) {
        let control = client.control();
        configure(&control.socket);
        let keep_place = || client.keep_place();
        let mut transport = Transport::Plain;
        match negotiate(&control.socket, &mut transport, self.exports, self.config, keep_place) {
            Ok(negotiated) => {
                log::debug!("client {}: opened export '{}'", control.id, negotiated.export.name());
                let _connected = self.exports.counters(negotiated.export).connect();
                Session::new(self, negotiated, control, &transport).run();
            }
            Err(why @ Failed::TooSlow) => log::warn!("client {}: {why}", control.id),
            Err(why) => {
                log::debug!("client {}: {why}", control.id);
                if matches!(why, Failed::Tls(_)) {
                    linger(control);
                }
            }
        }
        transport.close(&control.socket);
    }
}

/// Gives the client time to read why TLS has failed. It has not waited for that, and is about to
/// send an option: if the socket were closed, it would learn that it can't, and nothing else. It
/// may still give way to another client.
fn linger(control: &Control) {
    control.finish_sending();
    let mut stream = Timed { socket: &control.socket, deadline: Instant::now().checked_add(LINGER) };
    // However that ends, it is the end.
    let _ = io::copy(&mut stream, &mut io::sink());
}

/// TCP: replies leave at once, and dead peers are found out. Unix: the buffer takes more than one
/// read's reply, as far as the system allows; TCP finds its own size.
fn configure(socket: &Socket) {
    if matches!(socket.domain(), Ok(Domain::UNIX)) {
        let set = socket.set_send_buffer_size(SEND_BUFFER);
        set.unwrap_or_else(|e| log::debug!("cannot configure a unix socket: {e}"));
    } else {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 10);
        let set = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
        set.unwrap_or_else(|e| log::debug!("cannot configure a TCP socket: {e}"));
    }
}

/// Ends the stream in order. Closing a socket with unread input resets the connection, and replies
/// that are still on their way could be lost; so what has arrived is read, though not forever.
fn finish(control: &Control) {
    control.finish_sending();
    let mut scrap = [0; 16 << 10];
    for _ in 0..64 {
        if !matches!(rustix::net::recv(&control.socket, &mut scrap, RecvFlags::DONTWAIT), Ok((1.., _))) {
            break;
        }
    }
}
