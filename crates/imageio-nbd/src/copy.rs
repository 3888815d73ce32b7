// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that copy disks: they serve the engine's disk to `qemu-img`, which reads or writes the image beside it.

pub(crate) mod download;
mod image;
mod report;
pub(crate) mod upload;

use std::ffi::OsString;
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::cli::Options;
use crate::cli::copy::{Common, Output};
use crate::serve::Outcome;
pub(crate) use report::Report;

/// A program that copies between the served disk and something else.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    program: &'static str,
    /// Its arguments; the disk's NBD URI takes the place of [`Argument::Disk`].
    arguments: Vec<Argument>,
    /// The disk has to be of this size, in bytes.
    pub(crate) exact_size: Option<u64>,
    /// How it is told how far it is.
    pub(crate) report: Report,
}

/// An argument of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Argument {
    Text(OsString),
    Disk,
}

impl<T: Into<OsString>> From<T> for Argument {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

impl Copy {
    /// Starts the program, which finds the disk there.
    pub(crate) fn start(&self, uri: &str) -> Result<Child> {
        let arguments = self.arguments.iter().map(|argument| match argument {
            Argument::Text(text) => text.clone(),
            Argument::Disk => uri.into(),
        });
        let mut command = Command::new(self.program);
        command.args(arguments).spawn().with_context(|| missing(self.program))
    }
}

fn missing(program: &str) -> String {
    format!("cannot run {program}, which does the copying: install it (package qemu-utils or qemu-img)")
}

/// Serves a disk to the program that copies. The disk's id, if all went well.
fn serve(copy: Copy, common: &Common, parameters: Vec<String>) -> Result<Option<String>> {
    let program = copy.program;
    // As a command line of the server, so that both have the same meaning.
    let mut options = Options::try_parse_from(["imageio-nbd"]).context("bug: the command line")?;
    options.verbose = common.verbose;
    options.progress = common.output == Output::Text;
    options.parameters = parameters;
    options.parameters.extend(common.config.iter().map(|section| format!("config={section}")));
    options.parameters.extend(common.parameters.iter().cloned());
    options.copy = Some(copy);
    let served = crate::open_and_serve(&options, &mut Vec::new())?;
    let Outcome { command, is_all_safe } = served.outcome;
    ensure!(command == 0, "{program} has failed with exit status {command}");
    ensure!(is_all_safe, "the copy may be incomplete, though {program} has succeeded");
    Ok(served.disks.into_iter().next().flatten())
}
