// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests, and groups of requests that are carried out as one.

use std::collections::VecDeque;
use std::fmt;

use crate::error::{Affected, Failure, Outcome, PoolError};

/// Work for a connection. It may be carried out together with other requests that wait.
pub trait PoolRequest: Send + Sized {
    /// Why a request fails.
    type Error: Clone + Send;

    /// The shape decides which requests go together: for a disk, it is the kind of the request and
    /// its range.
    type Shape: Shape;

    /// The shape of this request, which must never change. It is asked before the request waits.
    fn shape(&self) -> Self::Shape;

    /// Tells all requests of one group how they ended, each with its own outcome. Every request
    /// comes here exactly once, also where the pool refuses it. This is called without any lock,
    /// but maybe by a thread that has a connection: so it should not block, and must not
    /// wait for a connection or a flush.
    ///
    /// Everything that the requests hold has to be dropped by the return: threads that wait for
    /// them go on then.
    fn complete(done: Vec<(Self, Outcome<Self::Error>)>);
}

/// A shape decides which requests go together.
pub trait Shape: Copy + Send {
    /// The shape of both together, and where `other` goes; none if they can't be carried out
    /// together. It is asked under the pool's lock.
    fn join(self, other: Self) -> Option<(Self, Place)>;
}

/// The end of a group that a request joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It becomes the first.
    Before,
    /// It becomes the last.
    Behind,
}

/// Requests that are carried out as one, in the order of their places. It has one request at least.
pub struct Group<R: PoolRequest> {
    shape: R::Shape,
    requests: VecDeque<R>,
}

impl<R: PoolRequest> fmt::Debug for Group<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("requests", &self.requests.len()).finish_non_exhaustive()
    }
}

#[allow(clippy::len_without_is_empty, reason = "a group is never empty")]
impl<R: PoolRequest> Group<R> {
    /// A group of one.
    pub fn new(request: R) -> Self {
        Self { shape: request.shape(), requests: VecDeque::from([request]) }
    }

    /// Takes in a request that goes with those that are here.
    ///
    /// # Errors
    /// The request doesn't go with them, and is given back.
    pub fn join(&mut self, request: R) -> Result<(), R> {
        match self.shape.join(request.shape()) {
            Some(joined) => {
                self.add(request, joined);
                Ok(())
            }
            None => Err(request),
        }
    }

    /// The shape of all together.
    pub fn shape(&self) -> R::Shape {
        self.shape
    }

    /// Returns the number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// The requests, in the order of their places.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &R> + ExactSizeIterator {
        self.requests.iter()
    }

    /// The requests, in the order of their places.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut R> + ExactSizeIterator {
        self.requests.iter_mut()
    }

    /// Takes in a request whose shape has been joined with that of the group.
    pub(crate) fn add(&mut self, request: R, (shape, place): (R::Shape, Place)) {
        self.shape = shape;
        match place {
            Place::Before => self.requests.push_front(request),
            Place::Behind => self.requests.push_back(request),
        }
    }

    /// Carries out each request by itself. A failure that concerns more than one of them ends that
    /// for those behind it, which would only meet it one after another.
    pub(crate) fn carry_out_singly(
        self,
        mut carry_out: impl FnMut(&mut Self) -> Result<(), Failure<R::Error>>,
    ) -> Ended<R> {
        let mut common = None;
        let mut done = Vec::with_capacity(self.len());
        for mut one in self.requests.into_iter().map(Self::new) {
            let outcome = common.clone().map_or_else(|| carry_out(&mut one), Err);
            if let Err(failure) = &outcome
                && failure.affected != Affected::One
            {
                common = Some(failure.clone());
            }
            done.extend(one.ended(&outcome.map_err(PoolError::from)));
        }
        done
    }

    /// The requests, each with the outcome of all.
    pub(crate) fn ended(self, outcome: &Outcome<R::Error>) -> Ended<R> {
        self.requests.into_iter().map(|request| (request, outcome.clone())).collect()
    }
}

/// Requests, and how each has ended.
pub(crate) type Ended<R> = Vec<(R, Outcome<<R as PoolRequest>::Error>)>;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::error::Panicked;

    /// Goes behind one that is smaller, and before one that is larger.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Number(u32);

    impl Shape for Number {
        fn join(self, other: Self) -> Option<(Self, Place)> {
            let place = if other.0 < self.0 { Place::Before } else { Place::Behind };
            (self != other).then_some((other, place))
        }
    }

    impl PoolRequest for Number {
        type Error = Panicked;
        type Shape = Self;

        fn shape(&self) -> Self {
            *self
        }

        fn complete(_: Vec<(Self, Outcome<Panicked>)>) {}
    }

    #[test]
    fn a_group_has_its_requests_in_the_order_of_their_places() {
        let mut group = Group::new(Number(5));
        assert_eq!([3, 4, 4].map(|n| group.join(Number(n))), [Ok(()), Ok(()), Err(Number(4))]);
        assert_eq!((group.len(), group.shape()), (3, Number(4)));
        assert!(group.iter().eq(&[Number(3), Number(5), Number(4)]));
        group.iter_mut().for_each(|number| number.0 += 1);
        let ended: Vec<_> =
            group.ended(&Ok(())).into_iter().map(|(number, outcome)| (number.0, outcome)).collect();
        assert_eq!(ended, [(4, Ok(())), (6, Ok(())), (5, Ok(()))]);
    }

    #[test]
    fn what_concerns_several_requests_is_met_by_one_of_them() {
        let mut group = Group::new(Number(1));
        for number in [2, 3, 4] {
            assert_eq!(group.join(Number(number)), Ok(()));
        }
        let error = || Panicked::new(&"this is a test");
        let mut carried_out = Vec::new();
        let ended = group.carry_out_singly(|one| {
            let number = one.iter().next().unwrap().0;
            carried_out.push(number);
            match number {
                1 => Err(Failure { error: error(), affected: Affected::One }),
                3 => Err(Failure { error: error(), affected: Affected::Group }),
                _ => Ok(()),
            }
        });
        assert_eq!(carried_out, [1, 2, 3]);
        let outcomes: Vec<_> = ended.into_iter().map(|(number, outcome)| (number.0, outcome)).collect();
        let refused = || Err(PoolError::Refused(error()));
        assert_eq!(outcomes, [(1, refused()), (2, Ok(())), (3, refused()), (4, refused())]);
    }
}
