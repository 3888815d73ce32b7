// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of the faults is for which request.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::fault::{Fault, Op, What};
use crate::gate::Gate;

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub(crate) struct Script(Mutex<Vec<Fault>>);

/// The faults for one request.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// Before the answer.
    pub(crate) holds: Holds,
    /// Between reading a block and writing it back.
    pub(crate) in_block: Holds,
    pub(crate) what: Option<What>,
}

/// Delays and gates.
#[derive(Debug, Default, Clone)]
pub(crate) struct Holds(Vec<Hold>);

#[derive(Debug, Clone)]
enum Hold {
    For(Duration),
    Until(Gate),
}

impl Holds {
    /// Waits for one after another.
    pub(crate) async fn pass(&self) {
        for hold in &self.0 {
            match hold {
                Hold::For(time) => tokio::time::sleep(*time).await,
                Hold::Until(gate) => gate.pass().await,
            }
        }
    }
}

impl Script {
    pub(crate) fn new(faults: Vec<Fault>) -> Self {
        Self(Mutex::new(faults))
    }

    pub(crate) fn add(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Counts a request, and tells what happens to it. Of faults that exclude each other the oldest
    /// wins, the others wait for the next match.
    pub(crate) fn fate(&self, op: Op, connection: u64, offset: u64) -> Fate {
        let mut fate = Fate::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|fault| {
            if !fault.when.matches(op, connection, offset) {
                return true;
            }
            if fault.when.skip > 0 {
                fault.when.skip -= 1;
                return true;
            }
            match &fault.what {
                What::Delay(time) => fate.holds.0.push(Hold::For(*time)),
                What::Block(gate) => fate.holds.0.push(Hold::Until(gate.clone())),
                What::DelayBlock(time) => fate.in_block.0.push(Hold::For(*time)),
                What::HoldBlock(gate) => fate.in_block.0.push(Hold::Until(gate.clone())),
                _ if fate.what.is_some() => return true,
                what => fate.what = Some(what.clone().unfold()),
            }
            fault.when.every
        });
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::gate::Gate;

    #[test]
    fn the_nth_match_is_counted_among_matches_only() {
        let script = Script::new(vec![Fault::on(Op::Put).connection(2).nth(2).then(What::NoAnswer)]);
        let hit = |op, connection| script.fate(op, connection, 0).what.is_some();
        let hits = [hit(Op::Put, 1), hit(Op::Put, 2), hit(Op::Get, 2), hit(Op::Put, 2), hit(Op::Put, 2)];
        assert_eq!(hits, [false, false, false, true, false]);
    }

    #[test]
    fn every_happens_again_and_any_is_not_for_accepting() {
        let script = Script::new(vec![Fault::any().offset(4).every().then(What::CloseAfterAnswer)]);
        assert!(script.fate(Op::Zero, 1, 4).what.is_some());
        assert!(script.fate(Op::Get, 1, 4).what.is_some());
        assert!(script.fate(Op::Get, 1, 0).what.is_none());
        assert!(script.fate(Op::Accept, 1, 4).what.is_none());
    }

    #[test]
    fn a_gate_and_a_fault_combine_but_two_faults_take_turns() {
        let gate = Gate::new();
        let script = Script::new(vec![
            Fault::any().then(What::Block(gate)),
            Fault::any().then(What::NoAnswer),
            Fault::any().then(What::CloseAfterAnswer),
        ]);
        let first = script.fate(Op::Get, 1, 0);
        assert_eq!(first.holds.0.len(), 1);
        assert!(matches!(first.what, Some(What::NoAnswer)));
        assert!(matches!(script.fate(Op::Get, 1, 0).what, Some(What::CloseAfterAnswer)));
    }
}
