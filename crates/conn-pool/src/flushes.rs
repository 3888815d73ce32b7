// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns to flush: one flush runs at a time, and all that wait share the next.
//!
//! This is data only. `T` is a thread that waits for its flush, and can lead one; `S` is a flush
//! that was submitted, and that somebody has to lead for it.

/// The flush that runs, and those that wait.
pub(crate) struct Flushes<T, S> {
    is_running: bool,
    waiting: Followers<T, S>,
}

/// The threads and submitted requests that share a flush.
pub(crate) struct Followers<T, S> {
    pub(crate) threads: Vec<T>,
    pub(crate) submitted: Vec<S>,
}

/// The leader of the next flush.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leader<T> {
    /// This thread, for itself and all that wait.
    Thread(T),
    /// A worker, for all that wait.
    Worker,
}

impl<T, S> Flushes<T, S> {
    pub(crate) fn new() -> Self {
        Self { is_running: false, waiting: Followers::none() }
    }

    /// Returns true if a flush runs, or is about to.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running
    }

    /// Returns the number of those that wait for the next flush.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.threads.len() + self.waiting.submitted.len()
    }

    /// True if none runs: then whoever asks has to lead one.
    pub(crate) fn lead(&mut self) -> bool {
        !std::mem::replace(&mut self.is_running, true)
    }

    /// A thread waits for the next flush.
    pub(crate) fn wait(&mut self, thread: T) {
        self.waiting.threads.push(thread);
    }

    /// Adds a submitted flush to those that wait for the next.
    pub(crate) fn submit(&mut self, submitted: S) {
        self.waiting.submitted.push(submitted);
    }

    /// A flush begins. Whoever waits by now shares it.
    pub(crate) fn take_waiting(&mut self) -> Followers<T, S> {
        std::mem::replace(&mut self.waiting, Followers::none())
    }

    /// A flush has ended. Who leads the next, if anyone waits for it.
    pub(crate) fn pass_on(&mut self) -> Option<Leader<T>> {
        // A thread that waits anyway, rather than another.
        let leader = self.waiting.threads.pop().map(Leader::Thread);
        let leader = leader.or_else(|| (!self.waiting.submitted.is_empty()).then_some(Leader::Worker));
        self.is_running = leader.is_some();
        leader
    }
}

impl<T, S> Followers<T, S> {
    fn none() -> Self {
        Self { threads: Vec::new(), submitted: Vec::new() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_leads_and_those_that_come_meanwhile_share_the_next() {
        let mut flushes = Flushes::<&str, &str>::new();
        assert!(flushes.lead());
        assert!(!flushes.lead() && flushes.is_running());
        flushes.wait("one");
        flushes.submit("two");
        flushes.wait("three");
        assert_eq!((flushes.waiting(), flushes.pass_on()), (3, Some(Leader::Thread("three"))));
        assert!(!flushes.lead(), "the next is about to begin");
        flushes.submit("four");
        let Followers { threads, submitted } = flushes.take_waiting();
        assert_eq!((threads, submitted, flushes.waiting()), (vec!["one"], vec!["two", "four"], 0));
        assert_eq!((flushes.pass_on(), flushes.is_running()), (None, false));
        assert!(flushes.lead());
    }

    #[test]
    fn a_worker_leads_where_no_thread_waits() {
        let mut flushes = Flushes::<&str, &str>::new();
        flushes.submit("one");
        assert!(flushes.lead());
        assert_eq!(flushes.take_waiting().submitted, ["one"]);
        flushes.submit("two");
        assert_eq!((flushes.pass_on(), flushes.is_running()), (Some(Leader::Worker), true));
    }
}
