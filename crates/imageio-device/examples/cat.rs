// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the content of a transfer's disk to standard output: `cat URL [CA-FILE]`.

use std::env;
use std::error::Error;
use std::io::{self, Write};

use block_device_traits::BlockDevice;
use imageio_device::{Settings, Transfer, UrlSource};

const PIECE: u64 = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().ok_or("usage: cat URL [CA-FILE]")?;
    let mut settings = Settings::new(UrlSource::Inline(url));
    settings.cafile = arguments.next().map(Into::into);
    settings.read_only = true;
    let device = Transfer::open(settings)?.start()?;
    let (mut buffer, mut out) = (vec![0; PIECE as usize], io::stdout().lock());
    for offset in (0..device.size()).step_by(PIECE as usize) {
        let piece = &mut buffer[..PIECE.min(device.size() - offset) as usize];
        device.read(offset, piece)?;
        out.write_all(piece)?;
    }
    device.close()?;
    Ok(())
}
