// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD protocol without I/O, from the server's side.
//!
//! A session has two phases. [`Handshake`] turns the client's bytes into the server's answers until an export is
//! chosen. Then each [`RequestHeader`] is decoded, checked against the [`Export`] with [`RequestHeader::check`], and
//! answered with [`simple_reply`]. Nothing here allocates in the second phase.
//!
//! Sections named in the documentation are those of `doc/proto.md` of the project NetworkBlockDevice/nbd.

pub mod consts;
mod error_value;
mod export;
mod handshake;
mod transmission;

pub use error_value::ErrorValue;
pub use export::{Export, InvalidExport, MAX_STRING, SizeConstraints, TransmissionFlags};
pub use handshake::{Close, Handshake, MAX_DISCARD, MAX_OPTION_DATA, MAX_OPTIONS, Negotiated, Progress};
pub use transmission::{
    BadMagic, Command, CommandFlags, REQUEST_HEADER_LEN, RequestHeader, SIMPLE_REPLY_LEN, simple_reply,
};
