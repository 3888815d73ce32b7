// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that are letters.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use conn_pool::{Place, PoolRequest, Shape};
use crossbeam::channel::Sender;

use super::{Error, Outcome, World};

/// Counts how many are alive, as those who wait may have lent memory by them.
pub struct Letter {
    pub(super) text: String,
    pub(super) told: Sender<(String, Outcome)>,
    pub(super) world: Arc<World>,
}

impl PoolRequest for Letter {
    type Error = Error;
    type Shape = Kind;

    fn shape(&self) -> Kind {
        match self.text.chars().next() {
            Some('a'..='z' | '!' | '?' | '%' | '#') => Kind::Small,
            Some('A'..='Z') => Kind::Capital,
            _ => Kind::Alone,
        }
    }

    fn complete(done: Vec<(Self, Outcome)>) {
        for (letter, outcome) in &done {
            letter.told.send((letter.text.clone(), outcome.clone())).unwrap();
            assert!(letter.text != "~", "this panic is part of the test");
        }
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        self.world.alive.fetch_sub(1, SeqCst);
    }
}

/// Small letters go with each other, as do capitals, and `!`, `?`, `%` and `#` with small letters.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Small,
    Capital,
    Alone,
}

impl Shape for Kind {
    fn join(self, other: Self) -> Option<(Self, Place)> {
        (self == other && self != Self::Alone).then_some((self, Place::Behind))
    }
}
