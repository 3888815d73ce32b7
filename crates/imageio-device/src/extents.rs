// SPDX-License-Identifier: MIT OR Apache-2.0
//! The metadata contexts of a device, and which question to the server answers each.
//!
//! imageio doesn't say beforehand whether a ticket has dirty extents: who wants to know asks for them. So these contexts are
//! tentative, and whoever asks whether they are there waits for the answer, which is kept. Nor does imageio tell the name of
//! the bitmap that it has read; the user gives it, so that clients find what they ask for by name.

use std::sync::Arc;

use block_device::{ALLOCATION, Result};
use imageio_client::ExtentsContext;

use crate::counters::Counters;
use crate::inquiry::{Inquiry, Waiter};
use crate::tracker::{Context, Tracker};
use crate::transfer::Transfer;

/// How deep below the image a range's content is: qemu's name, whose 0 is imageio's hole.
const DEPTH: &str = "qemu:allocation-depth";

/// What may differ from the last backup, whatever the bitmap is called.
const DIRTY: &str = "imageio:dirty";

/// The same by a bitmap's name, as qemu has it.
const BITMAP: &str = "qemu:dirty-bitmap:";

/// What is known of the disk's ranges, and how it comes to be known.
pub(crate) struct Extents {
    /// Their names, in the order of `contexts`.
    names: Vec<String>,
    contexts: Vec<Context>,
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
        let mut all = vec![(ALLOCATION.to_owned(), Context::Zero)];
        if is_offered {
            let bitmap = format!("{BITMAP}{}", transfer.settings.dirty_bitmap);
            all.push((DEPTH.to_owned(), Context::Depth));
            all.push((DIRTY.to_owned(), Context::Dirty));
            all.push((bitmap, Context::Dirty));
        }
        let (names, contexts) = all.into_iter().unzip();
        Self { names, contexts, zero: inquiry(ExtentsContext::Zero), dirty: inquiry(ExtentsContext::Dirty) }
    }

    /// The names of what can be asked for.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// What has this index among the names.
    pub(crate) fn context(&self, index: usize) -> Option<Context> {
        self.contexts.get(index).copied()
    }

    /// Waits until it is known what the server has to say, as long as it `goes_on`. Whether the server has told.
    ///
    /// # Errors
    /// [`Errno::Shutdown`](block_device::Errno::Shutdown).
    pub(crate) fn wait(&self, context: Context, goes_on: &dyn Fn() -> bool) -> Result<bool> {
        self.inquiry(context).wait(goes_on)
    }

    /// Tells `waiter` when that is known: by the thread that asks the server, or at once.
    pub(crate) fn when_asked(&self, context: Context, waiter: Waiter) {
        self.inquiry(context).when_asked(waiter);
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
