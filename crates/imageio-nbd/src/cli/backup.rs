// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of the commands about directories of backups.

use std::path::PathBuf;

use clap::ArgAction;

use super::copy::Output;

/// What the commands that ask an engine have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct EngineOptions {
    /// Take the engine's URL, user, password and CA from this section of ~/.config/ovirt-img.conf
    #[arg(short, long, value_name = "SECTION")]
    pub(crate) config: Option<String>,

    /// How progress is told: text draws a line on a terminal, json prints a line of JSON a second,
    /// as ovirt-img does
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Output,

    /// Say what happens; twice: every detail. RUST_LOG overrides it
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Parameters of the engine, and of the way to its disks, such as engine=, user= and password=
    #[arg(value_name = "NAME=VALUE", hide = true)]
    pub(crate) parameters: Vec<String>,
}

/// Options of `imageio-nbd backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupOptions {
    /// The VM's name or id
    #[arg(value_name = "VM")]
    pub(crate) vm: String,

    /// Where the VM's backups are; it is made if it isn't there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// Copy all of each disk [default: what has changed, where the engine can tell it]
    #[arg(long, conflicts_with = "incremental")]
    pub(crate) full: bool,

    /// Copy what has changed of each disk; fail if the engine can't tell that
    #[arg(long)]
    pub(crate) incremental: bool,

    /// Copy so many disks at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,

    #[command(flatten)]
    pub(crate) engine: EngineOptions,
}

/// Options of `imageio-nbd restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreOptions {
    /// Where the VM's backups are
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// The name or id of the storage domain where the disks are to be
    #[arg(short, long, value_name = "NAME|ID", value_parser = imageio_config::name)]
    pub(crate) storage_domain: String,

    /// The backup's id, which `imageio-nbd backups` tells [default: that of the last one]
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,

    /// Restore this disk; may be given several times [default: all disks of the backup]
    #[arg(long = "disk", value_name = "NAME|ID")]
    pub(crate) disks: Vec<String>,

    #[command(flatten)]
    pub(crate) engine: EngineOptions,
}

/// Options of `imageio-nbd backups`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupsOptions {
    /// Where the VM's backups are
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `imageio-nbd verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyOptions {
    /// Where the VM's backups are
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// The backup's id, which `imageio-nbd backups` tells [default: all backups]
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,

    /// Say what happens; twice: every detail. RUST_LOG overrides it
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}
