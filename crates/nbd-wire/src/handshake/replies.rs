// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server's replies to options ('Fixed newstyle negotiation', 'Option reply types').

use super::options::{InfoRequest, Opt};
use crate::consts::*;
use crate::{Export, Negotiated};

/// The replies to one option, appended to the output.
pub(super) struct Replies<'o> {
    opt: Opt,
    output: &'o mut Vec<u8>,
}

impl<'o> Replies<'o> {
    pub(super) fn new(opt: Opt, output: &'o mut Vec<u8>) -> Self {
        Self { opt, output }
    }

    pub(super) fn ack(&mut self) {
        self.reply(NBD_REP_ACK, &[]);
    }

    /// An error that is to be shown to a human.
    pub(super) fn error(&mut self, kind: u32, message: &str) {
        self.reply(kind, &[message.as_bytes()]);
    }

    pub(super) fn unsupported(&mut self) {
        self.error(NBD_REP_ERR_UNSUP, "this option is not supported");
    }

    pub(super) fn malformed(&mut self) {
        self.error(NBD_REP_ERR_INVALID, "the option's data is malformed");
    }

    pub(super) fn unknown_export(&mut self) {
        self.error(NBD_REP_ERR_UNKNOWN, "there is no export with this name");
    }

    pub(super) fn meta_context(&mut self, id: u32, name: &str) {
        self.reply(NBD_REP_META_CONTEXT, &[&id.to_be_bytes(), name.as_bytes()]);
    }

    /// One export of a list.
    pub(super) fn server(&mut self, export: &Export) {
        let name = export.name().as_bytes();
        // A name is never longer than MAX_STRING.
        let len = (name.len() as u32).to_be_bytes();
        self.reply(NBD_REP_SERVER, &[&len, name, export.description().as_bytes()]);
    }

    /// Sends the information that is mandatory, and that which was asked for and exists.
    pub(super) fn info(&mut self, negotiated: &Negotiated<'_>, request: &InfoRequest<'_>) {
        let Negotiated { export, flags, .. } = *negotiated;
        let (size, flags) = (export.size().to_be_bytes(), flags.bits().to_be_bytes());
        self.reply(NBD_REP_INFO, &[&NBD_INFO_EXPORT.to_be_bytes(), &size, &flags]);
        if request.wants(NBD_INFO_NAME) {
            self.reply(NBD_REP_INFO, &[&NBD_INFO_NAME.to_be_bytes(), export.name().as_bytes()]);
        }
        if request.wants(NBD_INFO_DESCRIPTION) && !export.description().is_empty() {
            let description = export.description().as_bytes();
            self.reply(NBD_REP_INFO, &[&NBD_INFO_DESCRIPTION.to_be_bytes(), description]);
        }
        if request.wants(NBD_INFO_BLOCK_SIZE) {
            let size = export.block_size();
            let sizes = [size.minimum, size.preferred, size.maximum].map(u32::to_be_bytes);
            self.reply(NBD_REP_INFO, &[&NBD_INFO_BLOCK_SIZE.to_be_bytes(), sizes.as_flattened()]);
        }
    }

    fn reply(&mut self, kind: u32, data: &[&[u8]]) {
        // Two strings of the protocol and some numbers: far below 4 GiB.
        let len = data.iter().map(|part| part.len()).sum::<usize>() as u32;
        self.output.extend_from_slice(&NBD_REP_MAGIC.to_be_bytes());
        for number in [self.opt.to_wire(), kind, len] {
            self.output.extend_from_slice(&number.to_be_bytes());
        }
        for part in data {
            self.output.extend_from_slice(part);
        }
    }
}
