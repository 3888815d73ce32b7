// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parameters.

use crate::engine::ENGINE_PARAMETERS;
use crate::{Parser, parse};

/// One parameter, with all that is ever said of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parameter {
    /// The name, with hyphens.
    pub name: &'static str,
    /// The word that stands for the value in a synopsis.
    pub value: &'static str,
    /// The default, in words.
    pub default: &'static str,
    /// The help text: it tells in whole sentences what the parameter does.
    pub help: &'static str,
    /// Takes the value into the settings, or says what is wrong with it.
    pub(crate) set: fn(&mut Parser, &str) -> Result<(), String>,
}

/// The greatest number of connections that makes any sense.
const MOST_CONNECTIONS: u32 = 64;

/// All parameters, in the order of their use.
pub fn parameters() -> impl Iterator<Item = &'static Parameter> + Clone {
    PARAMETERS.iter().chain(ENGINE_PARAMETERS)
}

/// The parameters of a transfer, whoever has asked the engine for it.
const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "url",
        value: "URL|+FILE|-",
        default: "required, or disk= of an engine",
        help: "Use the transfer with this URL, https://HOST:54322/images/TICKET. The ticket in it is the key to the disk: \
               +FILE reads the URL from the first line of a file, and - from standard input, so that ps doesn't show it. \
               The name may be left out: a value alone is the URL.",
        set: |parser, value| parse::url(value).map(|value| parser.url = Some(value)),
    },
    Parameter {
        name: "size",
        value: "BYTES",
        default: "asked of the server",
        help: "Offer a disk of this size, at most that of the transfer. K, M, G and T stand for powers of 1024. The server is \
               not asked for its own then: it refuses requests past its end.",
        set: |parser, value| parse::size(value).map(|value| parser.settings.size = Some(value)),
    },
    Parameter {
        name: "cafile",
        value: "FILE",
        default: "the system's roots",
        help: "Trust the CA in this PEM file, which has signed the server's certificate: for oVirt, the engine's CA.",
        set: |parser, value| parse::path(value).map(|value| parser.settings.cafile = Some(value)),
    },
    Parameter {
        name: "insecure",
        value: "true|false",
        default: "false",
        help: "Don't verify the server's certificate. Anyone in between can then read and change the disk.",
        set: |parser, value| parse::boolean(value).map(|value| parser.settings.insecure = value),
    },
    Parameter {
        name: "is-ovirt-host",
        value: "true|false",
        default: "false",
        help: "This host is an oVirt host with access to the disk: use the server's unix socket, which is faster, if the \
               right user listens there and the same is offered there as by the URL; else the URL, with a warning.",
        set: |parser, value| parse::boolean(value).map(|value| parser.settings.is_ovirt_host = value),
    },
    Parameter {
        name: "unix-socket",
        value: "true|false",
        default: "true",
        help: "With is-ovirt-host, use the server's unix socket. With false, the URL is always used.",
        set: |parser, value| parse::boolean(value).map(|value| parser.settings.unix_socket = value),
    },
    Parameter {
        name: "unix-socket-user",
        value: "USER",
        default: "ovirtimg, if this host has that user",
        help: "Trust a unix socket of this user, by name or number, with the ticket, besides root's and that of the \
               user who runs this. Any user of this host could listen where the server should.",
        set: |parser, value| parse::user(value).map(|value| parser.settings.unix_socket_user = Some(value)),
    },
    Parameter {
        name: "dirty-bitmap",
        value: "NAME",
        default: "dirty",
        help: "With a ticket of an incremental backup, offer its dirty extents as qemu:dirty-bitmap:NAME, besides \
               imageio:dirty. The server doesn't tell the name. nbdkit can't offer them.",
        set: |parser, value| parse::bitmap(value).map(|value| parser.settings.dirty_bitmap = value),
    },
    Parameter {
        name: "clean-as-holes",
        value: "true|false",
        default: "false",
        help: "With a ticket of an incremental backup, tell clients in base:allocation that what is not dirty is a hole, without \
               saying that it is zero. qemu-img convert -B, with the last backup as the backing file, then copies what is dirty alone; \
               other clients read all of it. If the server doesn't tell what is dirty, all of it is taken for that.",
        set: |parser, value| parse::boolean(value).map(|value| parser.settings.clean_as_holes = value),
    },
    Parameter {
        name: "connections",
        value: "N",
        default: "auto",
        help: "Use at most so many connections to the server at a time, from 1 to 64. The server may allow fewer. auto: 4, and \
               up to 8 while the link to the server has a long latency, as measured.",
        set: |parser, value| {
            parse::or_auto(value, |value| parse::count(value, MOST_CONNECTIONS))
                .map(|value| parser.settings.connections = value)
        },
    },
    Parameter {
        name: "max-request",
        value: "BYTES",
        default: "auto",
        help: "Merge adjacent requests that wait for a connection into one of at most this size, as the server's cost \
               of a request is high; and send longer reads and writes in pieces of it: several reads at a time, and writes in steps, as \
               more at once costs the server's storage more. A multiple of 4096, from 64K on; 0: neither. auto: 2M, and up to 4M while the link to the \
               server has a long latency, as measured.",
        set: |parser, value| {
            parse::or_auto(value, parse::max_request).map(|value| parser.settings.max_request = value)
        },
    },
    Parameter {
        name: "read-ahead",
        value: "BYTES",
        default: "2M",
        help: "Once a client has read in order for a while, with one request at a time on its way, read at most so many \
               bytes ahead of it, if its requests are no longer than half of that. What was read ahead is dropped when a client changes the disk; 0 (never) is for disks \
               that another program changes meanwhile. nbdkit has its filter readahead for this.",
        set: |parser, value| parse::size(value).map(|value| parser.settings.read_ahead = value),
    },
    Parameter {
        name: "preferred-block-size",
        value: "BYTES",
        default: "2M",
        help: "Tell NBD clients to prefer requests of this size: a power of two from 512 to 32M. nbdcopy and \
               qemu-img then use such requests, if they aren't told otherwise.",
        set: |parser, value| {
            parse::block_size(value).map(|value| parser.settings.preferred_block_size = value)
        },
    },
    Parameter {
        name: "keep-alive",
        value: "SECONDS",
        default: "20",
        help: "Use a connection that has been idle for so long, by a flush where possible, so that the server \
               doesn't close it (imageio does after 60 seconds). 0: never.",
        set: |parser, value| parse::seconds_or_none(value).map(|value| parser.settings.keep_alive = value),
    },
    Parameter {
        name: "no-hole",
        value: "ignore|write",
        default: "ignore",
        help: "Choose what is done where a client wants zeroes that stay allocated (NBD's NO_HOLE), which imageio can't be \
               asked for. ignore: zero as the transfer does it, which is quick and leaves the image sparse; a later write \
               there may find the storage full. write: send zeroes as data, which takes the time and the space of data. \
               qemu-img always asks for such zeroes, nbdcopy with --allocated.",
        set: |parser, value| parse::no_hole(value).map(|value| parser.settings.no_hole = value),
    },
    Parameter {
        name: "replay-buffer",
        value: "BYTES",
        default: "auto",
        help: "Keep at most so many bytes that were written and not flushed, to write them again should a connection be \
               lost. Before they are too many, connections are flushed in the background. 0: keep none; then a \
               connection that is lost with unflushed writes ends the transfer. auto: 32M, and up to 64M while the link to \
               the server has a long latency, as measured.",
        set: |parser, value| {
            parse::or_auto(value, parse::size).map(|value| parser.settings.replay_buffer = value)
        },
    },
    Parameter {
        name: "reconnect-timeout",
        value: "SECONDS",
        default: "60; 600 with an engine",
        help: "Give up opening a lost connection again after so long. 0: after one attempt. An engine pauses a transfer while its \
               host or the network is away, and resumes it.",
        set: |parser, value| {
            parse::seconds_or_none(value)
                .map(|value| parser.reconnect_timeout = Some(value.unwrap_or_default()))
        },
    },
    Parameter {
        name: "connect-timeout",
        value: "SECONDS",
        default: "10",
        help: "Give up connecting to the server after so long.",
        set: |parser, value| parse::seconds(value).map(|value| parser.settings.timeouts.connect = value),
    },
    Parameter {
        name: "timeout",
        value: "SECONDS",
        default: "60",
        help: "Give up a read or write when no byte has moved for so long.",
        set: |parser, value| parse::seconds(value).map(|value| parser.settings.timeouts.data = value),
    },
    Parameter {
        name: "operation-timeout",
        value: "SECONDS",
        default: "900",
        help: "Give up what may be slow on some storage (zero, flush, extents, checksum) when no answer came for so long.",
        set: |parser, value| parse::seconds(value).map(|value| parser.settings.timeouts.operation = value),
    },
    STATS_JSON,
];

/// The destination of the figures of all transfers together. It is about who serves them, and not
/// about any of them, and an option of `imageio-nbd`, too.
pub const STATS_JSON: Parameter = Parameter {
    name: "stats-json",
    value: "FILE|-",
    default: "none",
    help: "Write what was done into this file at the end, also after a failure: a JSON document, which docs/statistics.md \
           explains. The file is replaced as a whole. - is standard error.",
    set: |parser, value| parse::output(value).map(|value| parser.stats_json = Some(value)),
};

/// Begins the parameters of one of several transfers: see [`Exports`](crate::Exports). It isn't
/// among the [others](parameters), as who serves one transfer has no use for it.
pub const EXPORT: Parameter = Parameter {
    name: "export",
    value: "NAME",
    default: "one export, which -e names",
    help: "Serve several transfers: what follows is about the export NAME, up to the next export=, and has to have a url= \
           of its own. What stands before the first export= is for all. The first one is also served to clients that ask for no name.",
    set: |_, _| Err("one transfer is expected here: only imageio-nbd by itself serves several".to_owned()),
};

/// Words in lines of at most `width` columns, if no word is longer.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
