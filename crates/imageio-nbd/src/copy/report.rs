// SPDX-License-Identifier: MIT OR Apache-2.0
//! Telling programs how far a copy is: a JSON object a line on standard output, as
//! `ovirt-img --output json` does.

mod lines;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use imageio_stats::Observer;
use serde::Serialize;

use self::lines::{Lines, write};
use crate::cli::copy::Output;
use crate::progress::Ticker;

const INTERVAL: Duration = Duration::from_secs(1);

/// Tells the user, or a program, how a command gets on.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// A program is told, and else a person.
    lines: Option<Lines>,
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

impl fmt::Display for Made<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(id) => write!(f, "disk {id}"),
            Self::Backup(id) => write!(f, "backup {id}"),
        }
    }
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
        let lines = (output == Output::Json).then(|| Lines::start(write));
        Self { lines, start: Instant::now(), description, size }
    }

    /// From now on, so many bytes are to be done.
    pub(crate) fn set_size(&mut self, size: u64) {
        self.size = size;
    }

    /// Tells a program something that isn't about data.
    pub(crate) fn begin(&self, description: &str) {
        self.progress(description, 0);
    }

    /// Tells a program how far it is. A reader that has gone, or doesn't read, is no failure of the
    /// copy.
    fn progress(&self, description: &str, transferred: u64) {
        if let (Some(lines), Ok(line)) = (&self.lines, self.line(description, transferred, None)) {
            lines.tell(line);
        }
    }

    /// Returns true if a person is told.
    pub(crate) fn is_text(&self) -> bool {
        self.lines.is_none()
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
        Ticker::start(INTERVAL, move || report.progress(report.description, done())).map(Some)
    }

    /// Tells that all is done, with the disk's id. Returns the exit status.
    pub(crate) fn finish(&self, description: &str, disk: Option<&str>) -> u8 {
        match (&self.lines, disk) {
            (None, None) => 0,
            (_, disk) => self.tell(description, self.size, disk.map(Made::Disk), disk.unwrap_or_default()),
        }
    }

    /// Tells what has come of so many bytes: a person in these words. Returns the exit status,
    /// which isn't 0 if nobody has got that: it is told as an error then, as it would be lost.
    pub(crate) fn tell_made(&self, description: &str, transferred: u64, made: Made<'_>, words: &str) -> u8 {
        self.tell(description, transferred, Some(made), words)
    }

    fn tell(&self, description: &str, transferred: u64, made: Option<Made<'_>>, words: &str) -> u8 {
        let told = match &self.lines {
            Some(lines) => self.line(description, transferred, made).and_then(|line| lines.tell_surely(line)),
            None => crate::progress::around(|| write(words)),
        };
        let Err(error) = told else { return 0 };
        let made = made.map_or_else(|| "the download".to_owned(), |made| made.to_string());
        log::error!("{made} is complete, and only that can't be told: standard output: {error}");
        1
    }

    /// The line for a program.
    fn line(&self, description: &str, transferred: u64, made: Option<Made<'_>>) -> io::Result<String> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let line = Line { transferred, elapsed, description, size: self.size, made };
        Ok(serde_json::to_string(&line)?)
    }
}
