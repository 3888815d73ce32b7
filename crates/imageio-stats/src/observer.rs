// SPDX-License-Identifier: MIT OR Apache-2.0
//! Observers, who look at transfers while they are served.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use imageio_device::Device;
use imageio_device::statistics::{Awaited, Wait};

use crate::clients::ClientStatistics;
use crate::output::{Output, OutputError};
use crate::report::{Figures, Report, State};
use crate::stall::Look;
use crate::summary::summary;

/// A transfer that is served.
#[non_exhaustive]
pub struct Export {
    /// The name by which clients ask for the disk.
    pub name: String,
    /// The name that messages call it by, where there may be several.
    pub label: Option<String>,
    /// Its device.
    pub device: Arc<Device>,
    /// Returns the figures of what its clients have asked for so far.
    pub clients: Box<dyn Fn() -> ClientStatistics + Send + Sync>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, label, device, .. } = self;
        let mut export = f.debug_struct("Export");
        export.field("name", name).field("label", label).field("device", device).finish_non_exhaustive()
    }
}

impl Export {
    /// A device that clients know by `name`; `clients` tells what they have asked for so far.
    pub fn new(
        name: impl Into<String>,
        device: Arc<Device>,
        clients: impl Fn() -> ClientStatistics + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), label: None, device, clients: Box::new(clients) }
    }
}

/// Looks at transfers, and tells what they have done.
pub struct Observer {
    program: String,
    exports: Vec<Export>,
    output: Option<Output>,
    /// The last document is written, or about to be. Held while one is written: they come one after
    /// another.
    has_ended: Mutex<bool>,
    began: Instant,
}

/// The progress of all transfers together, and what is being done at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that clients have read and written, without zeroes.
    pub from_clients: u64,
    /// Bytes that were read from the servers and written to them, without zeroes; with what was
    /// written again.
    pub to_server: u64,
    /// The answers that the servers are waited for, such as `3 writes, 1 flush`, or `nothing`.
    pub awaited: String,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.exports.iter().map(|export| &export.name).collect::<Vec<_>>();
        f.debug_struct("Observer").field("exports", &names).finish_non_exhaustive()
    }
}

impl Export {
    fn figures(&self) -> Figures {
        // The clients' figures are taken first: the server's have by then all that went out for
        // them.
        Figures { clients: (self.clients)(), server: self.device.statistics() }
    }

    /// Puts its label, if it has one, before a message.
    pub(crate) fn labelled(&self, message: impl fmt::Display) -> String {
        match &self.label {
            Some(label) => format!("{label}: {message}"),
            None => message.to_string(),
        }
    }

    pub(crate) fn look(&self) -> Look {
        Look::new(&self.figures(), self.device.waits())
    }
}

impl Observer {
    /// `program` is the name and version of whoever serves; `output` is where
    /// [`write`](Self::write) writes.
    #[must_use]
    pub fn new(program: impl Into<String>, exports: Vec<Export>, output: Option<Output>) -> Self {
        Self { program: program.into(), exports, output, has_ended: Mutex::new(false), began: Instant::now() }
    }

    pub(crate) fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// Returns a line for each transfer about what it has done, and one about all of them together
    /// if there are several.
    #[must_use]
    pub fn summaries(&self) -> Vec<String> {
        let figures: Vec<_> = self.exports.iter().map(Export::figures).collect();
        let each = self.exports.iter().zip(&figures);
        let mut lines: Vec<_> = each.map(|(export, figures)| export.labelled(summary(figures))).collect();
        if lines.len() > 1 {
            lines.push(format!("all exports: {}", summary(&Figures::total(figures))));
        }
        lines
    }

    /// Writes the document, if it is wanted, with the figures of this moment: to `standard_error`
    /// if that is its place. This may take long, as file systems may hang. Nothing is written after
    /// one whose state is not [`State::Running`].
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn write(&self, state: State, standard_error: &mut dyn io::Write) -> Result<(), OutputError> {
        let Some(output) = &self.output else { return Ok(()) };
        let mut has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *has_ended {
            return Ok(());
        }
        *has_ended = state != State::Running;
        let exports: Vec<_> = self.exports.iter().map(|export| (&*export.name, export.figures())).collect();
        let report = Report::new(&self.program, state, self.began.elapsed().as_secs_f64(), &exports);
        let text = match output {
            Output::StandardError => report.line(),
            Output::File(_) => report.document(),
        };
        output.write(&text, standard_error)
    }

    /// Returns the progress of all transfers at this moment.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let Figures { clients, server } = Figures::total(self.exports.iter().map(Export::figures));
        let operations = server.operations();
        let waits: Vec<_> = self.exports.iter().flat_map(|export| export.device.waits()).collect();
        Progress {
            from_clients: clients.reads.bytes + clients.writes.bytes,
            to_server: operations.reads.answered.bytes + operations.writes.answered.bytes,
            awaited: awaited(&waits),
        }
    }
}

/// Returns the number of connections that wait for each kind of answer, in words.
fn awaited(waits: &[Wait]) -> String {
    let kinds = [
        (Awaited::Read, "read", "reads"),
        (Awaited::Write, "write", "writes"),
        (Awaited::Zero, "zero", "zeroes"),
        (Awaited::Flush, "flush", "flushes"),
        (Awaited::Extents, "question for extents", "questions for extents"),
        (Awaited::Connection, "connection", "connections"),
    ];
    let counted = kinds.into_iter().filter_map(|(kind, one, several)| {
        match waits.iter().filter(|wait| wait.awaited == kind).count() {
            0 => None,
            1 => Some(format!("1 {one}")),
            number => Some(format!("{number} {several}")),
        }
    });
    let counted = counted.collect::<Vec<_>>().join(", ");
    if counted.is_empty() { "nothing".to_owned() } else { counted }
}

#[cfg(test)]
mod tests {
    use block_device_traits::BlockDevice;
    use bytes::Bytes;
    use fake_imageio::FakeServer;
    use imageio_device::{Settings, Transfer, UrlSource};
    use serde_json::Value;

    use super::*;
    use crate::clients::Requests;

    fn export(name: &str, label: Option<&str>) -> (FakeServer, Export) {
        let server = FakeServer::builder().size(1 << 20).start().unwrap();
        let settings =
            Settings::new(UrlSource::Inline(server.url())).with(|settings| settings.keep_alive = None);
        let device = Arc::new(Transfer::open(settings).unwrap().start().unwrap());
        let clients = Box::new(|| ClientStatistics {
            accepted: 2,
            writes: Requests { requests: 1, bytes: 4096, errors: 0 },
            ..ClientStatistics::default()
        });
        (server, Export { name: name.into(), label: label.map(str::to_owned), device, clients })
    }

    #[test]
    fn several_transfers_are_told_each_and_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.json");
        let all = [export("sda", Some("export 'sda'")), export("sdb", Some("export 'sdb'"))];
        let (_servers, exports): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        for export in &exports {
            export.device.write(0, Bytes::from_static(&[1; 4096]), true).unwrap();
        }
        let observer = Observer::new("program 1", exports, Some(Output::prepare(&path).unwrap()));
        let lines = observer.summaries();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[1].starts_with("export 'sdb': from clients: 1 write of 4.0 KiB; to the server: 1 write ")
        );
        assert!(lines[2].starts_with("all exports: from clients: 2 writes of 8.0 KiB; "), "{lines:?}");
        let document =
            || -> Value { serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap() };
        observer.write(State::Running, &mut io::empty()).unwrap();
        let told = document();
        assert_eq!((&told["program"], &told["state"]), (&"program 1".into(), &"running".into()));
        assert_eq!(told["exports"][0]["clients"]["accepted"], 2);
        assert_eq!(told["exports"][0]["server"]["connections"]["opened"], 1);
        assert_eq!(told["total"]["server"]["all"]["writes"]["answered"]["bytes"], 8192);
        let Progress { from_clients, to_server, awaited } = observer.progress();
        assert_eq!((from_clients, to_server, &*awaited), (8192, 8192, "nothing"));
        for state in [State::Complete, State::Running, State::Incomplete] {
            observer.write(state, &mut io::empty()).unwrap();
            assert_eq!(document()["state"], "complete", "nothing comes after the end");
        }
        observer.exports().iter().for_each(|export| export.device.close().unwrap());
    }

    #[test]
    fn one_transfer_has_one_line_and_writes_nothing_unasked() {
        let (_server, export) = export("", None);
        let observer = Observer::new("program 1", vec![export], None);
        assert_eq!(observer.summaries().len(), 1);
        let mut standard_error = Vec::new();
        observer.write(State::Complete, &mut standard_error).unwrap();
        assert_eq!(standard_error, b"");
        observer.exports()[0].device.close().unwrap();
    }

    #[test]
    fn what_is_waited_for_is_counted() {
        let now = Instant::now();
        let of = |kinds: &[Awaited]| {
            awaited(&kinds.iter().map(|&kind| Wait::new(1, kind, now)).collect::<Vec<_>>())
        };
        use Awaited::{Connection, Flush, Write};
        assert_eq!(of(&[Write, Flush, Write, Connection]), "2 writes, 1 flush, 1 connection");
    }
}
