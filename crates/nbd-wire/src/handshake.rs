// SPDX-License-Identifier: MIT OR Apache-2.0
//! The negotiation, from the greeting to the choice of an export ('Newstyle negotiation').

mod answers;
mod look_up;
mod options;
mod replies;
#[cfg(test)]
mod tests;

use crate::consts::*;
use crate::contexts::Contexts;
use crate::{Export, Features, Negotiated, ReplyStyle, Tls};
use look_up::Found;
use options::Opt;

pub use options::MAX_QUERIES;

/// The number of options that a client may send before it has chosen an export.
pub const MAX_OPTIONS: usize = 32;
/// Options with more data than this, in bytes, are never held in memory: they are discarded and
/// refused.
pub const MAX_OPTION_DATA: usize = 64 << 10;
/// An option with more data than this, in bytes, ends the connection.
pub const MAX_DISCARD: usize = 32 << 20;

const OPTION_HEADER: usize = 16;

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
    /// TLS is required, and the client has chosen an export before TLS, or speaks no fixed
    /// newstyle, without which there is no TLS.
    #[error("the client does not use TLS, which is required")]
    TlsRequired,
    /// The client used EXPORT_NAME after EXTENDED_HEADERS, which the protocol forbids.
    #[error("the client has negotiated extended headers, and does not choose its export with GO")]
    ExportNameForbidden,
}

/// The next step after some bytes were fed. In every case the output is to be sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'e> {
    /// Read on.
    Continue,
    /// STARTTLS was acknowledged: the next byte, in both directions, belongs to TLS. Make its
    /// handshake, and tell [`Handshake::tls_started`], or drop the connection.
    StartTls,
    /// The client asks for contexts of this export that are [tentative](Export::with_tentative).
    /// Find out which of them it has, and tell [`Handshake::looked_up`], which answers the client.
    LookUp {
        /// One of the exports that are negotiated about.
        export: &'e Export,
        /// Some of its tentative contexts.
        contexts: Contexts,
    },
    /// The next byte belongs to the first request header.
    Transmission(Negotiated<'e>),
    /// Drop the connection.
    Close(Close),
}

/// The server's side of the negotiation. The first export is the default one.
///
/// Start with [`Handshake::greeting`]; then feed it what the client sends. It never takes a byte
/// that belongs to the transmission phase or to TLS, and holds at most [`MAX_OPTION_DATA`] bytes
/// and a header.
///
/// ```
/// use nbd_wire::{SizeConstraints, Export, Handshake, Progress, TransmissionFlags};
///
/// let sizes = SizeConstraints::default();
/// let exports = [Export::new("disk", 4096, TransmissionFlags::SEND_FLUSH, sizes)?];
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
    features: Features,
    tls: Tls,
    tls_has_started: bool,
    state: State<'e>,
    item: Vec<u8>,
    options: usize,
    no_zeroes: bool,
    style: ReplyStyle,
    /// The contexts that the last SET_META_CONTEXT has selected, and the export that they are of.
    selected: Option<(&'e Export, Contexts)>,
    /// The tentative contexts of one export that were looked up so far.
    found: Option<Found<'e>>,
}

#[derive(Debug, Clone, Copy)]
enum State<'e> {
    ClientFlags,
    Header,
    Data {
        opt: Opt,
        len: usize,
    },
    Discard {
        opt: Opt,
        left: usize,
    },
    StartTls,
    /// The option waits for what is found out of these contexts.
    LookUp {
        opt: Opt,
        export: &'e Export,
        contexts: Contexts,
    },
    Ended(Close),
}

impl<'e> Handshake<'e> {
    /// A negotiation about `exports`, the first of which also answers to the empty name. Neither
    /// features nor TLS are offered.
    #[must_use]
    pub fn new(exports: &'e [Export]) -> Self {
        Self {
            exports,
            features: Features::empty(),
            tls: Tls::default(),
            tls_has_started: false,
            state: State::ClientFlags,
            item: Vec::new(),
            options: 0,
            no_zeroes: false,
            style: ReplyStyle::Simple,
            selected: None,
            found: None,
        }
    }

    /// Has the negotiation offer `features`.
    #[must_use]
    pub fn with_features(self, features: Features) -> Self {
        Self { features, ..self }
    }

    /// Sets what the negotiation does about TLS.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls, ..self }
    }

    /// Returns the greeting, which the server sends first.
    #[must_use]
    pub fn greeting() -> [u8; 18] {
        let mut greeting = [0; 18];
        greeting[..8].copy_from_slice(&NBD_MAGIC.to_be_bytes());
        greeting[8..16].copy_from_slice(&NBD_IHAVEOPT.to_be_bytes());
        let flags = NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;
        greeting[16..].copy_from_slice(&flags.to_be_bytes());
        greeting
    }

    /// Returns the number of bytes that [`Handshake::feed`] takes before it has something to say.
    /// It is 0 when the negotiation has ended, and until TLS has started or contexts were looked
    /// up.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match self.state {
            State::ClientFlags => 4 - self.item.len(),
            State::Header => OPTION_HEADER - self.item.len(),
            State::Data { len, .. } => len - self.item.len(),
            State::Discard { left, .. } => left,
            State::StartTls | State::LookUp { .. } | State::Ended(_) => 0,
        }
    }

    /// Takes up to [`Handshake::wanted`] bytes off the front of `input` and appends answers to
    /// `output`.
    pub fn feed(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Progress<'e> {
        let (taken, rest) = input.split_at(input.len().min(self.wanted()));
        *input = rest;
        match &mut self.state {
            State::Discard { left, .. } => *left -= taken.len(),
            _ => self.item.extend_from_slice(taken),
        }
        let progress = if self.wanted() == 0 { self.complete(output) } else { Progress::Continue };
        match progress {
            Progress::StartTls => self.state = State::StartTls,
            Progress::Close(reason) => self.state = State::Ended(reason),
            Progress::Continue | Progress::LookUp { .. } | Progress::Transmission(_) => {}
        }
        progress
    }

    /// Goes on after [`Progress::StartTls`], with what TLS has decrypted. All that was negotiated
    /// before is forgotten, as somebody else may have said it ('Option types', `NBD_OPT_STARTTLS`).
    ///
    /// Bytes that the caller has read behind STARTTLS, before TLS, came in the clear. They must
    /// never be fed after this: give them to TLS as they are, or drop the connection. Who reads no
    /// more than [`Handshake::wanted`] has none.
    ///
    /// This does nothing unless [`Progress::StartTls`] was the last progress.
    pub fn tls_started(&mut self) {
        if matches!(self.state, State::StartTls) {
            self.state = State::Header;
            self.tls_has_started = true;
            self.style = ReplyStyle::Simple;
            self.selected = None;
            self.found = None;
        }
    }

    /// Everything the state has waited for is there.
    fn complete(&mut self, output: &mut Vec<u8>) -> Progress<'e> {
        match self.state {
            State::ClientFlags => self.client_flags(),
            State::Header => self.header(output),
            State::Data { opt, .. } => {
                let data = std::mem::take(&mut self.item);
                self.state = State::Header;
                let progress = self.option(opt, Some(&data), output);
                if let Progress::LookUp { export, contexts } = progress {
                    self.state = State::LookUp { opt, export, contexts };
                    self.item = data;
                }
                progress
            }
            State::Discard { opt, .. } => {
                self.state = State::Header;
                self.option(opt, None, output)
            }
            State::StartTls => Progress::StartTls,
            State::LookUp { export, contexts, .. } => Progress::LookUp { export, contexts },
            State::Ended(reason) => Progress::Close(reason),
        }
    }

    fn client_flags(&mut self) -> Progress<'e> {
        let flags = u32_at(&self.item, 0);
        if flags & !(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) != 0 {
            return Progress::Close(Close::ClientFlags(flags));
        }
        if flags & NBD_FLAG_C_FIXED_NEWSTYLE == 0 {
            // There is no TLS with such a client ('Server-side requirements').
            match self.tls {
                Tls::Required => return Progress::Close(Close::TlsRequired),
                Tls::Offered => self.tls = Tls::Off,
                Tls::Off | Tls::Unsupported => {}
            }
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
}

/// The big-endian number at `at`, which the caller knows to be inside.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
