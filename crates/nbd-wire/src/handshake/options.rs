// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of a client, and their data.

use super::MAX_OPTION_DATA;
use crate::consts::*;
use crate::contexts::Contexts;
use crate::{Export, MAX_STRING};

/// The number of queries that LIST_META_CONTEXT and SET_META_CONTEXT may have.
pub const MAX_QUERIES: usize = 256;

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

    /// Returns true if `len` bytes of data are worth keeping until they are complete.
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
        let (name, rest) = string(data)?;
        let (count, infos) = rest.split_first_chunk()?;
        let fits = infos.len() == 2 * usize::from(u16::from_be_bytes(*count));
        fits.then_some(Self { name, infos })
    }

    /// Returns true if the client wants this information.
    pub(super) fn wants(&self, info: u16) -> bool {
        self.infos.chunks_exact(2).any(|wanted| wanted == info.to_be_bytes())
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT ('Option types').
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MetaContextRequest<'a> {
    pub(super) name: &'a str,
    /// No more of them than is allowed, and one.
    queries: Vec<&'a str>,
}

impl<'a> MetaContextRequest<'a> {
    /// `None` if a length does not fit, if something is not a string of the protocol, or if a query
    /// has no namespace.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let (name, rest) = string(data)?;
        let (count, mut rest) = rest.split_first_chunk()?;
        let mut queries = Vec::new();
        // However many are announced, it ends with the data.
        for _ in 0..u32::from_be_bytes(*count) {
            let query;
            (query, rest) = string(rest)?;
            let namespace = query.split_once(':')?.0;
            if namespace.is_empty() {
                return None;
            }
            if queries.len() <= MAX_QUERIES {
                queries.push(query);
            }
        }
        rest.is_empty().then_some(Self { name, queries })
    }

    pub(super) fn has_too_many_queries(&self) -> bool {
        self.queries.len() > MAX_QUERIES
    }

    /// The contexts that LIST_META_CONTEXT tells of: all, if there is no query. A query that ends
    /// in a colon is a wildcard for all names that begin with it, such as `base:` and
    /// `qemu:dirty-bitmap:` ('Metadata querying').
    pub(super) fn listed(&self, export: &Export) -> Contexts {
        let matches =
            |query: &&str, name: &str| name == *query || query.ends_with(':') && name.starts_with(*query);
        Contexts::of(export.contexts(), |name| {
            self.queries.is_empty() || self.queries.iter().any(|query| matches(query, name))
        })
    }

    /// The contexts that SET_META_CONTEXT selects. As no name ends in a colon, wildcards select
    /// none, which the protocol wants ('Metadata querying').
    pub(super) fn selected(&self, export: &Export) -> Contexts {
        Contexts::of(export.contexts(), |name| self.queries.contains(&name))
    }
}

/// A string behind its length, and what follows it. `None` if it does not fit, or is no string of
/// the protocol.
fn string(data: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = data.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    let text = std::str::from_utf8(text).ok()?;
    (text.len() <= MAX_STRING && !text.contains('\0')).then_some((text, rest))
}
