// SPDX-License-Identifier: MIT OR Apache-2.0
//! The metadata contexts of a device, and which question to the server answers each.
//!
//! imageio doesn't say beforehand whether a ticket has dirty extents: who wants to know asks for
//! them. So these contexts are tentative, and whoever asks whether they are there waits for the
//! answer, which is kept. Nor does imageio tell the name of the bitmap that it has read; the user
//! gives it, so that clients find what they ask for by name.
//!
//! Clients that copy a disk onto the last backup of it look at [`ALLOCATION`] alone: they leave a
//! hole to what is below it. So the user may have it tell what is clean as a hole, without saying
//! that it is zero: whoever has nothing below it reads it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use block_device_traits::{ALLOCATION, Batch, Extent, HOLE, Result};
use imageio_client::ExtentsContext;

use crate::counters::Counters;
use crate::inquiry::{Inquiry, Waiter};
use crate::tracker::{Context, Tracker};
use crate::transfer::Transfer;

/// The context of the depth below the image at which a range's content is: qemu's name, whose 0 is
/// imageio's hole.
const DEPTH: &str = "qemu:allocation-depth";

/// The context of ranges that may differ from the last backup, whatever the bitmap is called.
const DIRTY: &str = "imageio:dirty";

/// The context of dirty extents under a bitmap's name begins like this, as in qemu.
const BITMAP: &str = "qemu:dirty-bitmap:";

/// The knowledge that clients are told under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// One context as it is.
    Plain(Context),
    /// The ranges that are zero, and those that are clean as holes.
    CleanAsHoles,
}

/// The disk's extents that clients are told, and the questions to the server about them.
pub(crate) struct Extents {
    /// Their names, in the order of `views`.
    names: Vec<String>,
    views: Vec<View>,
    zero: Inquiry,
    dirty: Inquiry,
}

impl Extents {
    /// Nothing is asked yet.
    pub(crate) fn new(transfer: &Transfer, tracker: &Arc<Tracker>, counters: &Arc<Counters>) -> Self {
        let is_offered = transfer.capabilities().extents;
        let inquiry = |asked| {
            let (connector, tracker) = (Arc::clone(&transfer.connector), Arc::clone(tracker));
            Inquiry::new(connector, tracker, Arc::clone(counters), transfer.size(), asked, is_offered)
        };
        let has_holes = is_offered && transfer.settings.clean_as_holes;
        let allocation = if has_holes { View::CleanAsHoles } else { View::Plain(Context::Zero) };
        let mut all = vec![(ALLOCATION.to_owned(), allocation)];
        if is_offered {
            let bitmap = format!("{BITMAP}{}", transfer.settings.dirty_bitmap);
            all.push((DEPTH.to_owned(), View::Plain(Context::Depth)));
            all.push((DIRTY.to_owned(), View::Plain(Context::Dirty)));
            all.push((bitmap, View::Plain(Context::Dirty)));
        }
        let (names, views) = all.into_iter().unzip();
        Self { names, views, zero: inquiry(ExtentsContext::Zero), dirty: inquiry(ExtentsContext::Dirty) }
    }

    /// The names of what can be asked for.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the view that has this index among the names.
    pub(crate) fn view(&self, index: usize) -> Option<View> {
        self.views.get(index).copied()
    }

    /// Waits until it is known what the server has to say, as long as it `goes_on`. Whether the
    /// server has told.
    ///
    /// # Errors
    /// [`Errno::Shutdown`](block_device_traits::Errno::Shutdown).
    pub(crate) fn wait(&self, view: View, goes_on: &dyn Fn() -> bool) -> Result<bool> {
        match view {
            View::Plain(context) => self.inquiry(context).wait(goes_on),
            View::CleanAsHoles => Ok(self.dirty.wait(goes_on)? & self.zero.wait(goes_on)?),
        }
    }

    /// Tells `waiter` when that is known: by the thread that asks the server, or at once.
    pub(crate) fn when_asked(&self, view: View, waiter: Waiter) {
        match view {
            View::Plain(context) => self.inquiry(context).when_asked(waiter),
            View::CleanAsHoles => {
                let both = Arc::new(Both(Mutex::new((waiter, Ok(true)))));
                let other = Arc::clone(&both);
                self.dirty.when_asked(Box::new(move |outcome, batch| other.let_go(outcome, batch)));
                self.zero.when_asked(Box::new(move |outcome, batch| both.let_go(outcome, batch)));
            }
        }
    }

    /// Ends asking, and forgets what is known.
    pub(crate) fn close(&self) {
        self.zero.close();
        self.dirty.close();
    }

    fn inquiry(&self, context: Context) -> &Inquiry {
        match context.asked() {
            ExtentsContext::Zero => &self.zero,
            ExtentsContext::Dirty => &self.dirty,
        }
    }
}

/// Somebody waits for both answers of the server, and what the first one has come to. Whoever lets
/// go of this last tells.
struct Both(Mutex<(Waiter, Result<bool>)>);

impl Both {
    fn let_go(self: Arc<Self>, outcome: Result<bool>, batch: &mut Batch) {
        {
            let (_, both) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *both = both.clone().and_then(|one| Ok(one & outcome?));
        }
        if let Some(Self(both)) = Arc::into_inner(self) {
            let (waiter, outcome) = both.into_inner().unwrap_or_else(PoisonError::into_inner);
            waiter(outcome, batch);
        }
    }
}

/// Returns the extents of a range if all that is clean is a hole: at most `limit` extents, from its
/// start on. `of` tells those of one context in the same way.
pub(crate) fn clean_as_holes(
    of: impl Fn(Context, &Range<u64>, usize) -> Vec<Extent>,
    range: &Range<u64>,
    limit: usize,
) -> Vec<Extent> {
    let (mut extents, mut at) = (Vec::new(), range.start);
    for dirty in of(Context::Dirty, range, limit) {
        let (part, left) = (at..at + dirty.length, limit - extents.len());
        at = part.end;
        match dirty.status {
            // The next extent would not begin where this one ends.
            _ if left == 0 => break,
            0 => extents.push(Extent { status: HOLE, ..dirty }),
            _ => extents.extend(of(Context::Zero, &part, left)),
        }
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the bytes 0 to 9, those from 2 to 7 are dirty; 3, 4, and those from 6 on are zero.
    fn of(context: Context, range: &Range<u64>, limit: usize) -> Vec<Extent> {
        let is = |byte: u64| match context {
            Context::Dirty => u64::from((2..8).contains(&byte)),
            _ => 2 * u64::from((3..5).contains(&byte) || byte >= 6),
        };
        let mut extents: Vec<Extent> = Vec::new();
        for status in range.clone().map(is) {
            match extents.last_mut() {
                Some(last) if last.status == status => last.length += 1,
                _ => extents.push(Extent { length: 1, status }),
            }
        }
        extents.truncate(limit);
        extents
    }

    fn told(range: Range<u64>, limit: usize) -> Vec<(u64, u64)> {
        let extents = clean_as_holes(of, &range, limit);
        extents.into_iter().map(|extent| (extent.length, extent.status)).collect()
    }

    #[test]
    fn what_is_clean_is_a_hole_and_the_rest_is_zero_or_data() {
        assert_eq!(told(0..10, 99), [(2, 1), (1, 0), (2, 2), (1, 0), (2, 2), (2, 1)]);
        assert_eq!(told(4..7, 99), [(1, 2), (1, 0), (1, 2)]);
        for limit in 1..6 {
            assert_eq!(told(0..10, limit), told(0..10, 99)[..limit]);
        }
    }
}
