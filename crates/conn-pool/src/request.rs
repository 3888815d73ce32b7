// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests, and carrying out several as one.

use crate::pool::Guard;
use crate::state::Hand;
use crate::{Connection, Pool, PoolError};

use oneshot::Sender;

/// Work for a connection, that may be carried out together with other work that waits.
pub trait Request: Send + Sized {
    /// The outcome, which all that were merged share.
    type Answer: Clone + Send;

    /// Takes in `other`, if both can be carried out as one; else gives it back. This happens under the pool's lock.
    ///
    /// # Errors
    /// `other` itself.
    fn merge(&mut self, other: Self) -> Result<(), Self>;
}

/// No work: for pools whose connections are only taken.
impl Request for () {
    type Answer = ();

    fn merge(&mut self, other: Self) -> Result<(), Self> {
        Err(other)
    }
}

pub(crate) type Answer<C> = <<C as Connection>::Request as Request>::Answer;

/// Those whose requests were merged into another.
pub(crate) struct Followers<C: Connection>(Vec<Sender<Hand<C>>>);

impl<C: Connection> Default for Followers<C> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<C: Connection> Followers<C> {
    pub(crate) fn add(&mut self, follower: Sender<Hand<C>>) {
        self.0.push(follower);
    }

    fn tell(self, answer: &Answer<C>) {
        for follower in self.0 {
            // It is only gone where its thread is.
            let _ = follower.send(Hand::Answer(answer.clone()));
        }
    }
}

impl<C: Connection> Pool<C> {
    /// Carries out a request by `work` as soon as it is this one's turn, together with those that wait and go with it;
    /// or it is carried out by another in that way, and `work` isn't called. `work` drops the request before it returns.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn run(
        &self,
        request: C::Request,
        work: impl FnOnce(&mut C, C::Request) -> Answer<C>,
    ) -> Result<Answer<C>, PoolError<C::Error>> {
        let (mut guard, request, followers) = match self.line_up(request)? {
            Hand::Answer(answer) => return Ok(answer),
            Hand::Connection { slot, connection, request, followers } => {
                (self.guard((slot, connection)), request, followers)
            }
        };
        let request = request.expect("who waits with a request gets it back with the connection");
        let answer = work(&mut guard, request);
        // First, so that a flush which anyone asks for after the answer finds the connection dirty.
        drop::<Guard<'_, C>>(guard);
        followers.tell(&answer);
        Ok(answer)
    }
}
