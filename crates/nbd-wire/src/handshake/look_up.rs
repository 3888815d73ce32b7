// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tentative contexts: the negotiation pauses while the server finds out whether the export has
//! them.

use super::{Handshake, Progress, State};
use crate::Export;
use crate::contexts::Contexts;

/// The tentative contexts of an export that were looked up so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'e> {
    export: &'e Export,
    present: Contexts,
    absent: Contexts,
}

impl<'e> Handshake<'e> {
    /// Goes on after [`Progress::LookUp`], and answers the client: of those contexts, the export
    /// has `present`, and no others. What was found out is not asked again in this negotiation.
    ///
    /// This does nothing unless [`Progress::LookUp`] was the last progress.
    pub fn looked_up(&mut self, present: Contexts, output: &mut Vec<u8>) -> Progress<'e> {
        let State::LookUp { opt, export, contexts } = self.state else { return Progress::Continue };
        let before = self.found.filter(|found| std::ptr::eq(found.export, export));
        let before = before.map_or_else(Default::default, |found| (found.present, found.absent));
        self.found = Some(Found {
            export,
            present: before.0.or(contexts.and(present)),
            absent: before.1.or(contexts.without(present)),
        });
        self.state = State::Data { opt, len: self.item.len() };
        self.complete(output)
    }

    /// The contexts of `wanted` that the export has.
    ///
    /// # Errors
    /// Those of which that has to be found out.
    pub(super) fn present(&self, export: &Export, wanted: Contexts) -> Result<Contexts, Contexts> {
        let found = self.found.filter(|found| std::ptr::eq(found.export, export));
        let (present, absent) = found.map_or_else(Default::default, |found| (found.present, found.absent));
        let unknown = wanted.and(export.tentative()).without(present.or(absent));
        if unknown.is_empty() { Ok(wanted.without(absent)) } else { Err(unknown) }
    }
}
