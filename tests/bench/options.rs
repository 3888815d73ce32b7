// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of `cargo xtask bench`, which hands them to the benchmark as they are.

/// What to measure, and what to do with the figures.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// A part of the work, with smaller disks and fewer rounds: under two minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only the rows of an engine: imageio-nbd upload and download beside ovirt-img. With --quick,
    /// two of them
    #[arg(long)]
    pub(crate) engine: bool,
    /// Print all figures as JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Write docs/benchmarks.md and .svg in any case; else they are written of all rows, in full
    #[arg(long)]
    pub(crate) write: bool,
    /// Only rows with this in their name, such as "real/http/", "20ms", "nbdcopy-256k",
    /// "upload-qcow2"; may be given again
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// Only contenders with this in their name, such as "plugin", "limit", "ovirt-img", or "fixed":
    /// imageio-nbd whose requests and connections don't follow the link; may be given again
    #[arg(long, value_name = "TEXT")]
    pub(crate) contender: Vec<String>,
    /// Rounds that count, after one that warms up [default: 5; quick: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: Option<u32>,
    /// Size of the disk, such as 512M, six times of which have sparse disks and those of an engine
    /// [default: 1G; quick: 256M]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub(crate) size: Option<u64>,
    /// A parameter for our plugin and imageio-nbd, such as connections=8; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) parameter: Vec<String>,
    /// List the rows, and measure nothing
    #[arg(long)]
    pub(crate) list: bool,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size = parse_size::Config::new().with_binary().parse_size(text).map_err(|error| error.to_string())?;
    // All requests are whole, and none is out of the disk.
    match size % (4 << 20) {
        0 if size > 0 => Ok(size),
        _ => Err("it must be a multiple of 4 MiB".into()),
    }
}
