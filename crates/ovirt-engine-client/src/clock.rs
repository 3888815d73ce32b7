// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time, as far as waits are concerned.

use std::fmt::Debug;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A source of time for waits.
pub trait Clock: Debug + Send + Sync {
    /// Now.
    fn now(&self) -> Instant;

    /// Lets so much time pass. False if whoever waits is to give up: once each time that somebody
    /// says so, as what was begun has to be brought to an end, which takes waits, too.
    fn pause(&self, time: Duration) -> bool;
}

/// The system's clock. Its clones are one: that is how a signal ends a wait of another thread.
#[derive(Debug, Clone, Default)]
pub struct SystemClock {
    is_stopped: Arc<(Mutex<bool>, Condvar)>,
}

impl SystemClock {
    /// Ends the wait that is under way, or else the next one.
    pub fn stop(&self) {
        *self.is_stopped.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.is_stopped.1.notify_all();
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn pause(&self, time: Duration) -> bool {
        let (is_stopped, changed) = &*self.is_stopped;
        let guard = is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, time, |is_stopped| !*is_stopped);
        !mem::take(&mut *waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_ends_one_wait() {
        let clock = SystemClock::default();
        let other = clock.clone();
        let wait = move || other.pause(Duration::from_secs(3600));
        let waiting = std::thread::Builder::new().name("waiting".into()).spawn(wait).unwrap();
        clock.stop();
        assert!(!waiting.join().unwrap());
        assert!(clock.pause(Duration::ZERO));
        clock.stop();
        assert!(!clock.pause(Duration::from_secs(3600)));
    }
}
