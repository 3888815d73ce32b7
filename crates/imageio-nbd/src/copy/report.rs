// SPDX-License-Identifier: MIT OR Apache-2.0
//! Telling programs how far a copy is: a JSON object a line on standard output, as
//! `ovirt-img --output json` does.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use imageio_stats::Observer;
use serde::Serialize;

use crate::cli::copy::Output;
use crate::progress::Ticker;

const INTERVAL: Duration = Duration::from_secs(1);

/// Tells the user, or a program, how a command gets on.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    output: Output,
    start: Instant,
    /// The words for what is done while data flows.
    description: &'static str,
    size: u64,
}

/// The result of a command.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Made<'a> {
    /// A disk, by its id.
    Disk(&'a str),
    /// A backup, by its id.
    Backup(&'a str),
}

/// A line. The names are `ovirt-img`'s (`ovirt_imageio/client/_ui.py`), but for what was made.
#[derive(Serialize)]
struct Line<'a> {
    /// In bytes.
    transferred: u64,
    /// In seconds.
    elapsed: f64,
    description: &'a str,
    /// In bytes.
    size: u64,
    /// The result, when it is there: its kind is the name.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    made: Option<Made<'a>>,
}

impl Report {
    /// Nothing has been done yet of so many bytes.
    pub(crate) fn new(output: Output, description: &'static str, size: u64) -> Self {
        Self { output, start: Instant::now(), description, size }
    }

    /// Tells something that isn't about data.
    pub(crate) fn tell(&self, description: &str) {
        self.line(description, 0, None);
    }

    /// Returns true if a person is told.
    pub(crate) fn is_text(&self) -> bool {
        self.output == Output::Text
    }

    /// Tells until the ticker is dropped how far it is. `before` are the bytes that were copied
    /// another time.
    pub(crate) fn follow(&self, before: u64, observer: Arc<Observer>) -> Result<Option<Ticker>> {
        let size = self.size;
        let done = move || before + observer.progress().from_clients;
        self.follow_bytes(move || if size == 0 { done() } else { done().min(size) })
    }

    /// Tells until the ticker is dropped how many bytes are `done`.
    pub(crate) fn follow_bytes(&self, done: impl Fn() -> u64 + Send + 'static) -> Result<Option<Ticker>> {
        if self.is_text() {
            return Ok(None);
        }
        let report = self.clone();
        Ticker::start(INTERVAL, move || report.line(report.description, done(), None)).map(Some)
    }

    /// Tells that all is done, with the disk's id.
    pub(crate) fn finish(&self, description: &str, disk: Option<&str>) {
        match (self.output, disk) {
            (Output::Json, disk) => self.line(description, self.size, disk.map(Made::Disk)),
            (Output::Text, Some(disk)) => drop(writeln!(io::stdout(), "{disk}")),
            (Output::Text, None) => {}
        }
    }

    /// Tells what has come of so many bytes: a person in these words.
    pub(crate) fn tell_made(&self, description: &str, transferred: u64, made: Made<'_>, words: &str) {
        match self.output {
            Output::Json => self.line(description, transferred, Some(made)),
            Output::Text => crate::progress::around(|| drop(writeln!(io::stdout(), "{words}"))),
        }
    }

    /// A reader that has gone is no failure of the copy.
    fn line(&self, description: &str, transferred: u64, made: Option<Made<'_>>) {
        if self.is_text() {
            return;
        }
        let elapsed = self.start.elapsed().as_secs_f64();
        let line = Line { transferred, elapsed, description, size: self.size, made };
        if let Ok(line) = serde_json::to_string(&line) {
            drop(writeln!(io::stdout(), "{line}"));
        }
    }
}
