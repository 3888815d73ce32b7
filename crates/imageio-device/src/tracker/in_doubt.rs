// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes that were sent and whose outcome is not known: the server may still carry them out, at
//! any time.
//!
//! The content of the change may be written to its place again. Different content may not, for the
//! rest of the transfer, as nobody could tell which of the two stays. The same holds for the rest
//! of a block of which such a change writes a part: the server may have read that block before a
//! later change of the rest, and may write it afterwards.

use std::ops::Range;

use rangemap::{RangeMap, RangeSet};

use super::identity::Number;

/// A part of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    range: Range<u64>,
    content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A hash of the data of a whole part.
    Hash(u64),
    /// Zeroes are the same in each part of a range.
    Zeroes,
}

/// The content that may still be written to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    /// The change. A change that is sent again keeps its number.
    number: Number,
    /// The part that the place belongs to; none where several changes have it, with different
    /// contents.
    part: Option<Part>,
}

/// All places that are in doubt.
#[derive(Debug, Default)]
pub(crate) struct InDoubt {
    changes: RangeMap<u64, Pending>,
    /// The rests of the blocks of which changes in doubt write a part. What is known here holds
    /// whatever happens to the place later, so it is apart.
    rests: RangeSet<u64>,
}

impl Part {
    /// A part with data that has this hash.
    pub(crate) fn data(range: Range<u64>, hash: u64) -> Self {
        Self { range, content: Content::Hash(hash) }
    }

    /// A part with zeroes.
    pub(crate) fn zeroes(range: Range<u64>) -> Self {
        Self { range, content: Content::Zeroes }
    }

    /// Returns true if it has the same content at `place`, which is a part of the other, as that
    /// has.
    fn agrees(&self, place: &Range<u64>, other: &Self) -> bool {
        match (self.content, other.content) {
            (Content::Zeroes, Content::Zeroes) => true,
            // The hash of a whole part says nothing of what is left of it where something else came
            // over it.
            (Content::Hash(_), Content::Hash(_)) => self == other && *place == other.range,
            (Content::Hash(_), Content::Zeroes) | (Content::Zeroes, Content::Hash(_)) => false,
        }
    }

    fn touches(&self, place: &Range<u64>) -> bool {
        self.range.start < place.end && place.start < self.range.end
    }
}

impl InDoubt {
    /// Adds a change that was sent in these parts, one behind the other. `blocks` are the blocks
    /// that it touches.
    pub(crate) fn add(&mut self, number: Number, blocks: &Range<u64>, parts: Vec<Part>) {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return };
        let (before, behind) = (blocks.start..first.range.start, last.range.end..blocks.end);
        self.rests.extend([before, behind].into_iter().filter(|rest| !rest.is_empty()));
        for part in parts {
            let range = part.range.clone();
            let agrees = |(place, pending): (&Range<u64>, &Pending)| {
                pending.part.as_ref().is_some_and(|other| part.agrees(place, other))
            };
            let is_alone = self.changes.overlapping(&range).all(agrees);
            self.changes.insert(range, Pending { number, part: is_alone.then_some(part) });
        }
    }

    /// Returns true if a change may be sent: nothing else may still be written there. Some of its
    /// parts may be what is expected.
    pub(crate) fn allows(
        &self,
        range: &Range<u64>,
        number: Number,
        parts: impl FnOnce() -> Vec<Part>,
    ) -> bool {
        if self.rests.overlaps(range) {
            return false;
        }
        let mut others =
            self.changes.overlapping(range).filter(|(_, pending)| pending.number != number).peekable();
        if others.peek().is_none() {
            return true;
        }
        let parts = parts();
        others.all(|(place, pending)| {
            let Some(expected) = &pending.part else { return false };
            parts.iter().filter(|part| part.touches(place)).all(|part| part.agrees(place, expected))
        })
    }

    /// All places that are in doubt.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let changes = self.changes.iter().map(|(range, _)| range.clone());
        changes.chain(self.rests.iter().cloned())
    }

    /// Returns true if something in a range is in doubt.
    pub(crate) fn concerns(&self, range: &Range<u64>) -> bool {
        self.changes.overlaps(range) || self.rests.overlaps(range)
    }

    /// Returns true if content that was acknowledged, and is to be written again since its
    /// connection was lost, may be undone: a change of the rest of its block is in doubt, whose
    /// block may have been read without that content. That both came on one connection proves
    /// nothing: a proxy may have lost its way to the host, and the content with it, in between.
    pub(crate) fn may_undo(&self, range: &Range<u64>) -> bool {
        self.rests.overlaps(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Range<u64> = 0..4096;

    fn part(range: Range<u64>, hash: u64) -> Part {
        Part::data(range, hash)
    }

    #[test]
    fn the_same_content_may_be_sent_again_and_other_content_not() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(1, &(0..8192), vec![part(0..4096, 7), part(4096..8192, 8)]);
        let allows = |range: Range<u64>, number, hash| {
            in_doubt.allows(&range, number, || vec![part(range.clone(), hash)])
        };
        assert!(allows(0..8192, 1, 0), "the change itself");
        assert!(allows(0..4096, 2, 7) && allows(4096..8192, 2, 8), "its parts");
        assert!(!allows(0..4096, 2, 8) && !allows(0..100, 2, 7) && !allows(0..8192, 2, 7));
        assert!(allows(8192..9000, 2, 0), "its neighbour in another block");
    }

    #[test]
    fn zeroes_may_be_sent_again_in_other_pieces() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(1, &(0..16384), vec![Part::zeroes(0..16384)]);
        let allows = |range: Range<u64>, part: fn(Range<u64>) -> Part| {
            in_doubt.allows(&range, 2, || vec![part(range.clone())])
        };
        for range in [0..16384, 0..4096, 4096..8192, 8192..20480] {
            assert!(allows(range.clone(), Part::zeroes), "{range:?}");
            assert!(!allows(range, |range| part(range, 7)));
        }
        // Zeroes and data that go out together.
        assert!(
            in_doubt.allows(&(8192..20480), 2, || vec![Part::zeroes(8192..16384), part(16384..20480, 7)])
        );
        in_doubt.add(2, &(0..4096), vec![Part::zeroes(0..4096)]);
        in_doubt.add(3, &(4096..8192), vec![part(4096..8192, 7)]);
        let allows = |range: Range<u64>| in_doubt.allows(&range, 4, || vec![Part::zeroes(range.clone())]);
        assert!(allows(0..4096) && !allows(0..8192) && allows(8192..16384));
    }

    #[test]
    fn where_two_contents_may_still_come_true_neither_may_be_asked_for_again() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(2, &BLOCK, vec![part(BLOCK, 2)]);
        in_doubt.add(1, &BLOCK, vec![part(BLOCK, 1)]);
        for hash in [1, 2] {
            assert!(!in_doubt.allows(&BLOCK, 3, || vec![part(BLOCK, hash)]));
        }
    }

    #[test]
    fn the_rest_of_its_blocks_is_in_doubt_too() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(1, &(0..8192), vec![part(512..5000, 7)]);
        for neighbour in [0..512, 5000..5001, 8191..8192, 0..8192] {
            for number in [1, 2] {
                let parts = || vec![part(neighbour.clone(), 3)];
                assert!(!in_doubt.allows(&neighbour, number, parts), "{neighbour:?}");
            }
        }
        assert!(in_doubt.allows(&(512..5000), 2, || vec![part(512..5000, 7)]));
        // Merged with a neighbour, it isn't the same any more.
        assert!(!in_doubt.allows(&(0..5000), 2, || vec![part(0..512, 3), part(512..5000, 7)]));
        assert!(in_doubt.allows(&(8192..9000), 2, || vec![part(8192..9000, 3)]));
    }

    #[test]
    fn older_content_may_be_undone_by_a_change_of_its_block() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(2, &BLOCK, vec![part(512..1024, 7)]);
        assert!(in_doubt.may_undo(&(0..512)));
        assert!(!in_doubt.may_undo(&(512..1024)), "either content is right there");
        assert!(!in_doubt.may_undo(&(4096..8192)));
        // Another piece comes over the rest of the first one's block.
        in_doubt.add(2, &BLOCK, vec![part(0..512, 8)]);
        assert!(in_doubt.may_undo(&(0..512)) && in_doubt.may_undo(&(512..1024)));
    }
}
