// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of a document, and those of the server's log.

use std::os::unix::net::UnixStream;
use std::path::Path;

use fake_imageio::{Log, Op, RequestRecord};
use nbd::client::{NbdClient, handshake};
use serde_json::Value;

/// The figures in a document about a server.
pub(crate) struct Figures<'a>(pub(crate) &'a Value);

/// Requests and bytes.
pub(crate) fn amount(told: &Value) -> (u64, u64) {
    (told["requests"].as_u64().unwrap(), told["bytes"].as_u64().unwrap())
}

impl Figures<'_> {
    /// They are those of the log of a server that was used by nobody else.
    #[track_caller]
    pub(crate) fn assert_agree_with(&self, log: &Log) {
        for (op, kind) in
            [(Op::Get, "reads"), (Op::Put, "writes"), (Op::Zero, "zeroes"), (Op::Flush, "flushes")]
        {
            let told = &self.0["all"][kind];
            assert_eq!(amount(&told["sent"]), sum(log, op, |_| true), "sent: {op:?} {told}");
            assert_eq!(amount(&told["answered"]), sum(log, op, is_answered), "answered: {op:?} {told}");
            let purposes = ["for_clients", "in_background", "keep_alives", "written_again"];
            let of_each = purposes.map(|purpose| amount(&self.0[purpose][kind]["sent"]));
            let together = of_each.iter().fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
            assert_eq!(together, amount(&told["sent"]), "{kind}");
        }
        // The first one was closed before anything was served.
        let connections = log.connections.len() as u64 - 1;
        assert_eq!(self.0["connections"]["opened"].as_u64(), Some(connections));
    }
}

fn sum(log: &Log, op: Op, is_counted: impl Fn(&RequestRecord) -> bool) -> (u64, u64) {
    const BEFORE: u64 = 1;
    let requests = log.of(op).filter(|request| request.connection != BEFORE && is_counted(request));
    requests.fold((0, 0), |(requests, bytes), request| (requests + 1, bytes + request.size))
}

/// The client has got all of an answer that says that it was done.
fn is_answered(request: &RequestRecord) -> bool {
    let is_cut = matches!(request.fault, Some("lose answer" | "close" | "reset"));
    request.end.is_some() && matches!(request.status, Some(200..=299)) && !is_cut
}

/// Writes by a client that leaves without a flush.
pub(crate) fn write(socket: &Path, offset: u64, data: &[u8]) {
    use std::io::{Seek, SeekFrom, Write};
    let mut stream = UnixStream::connect(socket).unwrap();
    let export = handshake(&mut stream, b"").unwrap();
    let mut client = NbdClient::new(stream, &export);
    client.seek(SeekFrom::Start(offset)).unwrap();
    client.write_all(data).unwrap();
}
