// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking for extents.

use hyper::StatusCode;
use hyper::http::response::Parts;

use super::Connection;
use crate::Result;
use crate::answer::{each_piece, refused};
use crate::body::RequestBody;
use crate::extents::{Extent, ExtentsContext, Reader};
use crate::failure::Failure;
use crate::operation::Operation;

/// The greatest length of the list of extents, in bytes: some 3 million extents.
const EXTENTS_LIMIT: usize = 256 << 20;

impl Connection {
    /// The disk's extents, in order and without gaps.
    ///
    /// # Errors
    /// As [`visit_extents`](Self::visit_extents).
    pub fn extents(&mut self, context: ExtentsContext) -> Result<Vec<Extent>> {
        let mut extents = Vec::new();
        self.visit_extents(context, |extent| {
            extents.push(extent);
            Ok(())
        })?;
        Ok(extents)
    }

    /// Gives `visit` the disk's extents while they come: in order, without gaps, from the start of
    /// the disk. Returns where they end, in bytes, which should be the disk's size. After an error,
    /// some may have been given.
    ///
    /// # Errors
    /// [`Error::Status`](crate::Error::Status) (404: no such context for this transfer);
    /// [`Error::Protocol`](crate::Error::Protocol) for an answer that isn't the JSON
    /// expected, or with the reason for which `visit` refuses an extent.
    pub fn visit_extents(
        &mut self,
        context: ExtentsContext,
        visit: impl FnMut(Extent) -> std::result::Result<(), String>,
    ) -> Result<u64> {
        let mut reader = Reader::new(context, visit);
        let read = async |head: &Parts, body| match head.status {
            StatusCode::OK => {
                each_piece(body, EXTENTS_LIMIT, |data| reader.read(data).map_err(Failure::Nonsense)).await
            }
            _ => Err(refused(head, body).await),
        };
        let operation = Operation::Extents(context);
        self.run(operation, RequestBody::empty(), read)?;
        reader.finish().map_err(|reason| self.nonsense(operation, &reason))
    }
}
