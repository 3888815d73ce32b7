// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd checksum`: the server's checksum of the disk, and that of a local image beside it.
//!
//! Both are computed at the same time. The device is started for its keeper alone: the ticket lives
//! on while the server computes in silence, and while the image takes longer than that.

mod image;
mod progress;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use blkhash::Blkhash;
use imageio_device::{Device, StatusCode, Transfer};

use crate::cli::ChecksumOptions;
use crate::process::Caught;
use crate::reading;
use image::Image;
use progress::Progress;

const NOT_OFFERED: &str = "the server doesn't offer checksums, as old ones do: read the disk back instead, with -r and \
                           --run 'qemu-img compare …'";

/// An event while checksums are computed.
enum Event {
    Server(Result<String>),
    Image(Result<String>),
    Signal(i32),
}

/// The outcome of the command: the checksums, or a signal.
enum Outcome {
    Sums { server: String, image: Option<String> },
    Interrupted(i32),
}

/// Everything, up to the exit status: 1 if the disk and the image differ.
pub(crate) fn run(options: &ChecksumOptions) -> Result<u8> {
    let image = options.compare.as_deref().map(Image::open).transpose()?;
    let mut source = crate::source(&options.parameters)?;
    // The server's checksum is of the whole disk, whatever size is offered elsewhere.
    source.settings.read_only = true;
    source.settings.size = None;
    reading::with(source, |transfer| compare(options, transfer, image))
}

fn compare(options: &ChecksumOptions, transfer: Transfer, image: Option<Image>) -> Result<u8> {
    ensure!(transfer.capabilities().checksum, NOT_OFFERED);
    if let Some(image) = &image {
        image.check_size(transfer.size())?;
    }
    let (name, hint) = image.as_ref().map(|image| (image.name(), image.hint())).unwrap_or_default();
    match compute(options, transfer, image)? {
        Outcome::Interrupted(signal) => Ok(u8::try_from(128 + signal).unwrap_or(1)),
        Outcome::Sums { server, image } => {
            print(options, &server, image.as_deref().map(|sum| (sum, &*name)))?;
            let is_same = image.is_none_or(|image| image == server);
            ensure!(is_same, "the server's disk and {name} differ{hint}");
            Ok(0)
        }
    }
}

/// Computes both, until the first error or a signal. What still runs then ends with the process.
fn compute(options: &ChecksumOptions, transfer: Transfer, image: Option<Image>) -> Result<Outcome> {
    let (events, happens) = channel();
    let to_signals = events.clone();
    let _signals = Caught::new()?.forward(move |signal| send(&to_signals, Event::Signal(signal)))?;
    let device = Arc::new(transfer.start()?);
    ask_server(options, Arc::clone(&device), events.clone())?;
    let progress = Progress::new(image.as_ref().map(Image::size));
    let (bar, has_image) = (progress.clone(), image.is_some());
    let blkhash = Blkhash::new(options.algorithm, options.block_size);
    let told = move |sum| send(&events, Event::Image(sum));
    let _reading = image.map(|image| image.start(blkhash, move |done| bar.set(done), told)).transpose()?;
    let outcome = wait(&happens, has_image, &progress);
    progress.clear();
    if let Ok(Outcome::Sums { .. }) = outcome {
        device.close()?;
    }
    outcome
}

fn ask_server(options: &ChecksumOptions, device: Arc<Device>, events: Sender<Event>) -> Result<()> {
    let (algorithm, block_size) = (options.algorithm.name(), options.block_size);
    thread::Builder::new().name("checksum".into()).spawn(move || {
        let sum = caught(|| device.checksum(algorithm, block_size).map_err(explained));
        send(&events, Event::Server(sum));
    })?;
    Ok(())
}

/// A thread that panics tells that, too, or it would be waited for without an end.
fn caught(compute: impl FnOnce() -> Result<String>) -> Result<String> {
    catch_unwind(AssertUnwindSafe(compute))
        .unwrap_or_else(|_| Err(anyhow!("bug: computing a checksum panicked")))
}

fn wait(happens: &Receiver<Event>, has_image: bool, progress: &Progress) -> Result<Outcome> {
    let (mut server, mut image) = (None, None);
    loop {
        if let Some(server) = &server
            && has_image == image.is_some()
        {
            return Ok(Outcome::Sums { server: String::clone(server), image });
        }
        match happens.recv().context("bug: a thread has ended without a word")? {
            Event::Server(sum) => server = Some(sum?),
            Event::Image(sum) => {
                image = Some(sum?);
                progress.wait_for_server();
            }
            Event::Signal(signal) => return Ok(Outcome::Interrupted(signal)),
        }
    }
}

fn send(events: &Sender<Event>, event: Event) {
    // Nobody is left to be told where something else has ended it.
    let _ = events.send(event);
}

/// Servers that offer checksums, and have none after all.
fn explained(error: imageio_device::ClientError) -> anyhow::Error {
    match error.status() {
        Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
            anyhow::Error::new(error).context(NOT_OFFERED)
        }
        _ => error.into(),
    }
}

fn print(options: &ChecksumOptions, server: &str, image: Option<(&str, &str)>) -> Result<()> {
    let (algorithm, block_size) = (options.algorithm.name(), options.block_size);
    let mut text = format!("{server}  the server's disk ({algorithm}, blocks of {block_size} bytes)\n");
    if let Some((sum, name)) = image {
        text += &format!("{sum}  {name}\n");
    }
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}
