// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a request to its answer, by way of the script of faults.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request};

use crate::answer::{Answer, Content, Handled, Refusal};
use crate::backend::Disk;
use crate::config::{Config, OptionsMode};
use crate::fault::{Fate, Gate, Op, Script, What};
use crate::journal::{Recorder, Started};
use crate::ops::{self, Receive};
use crate::power::{Change, Power};
use crate::request::{self, Resource};
use crate::stream::{Conn, Cut};

/// Longest body of a PATCH that is looked at, in bytes.
const PATCH_MAX: usize = 64 << 10;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) disk: Arc<Disk>,
    /// Where power cuts are possible.
    pub(crate) power: Option<Power>,
    pub(crate) script: Script,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) canceled: AtomicBool,
}

impl Shared {
    pub(crate) fn change(&self, conn: &Conn, offset: u64, change: Change) -> io::Result<()> {
        let len = change.len();
        match &self.power {
            Some(power) => power.apply(&self.disk, conn.id, offset, change)?,
            None => change.apply(&self.disk, offset)?,
        }
        self.recorder.wrote(conn.id, len);
        Ok(())
    }

    /// Changes the disk behind the clients' backs.
    pub(crate) fn write_through(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.power {
            Some(power) => power.write_through(&self.disk, offset, Bytes::copy_from_slice(data)),
            None => self.disk.write(offset, data),
        }
    }

    pub(crate) fn flush(&self, conn: &Conn) -> io::Result<()> {
        if let Some(power) = &self.power {
            power.flush(conn.id)?;
        }
        self.disk.flush()?;
        self.recorder.flushed(conn.id);
        Ok(())
    }

    fn has_power(&self, conn: &Conn) -> bool {
        self.power.as_ref().is_none_or(|power| !power.is_cut(conn.id))
    }
}

/// A request that was understood, or why it was not.
pub(crate) struct Call {
    pub(crate) op: Op,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) flush: bool,
    pub(crate) refusal: Option<Refusal>,
}

impl Call {
    pub(crate) fn new(op: Op) -> Self {
        Self { op, offset: 0, size: 0, flush: false, refusal: None }
    }

    pub(crate) fn refused(op: Op, refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..Self::new(op) }
    }
}

/// Answers one request.
pub(crate) async fn handle(shared: Arc<Shared>, conn: Arc<Conn>, request: Request<Incoming>) -> Handled {
    conn.busy.store(true, Ordering::SeqCst);
    let response = answer(&shared, &conn, request).await;
    conn.busy.store(false, Ordering::SeqCst);
    Ok(response)
}

async fn answer(
    shared: &Arc<Shared>,
    conn: &Arc<Conn>,
    request: Request<Incoming>,
) -> hyper::Response<crate::answer::AnswerBody> {
    let (head, mut body) = request.into_parts();
    let unread = request::content_length(&head.headers).is_some_and(|len| len > 0);
    let (call, read) = understand(shared, &head, &mut body).await;
    let record = shared.recorder.begin(&Started {
        connection: conn.id,
        method: head.method.as_str(),
        op: call.op,
        offset: call.offset,
        size: call.size,
        flush: call.flush,
    });
    let mut fate = shared.script.fate(call.op, conn.id, call.offset);
    let mut exchange = Exchange { shared, conn, head: &head, body, unread: unread && !read };
    let mut answer = exchange.carry_out(call, &mut fate).await;
    fate.hold().await;
    if !shared.has_power(conn) {
        return never_answer(conn, Cut::Power).await;
    }
    match fate.what {
        Some(What::CloseAfterAnswer) => conn.close_when_idle.store(true, Ordering::SeqCst),
        Some(What::LoseAnswer) => return never_answer(conn, Cut::Close).await,
        Some(What::WrongLength(wrong)) => {
            if let Content::Range { len, .. } = &mut answer.content {
                *len = wrong;
            }
        }
        Some(What::Close { after }) => answer.cut = Some((after, Cut::Close)),
        Some(What::Reset { after }) => answer.cut = Some((after, Cut::Reset)),
        _ => {}
    }
    answer.send(conn, record)
}

/// Ends the connection, and with it whatever waits for this.
async fn never_answer<T>(conn: &Conn, how: Cut) -> T {
    conn.cut(how);
    std::future::pending().await
}

/// What the head, and for a PATCH the body, asks for; and whether the body has been read.
async fn understand(shared: &Shared, head: &Parts, body: &mut Incoming) -> (Call, bool) {
    let path = head.uri.path();
    let Some((mut resource, mut ticket)) = request::route(path) else {
        return (Call::refused(Op::Other, Refusal::new(404, format!("No handler for '{path}'"))), false);
    };
    if resource == Resource::Extents && !shared.config.features.extents {
        // Before there were extents, the path was taken for a strange ticket.
        (resource, ticket) = (Resource::Image, format!("{ticket}/extents"));
    }
    let image = resource == Resource::Image;
    let call = match (&head.method, image) {
        (_, _) if ticket.is_empty() => Call::refused(Op::Other, Refusal::new(400, "Ticket id is required")),
        (&Method::GET, true) => ops::understand_get(shared, &ticket, head),
        (&Method::PUT, true) => ops::understand_put(shared, &ticket, head),
        (&Method::OPTIONS, true) => ops::understand_options(shared, &ticket, path),
        (&Method::GET, false) => ops::understand_query(shared, &resource, &ticket, head),
        (&Method::PATCH, true) if shared.config.options == OptionsMode::Normal => {
            return match collect(body).await {
                Some(message) => (ops::understand_patch(shared, &ticket, &message), true),
                None => (Call::refused(Op::Other, Refusal::new(400, "Invalid JSON message")), false),
            };
        }
        (method, _) => {
            let text = format!("Method '{method}' not defined for '{path}'");
            Call::refused(Op::Other, Refusal::new(405, text))
        }
    };
    (call, false)
}

/// The whole of a short body.
async fn collect(body: &mut Incoming) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        all.extend_from_slice(frame.ok()?.data_ref()?);
        if all.len() > PATCH_MAX {
            return None;
        }
    }
    Some(all)
}

/// One request while it is carried out.
pub(crate) struct Exchange<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) conn: &'a Arc<Conn>,
    pub(crate) head: &'a Parts,
    pub(crate) body: Incoming,
    /// There is a body, and it has not been read to its end.
    pub(crate) unread: bool,
}

impl Exchange<'_> {
    async fn carry_out(&mut self, call: Call, fate: &mut Fate) -> Answer {
        let result = match fate.what.take() {
            Some(What::Status { status, text }) => {
                self.drain().await;
                Err(Refusal::new(status, text))
            }
            Some(What::AnswerEarly { status, text }) => {
                let mut answer = Answer::from(Refusal::new(status, text));
                answer.close = true;
                return answer;
            }
            Some(What::NoAnswer) => {
                self.drain().await;
                std::future::pending().await
            }
            Some(What::Close { after }) if is_change(call.op) => {
                return self.cut_off(&call, fate, after, Cut::Close).await;
            }
            Some(What::Reset { after }) if is_change(call.op) => {
                return self.cut_off(&call, fate, after, Cut::Reset).await;
            }
            Some(What::CarryOutLate(gate)) if is_change(call.op) => {
                self.carry_out_late(call, gate).await;
                return never_answer(self.conn, Cut::Close).await;
            }
            Some(What::FailAndCarryOutLate { status, gate }) if is_change(call.op) => {
                self.carry_out_late(call, gate).await;
                Err(Refusal::new(status, "the server is lost".to_owned()))
            }
            what => {
                fate.what = what;
                match call.refusal {
                    Some(refusal) => Err(refusal),
                    None => ops::run(self, &call).await,
                }
            }
        };
        let mut answer = result.unwrap_or_else(Answer::from);
        answer.close |= self.unread || request::query(self.head.uri.query(), "close") == Some("y");
        answer
    }

    /// Stores the first bytes of a body, then ends the connection without an answer.
    async fn cut_off(&mut self, call: &Call, fate: &mut Fate, after: u64, how: Cut) -> Answer {
        if call.op == Op::Put && call.refusal.is_none() {
            // Whatever comes of it: there will be no answer.
            let _ = self.receive(call, Receive { store: true, limit: after }).await;
        }
        fate.hold().await;
        never_answer(self.conn, how).await
    }

    /// Takes in all of the request, and carries it out when the gate opens.
    async fn carry_out_late(&mut self, call: Call, gate: Gate) {
        let change = if call.op == Op::Put {
            self.collect().await.map(Change::Data)
        } else {
            Some(Change::Zeroes(call.size))
        };
        if let Some(change) = change.filter(|change| change.len() == call.size && call.refusal.is_none()) {
            let (shared, conn) = (Arc::clone(self.shared), Arc::clone(self.conn));
            tokio::spawn(async move {
                gate.pass().await;
                // Nobody is left to be told, also not that the power is gone.
                let _ = shared.change(&conn, call.offset, change);
                if call.flush {
                    let _ = shared.flush(&conn);
                }
            });
        }
    }

    async fn collect(&mut self) -> Option<Bytes> {
        let mut all = BytesMut::new();
        while let Some(data) = self.next_data().await.ok()? {
            all.extend_from_slice(&data);
        }
        Some(all.freeze())
    }

    async fn drain(&mut self) {
        let all = Receive { store: false, limit: u64::MAX };
        // A body that breaks off ends the connection by itself.
        let _ = self.receive(&Call::new(Op::Other), all).await;
    }
}

fn is_change(op: Op) -> bool {
    matches!(op, Op::Put | Op::Zero | Op::Flush)
}
