// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults: what goes wrong with a request, and when.

use std::sync::{Mutex, PoisonError};

use fake_imageio::Gate;

/// The way in which a request goes wrong.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum What {
    /// It isn't carried out, and answered by this status and a fault with these words.
    Status {
        /// The status.
        status: u16,
        /// The fault's reason.
        reason: String,
        /// The fault's detail.
        detail: String,
    },
    /// It isn't carried out, and the connection is closed.
    Close,
    /// It is carried out, and the connection is closed in place of an answer.
    LoseReply,
    /// It is carried out when the gate opens, and nothing is said until then.
    Hold(Gate),
    /// It is carried out, and answered when the gate opens.
    HoldReply(Gate),
    /// From then on, the engine accepts connections and answers nothing, until it is
    /// [started again](crate::FakeEngine::restart).
    Silence {
        /// The request is carried out before.
        done: bool,
    },
    /// The engine is started again: all connections are closed, all sessions end, and what it knows
    /// is kept.
    Restart {
        /// The request is carried out before.
        done: bool,
    },
}

/// One fault: by default it happens once, at the first request that matches.
///
/// ```
/// use fake_engine::{Fault, What};
/// let lost = Fault::on("POST", "api/imagetransfers").then(What::LoseReply);
/// let late = Fault::on("POST", "api/imagetransfers/*/finalize").nth(2).then(What::Close);
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    when: When,
    what: What,
}

/// Which requests a fault is for. Finish it with [`When::then`].
#[derive(Debug, Clone)]
pub struct When {
    method: String,
    path: String,
    skip: u64,
    every: bool,
}

impl Fault {
    /// A fault for requests with this method and path, which is what comes after `/ovirt-engine/`.
    /// In it, `*` is any one part between slashes.
    #[must_use]
    pub fn on(method: &str, path: &str) -> When {
        When { method: method.to_owned(), path: path.to_owned(), skip: 0, every: false }
    }
}

impl When {
    /// The n-th matching request since the fault was set, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// Not only once, but every time from the first (or [`nth`](Self::nth)) on.
    #[must_use]
    pub fn every(mut self) -> Self {
        self.every = true;
        self
    }

    /// Returns the fault that happens then.
    #[must_use]
    pub fn then(self, what: What) -> Fault {
        Fault { when: self, what }
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        let fits = |(pattern, part): (&str, &str)| pattern == "*" || pattern == part;
        self.method == method
            && self.path.split('/').count() == path.split('/').count()
            && self.path.split('/').zip(path.split('/')).all(fits)
    }
}

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub(crate) struct Script(Mutex<Vec<Fault>>);

impl Script {
    pub(crate) fn add(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Counts a request, and tells what happens to it. Of several faults the oldest wins, and the
    /// others wait for the next match.
    pub(crate) fn fate(&self, method: &str, path: &str) -> Option<What> {
        let mut fate = None;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|fault| {
            if !fault.when.matches(method, path) {
                return true;
            }
            if fault.when.skip > 0 {
                fault.when.skip -= 1;
                return true;
            }
            if fate.is_some() {
                return true;
            }
            fate = Some(fault.what.clone());
            fault.when.every
        });
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_match_is_counted_among_matches_only() {
        let script = Script::default();
        script.add(Fault::on("POST", "api/imagetransfers/*/finalize").nth(2).then(What::Close));
        let hit = |method, path| script.fate(method, path).is_some();
        assert!(!hit("POST", "api/imagetransfers/1/finalize"));
        assert!(!hit("GET", "api/imagetransfers/1/finalize"));
        assert!(!hit("POST", "api/imagetransfers/1"));
        assert!(hit("POST", "api/imagetransfers/2/finalize"));
        assert!(!hit("POST", "api/imagetransfers/2/finalize"));
    }

    #[test]
    fn two_faults_take_turns_and_every_stays() {
        let script = Script::default();
        script.add(Fault::on("GET", "api/disks").then(What::LoseReply));
        script.add(Fault::on("GET", "api/disks").every().then(What::Close));
        let fates: Vec<_> = (0..3).map(|_| script.fate("GET", "api/disks")).collect();
        assert!(
            matches!(fates[..], [Some(What::LoseReply), Some(What::Close), Some(What::Close)]),
            "{fates:?}"
        );
        script.clear();
        assert!(script.fate("GET", "api/disks").is_none());
    }
}
