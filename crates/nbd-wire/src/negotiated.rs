// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results of a negotiation: the features that the two sides have agreed on.

use bitflags::bitflags;

use crate::contexts::Contexts;
use crate::{EXTENDED_REQUEST_HEADER_LEN, Export, REQUEST_HEADER_LEN, TransmissionFlags};

/// The most descriptors of one chunk ('Structured reply types').
pub const MAX_DESCRIPTORS: usize = 1 << 20;

bitflags! {
    /// Features that a client may negotiate ('Option types').
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u8 {
        /// Structured replies.
        const STRUCTURED_REPLY = 1 << 0;
        /// Extended headers.
        const EXTENDED_HEADERS = 1 << 1;
        /// Metadata contexts, as far as an export has any. To select one takes one of the other
        /// features.
        const META_CONTEXT = 1 << 2;
    }
}

/// The server's TLS mode ('Server-side requirements').
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// The server has no TLS. STARTTLS is answered by UNSUP.
    #[default]
    Unsupported,
    /// The server's user wants no TLS. STARTTLS is answered by POLICY.
    Off,
    /// The client decides. The document calls this SELECTIVETLS; no export is for TLS only.
    Offered,
    /// Nothing but STARTTLS and ABORT is answered before TLS has started. The document calls this
    /// FORCEDTLS.
    Required,
}

/// The form of the replies, and with extended headers that of the requests as well
/// ('Transmission').
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ReplyStyle {
    /// Each request gets one simple reply.
    #[default]
    Simple,
    /// STRUCTURED_REPLY was negotiated: a reply is made of chunks, and a READ gets nothing else.
    Structured,
    /// EXTENDED_HEADERS was negotiated: every reply is made of chunks, and lengths have 64 bits.
    Extended,
}

impl ReplyStyle {
    /// Bytes of the request headers that go with it ('Request message').
    #[must_use]
    pub fn request_header_len(self) -> usize {
        match self {
            Self::Simple | Self::Structured => REQUEST_HEADER_LEN,
            Self::Extended => EXTENDED_REQUEST_HEADER_LEN,
        }
    }
}

/// The result of a negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Negotiated<'e> {
    /// The export that requests are for.
    pub export: &'e Export,
    /// The client had asked to leave out the zeroes after EXPORT_NAME.
    pub no_zeroes: bool,
    /// The form of the replies.
    pub style: ReplyStyle,
    /// The metadata contexts that the client has selected on this export.
    pub contexts: Contexts,
    /// The flags of the export as the client was told: without those that need more than was
    /// negotiated.
    pub flags: TransmissionFlags,
}

impl<'e> Negotiated<'e> {
    pub(crate) fn new(export: &'e Export, no_zeroes: bool, style: ReplyStyle, contexts: Contexts) -> Self {
        let mut flags = export.flags();
        if style == ReplyStyle::Simple {
            flags.remove(TransmissionFlags::SEND_DF);
        }
        if style != ReplyStyle::Extended || contexts.is_empty() {
            flags.remove(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
        }
        Self { export, no_zeroes, style, contexts, flags }
    }

    /// Returns the number of descriptors that one chunk of a reply to BLOCK_STATUS may have: at
    /// most [`MAX_DESCRIPTORS`], and no more than the maximum payload has room for ('Structured
    /// reply types').
    #[must_use]
    pub fn max_descriptors(&self) -> usize {
        let each = if self.style == ReplyStyle::Extended { 16 } else { 8 };
        MAX_DESCRIPTORS.min(self.export.block_size().maximum as usize / each)
    }
}
