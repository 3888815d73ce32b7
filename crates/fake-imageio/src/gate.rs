// SPDX-License-Identifier: MIT OR Apache-2.0
//! A gate, at which requests wait until a test lets them go on.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Holds requests back until the test opens it; once open, it stays open. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    // (open, requests that reached the gate)
    state: Mutex<(bool, usize)>,
    arrived: Condvar,
    opened: Notify,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all requests pass, those that wait and those to come.
    pub fn open(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
        self.0.opened.notify_waiters();
    }

    /// Waits until `n` requests have reached the gate; false if they have not within `timeout`.
    #[must_use]
    pub fn wait_reached(&self, n: usize, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.1 < n {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        // Created before the look at `open`: a notify_waiters() from here on is not missed.
        let opened = self.0.opened.notified();
        {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.1 += 1;
            self.0.arrived.notify_all();
            if state.0 {
                return;
            }
        }
        opened.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_gate_holds_nothing() {
        let gate = Gate::new();
        assert!(!gate.wait_reached(1, Duration::ZERO));
        gate.open();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(gate.pass());
        assert!(gate.wait_reached(1, Duration::ZERO));
    }
}
