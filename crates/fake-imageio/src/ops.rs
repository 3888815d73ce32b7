// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations: first what a request asks for and whether it may have it, then doing it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http_body_util::BodyExt;
use hyper::http::request::Parts;
use serde_json::json;

use crate::answer::{Answer, Content, Refusal};
use crate::bitmap::Bitmap;
use crate::block::Body;
use crate::checksum::{self, Asked};
use crate::config::OptionsMode;
use crate::extents;
use crate::fault::Op;
use crate::request::{self, Resource};
use crate::service::{Call, Exchange};
use crate::shared::Shared;
use crate::volatile_cache::Change;

type Result<T> = std::result::Result<T, Refusal>;

fn call(op: Op, understood: Result<Call>) -> Call {
    understood.unwrap_or_else(|refusal| Call::refused(op, refusal))
}

impl Shared {
    fn authorize(&self, ticket: &str, write: bool) -> Result<()> {
        let transfer = &self.config.transfer;
        let text = if ticket != self.config.ticket {
            format!("No such ticket {ticket}")
        } else if self.canceled.load(Ordering::SeqCst) {
            format!("Transfer={transfer} was canceled")
        } else if write && self.config.read_only {
            format!("Transfer={transfer} forbids write")
        } else {
            return Ok(());
        };
        Err(Refusal::new(403, text))
    }

    fn check_range(&self, offset: u64, size: u64) -> Result<()> {
        let end = offset.checked_add(size).filter(|end| *end <= self.disk.size());
        end.map(|_| ()).ok_or_else(|| Refusal::range(self.disk.size()))
    }

    fn patch_ops(&self) -> Vec<&'static str> {
        let features = &self.config.features;
        [("zero", features.zero), ("flush", features.flush)].iter().filter(|f| f.1).map(|f| f.0).collect()
    }
}

pub(crate) fn understand_get(shared: &Shared, ticket: &str, head: &Parts) -> Call {
    let understand = || {
        let range = request::range(&head.headers)?;
        shared.authorize(ticket, false)?;
        let total = shared.disk.size();
        let (offset, size) = match range {
            Some((offset, Some(size))) => (offset, size),
            // The real server computes a negative length here, and then finds that there are fewer
            // bytes.
            Some((offset, None)) if offset > total => {
                return Err(Refusal::new(
                    400,
                    format!("Requested -{} bytes, available 0 bytes", offset - total),
                ));
            }
            Some((offset, None)) => (offset, total - offset),
            None => (0, total),
        };
        shared.check_range(offset, size)?;
        Ok(Call { offset, size, ..Call::new(Op::Get) })
    };
    call(Op::Get, understand())
}

pub(crate) fn understand_put(shared: &Shared, ticket: &str, head: &Parts) -> Call {
    let understand = || {
        let size = request::content_length(&head.headers)
            .ok_or_else(|| Refusal::new(400, "Content-Length header is required"))?;
        let offset = request::content_range(&head.headers)?;
        let flush = request::choice(request::query(head.uri.query(), "flush"), "flush", &["y", "n"])? == "y";
        shared.authorize(ticket, true)?;
        shared.check_range(offset, size)?;
        Ok(Call { offset, size, flush, ..Call::new(Op::Put) })
    };
    call(Op::Put, understand())
}

pub(crate) fn understand_patch(shared: &Shared, ticket: &str, message: &[u8]) -> Call {
    let patch = match request::patch(message, &shared.patch_ops()) {
        Ok(patch) => patch,
        Err(refusal) => return Call::refused(Op::Other, refusal),
    };
    let allowed = shared.authorize(ticket, true).and_then(|()| shared.check_range(patch.offset, patch.size));
    Call { op: patch.op, offset: patch.offset, size: patch.size, flush: patch.flush, refusal: allowed.err() }
}

pub(crate) fn understand_options(shared: &Shared, ticket: &str, path: &str) -> Call {
    let understand = || match shared.config.options {
        OptionsMode::MethodNotAllowed => {
            Err(Refusal::new(405, format!("Method 'OPTIONS' not defined for '{path}'")))
        }
        OptionsMode::NoContent => Ok(()),
        _ => shared.authorize(ticket, false),
    };
    call(Op::Options, understand().map(|()| Call::new(Op::Options)))
}

/// Extents and checksums.
pub(crate) fn understand_query(shared: &Shared, resource: &Resource, ticket: &str, head: &Parts) -> Call {
    let op = match (resource, context(head)) {
        (Resource::Extents, Ok("dirty")) => Op::DirtyExtents,
        (Resource::Extents, _) => Op::Extents,
        _ => Op::Checksum,
    };
    let understand = || {
        if op == Op::Checksum && !shared.config.features.checksum {
            return Err(Refusal::new(404, format!("No handler for '{}'", head.uri.path())));
        }
        if *resource == Resource::Checksum {
            Asked::parse(head.uri.query())?;
        }
        if *resource != Resource::Algorithms {
            shared.authorize(ticket, false)?;
        }
        if op == Op::Extents {
            context(head)?;
        }
        if op == Op::DirtyExtents && shared.bitmap.is_none() {
            return Err(Refusal::new(404, "Ticket does not support dirty extents"));
        }
        Ok(Call::new(op))
    };
    call(op, understand())
}

fn context(head: &Parts) -> Result<&str> {
    request::choice(request::query(head.uri.query(), "context"), "context", &["zero", "dirty"])
}

/// Does what was asked for.
pub(crate) async fn run(exchange: &mut Exchange<'_>, call: &Call) -> Result<Answer> {
    let shared = exchange.shared;
    match call.op {
        Op::Get => Ok(get(exchange, call)),
        Op::Put => put(exchange, call).await,
        Op::Zero => {
            exchange.change(call.offset, Change::Zeroes(call.size)).await?;
            flush(exchange, call)
        }
        Op::Flush => flush(exchange, call),
        Op::Options => Ok(options(shared)),
        Op::Extents => Ok(Answer::json(extents::zero(&shared.disk)?)),
        Op::DirtyExtents => {
            let dirty = shared.bitmap.as_ref().map(Bitmap::dirty).unwrap_or_default();
            Ok(Answer::json(extents::dirty(&shared.disk, &dirty)?))
        }
        Op::Checksum => Ok(Answer::json(checksum(shared, exchange.head).await?)),
        // Neither is ever understood as a call without a refusal.
        Op::Accept | Op::Other => Err(Refusal::new(500, "Server failed to perform the request, check logs")),
    }
}

fn get(exchange: &Exchange<'_>, call: &Call) -> Answer {
    let (offset, size, total) = (call.offset, call.size, exchange.shared.disk.size());
    let ranged = exchange.head.headers.contains_key("range");
    let mut answer = Answer::empty(if ranged { 206 } else { 200 })
        .header("content-type", "application/octet-stream")
        .header("content-disposition", "attachment");
    if ranged {
        let last = i128::from(offset) + i128::from(size) - 1;
        answer = answer.header("content-range", format!("bytes {offset}-{last}/{total}"));
    }
    answer.content = Content::Range { disk: Arc::clone(&exchange.shared.disk), offset, len: size };
    answer
}

async fn put(exchange: &mut Exchange<'_>, call: &Call) -> Result<Answer> {
    let received = exchange.receive(call, Receive { store: true, limit: call.size }).await?;
    if received < call.size {
        let text = format!("Requested {} bytes, available {received} bytes", call.size);
        return Err(Refusal::new(400, text));
    }
    flush(exchange, call)
}

fn flush(exchange: &Exchange<'_>, call: &Call) -> Result<Answer> {
    if call.flush {
        exchange.shared.flush(exchange.conn)?;
    }
    Ok(Answer::empty(200))
}

fn options(shared: &Shared) -> Answer {
    let config = &shared.config;
    match config.options {
        OptionsMode::NoContent => return Answer::empty(204),
        OptionsMode::Malformed => return Answer::json(r#"{"features": ["#.to_owned()),
        OptionsMode::MissingKeys => return Answer::json("{}".to_owned()),
        OptionsMode::Normal | OptionsMode::MethodNotAllowed => {}
    }
    let writable = !config.read_only;
    let offered = [
        ("checksum", config.features.checksum),
        ("extents", config.features.extents),
        ("flush", config.features.flush && writable),
        ("zero", config.features.zero && writable),
    ];
    let features: Vec<&str> = offered.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let mut body = json!({ "features": features });
    let optional = [
        ("unix_socket", config.advertised_socket().map(Into::into)),
        ("max_readers", config.max_readers.map(Into::into)),
        ("max_writers", config.max_writers.map(Into::into)),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            body[key] = value;
        }
    }
    let allow = if writable { "OPTIONS,GET,PUT,PATCH" } else { "OPTIONS,GET" };
    Answer::json(body.to_string()).header("allow", allow)
}

/// On a thread of its own, as all other connections go on meanwhile in the real server.
async fn checksum(shared: &Shared, head: &Parts) -> Result<String> {
    if head.uri.path().ends_with("/algorithms") {
        return Ok(checksum::algorithms());
    }
    let (disk, query) = (Arc::clone(&shared.disk), head.uri.query().map(str::to_owned));
    let computing = move || Ok(Asked::parse(query.as_deref())?.compute(&disk)?);
    let computed = tokio::task::spawn_blocking(computing).await;
    computed.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

/// The treatment of a request's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receive {
    pub(crate) store: bool,
    /// Stop after so many bytes.
    pub(crate) limit: u64,
}

impl Exchange<'_> {
    /// Streams the body into the disk, and tells how much came.
    pub(crate) async fn receive(&mut self, call: &Call, how: Receive) -> Result<u64> {
        let mut received = 0;
        let mut body = Body::new(call.offset, self.shared.config.block_size);
        while received < how.limit {
            let Some(data) = self.next_data().await? else {
                self.unread = false;
                break;
            };
            // A frame's length fits in usize, so the smaller of the two does.
            let len = (data.len() as u64).min(how.limit - received);
            if how.store {
                let (offset, data) = body.add(data.slice(..len as usize));
                self.change(offset, Change::Data(data)).await?;
            }
            received += len;
        }
        let (offset, rest) = body.end();
        self.change(offset, Change::Data(rest)).await?;
        if received == call.size && how.store {
            self.unread = false;
        }
        Ok(received)
    }

    pub(crate) async fn next_data(&mut self) -> Result<Option<bytes::Bytes>> {
        let frame = match self.shared.config.inactivity_timeout {
            // A client that stops in the middle of a body is told so, as the real server does.
            Some(timeout) => tokio::time::timeout(timeout, self.body.frame())
                .await
                .map_err(|_| Refusal::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))?,
            None => self.body.frame().await,
        };
        // A broken connection ends the body: there is nobody left to tell about it.
        Ok(frame.and_then(std::result::Result::ok).and_then(|frame| frame.into_data().ok()))
    }
}
