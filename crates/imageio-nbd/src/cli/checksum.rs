// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of `imageio-nbd checksum`.

use std::ffi::OsString;

use blkhash::Algorithm;
use clap::ArgAction;
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Options of `imageio-nbd checksum`.
#[derive(Debug, clap::Args)]
pub(crate) struct ChecksumOptions {
    /// Compare with this image, which is a raw file or block device, or what an NBD URI names. If
    /// they differ, the exit status is 1
    #[arg(short, long, value_name = "FILE|NBD-URI")]
    pub(crate) compare: Option<OsString>,

    /// The hash function
    #[arg(long, value_name = "NAME", default_value = Algorithm::default().name(), value_parser = algorithms())]
    pub(crate) algorithm: Algorithm,

    /// Hash blocks of this size: a multiple of 4096 from 1M to 16M
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = block_size)]
    pub(crate) block_size: u64,

    /// Say what happens; twice: every detail. RUST_LOG overrides it
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Parameters of the transfer
    #[arg(value_name = "NAME=VALUE", hide = true)]
    pub(crate) parameters: Vec<String>,
}

fn algorithms() -> impl TypedValueParser<Value = Algorithm> {
    let names = PossibleValuesParser::new(Algorithm::all().map(Algorithm::name));
    names.map(|name| Algorithm::named(&name).expect("it is one of these names"))
}

/// Parses a block size that imageio takes.
fn block_size(text: &str) -> std::result::Result<u64, String> {
    match imageio_config::size(text)? {
        size if (1 << 20..=16 << 20).contains(&size) && size % 4096 == 0 => Ok(size),
        _ => Err("a multiple of 4096 from 1M to 16M is expected".to_owned()),
    }
}
