// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sets of metadata contexts.

/// The number of metadata contexts that an export may offer.
pub const MAX_CONTEXTS: usize = 64;

/// Some of the metadata contexts that an export offers ('Metadata querying').
///
/// A set is a bit for each context, so it is copied and searched without allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contexts(u64);

/// A metadata context of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// The metadata context ID, which clients know it by. It is never 0.
    pub id: u32,
    /// Its index in [`Export::contexts`](crate::Export::contexts).
    pub index: usize,
}

impl Context {
    fn with_index(index: usize) -> Self {
        // An index is less than MAX_CONTEXTS.
        Self { id: index as u32 + 1, index }
    }
}

impl Contexts {
    /// Returns true if no context is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the number of contexts in the set.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The contexts in the order of their indices.
    pub fn iter(self) -> impl Iterator<Item = Context> {
        (0..MAX_CONTEXTS).filter(move |index| self.0 >> index & 1 == 1).map(Context::with_index)
    }

    /// The set of those of its contexts that `is_in`.
    #[must_use]
    pub fn filter(self, is_in: impl Fn(Context) -> bool) -> Self {
        Self(self.iter().filter(|context| is_in(*context)).fold(0, |bits, context| bits | 1 << context.index))
    }

    /// The set of the contexts that are in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The set of the contexts that are in either.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set of its contexts that are not in the other one.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The set of those of `names` that `is_in`.
    pub(crate) fn of(names: &[String], is_in: impl Fn(&str) -> bool) -> Self {
        let indices = names.iter().take(MAX_CONTEXTS).enumerate().filter(|(_, name)| is_in(name));
        Self(indices.fold(0, |bits, (index, _)| bits | 1 << index))
    }

    /// The set of the contexts that have these IDs. `None` if an ID occurs twice, or is of none in
    /// this set.
    pub(crate) fn subset(self, ids: impl IntoIterator<Item = u32>) -> Option<Self> {
        ids.into_iter().try_fold(Self::default(), |subset, id| {
            let index = id.checked_sub(1).filter(|index| (*index as usize) < MAX_CONTEXTS)?;
            let bit = 1 << index;
            (self.0 & bit != 0 && subset.0 & bit == 0).then_some(Self(subset.0 | bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_second() -> Contexts {
        let names: Vec<_> = (0..64).map(|n| format!("x:{n}")).collect();
        Contexts::of(&names, |name| name[2..].parse::<u32>().unwrap() % 2 == 1)
    }

    #[test]
    fn ids_tell_the_index_and_are_never_0() {
        let contexts: Vec<_> = every_second().iter().collect();
        assert_eq!((contexts.len(), every_second().len()), (32, 32));
        assert_eq!(contexts[0], Context { id: 2, index: 1 });
        assert_eq!(contexts[31], Context { id: 64, index: 63 });
        assert!(Contexts::default().is_empty() && Contexts::default().iter().next().is_none());
    }

    #[test]
    fn sets_are_filtered_and_combined() {
        let (all, few) = (every_second(), every_second().filter(|context| context.index < 4));
        let ids = |set: Contexts| set.iter().map(|context| context.id).collect::<Vec<_>>();
        assert_eq!(ids(few), [2, 4]);
        assert_eq!((all.and(few), all.or(few), few.without(all)), (few, all, Contexts::default()));
        assert_eq!(all.without(few).len(), 30);
    }

    #[test]
    fn a_subset_has_each_id_once_and_none_from_outside() {
        let ids = |ids: &[u32]| {
            let subset = every_second().subset(ids.iter().copied());
            subset.map(|subset| subset.iter().map(|context| context.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[64, 2]), Some(vec![2, 64]));
        assert_eq!(ids(&[]), Some(vec![]));
        for bad in [&[0][..], &[1], &[65], &[66], &[u32::MAX], &[2, 2], &[2, 3]] {
            assert_eq!(ids(bad), None, "{bad:?}");
        }
    }
}
