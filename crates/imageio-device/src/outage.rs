// SPDX-License-Identifier: MIT OR Apache-2.0
//! The times at which connections were lost, and waiting for the server to come back.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use block_device_traits::Error;

/// The server's outages, as all connections together see them.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    state: Mutex<State>,
    ended: Condvar,
    /// `down_since` is set: a hint, so that answers need no lock.
    is_down: AtomicBool,
    /// Held while the ticket is brought back. It comes before the lock of `state`.
    ticket: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The last time at which a connection was lost, whichever it was, or could not be opened.
    last_loss: Option<Instant>,
    /// The time since when requests have failed and none was answered.
    down_since: Option<Instant>,
    /// The time at which the last request was given up during the outage, and the reason.
    given_up: Option<(Instant, Error)>,
    /// The ticket was brought back, and no request was answered since.
    is_ticket_unproven: bool,
    /// No request will succeed any more, and why.
    over: Option<Error>,
}

impl Outage {
    /// A connection was lost, or could not be opened.
    pub(crate) fn connection_lost(&self, now: Instant) {
        self.lock().last_loss = Some(now);
    }

    /// A request has failed, since the server can't be reached or doesn't answer. Returns for how
    /// long it has answered nobody.
    pub(crate) fn failed(&self, now: Instant) -> Duration {
        let mut state = self.lock();
        state.last_loss = Some(now);
        self.is_down.store(true, Relaxed);
        now.saturating_duration_since(*state.down_since.get_or_insert(now))
    }

    /// The server has answered a request as it should.
    pub(crate) fn answered(&self) {
        if self.is_down.load(Relaxed) {
            let mut state = self.lock();
            (state.down_since, state.given_up) = (None, None);
            state.is_ticket_unproven = false;
            self.is_down.store(false, Relaxed);
        }
    }

    /// Has the ticket brought back, unless it was, and that was of no use: no request was answered
    /// since. Of several connections that were refused, one does it at a time: when the next one
    /// learns from whoever gave the ticket that it isn't away any more, the loss is known, after
    /// which requests are sent again.
    pub(crate) fn bring_ticket_back(&self, bring_back: impl FnOnce() -> bool) -> bool {
        let _one = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock().is_ticket_unproven {
            return false;
        }
        let is_back = bring_back();
        if is_back {
            self.ticket_is_back(Instant::now());
        }
        is_back
    }

    fn ticket_is_back(&self, now: Instant) {
        let mut state = self.lock();
        (state.last_loss, state.is_ticket_unproven) = (Some(now), true);
        // An answer is to be told.
        self.is_down.store(true, Relaxed);
    }

    /// A request was given up after such a failure.
    pub(crate) fn gave_up(&self, error: &Error, now: Instant) {
        self.lock().given_up = Some((now, error.clone()));
    }

    /// Returns the reason why another request was given up after `time`, if none was answered
    /// since.
    pub(crate) fn given_up_since(&self, time: Instant) -> Option<Error> {
        let state = self.is_down.load(Relaxed).then(|| self.lock())?;
        let (when, error) = state.given_up.as_ref()?;
        (time < *when).then(|| error.clone())
    }

    /// Returns true if a connection was lost less than `time` ago.
    pub(crate) fn was_within(&self, time: Duration, now: Instant) -> bool {
        self.lock().last_loss.is_some_and(|loss| now.saturating_duration_since(loss) < time)
    }

    /// No request will succeed any more, so nobody needs to wait longer. Returns the first reason
    /// that was given: whoever is woken by the first failure fails as well, and must not tell its
    /// own failure in the place of the cause.
    pub(crate) fn end(&self, error: Error) -> Error {
        let first = self.lock().over.get_or_insert(error).clone();
        self.ended.notify_all();
        first
    }

    /// Returns why no request will succeed any more, if none will.
    pub(crate) fn cause(&self) -> Option<Error> {
        self.lock().over.clone()
    }

    /// Waits for so long, or until [`end`](Self::end). Whether waiting still makes sense.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let state = self.lock();
        let goes_on = |state: &mut State| state.over.is_none();
        let waited = self.ended.wait_timeout_while(state, time, goes_on);
        waited.unwrap_or_else(PoisonError::into_inner).0.over.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    #[test]
    fn a_loss_is_recent_for_a_while() {
        let (outage, now) = (Outage::default(), Instant::now());
        assert!(!outage.was_within(TIME, now));
        outage.connection_lost(now);
        assert!(outage.was_within(TIME, now) && outage.was_within(TIME, now + TIME / 2));
        assert!(!outage.was_within(TIME, now + TIME));
    }

    #[test]
    fn the_server_is_down_from_the_first_failure_to_the_next_answer() {
        let (outage, start) = (Outage::default(), Instant::now());
        outage.answered();
        assert_eq!(outage.failed(start), Duration::ZERO);
        assert_eq!(outage.failed(start + TIME), TIME);
        outage.answered();
        assert_eq!(outage.failed(start + 2 * TIME), Duration::ZERO);
    }

    #[test]
    fn a_ticket_is_not_brought_back_again_without_an_answer() {
        let outage = Outage::default();
        assert!(!outage.bring_ticket_back(|| false) && !outage.was_within(TIME, Instant::now()));
        assert!(outage.bring_ticket_back(|| true) && outage.was_within(TIME, Instant::now()));
        assert!(!outage.bring_ticket_back(|| panic!("it was of no use")));
        outage.answered();
        assert!(outage.bring_ticket_back(|| true));
    }

    #[test]
    fn who_learns_that_the_ticket_is_there_knows_of_the_loss() {
        let outage = &Outage::default();
        let (begin, begun) = std::sync::mpsc::channel();
        let first = move || {
            begin.send(()).unwrap();
            true
        };
        std::thread::scope(|scope| {
            let bring = std::thread::Builder::new().name("first".into());
            bring.spawn_scoped(scope, move || assert!(outage.bring_ticket_back(first))).unwrap();
            begun.recv().unwrap();
            assert!(!outage.bring_ticket_back(|| panic!("the first one has done it")));
            assert!(outage.was_within(TIME, Instant::now()), "whichever thread runs next");
        });
    }

    #[test]
    fn what_came_before_a_request_was_given_up_is_given_up_too() {
        let (outage, now) = (Outage::default(), Instant::now());
        let error = Error::new(block_device_traits::Errno::Io, "gone");
        outage.failed(now);
        assert_eq!(outage.given_up_since(now), None);
        outage.gave_up(&error, now + TIME);
        assert_eq!(outage.given_up_since(now), Some(error));
        assert_eq!(outage.given_up_since(now + TIME), None, "it may be better by now");
        outage.answered();
        assert_eq!(outage.given_up_since(now), None);
    }

    #[test]
    fn nobody_waits_when_all_is_over_and_all_are_told_the_first_reason() {
        let error = |text| Error::new(block_device_traits::Errno::Io, text);
        let outage = Outage::default();
        assert!(outage.wait(Duration::ZERO));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| outage.wait(Duration::from_secs(1000)));
            assert_eq!(outage.cause(), None);
            assert_eq!(outage.end(error("the cause")), error("the cause"));
            assert!(!waiting.join().unwrap());
            assert_eq!(outage.end(error("a consequence")), error("the cause"));
            assert_eq!(outage.cause(), Some(error("the cause")));
        });
        assert!(!outage.wait(TIME));
    }
}
