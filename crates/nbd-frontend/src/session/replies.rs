// SPDX-License-Identifier: MIT OR Apache-2.0
//! The write side of a session.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use block_device_traits::BatchEnd;
use nbd_wire::{ErrorValue, RequestHeader};
use rustix::net::SendFlags;
use socket2::Socket;

use super::reply::Reply;
use crate::Config;
use crate::changes::Changes;
use crate::lock;
use crate::registry::Control;
use crate::stats::ExportCounters;
use crate::transport::Transport;

/// The number of replies that go out with one system call: with a payload each, half as many parts
/// as the system takes.
const BATCH: usize = 512;

/// Replies in line, and who sends them.
pub(crate) struct Replies {
    client: u64,
    // Weak, as a device may keep this for a moment longer than the session lives, but not the
    // socket.
    control: Weak<Control>,
    transport: Transport,
    counters: Arc<ExportCounters>,
    changes: Arc<Changes>,
    /// The number of requests that may be in flight.
    limit: usize,
    logs_failures: bool,
    state: Mutex<State>,
    /// For the thread that reads requests: one is no longer in flight.
    answered: Condvar,
    /// For the thread that sends the rest: it is its turn, or the end.
    blocked: Condvar,
}

#[derive(Default)]
struct State {
    line: VecDeque<Reply>,
    sending: Sending,
    /// Requests that were read and whose replies have not been sent.
    in_flight: usize,
    /// Of these, those whose replies are not in line yet.
    unanswered: usize,
    /// The reading thread waits. A notification is a system call, also where nobody listens.
    is_awaited: bool,
    /// The client is gone without a word, or can't be told any more.
    is_deserted: bool,
    has_ended: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Sending {
    #[default]
    Nobody,
    /// Somebody who looks for more afterwards.
    Somebody,
    /// The client doesn't take more at once: the thread that may block.
    Rest,
}

impl Replies {
    pub(super) fn new(
        control: &Arc<Control>,
        transport: &Transport,
        counters: &Arc<ExportCounters>,
        changes: &Arc<Changes>,
        config: &Config,
    ) -> Arc<Self> {
        Arc::new(Self {
            client: control.id,
            control: Arc::downgrade(control),
            transport: transport.clone(),
            counters: Arc::clone(counters),
            changes: Arc::clone(changes),
            limit: config.requests.max(1),
            logs_failures: config.logs_failures,
            state: Mutex::default(),
            answered: Condvar::new(),
            blocked: Condvar::new(),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.client
    }

    /// Tells that the device has failed to carry out a request.
    pub(super) fn tell_failure(&self, request: &RequestHeader, error: ErrorValue, reason: &str) {
        let (client, name, RequestHeader { offset, length, .. }) = (self.client, request.name(), request);
        // A refusal of a fast zero is an answer, not a failure.
        let is_failure = error != ErrorValue::NotSup;
        if is_failure {
            self.counters.failed(reason);
        }
        let is_error = is_failure && self.logs_failures;
        let level = if is_error { log::Level::Error } else { log::Level::Debug };
        log::log!(level, "client {client}: {name} of {length} bytes at {offset}: {error}: {reason}");
    }

    /// Waits until one more request may be in flight.
    pub(super) fn wait_for_room(&self) {
        drop(self.wait_until(|state| state.in_flight < self.limit));
    }

    fn wait_until(&self, is_so: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waits = |state: &mut State| {
            state.is_awaited = !is_so(state);
            state.is_awaited
        };
        self.answered.wait_while(lock(&self.state), waits).unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of requests that were read and not answered. Those whose replies are
    /// being sent don't count: the client may have read them by now.
    pub(super) fn unanswered(&self) -> usize {
        lock(&self.state).unanswered
    }

    /// Returns true if the client may still get replies, as far as is known.
    pub(super) fn is_wanted(&self) -> bool {
        !lock(&self.state).is_deserted
    }

    /// Nobody gets the replies any more.
    pub(super) fn desert(&self) {
        lock(&self.state).is_deserted = true;
    }

    /// A request is in flight from now on, and may change the disk if it `is_change`.
    pub(super) fn started(&self, is_change: bool) {
        if is_change {
            self.changes.begin();
        }
        let mut state = lock(&self.state);
        state.in_flight += 1;
        state.unanswered += 1;
    }

    /// A request that may have changed the disk does so no longer.
    pub(super) fn change_ended(&self) {
        self.changes.end();
    }

    /// Puts what answers one request in line, to be [sent](Self::send) with others. Only the last
    /// of the replies is [one](Reply::is_last).
    pub(super) fn push(
        &self,
        request: &RequestHeader,
        replies: impl IntoIterator<Item = Reply>,
        is_error: bool,
    ) {
        self.counters.answered(request, is_error);
        let mut state = lock(&self.state);
        state.line.extend(replies);
        state.unanswered -= 1;
    }

    /// Puts something in line that is followed by more for the same request: none of it is the
    /// [last](Reply::is_last).
    pub(super) fn add(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.state).line.extend(replies);
    }

    /// Sends what is in line, as far as the client takes it at once. Never blocks.
    pub(super) fn send(&self) {
        let mut state = lock(&self.state);
        while state.sending == Sending::Nobody && !state.line.is_empty() {
            state.sending = Sending::Somebody;
            state = self.send_line(state, SendFlags::DONTWAIT);
        }
    }

    /// Sends what others could not, until the session has ended.
    pub(super) fn send_rest(&self) {
        let mut state = lock(&self.state);
        loop {
            let idle = |state: &mut State| state.sending != Sending::Rest && !state.has_ended;
            state = self.blocked.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            if state.sending != Sending::Rest {
                return;
            }
            while !state.line.is_empty() {
                state = self.send_line(state, SendFlags::empty());
            }
            state.sending = Sending::Nobody;
        }
    }

    /// Sends the line as it is now. What the socket doesn't take goes back, and is for the thread
    /// that may block.
    fn send_line<'a>(&'a self, mut state: MutexGuard<'a, State>, flags: SendFlags) -> MutexGuard<'a, State> {
        let mut line = std::mem::take(&mut state.line);
        let before = answers(&line);
        drop(state);
        self.send_or_give_up(&mut line, flags);
        let mut state = lock(&self.state);
        self.answered(&mut state, before - answers(&line));
        if state.sending == Sending::Somebody {
            state.sending = if line.is_empty() { Sending::Nobody } else { Sending::Rest };
            if state.sending == Sending::Rest {
                self.blocked.notify_one();
            }
        }
        line.append(&mut state.line);
        state.line = line;
        state
    }

    /// The socket is let go of before the replies count as sent, after which the session may end.
    fn send_or_give_up(&self, line: &mut VecDeque<Reply>, flags: SendFlags) {
        let Some(control) = self.control.upgrade() else { return line.clear() };
        if let Err(e) = send_all(&self.transport, &control.socket, line, flags) {
            // A reply may have gone out in part, so no other may follow.
            log::debug!("client {}: cannot send a reply: {e}", self.client);
            control.cut_off();
            self.desert();
            line.clear();
        }
    }

    fn answered(&self, state: &mut State, n: usize) {
        state.in_flight -= n;
        if state.is_awaited {
            self.answered.notify_one();
        }
    }

    /// Waits for all that is in flight, and ends the thread that sends the rest, when the guard is
    /// dropped.
    pub(super) fn end_on_drop(&self) -> impl Drop {
        End(self)
    }
}

struct End<'a>(&'a Replies);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut state = self.0.wait_until(|state| state.in_flight == 0);
        state.has_ended = true;
        self.0.blocked.notify_one();
    }
}

impl BatchEnd for Replies {
    fn batch_ended(self: Arc<Self>) {
        self.send();
    }
}

/// Returns the number of requests that the replies in a line answer.
fn answers(line: &VecDeque<Reply>) -> usize {
    line.iter().filter(|reply| reply.is_last()).count()
}

/// Sends replies, and takes what was sent out of the line. What is left would block.
fn send_all(
    transport: &Transport,
    socket: &Socket,
    line: &mut VecDeque<Reply>,
    flags: SendFlags,
) -> io::Result<()> {
    while !line.is_empty() {
        let parts: Vec<_> = line.iter().take(BATCH).flat_map(Reply::parts).map(IoSlice::new).collect();
        match transport.send(socket, &parts, flags) {
            Ok(n) => advance(line, n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn advance(line: &mut VecDeque<Reply>, mut n: usize) {
    while let Some(first) = line.front_mut() {
        let left = first.left();
        if n < left {
            first.sent(n);
            return;
        }
        n -= left;
        line.pop_front();
    }
}
