// SPDX-License-Identifier: MIT OR Apache-2.0
//! The negotiation, from the greeting to the choice of an export ('Newstyle negotiation').

mod options;
mod replies;
#[cfg(test)]
mod tests;

use crate::Export;
use crate::consts::*;
use options::{InfoRequest, Opt};
use replies::Replies;

/// How many options a client may send before it has chosen an export.
pub const MAX_OPTIONS: usize = 32;
/// Options with more data than this, in bytes, are never held in memory: they are discarded and refused.
pub const MAX_OPTION_DATA: usize = 64 << 10;
/// An option with more data than this, in bytes, ends the connection.
pub const MAX_DISCARD: usize = 32 << 20;

const OPTION_HEADER: usize = 16;

/// What a negotiation has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Negotiated<'e> {
    /// The export that requests are for.
    pub export: &'e Export,
    /// The client had asked to leave out the zeroes after EXPORT_NAME.
    pub no_zeroes: bool,
}

/// Why a negotiation ends without an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Close {
    /// The client said goodbye with ABORT, and was answered.
    #[error("the client ended the negotiation")]
    Aborted,
    /// The client set flags that were not offered.
    #[error("the client sent unknown flags {0:#x}")]
    ClientFlags(u32),
    /// An option did not begin with its magic: the stream is not NBD or out of step.
    #[error("the client sent {0:#018x} where an option should begin")]
    OptionMagic(u64),
    /// More than [`MAX_OPTIONS`] options.
    #[error("the client sent more than {MAX_OPTIONS} options without choosing an export")]
    TooManyOptions,
    /// An option announced this many bytes, more than [`MAX_DISCARD`].
    #[error("the client sent an option of {0} bytes")]
    OptionTooLong(u32),
    /// EXPORT_NAME, which cannot be answered with an error, did not name an export.
    #[error("the client asked for an export that does not exist")]
    UnknownExport,
}

/// What to do after some bytes were fed; in every case the output is to be sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'e> {
    /// Read on.
    Continue,
    /// The next byte belongs to the first request header.
    Transmission(Negotiated<'e>),
    /// Drop the connection.
    Close(Close),
}

/// The server's side of the negotiation. The first export is the default one.
///
/// Start with [`Handshake::greeting`]; then feed it what the client sends. It never takes a byte that belongs to the
/// transmission phase, and holds at most [`MAX_OPTION_DATA`] bytes and a header.
///
/// ```
/// use nbd_wire::{SizeConstraints, Export, Handshake, Progress, TransmissionFlags};
///
/// let exports = [Export::new("disk", 4096, TransmissionFlags::SEND_FLUSH, SizeConstraints::default())?];
/// let mut handshake = Handshake::new(&exports);
/// let mut output = Handshake::greeting().to_vec();
/// let mut input = &[0, 0, 0, 1][..];
/// assert_eq!(handshake.feed(&mut input, &mut output), Progress::Continue);
/// assert_eq!(handshake.wanted(), 16);
/// # Ok::<(), nbd_wire::InvalidExport>(())
/// ```
#[derive(Debug)]
pub struct Handshake<'e> {
    exports: &'e [Export],
    state: State,
    item: Vec<u8>,
    options: usize,
    no_zeroes: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    ClientFlags,
    Header,
    Data { opt: Opt, len: usize },
    Discard { opt: Opt, left: usize },
    Ended(Close),
}

impl<'e> Handshake<'e> {
    /// A negotiation about `exports`, the first of which also answers to the empty name.
    #[must_use]
    pub fn new(exports: &'e [Export]) -> Self {
        Self { exports, state: State::ClientFlags, item: Vec::new(), options: 0, no_zeroes: false }
    }

    /// What the server sends first.
    #[must_use]
    pub fn greeting() -> [u8; 18] {
        let mut greeting = [0; 18];
        greeting[..8].copy_from_slice(&NBD_MAGIC.to_be_bytes());
        greeting[8..16].copy_from_slice(&NBD_IHAVEOPT.to_be_bytes());
        let flags = NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;
        greeting[16..].copy_from_slice(&flags.to_be_bytes());
        greeting
    }

    /// How many bytes [`Handshake::feed`] takes before it has something to say; 0 when the negotiation has ended.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match self.state {
            State::ClientFlags => 4 - self.item.len(),
            State::Header => OPTION_HEADER - self.item.len(),
            State::Data { len, .. } => len - self.item.len(),
            State::Discard { left, .. } => left,
            State::Ended(_) => 0,
        }
    }

    /// Takes up to [`Handshake::wanted`] bytes off the front of `input` and appends answers to `output`.
    pub fn feed(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Progress<'e> {
        let (taken, rest) = input.split_at(input.len().min(self.wanted()));
        *input = rest;
        match &mut self.state {
            State::Discard { left, .. } => *left -= taken.len(),
            _ => self.item.extend_from_slice(taken),
        }
        let progress = if self.wanted() == 0 { self.complete(output) } else { Progress::Continue };
        if let Progress::Close(reason) = progress {
            self.state = State::Ended(reason);
        }
        progress
    }

    /// Everything the state has waited for is there.
    fn complete(&mut self, output: &mut Vec<u8>) -> Progress<'e> {
        match self.state {
            State::ClientFlags => self.client_flags(),
            State::Header => self.header(output),
            State::Data { opt, .. } => {
                let data = std::mem::take(&mut self.item);
                self.state = State::Header;
                self.option(opt, &data, output)
            }
            State::Discard { opt, .. } => {
                self.state = State::Header;
                refuse_too_big(opt, output)
            }
            State::Ended(reason) => Progress::Close(reason),
        }
    }

    fn client_flags(&mut self) -> Progress<'e> {
        let flags = u32_at(&self.item, 0);
        if flags & !(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) != 0 {
            return Progress::Close(Close::ClientFlags(flags));
        }
        self.no_zeroes = flags & NBD_FLAG_C_NO_ZEROES != 0;
        self.item.clear();
        self.state = State::Header;
        Progress::Continue
    }

    fn header(&mut self, output: &mut Vec<u8>) -> Progress<'e> {
        let magic = u64::from(u32_at(&self.item, 0)) << 32 | u64::from(u32_at(&self.item, 4));
        let opt = Opt::from_wire(u32_at(&self.item, 8));
        let announced = u32_at(&self.item, 12);
        let len = announced as usize;
        self.item.clear();
        self.options += 1;
        if magic != NBD_IHAVEOPT {
            return Progress::Close(Close::OptionMagic(magic));
        }
        if self.options > MAX_OPTIONS {
            return Progress::Close(Close::TooManyOptions);
        }
        if len > MAX_DISCARD || opt == Opt::ExportName && len > MAX_OPTION_DATA {
            return Progress::Close(Close::OptionTooLong(announced));
        }
        self.state =
            if opt.is_read(len) { State::Data { opt, len } } else { State::Discard { opt, left: len } };
        // Nothing more will come for an option without data.
        if len == 0 { self.complete(output) } else { Progress::Continue }
    }

    fn option(&mut self, opt: Opt, data: &[u8], output: &mut Vec<u8>) -> Progress<'e> {
        let mut replies = Replies::new(opt, output);
        match opt {
            Opt::ExportName => return self.export_name(data, output),
            Opt::Abort => {
                replies.ack();
                return Progress::Close(Close::Aborted);
            }
            Opt::Go => return self.go(data, &mut replies),
            Opt::Info => {
                self.info(data, &mut replies);
            }
            Opt::List => self.list(data, &mut replies),
            Opt::StartTls | Opt::StructuredReply if !data.is_empty() => {
                replies.error(NBD_REP_ERR_INVALID, "this option takes no data");
            }
            Opt::StartTls
            | Opt::StructuredReply
            | Opt::ListMetaContext
            | Opt::SetMetaContext
            | Opt::ExtendedHeaders
            | Opt::Unknown(_) => replies.error(NBD_REP_ERR_UNSUP, "this option is not supported"),
        }
        Progress::Continue
    }

    fn export_name(&self, name: &[u8], output: &mut Vec<u8>) -> Progress<'e> {
        let Some(export) = std::str::from_utf8(name).ok().and_then(|name| self.find(name)) else {
            return Progress::Close(Close::UnknownExport);
        };
        output.extend_from_slice(&export.size().to_be_bytes());
        output.extend_from_slice(&export.flags().bits().to_be_bytes());
        if !self.no_zeroes {
            output.extend_from_slice(&[0; 124]);
        }
        self.transmission(export)
    }

    fn go(&self, data: &[u8], replies: &mut Replies<'_>) -> Progress<'e> {
        match self.info(data, replies) {
            Some(export) => self.transmission(export),
            None => Progress::Continue,
        }
    }

    /// Answers INFO or GO; the export if the answer was success.
    fn info(&self, data: &[u8], replies: &mut Replies<'_>) -> Option<&'e Export> {
        let Some(request) = InfoRequest::parse(data) else {
            replies.error(NBD_REP_ERR_INVALID, "the option's data is malformed");
            return None;
        };
        let Some(export) = self.find(request.name) else {
            replies.error(NBD_REP_ERR_UNKNOWN, "there is no export with this name");
            return None;
        };
        replies.info(export, &request);
        replies.ack();
        Some(export)
    }

    fn list(&self, data: &[u8], replies: &mut Replies<'_>) {
        if !data.is_empty() {
            return replies.error(NBD_REP_ERR_INVALID, "this option takes no data");
        }
        for export in self.exports {
            replies.server(export);
        }
        replies.ack();
    }

    fn find(&self, name: &str) -> Option<&'e Export> {
        let named = self.exports.iter().find(|export| export.name() == name);
        named.or_else(|| self.exports.first().filter(|_| name.is_empty()))
    }

    fn transmission(&self, export: &'e Export) -> Progress<'e> {
        Progress::Transmission(Negotiated { export, no_zeroes: self.no_zeroes })
    }
}

/// Data was too long to look at.
fn refuse_too_big<'e>(opt: Opt, output: &mut Vec<u8>) -> Progress<'e> {
    let mut replies = Replies::new(opt, output);
    match opt {
        Opt::Abort => {
            replies.ack();
            return Progress::Close(Close::Aborted);
        }
        Opt::Unknown(_) => replies.error(NBD_REP_ERR_UNSUP, "this option is not supported"),
        _ => replies.error(NBD_REP_ERR_TOO_BIG, "the option's data is too long"),
    }
    Progress::Continue
}

/// The big-endian number at `at`, which the caller knows to be inside.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
