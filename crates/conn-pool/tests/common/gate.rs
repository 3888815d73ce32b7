// SPDX-License-Identifier: MIT OR Apache-2.0
//! A gate that holds up the tasks of a test.

use crossbeam::channel::{Receiver, Sender};

use super::PATIENCE;

/// Holds up what stands at it. It is open once it is dropped.
pub struct Gate {
    pub(super) entered: Receiver<usize>,
    pub(super) go: Sender<()>,
}

impl Gate {
    /// Waits until a task stands at the gate; the number of its connection.
    #[track_caller]
    pub fn entered(&self) -> usize {
        self.entered.recv_timeout(PATIENCE).expect("nothing comes to the gate")
    }

    /// Lets one task go on.
    pub fn pass(&self) {
        self.go.send(()).unwrap();
    }
}
