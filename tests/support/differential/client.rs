// SPDX-License-Identifier: MIT OR Apache-2.0
//! An NBD client that does one request at a time, as it is told: nbdsh, so libnbd.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use support::TestResult;
use support::tools::NBDSH;

use crate::script::{CONNECTIONS, Request};

/// Each line is a request in JSON, perhaps followed by data; each answer, the name of an error or
/// an empty line, and a line with the length of the data that follows.
const DRIVER: &str = r#"
import json, os, sys

requests, answers = sys.stdin.buffer, sys.stdout.buffer
connections = []

def answer(error, data):
    answers.write(b"%s\n%d\n" % (error.encode(), len(data)))
    answers.write(data)
    answers.flush()

def perform(request):
    h = connections[request["connection"]]
    offset, length, flags = request["offset"], request["len"], 0
    if request["fua"]:
        flags |= nbd.CMD_FLAG_FUA
    if request["no_hole"]:
        flags |= nbd.CMD_FLAG_NO_HOLE
    command = request["command"]
    if command == "Read":
        return h.pread(length, offset)
    if command == "Write":
        h.pwrite(requests.read(length), offset, flags)
    if command == "Zero":
        h.zero(length, offset, flags)
    if command == "Flush":
        h.flush()
    return b""

for _ in range(int(os.environ["NBD_CONNECTIONS"])):
    h = nbd.NBD()
    h.connect_uri(os.environ["NBD_URI"])
    connections.append(h)
offered = {name: getattr(h, name)() for name in (
    "get_size", "is_read_only", "can_flush", "can_fua", "can_zero", "can_trim", "can_multi_conn")}
answer("", json.dumps(offered).encode())

for line in requests:
    try:
        answer("", perform(json.loads(line)))
    except nbd.Error as error:
        answer(error.errno or "unknown", b"")
for h in connections:
    h.shutdown()
"#;

/// The client, connected.
pub(crate) struct Client {
    nbdsh: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The features that it was offered.
    pub(crate) offered: Value,
}

impl Client {
    pub(crate) fn connect(uri: &str) -> TestResult<Self> {
        // A hang is a failure. Debian's nbdsh needs Debian's Python.
        let mut command = Command::new("timeout");
        command.arg("60").arg(NBDSH.path()).args(["-n", "-c", DRIVER]).env("PATH", "/usr/bin:/bin");
        command.env("NBD_URI", uri).env("NBD_CONNECTIONS", CONNECTIONS.to_string());
        let mut nbdsh = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = nbdsh.stdin.take();
        let answers = BufReader::new(nbdsh.stdout.take().ok_or("no output")?);
        let mut client = Self { nbdsh, requests, answers, offered: Value::Null };
        let offered = client.answer()?.map_err(|error| format!("connecting: {error}"))?;
        client.offered = serde_json::from_slice(&offered)?;
        Ok(client)
    }

    /// Does a request, and returns the bytes read, or the name of the error.
    pub(crate) fn perform(&mut self, request: &Request) -> TestResult<Result<Vec<u8>, String>> {
        let line = json!({
            "command": format!("{:?}", request.command),
            "offset": request.offset,
            "len": request.len,
            "fua": request.fua,
            "no_hole": request.no_hole,
            "connection": request.connection,
        });
        let requests = self.requests.as_mut().ok_or("closed")?;
        writeln!(requests, "{line}")?;
        if request.command == crate::script::Command::Write {
            requests.write_all(&request.data())?;
        }
        requests.flush()?;
        self.answer()
    }

    /// Disconnects in order.
    pub(crate) fn close(mut self) -> TestResult {
        self.requests = None;
        let status = self.nbdsh.wait()?;
        if status.success() { Ok(()) } else { Err(format!("nbdsh: {status}").into()) }
    }

    fn answer(&mut self) -> TestResult<Result<Vec<u8>, String>> {
        let error = self.line()?;
        let mut data = vec![0; self.line()?.parse()?];
        self.answers.read_exact(&mut data)?;
        Ok(if error.is_empty() { Ok(data) } else { Err(error) })
    }

    fn line(&mut self) -> TestResult<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("nbdsh ended".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its input ends it, and `timeout` if not even that does.
        self.requests = None;
        let _ = self.nbdsh.wait();
    }
}
