// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes that were sent and whose outcome is not known: the server may still carry them out, at any time.
//!
//! The same content may be written to such a place again. Different content may not, for the rest of the transfer, as
//! nobody could tell which of the two stays. The same holds for the rest of a block of which such a change writes a part:
//! the server may have read that block before a later change of the rest, and may write it afterwards.

use std::ops::Range;

use rangemap::RangeMap;

use super::identity::{Number, Session};

/// A part of a change: where it is, and a hash of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) range: Range<u64>,
    pub(crate) hash: u64,
}

/// What may still be written to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    /// The change. A change that is sent again keeps its number.
    number: Number,
    /// The connection that it was sent on.
    session: Session,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// A part of the change.
    Of(Part),
    /// More than one change has the place, with different contents.
    Several,
    /// What the server found there when it read the block, of which the change writes another part.
    RestOfBlock,
}

/// All places that are in doubt.
#[derive(Debug, Default)]
pub(crate) struct InDoubt {
    places: RangeMap<u64, Pending>,
}

impl InDoubt {
    /// Adds a change that was sent in these parts, one behind the other. `blocks` are the blocks that it touches.
    pub(crate) fn add(&mut self, number: Number, session: Session, blocks: &Range<u64>, parts: Vec<Part>) {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return };
        let (before, behind) = (blocks.start..first.range.start, last.range.end..blocks.end);
        for rest in [before, behind].into_iter().filter(|rest| !rest.is_empty()) {
            self.places.insert(rest, Pending { number, session, content: Content::RestOfBlock });
        }
        for part in parts {
            let range = part.range.clone();
            let mut others = self.places.overlapping(&range);
            let is_alone =
                others.all(|(_, other)| matches!(&other.content, Content::Of(same) if *same == part));
            let content = if is_alone { Content::Of(part) } else { Content::Several };
            self.places.insert(range, Pending { number, session, content });
        }
    }

    /// Whether a change may be sent: nothing else may still be written there. Some of its parts may be what is expected.
    pub(crate) fn allows(
        &self,
        range: &Range<u64>,
        number: Number,
        parts: impl FnOnce() -> Vec<Part>,
    ) -> bool {
        let mut others =
            self.places.overlapping(range).filter(|(_, pending)| pending.number != number).peekable();
        if others.peek().is_none() {
            return true;
        }
        let parts = parts();
        // What is left of a part that something else came over is not known by the hash of the whole.
        let is_same = |(left, pending): (&Range<u64>, &Pending)| match &pending.content {
            Content::Of(part) => *left == part.range && parts.contains(part),
            Content::Several | Content::RestOfBlock => false,
        };
        others.all(is_same)
    }

    /// Whether content that was acknowledged, and is to be written again since its connection was lost, may be undone: a
    /// change of the rest of its block is in doubt, whose block may have been read without that content. It was read with
    /// it where both came on one connection, as the server serves that in order. A piece of the same change that was written
    /// again by itself is no better than another change.
    pub(crate) fn may_undo(&self, range: &Range<u64>, session: Session) -> bool {
        self.places
            .overlapping(range)
            .any(|(_, pending)| pending.content == Content::RestOfBlock && pending.session != session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Range<u64> = 0..4096;

    fn part(range: Range<u64>, hash: u64) -> Part {
        Part { range, hash }
    }

    #[test]
    fn the_same_content_may_be_sent_again_and_other_content_not() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(1, 1, &(0..8192), vec![part(0..4096, 7), part(4096..8192, 8)]);
        let allows = |range: Range<u64>, number, hash| {
            in_doubt.allows(&range, number, || vec![part(range.clone(), hash)])
        };
        assert!(allows(0..8192, 1, 0), "the change itself");
        assert!(allows(0..4096, 2, 7) && allows(4096..8192, 2, 8), "its parts");
        assert!(!allows(0..4096, 2, 8) && !allows(0..100, 2, 7) && !allows(0..8192, 2, 7));
        assert!(allows(8192..9000, 2, 0), "its neighbour in another block");
    }

    #[test]
    fn where_two_contents_may_still_come_true_neither_may_be_asked_for_again() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(2, 1, &BLOCK, vec![part(BLOCK, 2)]);
        in_doubt.add(1, 1, &BLOCK, vec![part(BLOCK, 1)]);
        for hash in [1, 2] {
            assert!(!in_doubt.allows(&BLOCK, 3, || vec![part(BLOCK, hash)]));
        }
    }

    #[test]
    fn the_rest_of_its_blocks_is_in_doubt_too() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(1, 1, &(0..8192), vec![part(512..5000, 7)]);
        for neighbour in [0..512, 5000..5001, 8191..8192, 0..8192] {
            assert!(!in_doubt.allows(&neighbour, 2, || vec![part(neighbour.clone(), 3)]), "{neighbour:?}");
        }
        assert!(in_doubt.allows(&(512..5000), 2, || vec![part(512..5000, 7)]));
        // Merged with a neighbour, it isn't the same any more.
        assert!(!in_doubt.allows(&(0..5000), 2, || vec![part(0..512, 3), part(512..5000, 7)]));
        assert!(in_doubt.allows(&(8192..9000), 2, || vec![part(8192..9000, 3)]));
    }

    #[test]
    fn older_content_may_be_undone_by_a_change_of_its_block_on_another_connection() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(2, 5, &BLOCK, vec![part(512..1024, 7)]);
        assert!(in_doubt.may_undo(&(0..512), 4));
        assert!(!in_doubt.may_undo(&(0..512), 5), "it came on the same connection, before");
        assert!(!in_doubt.may_undo(&(512..1024), 4), "either content is right there");
        assert!(!in_doubt.may_undo(&(4096..8192), 4));
    }
}
