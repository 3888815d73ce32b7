// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a transfer's disk, and tells what that has taken: `summary URL [CA-FILE]`.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use block_device_traits::BlockDevice;
use imageio_device::{Settings, Transfer, UrlSource};
use imageio_stats::{ClientStatistics, Export, Observer, Requests, Watch};

const PIECE: u64 = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().ok_or("usage: summary URL [CA-FILE]")?;
    let mut settings = Settings::new(UrlSource::Inline(url));
    settings.cafile = arguments.next().map(Into::into);
    settings.read_only = true;
    let device = Arc::new(Transfer::open(settings)?.start()?);

    let read = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&read);
    let clients = move || {
        let bytes = counted.load(Relaxed);
        let mut clients = ClientStatistics::default();
        clients.reads = Requests::new(bytes.div_ceil(PIECE), bytes, 0);
        clients
    };
    let export = Export::new("disk", Arc::clone(&device), clients);
    let observer = Arc::new(Observer::new("summary", vec![export], None));
    // It logs a warning when the server is silent for long.
    let watch = Watch::start(Arc::clone(&observer))?;
    let mut buffer = vec![0; PIECE as usize];
    for offset in (0..device.size()).step_by(PIECE as usize) {
        let piece = &mut buffer[..PIECE.min(device.size() - offset) as usize];
        device.read(offset, piece)?;
        read.fetch_add(piece.len() as u64, Relaxed);
    }
    device.close()?;
    drop(watch);
    for line in observer.summaries() {
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(())
}
