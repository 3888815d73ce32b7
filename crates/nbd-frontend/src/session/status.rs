// SPDX-License-Identifier: MIT OR Apache-2.0
//! BLOCK_STATUS: each context is asked for by itself, and all are answered together.

use std::sync::{Arc, Mutex, PoisonError};

use block_device_traits::{Batch, Completion, Errno, Error, Extent, QueuedDevice, Request, Result};
use nbd_wire::{Context, Contexts};

use super::job::Job;
use crate::lock;

/// The most extents of a context that one reply tells, so that the replies of all requests that a
/// client may have in flight take no more memory than its data may. Clients ask again about the
/// rest.
const MOST_EXTENTS: usize = 1024;

/// The range and the contexts that are asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    /// In bytes; the first extent begins here.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u64,
    /// One extent for each context, no longer than the question.
    pub(super) one: bool,
    /// The number of descriptors that a chunk may have.
    pub(super) limit: usize,
    /// Bytes from the offset to the end of the export.
    pub(super) left: u64,
}

/// The request. It is answered by whoever lets go of it last.
struct Query {
    job: Job,
    question: Question,
    answers: Mutex<Vec<(Context, Result<Vec<Extent>>)>>,
}

/// One context of it, which the device has.
struct OneContext {
    query: Arc<Query>,
    context: Context,
    extents: Vec<Extent>,
}

/// Asks the device about all contexts.
pub(super) fn ask(device: &impl QueuedDevice, job: Job, question: Question, contexts: Contexts) {
    let query = Arc::new(Query { job, question, answers: Mutex::default() });
    let limit = if question.one { 1 } else { question.limit.clamp(1, MOST_EXTENTS) };
    for context in contexts.iter() {
        let request =
            Request::Extents { context: context.index, offset: question.offset, len: question.length, limit };
        let one = OneContext { query: Arc::clone(&query), context, extents: Vec::new() };
        device.submit(request, Box::new(one));
    }
    query.let_go(&mut Batch::default());
}

impl Query {
    fn let_go(self: Arc<Self>, batch: &mut Batch) {
        let Some(Self { job, question, answers }) = Arc::into_inner(self) else { return };
        let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut statuses = Vec::with_capacity(answers.len());
        for (context, answer) in answers {
            match answer.and_then(|extents| checked(extents, &question)) {
                Ok(extents) => statuses.push((context, extents)),
                Err(error) => return job.complete_status(Err(error), batch),
            }
        }
        statuses.sort_unstable_by_key(|(context, _)| context.index);
        let is_whole = statuses.len() == job.contexts();
        let dropped = || Error::new(Errno::Io, "bug: the device has dropped a part of the request");
        job.complete_status(if is_whole { Ok(statuses) } else { Err(dropped()) }, batch);
    }
}

impl Completion for OneContext {
    fn extents(&mut self, extents: Vec<Extent>) {
        self.extents = extents;
    }

    fn complete(self: Box<Self>, result: Result<()>, batch: &mut Batch) {
        let Self { query, context, extents } = *self;
        lock(&query.answers).push((context, result.map(|()| extents)));
        query.let_go(batch);
    }
}

/// Extents as the protocol wants them: neighbours differ, only the last goes beyond the question,
/// and none beyond the export.
fn checked(extents: Vec<Extent>, question: &Question) -> Result<Vec<Extent>> {
    let end = if question.one { question.length } else { question.left };
    let mut checked: Vec<Extent> = Vec::with_capacity(extents.len());
    let mut at = 0;
    for Extent { length, status } in extents {
        let length = length.min(end.saturating_sub(at));
        if at >= question.length || length == 0 {
            break;
        }
        at += length;
        match checked.last_mut() {
            Some(last) if last.status == status => last.length += length,
            _ => checked.push(Extent { length, status }),
        }
    }
    if question.one {
        checked.truncate(1);
    }
    match checked.is_empty() {
        true => Err(Error::new(Errno::Io, "bug: the device tells no extent")),
        false => Ok(checked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(extents: &[(u64, u64)], one: bool) -> Option<Vec<(u64, u64)>> {
        let question = Question { offset: 100, length: 10, one, limit: 9, left: 20 };
        let extents = extents.iter().map(|&(length, status)| Extent { length, status }).collect();
        let checked = checked(extents, &question).ok()?;
        Some(checked.into_iter().map(|extent| (extent.length, extent.status)).collect())
    }

    #[test]
    fn extents_are_cut_to_what_the_protocol_allows() {
        assert_eq!(of(&[(4, 0), (5, 3)], false), Some(vec![(4, 0), (5, 3)]));
        assert_eq!(of(&[(4, 0), (5, 0), (3, 1)], false), Some(vec![(9, 0), (3, 1)]), "neighbours differ");
        assert_eq!(of(&[(10, 0), (5, 3)], false), Some(vec![(10, 0)]), "the next is beyond the question");
        assert_eq!(of(&[(4, 0), (99, 3)], false), Some(vec![(4, 0), (16, 3)]), "the export ends");
        assert_eq!(of(&[(99, 3)], true), Some(vec![(10, 3)]));
        assert_eq!(of(&[(4, 0), (5, 3)], true), Some(vec![(4, 0)]));
        assert_eq!(of(&[(4, 0), (0, 3), (5, 3)], false), Some(vec![(4, 0)]), "nothing is known behind it");
        assert_eq!((of(&[], false), of(&[(0, 1)], true)), (None, None));
    }
}
