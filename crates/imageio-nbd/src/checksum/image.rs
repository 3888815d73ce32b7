// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local image: a raw file or block device, or whatever an NBD server makes of an image in
//! another format.
//!
//! nbdcopy reads the image of an NBD URI, as it knows all that such a URI may say: sockets, TLS,
//! exports.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Error, Result, bail, ensure};
use blkhash::Blkhash;
use imageio_config::is_url;

use super::caught;
use crate::process::Recipient;
use crate::tools::cannot_run;

/// The first bytes of images of other formats, which are the same to imageio as any bytes.
const MAGIC: [(&[u8], &str); 4] =
    [(b"QFI\xfb", "qcow2"), (b"KDMV", "VMDK"), (b"vhdxfile", "VHDX"), (b"conectix", "VPC")];

/// The schemes of NBD (`doc/uri.md` of the NBD project).
const NBD_SCHEMES: [&str; 6] =
    ["nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://", "nbds+vsock://"];

/// An image that can be read.
pub(crate) struct Image {
    name: OsString,
    /// In bytes.
    size: u64,
    source: Source,
}

enum Source {
    File(File),
    Nbd,
}

/// Ends whoever reads an image when it is dropped.
pub(crate) struct Reading {
    nbdcopy: Arc<Unfinished>,
}

/// The nbdcopy that runs, until it is waited for: then its process id may be another's.
type Unfinished = Mutex<Option<Recipient>>;

fn take(nbdcopy: &Unfinished) -> Option<Recipient> {
    nbdcopy.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Image {
    /// A file's name or an NBD URI.
    pub(crate) fn open(name: &OsStr) -> Result<Self> {
        let text = name.to_string_lossy();
        if NBD_SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            let size = nbd_size(name)?;
            return Ok(Self { name: name.to_owned(), size, source: Source::Nbd });
        }
        ensure!(!is_url(&text), "--compare: a raw image's file name or an NBD URI is expected");
        let open = || {
            let mut file = File::open(name)?;
            if file.metadata()?.is_dir() {
                return Err(ErrorKind::IsADirectory.into());
            }
            // Also that of a block device.
            let size = file.seek(SeekFrom::End(0))?;
            std::io::Result::Ok((size, file))
        };
        let (size, file) = open().with_context(|| format!("--compare: cannot read {text}"))?;
        Ok(Self { name: name.to_owned(), size, source: Source::File(file) })
    }

    /// Returns the name as the user gave it.
    pub(crate) fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Images of other sizes need no checksums to differ.
    pub(crate) fn check_size(&self, disk_size: u64) -> Result<()> {
        let (name, size, hint) = (self.name(), self.size, self.hint());
        ensure!(size == disk_size, "the server's disk has {disk_size} bytes, and {name} has {size}{hint}");
        Ok(())
    }

    /// Tells what may be the reason for a difference: the other half of a sentence, or nothing.
    pub(crate) fn hint(&self) -> String {
        match self.format() {
            Some(format) => format!(
                ": it looks like a {format} image, and its own bytes are compared; for what it holds, serve it with \
                 qemu-nbd, and give --compare that NBD URI"
            ),
            None => String::new(),
        }
    }

    fn format(&self) -> Option<&'static str> {
        let Source::File(file) = &self.source else { return None };
        let mut start = [0; 8];
        // One that can't be read is told about when it is.
        file.read_exact_at(&mut start, 0).ok()?;
        MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, format)| *format)
    }

    /// Computes its checksum on a thread, which tells `progress` how many bytes are done, and
    /// `done` what it has come to.
    pub(crate) fn start(
        self,
        blkhash: Blkhash,
        progress: impl Fn(u64) + Send + 'static,
        done: impl FnOnce(Result<String>) + Send + 'static,
    ) -> Result<Reading> {
        let thread = thread::Builder::new().name("image".into());
        match self.source {
            Source::File(file) => {
                let failed = format!("--compare: {}", self.name.display());
                thread.spawn(move || {
                    done(caught(|| blkhash.of_file(&file, &progress).map_err(told).context(failed)));
                })?;
                Ok(Reading { nbdcopy: Arc::default() })
            }
            Source::Nbd => {
                let nbdcopy = start_nbdcopy(&self.name)?;
                let unfinished = Arc::new(Mutex::new(Some(Recipient::of(&nbdcopy))));
                let (size, reading) = (self.size, Reading { nbdcopy: Arc::clone(&unfinished) });
                thread.spawn(move || {
                    done(caught(|| of_nbdcopy(nbdcopy, &unfinished, size, blkhash, &progress)));
                })?;
                Ok(reading)
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(nbdcopy) = take(&self.nbdcopy) {
            nbdcopy.send(signal_hook::consts::SIGTERM);
        }
    }
}

/// One of libnbd's tools can't be run.
fn missing(tool: &str, error: io::Error) -> Error {
    cannot_run(tool, "which --compare needs for an NBD URI", error)
}

fn nbd_size(uri: &OsStr) -> Result<u64> {
    let asked = Command::new("nbdinfo").args(["--size", "--"]).arg(uri).stdin(Stdio::null()).output();
    let asked = asked.map_err(|error| missing("nbdinfo", error))?;
    let size = String::from_utf8_lossy(&asked.stdout).trim().parse();
    match size {
        Ok(size) if asked.status.success() => Ok(size),
        _ => bail!("--compare: {}", String::from_utf8_lossy(&asked.stderr).trim().replace('\n', "; ")),
    }
}

fn start_nbdcopy(uri: &OsStr) -> Result<Child> {
    let mut nbdcopy = Command::new("nbdcopy");
    let nbdcopy = nbdcopy.arg("--").arg(uri).arg("-").stdin(Stdio::null()).stdout(Stdio::piped());
    nbdcopy.spawn().map_err(|error| missing("nbdcopy", error))
}

/// Its size was asked for at the beginning.
fn told(error: blkhash::Error) -> Error {
    use blkhash::Error::{Longer, Shorter};
    let has_changed = matches!(error, Shorter(_) | Longer(_));
    let error = Error::new(error);
    if has_changed {
        error.context("the image has changed meanwhile: have no other program change it, and begin anew")
    } else {
        error
    }
}

/// The checksum of all that nbdcopy gives, which is its word that it is all.
fn of_nbdcopy(
    mut nbdcopy: Child,
    unfinished: &Unfinished,
    size: u64,
    blkhash: Blkhash,
    progress: &dyn Fn(u64),
) -> Result<String> {
    let output = nbdcopy.stdout.take().context("bug: its output is a pipe")?;
    let sum = blkhash.of_stream(output, size, progress);
    take(unfinished);
    let status = nbdcopy.wait().context("cannot wait for nbdcopy")?;
    match sum {
        // Its end is by this process, which has had enough.
        Err(error @ blkhash::Error::Longer(_)) => Err(told(error)),
        sum => {
            ensure!(status.success(), "--compare: nbdcopy failed ({status})");
            sum.map_err(told)
        }
    }
}
