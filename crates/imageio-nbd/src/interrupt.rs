// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals while an engine is waited for, before there is a thread that could take them.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use engine_transfer::Clock;
use signal_hook::SigId;
use signal_hook::low_level::{pipe, unregister};

use crate::process;

/// While this lives, a signal that would end the process ends the wait of its clock instead, so
/// that what was begun in the engine is taken back.
#[derive(Debug)]
pub(crate) struct Interrupts {
    clock: Arc<InterruptibleClock>,
    registered: Vec<SigId>,
}

impl Interrupts {
    pub(crate) fn new() -> Result<Self> {
        let (told, tell) = UnixStream::pair()?;
        let clock = Arc::new(InterruptibleClock::new(told, tell.try_clone()?));
        let mut interrupts = Self { clock, registered: Vec::new() };
        for signal in process::stop_signals() {
            interrupts.registered.push(pipe::register(signal, tell.try_clone()?)?);
        }
        Ok(interrupts)
    }

    /// Forgets the signals that came until now.
    pub(crate) fn forget(&self) {
        while self.clock.has_come(Duration::ZERO) {}
    }

    /// The clock, which may be used for longer than there are interrupts.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            unregister(id);
        }
        // The clock may be used for longer, and nobody meant that.
        self.forget();
    }
}

/// A clock whose waits end when something comes through a socket.
#[derive(Debug)]
struct InterruptibleClock {
    told: UnixStream,
    /// Without it, a read would end at once when there are no interrupts any more.
    _tell: UnixStream,
    /// When a wait was ended.
    last: Mutex<Option<Instant>>,
}

/// A signal that comes sooner after another belongs to it: the end of a session sends several.
const AGAIN: Duration = Duration::from_secs(1);

impl InterruptibleClock {
    fn new(told: UnixStream, tell: UnixStream) -> Self {
        Self { told, _tell: tell, last: Mutex::new(None) }
    }

    /// Waits for a signal, at most for so long. Where that isn't possible, nothing is waited for.
    fn has_come(&self, time: Duration) -> bool {
        // No time is no limit there.
        let waited = self.told.set_read_timeout(Some(time.max(Duration::from_millis(1))));
        waited.and_then(|()| (&self.told).read(&mut [0])).is_ok_and(|read| read > 0)
    }

    /// Does what [`has_come`](Self::has_come) does, for a signal that doesn't belong to another.
    fn is_interrupted(&self, time: Duration) -> bool {
        if !self.has_come(time) {
            return false;
        }
        let now = Instant::now();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        last.is_none_or(|last| now.duration_since(last) >= AGAIN)
    }
}

impl Clock for InterruptibleClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // A signal that isn't one of these ends a read, too.
            match (self.is_interrupted(left), left.is_zero()) {
                (true, _) => return false,
                (false, true) => return true,
                (false, false) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_interrupt_ends_one_wait() {
        let (told, mut tell) = UnixStream::pair().unwrap();
        let clock = InterruptibleClock::new(told, tell.try_clone().unwrap());
        assert!(clock.pause(Duration::ZERO));
        tell.write_all(b"XX").unwrap();
        assert!(!clock.pause(Duration::from_secs(3600)));
        assert!(clock.pause(Duration::from_millis(1)), "the second belongs to the first");
    }
}
