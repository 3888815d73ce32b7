// SPDX-License-Identifier: MIT OR Apache-2.0
//! Computes the checksum that an imageio server computes of a disk, of a raw image:
//! `checksum FILE`.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};

use blkhash::{Algorithm, Blkhash, DEFAULT_BLOCK_SIZE};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: checksum FILE")?;
    let blkhash = Blkhash::new(Algorithm::default(), DEFAULT_BLOCK_SIZE);
    let checksum = blkhash.of_file(&File::open(path)?, &|_bytes_done| {})?;
    writeln!(io::stdout(), "{checksum}")?;
    Ok(())
}
