// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying between an engine's disks and images: a disk is served to `qemu-img`, which reads or
//! writes the image beside it.
//!
//! A copy first ends its transfer in the engine, whatever ends it; or pauses it, if the upload can
//! be resumed.

pub(crate) mod download;
mod image;
mod image_files;
mod journal;
mod progress;
mod report;
mod served;
mod soundness;
mod stop;
pub(crate) mod upload;

use std::sync::Arc;

use anyhow::Result;
use engine_transfer::Source;
use imageio_config::Parser;
use imageio_stats::{Observer, Output};

use crate::progress::{Line, Ticker};
use crate::statistics;
use served::copy_disk;

pub(crate) use image::measure;
pub(crate) use progress::{Progress, Work};
pub(crate) use report::{Made, Report};
pub(crate) use served::{Service, close_after};
pub(crate) use stop::{Stop, StopClock, explained, is_consequence};

/// Which disk is copied, by a section of the configuration file and parameters: the user's, and
/// those that a command finds; and where the figures go.
fn source(
    section: Option<&str>,
    given: impl IntoIterator<Item = String>,
    found: impl IntoIterator<Item = String>,
) -> Result<(Source, Option<Output>)> {
    let mut parser = Parser::new();
    let section = section.map(|section| format!("config={section}"));
    for argument in section.into_iter().chain(given).chain(found) {
        parser.set_argument(&argument)?;
    }
    let output = statistics::prepare(parser.stats_json(), false)?;
    Ok((parser.finish()?, output))
}

/// The progress of a copy is told as long as this lives: a line on a terminal, or lines for a
/// program.
pub(crate) struct Following {
    _line: Option<Line>,
    _report: Option<Ticker>,
}

impl Following {
    /// `before` are the bytes that were copied another time.
    fn start(report: &Report, before: u64, observer: &Arc<Observer>) -> Result<Self> {
        let line = if report.is_text() { Line::draw(Arc::clone(observer))? } else { None };
        Ok(Self { _line: line, _report: report.follow(before, Arc::clone(observer))? })
    }

    /// Of several disks.
    pub(crate) fn all(report: &Report, progress: &Arc<Progress>) -> Result<Self> {
        let followed = Arc::clone(progress);
        let line = if report.is_text() { progress.draw()? } else { None };
        Ok(Self { _line: line, _report: report.follow_bytes(move || followed.copied())? })
    }
}
