// SPDX-License-Identifier: MIT OR Apache-2.0
//! The effect of each option, and its answer ('Option types').

use super::options::{InfoRequest, MetaContextRequest, Opt};
use super::replies::Replies;
use super::{Close, Handshake, Progress};
use crate::consts::*;
use crate::contexts::Contexts;
use crate::{Export, Features, Negotiated, ReplyStyle, Tls};

impl<'e> Handshake<'e> {
    /// `data` is `None` if it was not kept: it was too long, or is of no interest.
    pub(super) fn option(&mut self, opt: Opt, data: Option<&[u8]>, output: &mut Vec<u8>) -> Progress<'e> {
        let mut replies = Replies::new(opt, output);
        if opt == Opt::Abort {
            replies.ack();
            return Progress::Close(Close::Aborted);
        }
        if self.tls == Tls::Required && !self.tls_has_started && opt != Opt::StartTls {
            return refuse_without_tls(opt, &mut replies);
        }
        if opt == Opt::SetMetaContext {
            // The former selection is gone even if this one fails.
            self.selected = None;
        }
        match (opt, data) {
            (Opt::Unknown(_), _) => replies.unsupported(),
            (_, None) => replies.error(NBD_REP_ERR_TOO_BIG, "the option's data is too long"),
            (Opt::ExportName, Some(data)) => return self.export_name(data, output),
            (_, Some(data)) => return self.answer(opt, data, &mut replies),
        }
        Progress::Continue
    }

    fn answer(&mut self, opt: Opt, data: &[u8], replies: &mut Replies<'_>) -> Progress<'e> {
        match opt {
            Opt::Go => return self.go(data, replies),
            Opt::Info => {
                self.info(data, replies);
            }
            Opt::ListMetaContext | Opt::SetMetaContext if !self.features.contains(Features::META_CONTEXT) => {
                replies.unsupported();
            }
            Opt::ListMetaContext => return self.list_meta_context(data, replies),
            Opt::SetMetaContext => return self.set_meta_context(data, replies),
            _ if !data.is_empty() => replies.error(NBD_REP_ERR_INVALID, "this option takes no data"),
            Opt::List => self.list(replies),
            Opt::StartTls => return self.start_tls(replies),
            Opt::StructuredReply => self.structured_reply(replies),
            Opt::ExtendedHeaders => self.extended_headers(replies),
            Opt::ExportName | Opt::Abort | Opt::Unknown(_) => replies.unsupported(),
        }
        Progress::Continue
    }

    fn export_name(&self, name: &[u8], output: &mut Vec<u8>) -> Progress<'e> {
        if self.style == ReplyStyle::Extended {
            return Progress::Close(Close::ExportNameForbidden);
        }
        let Some(export) = std::str::from_utf8(name).ok().and_then(|name| self.find(name)) else {
            return Progress::Close(Close::UnknownExport);
        };
        let negotiated = self.negotiated(export);
        output.extend_from_slice(&export.size().to_be_bytes());
        output.extend_from_slice(&negotiated.flags.bits().to_be_bytes());
        if !self.no_zeroes {
            output.extend_from_slice(&[0; 124]);
        }
        Progress::Transmission(negotiated)
    }

    fn go(&self, data: &[u8], replies: &mut Replies<'_>) -> Progress<'e> {
        match self.info(data, replies) {
            Some(negotiated) => Progress::Transmission(negotiated),
            None => Progress::Continue,
        }
    }

    /// Answers INFO or GO. Gives what is settled if the answer was success.
    fn info(&self, data: &[u8], replies: &mut Replies<'_>) -> Option<Negotiated<'e>> {
        let Some(request) = InfoRequest::parse(data) else {
            replies.malformed();
            return None;
        };
        let Some(export) = self.find(request.name) else {
            replies.unknown_export();
            return None;
        };
        let negotiated = self.negotiated(export);
        replies.info(&negotiated, &request);
        replies.ack();
        Some(negotiated)
    }

    fn list(&self, replies: &mut Replies<'_>) {
        for export in self.exports {
            replies.server(export);
        }
        replies.ack();
    }

    /// The caller starts TLS next, if this succeeds ('Server-side requirements').
    fn start_tls(&self, replies: &mut Replies<'_>) -> Progress<'e> {
        match self.tls {
            _ if self.tls_has_started => replies.error(NBD_REP_ERR_INVALID, "TLS has started already"),
            Tls::Unsupported => replies.unsupported(),
            Tls::Off => replies.error(NBD_REP_ERR_POLICY, "this server does not use TLS"),
            Tls::Offered | Tls::Required => {
                replies.ack();
                return Progress::StartTls;
            }
        }
        Progress::Continue
    }

    fn structured_reply(&mut self, replies: &mut Replies<'_>) {
        match self.style {
            _ if !self.features.contains(Features::STRUCTURED_REPLY) => replies.unsupported(),
            ReplyStyle::Extended => {
                replies.error(NBD_REP_ERR_EXT_HEADER_REQD, "extended headers are in use already");
            }
            ReplyStyle::Simple | ReplyStyle::Structured => {
                self.style = ReplyStyle::Structured;
                replies.ack();
            }
        }
    }

    fn extended_headers(&mut self, replies: &mut Replies<'_>) {
        if !self.features.contains(Features::EXTENDED_HEADERS) {
            return replies.unsupported();
        }
        self.style = ReplyStyle::Extended;
        replies.ack();
    }

    fn list_meta_context(&self, data: &[u8], replies: &mut Replies<'_>) -> Progress<'e> {
        let Some((export, request)) = self.meta_context(data, replies) else { return Progress::Continue };
        let contexts = match self.present(export, request.listed(export)) {
            Ok(contexts) => contexts,
            Err(contexts) => return Progress::LookUp { export, contexts },
        };
        for context in contexts.iter() {
            // Without a selection there are no IDs.
            replies.meta_context(0, &export.contexts()[context.index]);
        }
        replies.ack();
        Progress::Continue
    }

    fn set_meta_context(&mut self, data: &[u8], replies: &mut Replies<'_>) -> Progress<'e> {
        if self.style == ReplyStyle::Simple {
            let message = "structured replies or extended headers must be negotiated first";
            replies.error(NBD_REP_ERR_INVALID, message);
            return Progress::Continue;
        }
        let Some((export, request)) = self.meta_context(data, replies) else { return Progress::Continue };
        let contexts = match self.present(export, request.selected(export)) {
            Ok(contexts) => contexts,
            Err(contexts) => return Progress::LookUp { export, contexts },
        };
        for context in contexts.iter() {
            replies.meta_context(context.id, &export.contexts()[context.index]);
        }
        replies.ack();
        self.selected = Some((export, contexts));
        Progress::Continue
    }

    /// Does the part that LIST_META_CONTEXT and SET_META_CONTEXT have in common: it reads the
    /// request and finds the export. `None` means that the option was refused.
    fn meta_context<'d>(
        &self,
        data: &'d [u8],
        replies: &mut Replies<'_>,
    ) -> Option<(&'e Export, MetaContextRequest<'d>)> {
        let Some(request) = MetaContextRequest::parse(data) else {
            replies.malformed();
            return None;
        };
        if request.has_too_many_queries() {
            replies.error(NBD_REP_ERR_TOO_BIG, "there are too many queries");
            return None;
        }
        let Some(export) = self.find(request.name) else {
            replies.unknown_export();
            return None;
        };
        Some((export, request))
    }

    fn find(&self, name: &str) -> Option<&'e Export> {
        let named = self.exports.iter().find(|export| export.name() == name);
        named.or_else(|| self.exports.first().filter(|_| name.is_empty()))
    }

    fn negotiated(&self, export: &'e Export) -> Negotiated<'e> {
        // Contexts that were selected on another export do not count.
        let selected = self.selected.filter(|(selected, _)| std::ptr::eq(*selected, export));
        let contexts = selected.map_or(Contexts::default(), |(_, contexts)| contexts);
        Negotiated::new(export, self.no_zeroes, self.style, contexts)
    }
}

/// TLS is required, and has not started ('Server-side requirements').
fn refuse_without_tls<'e>(opt: Opt, replies: &mut Replies<'_>) -> Progress<'e> {
    if opt == Opt::ExportName {
        // It can't be answered by an error.
        return Progress::Close(Close::TlsRequired);
    }
    replies.error(NBD_REP_ERR_TLS_REQD, "this server requires TLS");
    Progress::Continue
}
