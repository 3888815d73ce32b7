// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of the commands that copy disks.

use std::path::{Path, PathBuf};

use clap::{ArgAction, ValueEnum};

/// What these commands have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
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

    /// Parameters of the transfer, such as engine=, user= and password=
    #[arg(value_name = "NAME=VALUE", hide = true)]
    pub(crate) parameters: Vec<String>,
}

/// Values of `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Values of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Qcow2,
    Raw,
}

/// Options of `imageio-nbd upload`.
#[derive(Debug, clap::Args)]
pub(crate) struct UploadOptions {
    /// The image, of any format that qemu-img reads
    #[arg(value_name = "FILE", required_unless_present = "resume")]
    pub(crate) file: Option<PathBuf>,

    /// The image's format, by qemu-img's name for it, such as raw. Without it, qemu-img looks at
    /// the content, which may mislead it if the image comes from somebody you don't trust
    #[arg(long, value_name = "FORMAT")]
    pub(crate) image_format: Option<String>,

    /// Make the disk in this storage domain
    #[arg(short, long, value_name = "NAME|ID", required_unless_present_any = ["disk", "resume"], value_parser = imageio_config::name)]
    pub(crate) storage_domain: Option<String>,

    /// Write this disk, which is there already, instead of making one
    #[arg(long, value_name = "NAME|ID", conflicts_with_all = ["storage_domain", "disk_name", "format", "preallocated", "description"], value_parser = imageio_config::name)]
    pub(crate) disk: Option<String>,

    /// Give the new disk this name [default: the file's name without its extension]
    #[arg(long, visible_alias = "name", value_name = "NAME", value_parser = imageio_config::name)]
    pub(crate) disk_name: Option<String>,

    /// How the engine stores the disk. With qcow2, it tracks changes for incremental backups
    /// [default: qcow2; raw for an ISO image]
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,

    /// Allocate the whole disk at once. Block storage (iSCSI, FC) needs that for raw disks, and
    /// does so by itself
    #[arg(long)]
    pub(crate) preallocated: bool,

    /// Describe the new disk to the engine's users
    #[arg(short, long, value_name = "TEXT", value_parser = imageio_config::name)]
    pub(crate) description: Option<String>,

    /// Note in this file how far the upload is, and go on from there if it was interrupted: by the
    /// same command, or with the user's options alone. The file is removed when all is done
    #[arg(long, value_name = "STATE")]
    pub(crate) resume: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// Options of `imageio-nbd download`.
#[derive(Debug, clap::Args)]
pub(crate) struct DownloadOptions {
    /// The disk's name or id
    #[arg(value_name = "DISK", value_parser = imageio_config::name)]
    pub(crate) disk: String,

    /// Where its content goes. A file that is there is replaced when all has come, by one of the
    /// same mode, and of the same owner if this user may give files away. A symbolic link is
    /// followed. A new file has the mode that the umask leaves
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The format of the file
    #[arg(short, long, value_name = "FORMAT", default_value = "qcow2")]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) common: Common,
}

impl UploadOptions {
    /// The image. It may be left out with `--resume`, where a parameter comes first then.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref().filter(|file| self.resume.is_none() || !is_parameter(file))
    }

    /// The parameters.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = String> {
        let first = self.file.as_deref().filter(|_| self.file().is_none());
        let first = first.map(|argument| argument.to_string_lossy().into_owned());
        first.into_iter().chain(self.common.parameters.iter().cloned())
    }
}

/// Returns true if an argument is a parameter, and no file. A file of such a name is given as
/// `./NAME=…`.
fn is_parameter(argument: &Path) -> bool {
    let argument = argument.to_string_lossy();
    let name = argument.split_once('=').map(|(name, _)| name.replace('_', "-"));
    name.is_some_and(|name| imageio_config::parameters().any(|parameter| parameter.name == name))
}

impl Format {
    /// qemu's word for it.
    pub(crate) fn of_qemu(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}
