// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines in the log that would be too many.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Something that is worth a line in the log, but not one each time that it happens.
#[derive(Debug, Default)]
pub(crate) struct Notice(Mutex<Option<Instant>>);

impl Notice {
    /// The least time between two lines.
    const PAUSE: Duration = Duration::from_secs(60);

    /// Returns true if it is to be logged, and notes that it was logged `now`.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= Self::PAUSE);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_logged_once_a_minute() {
        let (notice, start) = (Notice::default(), Instant::now());
        let logged = (0..180).filter(|second| notice.is_due(start + Duration::from_secs(*second)));
        assert_eq!(logged.collect::<Vec<_>>(), [0, 60, 120]);
    }
}
