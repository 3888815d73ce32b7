// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD protocol without I/O, from the server's side.
//!
//! A session has two phases. [`Handshake`] turns the client's bytes into the server's answers until
//! the client has chosen an export, and tells with [`Negotiated`] what was settled. Then each
//! [`RequestHeader`] is decoded, checked with [`RequestHeader::check`], and answered with
//! [`simple_reply`], or with one [`Chunk`] or more where [`Negotiated::chunk`] has one.
//!
//! ```
//! use nbd_wire::{Command, Export, Handshake, Progress, RequestHeader, SIMPLE_REPLY_LEN};
//! use nbd_wire::{SizeConstraints, TransmissionFlags, simple_reply};
//!
//! let flags = TransmissionFlags::SEND_FLUSH;
//! let exports = [Export::new("disk", 1 << 20, flags, SizeConstraints::default())?];
//! // The server sends this first.
//! assert!(Handshake::greeting().starts_with(b"NBDMAGICIHAVEOPT"));
//!
//! // What a client sends: its flags, and the option EXPORT_NAME with an empty name.
//! let mut received = &b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0"[..];
//! let (mut handshake, mut answers) = (Handshake::new(&exports), Vec::new());
//! let negotiated = loop {
//!     match handshake.feed(&mut received, &mut answers) {
//!         Progress::Continue => {}
//!         Progress::Transmission(negotiated) => break negotiated,
//!         other => panic!("{other:?}"),
//!     }
//! };
//!
//! // A request to read 512 bytes from 4096 on, with the cookie 7.
//! let request = b"\x25\x60\x95\x13\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\x10\0\0\0\x02\0";
//! let request = RequestHeader::decode(request)?;
//! let command = request.check(&negotiated);
//! assert!(matches!(command, Ok(Command::Read { offset: 4096, length: 512, .. })));
//! let reply: [u8; SIMPLE_REPLY_LEN] = simple_reply(request.cookie, None);
//! // The reply is sent, and 512 bytes behind it.
//! # let _ = reply;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Why this way
//!
//! Without sockets, every answer can be tested and fuzzed byte by byte, and a server chooses its
//! threads or runtime itself. It is the server's side alone: libnbd is a good client. Old
//! negotiation (oldstyle, and newstyle that isn't fixed) is left out, as is the experiment RESIZE.
//!
//! # Threads and lifecycle
//!
//! A [`Handshake`] lives as long as a client negotiates, and borrows the exports. It holds at most
//! what [`MAX_OPTION_DATA`] allows. Nothing here allocates in the second phase. There are no
//! threads, no clocks and no global state.
//!
//! # Errors
//!
//! A client that breaks the protocol gets the error that the protocol names, and goes on where the
//! protocol says so. Where the connection has to end, [`Close`] or [`BadMagic`] tells why. No input
//! of a client causes a panic.
//!
//! Sections named in the documentation are those of `doc/proto.md` of the project
//! NetworkBlockDevice/nbd.

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

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Export>();
    is_send_and_sync::<Handshake<'_>>();
    is_send_and_sync::<Negotiated<'_>>();
    is_send_and_sync::<RequestHeader>();
    is_send_and_sync::<Chunk>();
    is_send_and_sync::<Close>();
};
