// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd info`: what a transfer is, for people and for programs.
//!
//! The names in the JSON are documented in the man page. Programs rely on them: they are added to,
//! and not changed.

use std::fmt;
use std::io::{self, Write};

use anyhow::{Context, Result};
use bytesize::ByteSize;
use engine_transfer::Source;
use imageio_device::{DirtySummary, ExtentsSummary, Transfer};
use serde::Serialize;

use crate::reading;

/// All that is told.
#[derive(Debug, Serialize)]
struct Info {
    url: String,
    size: u64,
    read_only: bool,
    features: Features,
    max_readers: u32,
    max_writers: u32,
    unix_socket: bool,
    extents: Option<Extents>,
    dirty: Option<Dirty>,
}

/// The features of the server for this ticket.
#[derive(Debug, Serialize)]
struct Features {
    zero: bool,
    flush: bool,
    extents: bool,
    checksum: bool,
}

#[derive(Debug, Serialize)]
struct Extents {
    count: u64,
    data: u64,
    zero: u64,
    hole: u64,
}

#[derive(Debug, Serialize)]
struct Dirty {
    count: u64,
    dirty: u64,
    data: u64,
    zero: u64,
}

/// Asks the server, and prints what it tells.
pub(crate) fn run(source: Source, json: bool) -> Result<u8> {
    let info = reading::with(source, |transfer| Info::ask(&transfer))?;
    let text = if json { serde_json::to_string_pretty(&info)? + "\n" } else { info.to_string() };
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(0)
}

impl Info {
    fn ask(transfer: &Transfer) -> Result<Self> {
        let offered = transfer.capabilities();
        Ok(Self {
            url: transfer.url().to_string(),
            size: transfer.size(),
            read_only: transfer.is_read_only(),
            features: Features {
                zero: offered.zero,
                flush: offered.flush,
                extents: offered.extents,
                checksum: offered.checksum,
            },
            max_readers: offered.max_readers,
            max_writers: offered.max_writers,
            unix_socket: offered.unix_socket.is_some(),
            extents: transfer.sum_extents()?.map(Extents::from),
            dirty: transfer.sum_dirty_extents()?.map(Dirty::from),
        })
    }
}

impl From<ExtentsSummary> for Extents {
    fn from(ExtentsSummary { count, data, zero, hole, .. }: ExtentsSummary) -> Self {
        Self { count, data, zero, hole }
    }
}

impl From<DirtySummary> for Dirty {
    fn from(DirtySummary { count, dirty, zero, .. }: DirtySummary) -> Self {
        // The one is a part of the other.
        Self { count, dirty, data: dirty - zero, zero }
    }
}

impl fmt::Display for Info {
    /// A line for each, in two columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<13} {value}");
        line("url", &self.url)?;
        line("size", &Bytes(self.size))?;
        line("access", &if self.read_only { "read" } else { "read and write" })?;
        line("features", &self.features)?;
        line("connections", &format!("up to {} read, up to {} write", self.max_readers, self.max_writers))?;
        line("unix socket", &if self.unix_socket { "yes" } else { "no" })?;
        let Some(Extents { count, data, zero, hole }) = &self.extents else {
            return line("extents", &"none are told");
        };
        line("extents", count)?;
        line("  data", &Bytes(*data))?;
        line("  zero", &Bytes(*zero))?;
        line("  holes", &Bytes(*hole))?;
        let Some(Dirty { count, dirty, data, zero }) = &self.dirty else {
            return line("dirty", &"none are told");
        };
        let extents = if *count == 1 { "extent" } else { "extents" };
        line("dirty", &format!("{} in {count} {extents}", Bytes(*dirty)))?;
        line("  data", &Bytes(*data))?;
        line("  zero", &Bytes(*zero))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("zero", self.zero),
            ("flush", self.flush),
            ("extents", self.extents),
            ("checksum", self.checksum),
        ];
        let offered: Vec<_> =
            all.iter().filter(|(_, is_offered)| *is_offered).map(|(name, _)| *name).collect();
        f.write_str(if offered.is_empty() { "none" } else { "" })?;
        f.write_str(&offered.join(", "))
    }
}

/// A number of bytes, rounded for people, and exactly.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1024 => write!(f, "{bytes} bytes"),
            bytes => write!(f, "{} ({bytes} bytes)", ByteSize::b(bytes).display().iec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> Info {
        let mut summary = ExtentsSummary::default();
        (summary.count, summary.data, summary.zero, summary.hole) = (4, 1 << 20, 3 << 20, 2 << 20);
        let mut dirty = DirtySummary::default();
        (dirty.count, dirty.dirty, dirty.zero) = (2, 192 << 10, 512);
        Info {
            url: "https://host:54322/images/TICKET".to_owned(),
            size: 4 << 20,
            read_only: true,
            features: Features { zero: false, flush: false, extents: true, checksum: true },
            max_readers: 8,
            max_writers: 1,
            unix_socket: false,
            extents: Some(summary.into()),
            dirty: Some(dirty.into()),
        }
    }

    #[test]
    fn people_get_lines() {
        let expected = "\
url           https://host:54322/images/TICKET
size          4.0 MiB (4194304 bytes)
access        read
features      extents, checksum
connections   up to 8 read, up to 1 write
unix socket   no
extents       4
  data        1.0 MiB (1048576 bytes)
  zero        3.0 MiB (3145728 bytes)
  holes       2.0 MiB (2097152 bytes)
dirty         192.0 KiB (196608 bytes) in 2 extents
  data        191.5 KiB (196096 bytes)
  zero        512 bytes
";
        assert_eq!(info().to_string(), expected);
        let old = Info { extents: None, dirty: None, ..info() };
        assert!(old.to_string().ends_with("extents       none are told\n"));
        let other = Info { dirty: None, ..info() };
        assert!(other.to_string().ends_with("\ndirty         none are told\n"));
        let mut one = info();
        one.dirty = Some(Dirty { count: 1, dirty: 512, data: 0, zero: 512 });
        assert!(one.to_string().contains("512 bytes in 1 extent\n"));
        let none = Features { zero: false, flush: false, extents: false, checksum: false };
        assert_eq!(none.to_string(), "none");
    }

    #[test]
    fn programs_get_names_that_stay() {
        let expected = serde_json::json!({
            "url": "https://host:54322/images/TICKET",
            "size": 4194304,
            "read_only": true,
            "features": {"zero": false, "flush": false, "extents": true, "checksum": true},
            "max_readers": 8,
            "max_writers": 1,
            "unix_socket": false,
            "extents": {"count": 4, "data": 1048576, "zero": 3145728, "hole": 2097152},
            "dirty": {"count": 2, "dirty": 196608, "data": 196096, "zero": 512},
        });
        assert_eq!(serde_json::to_value(info()).unwrap(), expected);
        let old = Info { extents: None, dirty: None, ..info() };
        assert!(serde_json::to_value(old).unwrap()["dirty"].is_null());
    }
}
