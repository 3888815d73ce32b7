// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the client's options say.

use super::{MAX_OPTION_DATA, u32_at};
use crate::MAX_STRING;
use crate::consts::*;

/// An option, known or not ('Option types').
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opt {
    ExportName,
    Abort,
    List,
    StartTls,
    Info,
    Go,
    StructuredReply,
    ListMetaContext,
    SetMetaContext,
    ExtendedHeaders,
    Unknown(u32),
}

impl Opt {
    pub(super) fn from_wire(number: u32) -> Self {
        match number {
            NBD_OPT_EXPORT_NAME => Self::ExportName,
            NBD_OPT_ABORT => Self::Abort,
            NBD_OPT_LIST => Self::List,
            NBD_OPT_STARTTLS => Self::StartTls,
            NBD_OPT_INFO => Self::Info,
            NBD_OPT_GO => Self::Go,
            NBD_OPT_STRUCTURED_REPLY => Self::StructuredReply,
            NBD_OPT_LIST_META_CONTEXT => Self::ListMetaContext,
            NBD_OPT_SET_META_CONTEXT => Self::SetMetaContext,
            NBD_OPT_EXTENDED_HEADERS => Self::ExtendedHeaders,
            unknown => Self::Unknown(unknown),
        }
    }

    pub(super) fn to_wire(self) -> u32 {
        match self {
            Self::ExportName => NBD_OPT_EXPORT_NAME,
            Self::Abort => NBD_OPT_ABORT,
            Self::List => NBD_OPT_LIST,
            Self::StartTls => NBD_OPT_STARTTLS,
            Self::Info => NBD_OPT_INFO,
            Self::Go => NBD_OPT_GO,
            Self::StructuredReply => NBD_OPT_STRUCTURED_REPLY,
            Self::ListMetaContext => NBD_OPT_LIST_META_CONTEXT,
            Self::SetMetaContext => NBD_OPT_SET_META_CONTEXT,
            Self::ExtendedHeaders => NBD_OPT_EXTENDED_HEADERS,
            Self::Unknown(unknown) => unknown,
        }
    }

    /// Whether `len` bytes of data are worth keeping until they are complete.
    pub(super) fn is_read(self, len: usize) -> bool {
        len <= MAX_OPTION_DATA && !matches!(self, Self::Abort | Self::Unknown(_)) || len == 0
    }
}

/// The data of INFO and GO ('Option types').
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InfoRequest<'a> {
    pub(super) name: &'a str,
    infos: &'a [u8],
}

impl<'a> InfoRequest<'a> {
    /// `None` if a length does not fit or the name is not a string of the protocol.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let (len, rest) = data.split_at_checked(4)?;
        let (name, rest) = rest.split_at_checked(u32_at(len, 0) as usize)?;
        let (count, infos) = rest.split_first_chunk()?;
        let name = std::str::from_utf8(name).ok()?;
        let fits = infos.len() == 2 * usize::from(u16::from_be_bytes(*count));
        let valid = name.len() <= MAX_STRING && !name.contains('\0');
        (fits && valid).then_some(Self { name, infos })
    }

    /// Whether the client wants this information.
    pub(super) fn wants(&self, info: u16) -> bool {
        self.infos.chunks_exact(2).any(|wanted| wanted == info.to_be_bytes())
    }
}
