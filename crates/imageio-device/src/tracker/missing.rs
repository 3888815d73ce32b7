// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes that were asked for and failed: they are told at the end, should a client not have
//! heeded its error.

use std::ops::Range;
use std::sync::Arc;

use rangemap::RangeMap;

/// The places whose last change failed.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Each with the reason.
    places: RangeMap<u64, Arc<str>>,
}

impl Missing {
    /// A change failed.
    pub(crate) fn add(&mut self, range: &Range<u64>, reason: &str) {
        if !range.is_empty() {
            self.places.insert(range.clone(), reason.into());
        }
    }

    /// A change of this place has succeeded.
    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        if !self.places.is_empty() {
            self.places.remove(range.clone());
        }
    }

    /// One line that says how much is missing, where it begins, and why; `None` if nothing is
    /// missing.
    pub(crate) fn report(&self) -> Option<String> {
        let (first, reason) = self.places.first_range_value()?;
        let bytes: u64 = self.places.iter().map(|(range, _)| range.end - range.start).sum();
        Some(format!("{bytes} bytes were not written, the first at {}: {reason}", first.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_later_is_not_missing_any_more() {
        let mut missing = Missing::default();
        assert_eq!(missing.report(), None);
        missing.add(&(10..20), "refused");
        missing.add(&(15..30), "refused again");
        missing.remove(&(0..12));
        let report = "18 bytes were not written, the first at 12: refused";
        assert_eq!(missing.report().as_deref(), Some(report));
        missing.remove(&(12..15));
        let report = "15 bytes were not written, the first at 15: refused again";
        assert_eq!(missing.report().as_deref(), Some(report), "the reason is that of the place");
        missing.remove(&(15..30));
        assert_eq!(missing.report(), None);
    }
}
