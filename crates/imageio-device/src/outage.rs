// SPDX-License-Identifier: MIT OR Apache-2.0
//! When connections were lost, and waiting for the server to come back.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What all connections know of the server's outages.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// When a connection was lost, whichever it was, or could not be opened.
    last_loss: Option<Instant>,
    /// No request will succeed any more.
    is_over: bool,
}

impl Outage {
    /// A connection was lost, or could not be opened.
    pub(crate) fn connection_lost(&self, now: Instant) {
        self.lock().last_loss = Some(now);
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
