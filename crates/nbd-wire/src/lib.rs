// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD protocol without I/O, from the server's side.
//!
//! A session has two phases. [`Handshake`] turns the client's bytes into the server's answers until an export is
//! chosen, and tells with [`Negotiated`] what was settled. Then each [`RequestHeader`] is decoded, checked with
//! [`RequestHeader::check`], and answered with [`simple_reply`], or with one [`Chunk`] or more where
//! [`Negotiated::chunk`] has one. Nothing here allocates in the second phase.
//!
//! Sections named in the documentation are those of `doc/proto.md` of the project NetworkBlockDevice/nbd.

pub mod consts;
mod contexts;
mod error_value;
mod export;
mod handshake;
mod negotiated;
mod transmission;

pub use contexts::{Context, Contexts, MAX_CONTEXTS};
pub use error_value::ErrorValue;
pub use export::{Export, InvalidExport, MAX_STRING, SizeConstraints, TransmissionFlags};
pub use handshake::{Close, Handshake, MAX_DISCARD, MAX_OPTION_DATA, MAX_OPTIONS, MAX_QUERIES, Progress};
pub use negotiated::{Features, MAX_DESCRIPTORS, Negotiated, ReplyStyle, Tls};
pub use transmission::{
    BadMagic, Chunk, Command, CommandFlags, Descriptor, EXTENDED_REPLY_LEN, EXTENDED_REQUEST_HEADER_LEN,
    Encoded, MAX_CHUNK_HEAD, MAX_STATUS_PAYLOAD, PayloadTooLong, REQUEST_HEADER_LEN, RequestHeader,
    SIMPLE_REPLY_LEN, STRUCTURED_REPLY_LEN, simple_reply,
};
