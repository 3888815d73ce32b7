// SPDX-License-Identifier: MIT OR Apache-2.0
//! When connections were lost, and waiting for the server to come back.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use block_device::Error;

/// What all connections know of the server's outages.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    state: Mutex<State>,
    ended: Condvar,
    /// `down_since` is set: a hint, so that answers need no lock.
    is_down: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// When a connection was lost, whichever it was, or could not be opened.
    last_loss: Option<Instant>,
    /// Since when requests have failed and none was answered.
    down_since: Option<Instant>,
    /// When the last request was given up in that time, and why.
    given_up: Option<(Instant, Error)>,
    /// The ticket was brought back, and no request was answered since.
    is_ticket_unproven: bool,
    /// No request will succeed any more.
    is_over: bool,
}

impl Outage {
    /// A connection was lost, or could not be opened.
    pub(crate) fn connection_lost(&self, now: Instant) {
        self.lock().last_loss = Some(now);
    }

    /// A request has failed, since the server can't be reached or doesn't answer. Returns for how long it has answered
    /// nobody.
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

    /// The ticket is about to be brought back. False if it was, and that was of no use: no request was answered since.
    pub(crate) fn may_bring_ticket_back(&self) -> bool {
        !self.lock().is_ticket_unproven
    }

    /// The ticket was brought back: a loss, after which requests are sent again.
    pub(crate) fn ticket_is_back(&self, now: Instant) {
        let mut state = self.lock();
        (state.last_loss, state.is_ticket_unproven) = (Some(now), true);
        // An answer is to be told.
        self.is_down.store(true, Relaxed);
    }

    /// A request was given up after such a failure.
    pub(crate) fn gave_up(&self, error: &Error, now: Instant) {
        self.lock().given_up = Some((now, error.clone()));
    }

    /// Why another request was given up after `time`, if none was answered since.
    pub(crate) fn given_up_since(&self, time: Instant) -> Option<Error> {
        let state = self.is_down.load(Relaxed).then(|| self.lock())?;
        let (when, error) = state.given_up.as_ref()?;
        (time < *when).then(|| error.clone())
    }

    /// Whether a connection was lost less than `time` ago.
    pub(crate) fn was_within(&self, time: Duration, now: Instant) -> bool {
        self.lock().last_loss.is_some_and(|loss| now.saturating_duration_since(loss) < time)
    }

    /// No request will succeed any more, so nobody needs to wait longer.
    pub(crate) fn end(&self) {
        self.lock().is_over = true;
        self.ended.notify_all();
    }

    /// Waits for so long, or until [`end`](Self::end). Whether waiting still makes sense.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let state = self.lock();
        let goes_on = |state: &mut State| !state.is_over;
        let waited = self.ended.wait_timeout_while(state, time, goes_on);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_over
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
        let (outage, now) = (Outage::default(), Instant::now());
        assert!(outage.may_bring_ticket_back());
        outage.ticket_is_back(now);
        assert!(outage.was_within(TIME, now) && !outage.may_bring_ticket_back());
        outage.answered();
        assert!(outage.may_bring_ticket_back());
    }

    #[test]
    fn what_came_before_a_request_was_given_up_is_given_up_too() {
        let (outage, now) = (Outage::default(), Instant::now());
        let error = Error::new(block_device::Errno::Io, "gone");
        outage.failed(now);
        assert_eq!(outage.given_up_since(now), None);
        outage.gave_up(&error, now + TIME);
        assert_eq!(outage.given_up_since(now), Some(error));
        assert_eq!(outage.given_up_since(now + TIME), None, "it may be better by now");
        outage.answered();
        assert_eq!(outage.given_up_since(now), None);
    }

    #[test]
    fn nobody_waits_when_all_is_over() {
        let outage = Outage::default();
        assert!(outage.wait(Duration::ZERO));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| outage.wait(Duration::from_secs(1000)));
            outage.end();
            assert!(!waiting.join().unwrap());
        });
        assert!(!outage.wait(TIME));
    }
}
