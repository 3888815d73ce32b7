// SPDX-License-Identifier: MIT OR Apache-2.0
//! One of the pool's connections, with what has to be known of it to lose nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use block_device::{Errno, Error};
use bytes::Bytes;
use imageio_client::{Connection, Connector, Flush, StatusCode};

use crate::error::{Kind, device_error};
use crate::request::{Request, Target, Work};

/// Zeroing goes in steps of so many bytes: some storage stalls on more at once.
const ZERO_STEP: u64 = 128 << 20;

/// A connection of the pool: open, or yet to be opened.
#[derive(Debug)]
pub(crate) struct Link {
    connector: Arc<Connector>,
    means: Means,
    /// Opened when it is needed.
    connection: Option<Connection>,
    /// Writes were acknowledged on `connection` since its last flush.
    dirty: bool,
}

/// By what means the server does things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Means {
    /// `PATCH` flush; else each write is durable by itself.
    pub(crate) flush: bool,
    /// `PATCH` zero; else zeroes are written.
    pub(crate) zero: bool,
    /// What keeps a connection alive. `OPTIONS` wouldn't do: through a proxy, it renews only the first hop.
    pub(crate) keep_alive: KeepAlive,
}

/// What keeps a connection alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    Flush,
    ReadOneByte,
}

/// A failed request. A fatal failure means that data may be lost.
pub(crate) type Failure = conn_pool::Failure<Error>;

impl Link {
    pub(crate) fn new(connector: Arc<Connector>, means: Means) -> Self {
        Self { connector, means, connection: None, dirty: false }
    }

    /// Fills the buffers one after another.
    pub(crate) fn read(&mut self, offset: u64, bufs: &mut [&mut [u8]]) -> Result<(), Failure> {
        self.request(Kind::Read, |connection| connection.read_vectored(offset, bufs))?;
        self.check_kept()
    }

    /// That what is unflushed can still be flushed. After success, too, the server may have closed the connection.
    fn check_kept(&self) -> Result<(), Failure> {
        if self.dirty && self.connection.is_none() {
            return Err(fatal("the server closed a connection whose writes are not flushed", Errno::Io));
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, offset: u64, data: &VecDeque<Bytes>, fua: bool) -> Result<(), Failure> {
        let flush = self.flush_now(fua);
        self.request(Kind::Write, |connection| connection.write(offset, data.iter().cloned(), flush))?;
        self.written(flush)
    }

    /// Zeroes a range, in steps on this one connection, so that the flush of the last covers all.
    pub(crate) fn zero(&mut self, offset: u64, len: u64, fua: bool) -> Result<(), Failure> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let step = ZERO_STEP.min(end - at);
            self.zero_step(at, step, fua && at + step == end)?;
            at += step;
        }
        Ok(())
    }

    fn zero_step(&mut self, offset: u64, len: u64, fua: bool) -> Result<(), Failure> {
        let flush = self.flush_now(fua);
        let patch = self.means.zero;
        self.request(Kind::Write, |connection| {
            if patch {
                connection.zero(offset, len, flush)
            } else {
                connection.write_zeroes(offset, len, flush)
            }
        })?;
        self.written(flush)
    }

    fn flush_now(&self, fua: bool) -> Flush {
        if fua || !self.means.flush { Flush::Yes } else { Flush::No }
    }

    /// Takes note of a write that was answered. The server's flush of a write covers all of its backend connection.
    fn written(&mut self, flush: Flush) -> Result<(), Failure> {
        self.dirty = flush == Flush::No;
        self.check_kept()
    }

    /// Sends a request, on a new connection if the old one turns out to be gone with nothing at stake.
    fn request<T>(
        &mut self,
        kind: Kind,
        mut send: impl FnMut(&mut Connection) -> imageio_client::Result<T>,
    ) -> Result<T, Failure> {
        loop {
            let reused = self.connection.is_some();
            let error = match self.attempt(&mut send) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let gone = self.connection.is_none();
            if self.loses_data(kind, &error) {
                let error = device_error(kind, &error);
                return Err(fatal(&error.to_string(), error.errno()));
            }
            let harmless = error.is_unsent() || (kind == Kind::Read && error.is_lost());
            if !(reused && gone && harmless) {
                return Err(Failure { error: device_error(kind, &error), is_fatal: false });
            }
            log::info!("opening a connection again: {error}");
        }
    }

    fn attempt<T>(
        &mut self,
        send: &mut impl FnMut(&mut Connection) -> imageio_client::Result<T>,
    ) -> imageio_client::Result<T> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.connector.connect()?),
        };
        let result = send(connection);
        if !connection.is_open() {
            self.connection = None;
        }
        result
    }

    /// Whether acknowledged data may be gone, or a write may still come true on a connection that is lost.
    fn loses_data(&self, kind: Kind, error: &imageio_client::Error) -> bool {
        let gone = self.connection.is_none();
        let server_failed = error.status().is_some_and(|status| status.is_server_error());
        let on_its_way = kind == Kind::Write && gone && error.status().is_none() && !error.is_unsent();
        (self.dirty && (gone || (server_failed && kind != Kind::Read))) || on_its_way
    }

    /// Whether nothing was at stake in a keep-alive that failed, and later requests may well succeed.
    fn is_harmless(&self, error: &imageio_client::Error) -> bool {
        match error.status() {
            _ if self.dirty => false,
            // It is opened again when it is needed.
            None => self.connection.is_none(),
            // The ticket won't get better.
            Some(StatusCode::FORBIDDEN) => false,
            // There may be nothing to read: an empty disk, or a server that can only be written to.
            Some(_) => self.means.keep_alive == KeepAlive::ReadOneByte,
        }
    }

    fn keep_alive_once(&mut self) -> imageio_client::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let result = match self.means.keep_alive {
            KeepAlive::Flush => connection.flush(),
            KeepAlive::ReadOneByte => connection.read(0, &mut [0]),
        };
        if !connection.is_open() {
            self.connection = None;
        }
        result
    }
}

impl conn_pool::Connection for Link {
    type Error = Error;
    type Request = Request;

    fn carry_out(&mut self, request: &mut Request) -> Result<(), Failure> {
        let Request { offset, len, .. } = *request;
        match &mut request.work {
            Work::Read { into } => {
                let mut bufs: Vec<_> = into.iter_mut().map(Target::bytes).collect();
                self.read(offset, &mut bufs)
            }
            Work::Write { data, fua } => self.write(offset, data, *fua),
            Work::Zero { fua } => self.zero(offset, len, *fua),
        }
    }

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.check_kept().map_err(|failure| failure.error)?;
        self.request(Kind::Flush, Connection::flush).map_err(|failure| {
            if failure.is_fatal {
                return failure.error;
            }
            fatal(&failure.error.to_string(), failure.error.errno()).error
        })?;
        self.dirty = false;
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), Error> {
        self.check_kept().map_err(|failure| failure.error)?;
        if self.connection.is_some() {
            log::debug!("keeping an idle connection alive");
        }
        match self.keep_alive_once() {
            Ok(()) => {
                // Where a read keeps it alive, nothing is ever unflushed.
                self.dirty = false;
                Ok(())
            }
            Err(error) if self.is_harmless(&error) => {
                log::info!("keeping an idle connection alive: {error}");
                Ok(())
            }
            Err(error) => {
                let error = device_error(Kind::Flush, &error);
                Err(fatal(&format!("keeping an idle connection alive: {error}"), error.errno()).error)
            }
        }
    }
}

fn fatal(reason: &str, errno: Errno) -> Failure {
    Failure { error: Error::new(errno, format!("data may be lost: {reason}")), is_fatal: true }
}
