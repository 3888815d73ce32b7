// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sums of a transfer's extents. Nothing is kept of the extents but the sums, however many they
//! are.

use imageio_client::{Connector, Error, Extent, ExtentsContext, StatusCode};

use crate::error::OpenError;
use crate::transfer::{Transfer, again_if_broken};

/// The sums of a disk's extents. All but the count is in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExtentsSummary {
    /// The number of extents that the server tells.
    pub count: u64,
    /// The number of bytes that may be other than zeroes.
    pub data: u64,
    /// The number of bytes that read as zeroes.
    pub zero: u64,
    /// The number of bytes that are not allocated in the image itself: a part of the others.
    pub hole: u64,
}

/// The sums of the extents that differ from the last backup. All but the count is in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirtySummary {
    /// The number of extents that are dirty.
    pub count: u64,
    /// The number of bytes that are dirty.
    pub dirty: u64,
    /// The number of dirty bytes that read as zeroes.
    pub zero: u64,
}

impl Transfer {
    /// Asks the server for the extents of the whole disk, which may take minutes. `None` if it
    /// doesn't tell any.
    ///
    /// # Errors
    /// [`OpenError::Client`], also after a few attempts where the connection breaks;
    /// [`OpenError::Extents`].
    pub fn sum_extents(&self) -> Result<Option<ExtentsSummary>, OpenError> {
        self.sum(ExtentsContext::Zero, |sum: &mut ExtentsSummary, extent| {
            let kind = if extent.zero { &mut sum.zero } else { &mut sum.data };
            *kind += extent.length;
            sum.hole += if extent.hole { extent.length } else { 0 };
            sum.count += 1;
        })
    }

    /// Asks the server for the dirty extents of the whole disk, which may take minutes. `None` if
    /// this transfer has none.
    ///
    /// # Errors
    /// As [`sum_extents`](Self::sum_extents).
    pub fn sum_dirty_extents(&self) -> Result<Option<DirtySummary>, OpenError> {
        self.sum(ExtentsContext::Dirty, |sum: &mut DirtySummary, extent| {
            if extent.dirty {
                sum.dirty += extent.length;
                sum.zero += if extent.zero { extent.length } else { 0 };
                sum.count += 1;
            }
        })
    }

    fn sum<S: Default>(
        &self,
        context: ExtentsContext,
        add: impl Fn(&mut S, Extent) + Copy,
    ) -> Result<Option<S>, OpenError> {
        if !self.capabilities().extents {
            return Ok(None);
        }
        let summed = again_if_broken(|| visit(&self.connector, context, add));
        match summed {
            Ok((sum, end)) if end == self.size() => Ok(Some(sum)),
            Ok((_, end)) => Err(OpenError::Extents { end, size: self.size() }),
            // imageio's answer where the ticket or its storage knows of none.
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The sum, and where the last extent ends. All extents together end within 64 bits, so no sum
/// overflows.
fn visit<S: Default>(
    connector: &Connector,
    context: ExtentsContext,
    add: impl Fn(&mut S, Extent),
) -> Result<(S, u64), Error> {
    let mut sum = S::default();
    let end = connector.connect()?.visit_extents(context, |extent| {
        add(&mut sum, extent);
        Ok(())
    })?;
    Ok((sum, end))
}
