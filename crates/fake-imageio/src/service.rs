// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a request to its answer, by way of the script of faults.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request};

use crate::answer::{Answer, Content, Handled, Refusal};
use crate::config::OptionsMode;
use crate::fault::{Done, Op, What};
use crate::gate::Gate;
use crate::journal::Started;
use crate::ops::{self, Receive};
use crate::request::{self, Resource};
use crate::script::{Fate, Holds};
use crate::shared::Shared;
use crate::stream::{Conn, Cut};
use crate::volatile_cache::Change;

/// Longest body of a PATCH that is looked at, in bytes.
const PATCH_MAX: usize = 64 << 10;

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
    let mut fate = shared.script.fate(call.op, conn.id, call.offset);
    let record = shared.recorder.begin(&Started {
        connection: conn.id,
        method: head.method.as_str(),
        op: call.op,
        offset: call.offset,
        size: call.size,
        flush: call.flush,
        fault: fate.what.as_ref().map(What::name),
    });
    let in_block = std::mem::take(&mut fate.in_block);
    let mut exchange = Exchange { shared, conn, head: &head, body, unread: unread && !read, in_block };
    let mut answer = match shared.find_new_way(conn) {
        Some(status) => exchange.refuse(lost_way(status), false).await,
        None => exchange.carry_out(call, &mut fate).await,
    };
    fate.holds.pass().await;
    if !conn.has_power() {
        return never_answer(conn, Cut::Power).await;
    }
    if let Some(status) = shared.find_new_way(conn) {
        // It was lost meanwhile.
        answer = lost_way(status).into();
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
    if let Some(closing) = shared.config.closing
        && conn.answers.fetch_add(1, Ordering::SeqCst) + 1 >= closing.answers
    {
        match closing.announced {
            true => answer.close = true,
            false => conn.close_when_idle.store(true, Ordering::SeqCst),
        }
    }
    answer.send(conn, record)
}

fn lost_way(status: u16) -> Refusal {
    Refusal::new(status, "the way to the host was lost")
}

/// Ends the connection, and with it whatever waits for this.
async fn never_answer<T>(conn: &Conn, how: Cut) -> T {
    conn.cut(how);
    std::future::pending().await
}

/// Reads the call from the head, and for a PATCH from the body; and tells whether the body has been
/// read.
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
    /// The delays and gates between reading a block and writing it back.
    pub(crate) in_block: Holds,
}

impl Exchange<'_> {
    async fn carry_out(&mut self, call: Call, fate: &mut Fate) -> Answer {
        let result = match fate.what.take() {
            Some(What::Answer { status, text, done, close }) => {
                return self.answer_by(call, Refusal::new(status, text), done, close).await;
            }
            Some(What::LoseWay { status, all, done }) => {
                // The answer tells of it when it is known that the way is lost.
                if let Err(error) = self.shared.lose_way(status, |conn| all || conn.id == self.conn.id) {
                    return Refusal::from(error).into();
                }
                if !matches!(done, Done::Not) {
                    self.shared.find_new_way(self.conn);
                }
                return self.answer_by(call, lost_way(status), done, false).await;
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

    /// Takes in all of the request, does so much of it, and answers this whatever came of it.
    async fn answer_by(&mut self, call: Call, refusal: Refusal, done: Done, close: bool) -> Answer {
        match done {
            Done::Not => {}
            Done::Yes if call.refusal.is_none() => drop(ops::run(self, &call).await),
            Done::Part(len) => self.carry_out_part(&call, len).await,
            Done::Late(gate) if is_change(call.op) => self.carry_out_late(call, gate).await,
            Done::Yes | Done::Late(_) => {}
        }
        self.refuse(refusal, close).await
    }

    /// Reads what is left of the request, and answers this.
    async fn refuse(&mut self, refusal: Refusal, close: bool) -> Answer {
        self.drain().await;
        let mut answer = Answer::from(refusal);
        answer.close = close;
        answer
    }

    async fn carry_out_part(&mut self, call: &Call, len: u64) {
        // Whatever comes of it: the answer is known.
        if call.refusal.is_none() && call.op == Op::Put {
            let _ = self.receive(call, Receive { store: true, limit: len }).await;
        } else if call.refusal.is_none() && call.op == Op::Zero {
            let _ = self.change(call.offset, Change::Zeroes(len.min(call.size))).await;
        }
    }

    /// Changes the disk.
    pub(crate) async fn change(&self, offset: u64, change: Change) -> Result<(), Refusal> {
        Ok(self.shared.change(self.conn, offset, change, &self.in_block).await?)
    }

    /// Stores the first bytes of a body, then ends the connection without an answer.
    async fn cut_off(&mut self, call: &Call, fate: &Fate, after: u64, how: Cut) -> Answer {
        if call.op == Op::Put {
            self.carry_out_part(call, after).await;
        }
        fate.holds.pass().await;
        never_answer(self.conn, how).await
    }

    /// Takes in all of the request, and carries it out when the gate opens.
    async fn carry_out_late(&mut self, call: Call, gate: Gate) {
        let change = if call.op == Op::Put {
            self.collect().await.map(Change::Data)
        } else {
            Some(Change::Zeroes(call.size))
        };
        let change = change.filter(|change| change.len() == call.size && call.refusal.is_none());
        // Nobody is left to be told, also not that the way to the disk is gone.
        let Some(Ok(late)) = change.map(|change| self.shared.prepare(self.conn, call.offset, &change)) else {
            return;
        };
        let shared = Arc::clone(self.shared);
        tokio::spawn(async move {
            gate.pass().await;
            let _ = shared.carry_out(late, call.flush);
        });
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
