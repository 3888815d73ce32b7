// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: nbdkit's, where nbdkit has the option.

mod backup;
mod checksum;
mod complaint;
pub(crate) mod copy;
mod help;
mod parameters;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum};
use imageio_config::STATS_JSON;

pub(crate) use backup::{BackupOptions, BackupsOptions, EngineOptions, RestoreOptions, VerifyOptions};
pub(crate) use checksum::ChecksumOptions;
pub(crate) use complaint::complaint;
use copy::{DownloadOptions, UploadOptions};
pub(crate) use parameters::{OF_DOWNLOAD, OF_UPLOAD, check_parameters};

/// Move disks into and out of oVirt, and serve them as NBD devices.
#[derive(Debug, Parser)]
#[command(
    name = "imageio-nbd",
    version,
    disable_version_flag = true,
    override_usage = "imageio-nbd upload FILE --storage-domain NAME|--disk NAME [--resume STATE] [-c SECTION] [NAME=VALUE]...\n       \
                      imageio-nbd download DISK FILE [-c SECTION] [NAME=VALUE]...\n       \
                      imageio-nbd backup VM DIR [-c SECTION] [NAME=VALUE]...\n       \
                      imageio-nbd restore DIR --storage-domain NAME [-c SECTION] [NAME=VALUE]...\n       \
                      imageio-nbd backups|verify DIR\n       \
                      imageio-nbd info [--json] url=URL|+FILE|- [NAME=VALUE]...\n       \
                      imageio-nbd checksum [--compare FILE|NBD-URI] url=URL|+FILE|- [NAME=VALUE]...\n       \
                      imageio-nbd virt-v2v [--door=nbdkit] [ARGUMENTS]...\n       \
                      imageio-nbd [OPTIONS] url=URL|+FILE|- [size=BYTES] [NAME=VALUE]...\n       \
                      imageio-nbd [OPTIONS] [NAME=VALUE]... export=NAME url=URL|+FILE|- [NAME=VALUE]... [export=NAME ...]",
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    infer_long_args = true,
    max_term_width = 100
)]
pub(crate) struct Options {
    /// Listen on this unix socket; "-" makes a private one for --run
    #[arg(short = 'U', long = "unix", value_name = "SOCKET", conflicts_with_all = ["port", "ipaddr"])]
    pub(crate) unix: Option<PathBuf>,

    /// Listen on this TCP port; 0 takes a free one [default: 10809, with --ipaddr]
    #[arg(short, long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// Listen on this address; "any" is every address of this host, for every host that reaches it
    /// [default: 127.0.0.1 and ::1, with --port]
    #[arg(short, long, visible_alias = "ip-addr", value_name = "ADDRESS")]
    pub(crate) ipaddr: Option<String>,

    /// Listen on IPv4 addresses only, with -p
    #[arg(short = '4', long, overrides_with = "ipv6_only")]
    pub(crate) ipv4_only: bool,

    /// Listen on IPv6 addresses only, with -p
    #[arg(short = '6', long, overrides_with = "ipv4_only")]
    pub(crate) ipv6_only: bool,

    /// Write the process id here once clients can connect
    #[arg(short = 'P', long, visible_alias = "pid-file", value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,

    /// Stay in the foreground instead of becoming a daemon
    #[arg(short, long, visible_alias = "no-fork")]
    pub(crate) foreground: bool,

    /// Become this user, a name or a number, once the sockets are made
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Become a member of this group alone, a name or a number
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: Option<String>,

    /// Give the socket this label of SELinux
    #[arg(long, value_name = "LABEL")]
    pub(crate) selinux_label: Option<String>,

    /// Keep all memory of the process from being swapped out, for a disk that this host swaps to
    #[arg(long)]
    pub(crate) swap: bool,

    /// Refuse writes
    #[arg(short, long, visible_alias = "read-only")]
    pub(crate) readonly: bool,

    /// How many requests of one NBD connection are taken at a time; 0 is the default, too
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub(crate) threads: u16,

    /// How many NBD clients are served at a time; over TCP, half of them from one address. A
    /// further client takes the place of one that has connected and said nothing. Else it waits, or
    /// is refused where its address has its half
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) max_clients: u16,

    /// How long a client may take to choose an export, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = imageio_config::seconds)]
    pub(crate) timeout: Option<Duration>,

    /// Offer no structured replies, nor what builds on them
    #[arg(long, visible_alias = "no-structured-replies")]
    pub(crate) no_sr: bool,

    /// Offer no metadata contexts: clients learn of no extents
    #[arg(long, visible_alias = "no-meta-contexts")]
    pub(crate) no_mc: bool,

    /// Name the export; clients may also ask for the empty name. Several are named by export=
    #[arg(short, long = "export-name", visible_aliases = ["export", "exportname"], value_name = "NAME", value_parser = imageio_config::export_name)]
    pub(crate) export_name: Option<String>,

    /// Whether clients may use TLS (on), must (require) or can't (off)
    /// [default: on if there are certificates, else off]
    #[arg(long, value_name = "MODE", ignore_case = true)]
    pub(crate) tls: Option<TlsMode>,

    /// The directory with ca-cert.pem, server-cert.pem, server-key.pem and, if there is one,
    /// ca-crl.pem [default: /etc/pki/nbdkit for root, else ~/.pki/nbdkit or ~/.config/pki/nbdkit]
    #[arg(long, value_name = "DIR")]
    pub(crate) tls_certificates: Option<PathBuf>,

    /// Refuse TLS to clients that show no certificate of the CA in ca-cert.pem, or one that
    /// ca-crl.pem has. Takes --tls=require to refuse those without TLS, too
    #[arg(long)]
    pub(crate) tls_verify_peer: bool,

    /// Run this shell command once clients can connect, and exit when it ends. $uri, $unixsocket,
    /// $port and $exportname tell where
    #[arg(long, value_name = "COMMAND")]
    pub(crate) run: Option<String>,

    /// Print the NBD URI once clients can connect
    #[arg(long)]
    pub(crate) print_uri: bool,

    /// Serve one client on standard input and output, and exit when it has gone
    #[arg(short, long, visible_alias = "stdin", conflicts_with_all = ["unix", "port", "ipaddr", "run"])]
    pub(crate) single: bool,

    /// Exit when the parent process does
    #[arg(long)]
    pub(crate) exit_with_parent: bool,

    /// Say what happens; twice: every detail. RUST_LOG overrides it
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Where messages go: stderr, syslog or null [default: stderr, and syslog for a daemon]
    #[arg(long, value_name = "WHERE")]
    pub(crate) log: Option<LogTo>,

    /// What messages look like: text, or json for a JSON object a line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Show on a terminal how far it is, while it serves in the foreground
    #[arg(long)]
    pub(crate) progress: bool,

    // The parameter of that name.
    #[arg(long, value_name = STATS_JSON.value, help = STATS_JSON.help.trim_end_matches('.'))]
    pub(crate) stats_json: Option<String>,

    /// Print what this program is able to do, and exit
    #[arg(long)]
    pub(crate) dump_config: bool,

    /// Print what nbdkit prints of a plugin, and exit
    #[arg(long)]
    pub(crate) dump_plugin: bool,

    /// Print all long options, and exit
    #[arg(long, hide = true)]
    pub(crate) long_options: bool,

    /// Print all short options, and exit
    #[arg(long, hide = true)]
    pub(crate) short_options: bool,

    #[command(flatten)]
    pub(crate) unused: Unused,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Write the man page and the shell completions into this directory
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) generate: Option<PathBuf>,

    /// Parameters of the transfer: see below
    #[arg(value_name = "NAME=VALUE", hide = true)]
    pub(crate) parameters: Vec<String>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Options {
    /// Checks that the options tell where clients are, and tell it once. TCP has to be asked for:
    /// whoever is on this host could connect.
    pub(crate) fn check(&self, is_activated: bool) -> Result<()> {
        let tells = self.unix.is_some()
            || self.port.is_some()
            || self.ipaddr.is_some()
            || self.run.is_some()
            || self.single;
        ensure!(
            tells || is_activated,
            "where shall it listen? Add -U SOCKET, or -p PORT for TCP, or --run COMMAND, or -s"
        );
        ensure!(
            !(tells && is_activated),
            "LISTEN_FDS: sockets to listen on were passed to this process: leave out -U, -p, -i, -s and --run"
        );
        Ok(())
    }

    /// Returns the verbosity of the log.
    pub(crate) fn verbosity(&self) -> u8 {
        match &self.command {
            Some(Command::Info { verbose, .. }) => *verbose,
            Some(Command::Checksum(options)) => options.verbose,
            Some(Command::Backup(options)) => options.engine.verbose,
            Some(Command::Restore(options)) => options.engine.verbose,
            Some(Command::Verify(options)) => options.verbose,
            Some(Command::Backups(_)) => 0,
            Some(Command::Upload(options)) => options.common.verbose,
            Some(Command::Download(options)) => options.common.verbose,
            Some(Command::VirtV2v { .. }) | None => self.verbose,
        }
    }

    /// Returns true if the process goes into the background once clients can connect.
    pub(crate) fn becomes_daemon(&self, is_activated: bool) -> bool {
        !(self.foreground || self.run.is_some() || self.exit_with_parent || self.single || is_activated)
    }
}

/// Options of nbdkit that have no effect here, or are refused: see `nbdkit.rs`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Unused {
    /// Set a debug flag; of no effect
    #[arg(short = 'D', long = "debug", value_name = "FLAG=N", hide = true)]
    pub(crate) debug_flags: Vec<String>,

    /// Use nbdkit's filter; refused
    #[arg(long, value_name = "FILTER", hide = true)]
    pub(crate) filter: Vec<String>,

    /// Watch over the clients' connections; of no effect, as it is done anyway
    #[arg(long, hide = true)]
    pub(crate) keepalive: bool,

    /// Take flags out of the handshake; refused
    #[arg(long, value_name = "MASK", hide = true)]
    pub(crate) mask_handshake: Option<String>,

    /// Show a name in the list of processes; of no effect
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) name: Option<String>,

    /// Speak the newstyle protocol; of no effect, as there is no other
    #[arg(short = 'n', long, visible_alias = "new-style", hide = true)]
    pub(crate) newstyle: bool,

    /// Speak the oldstyle protocol; refused
    #[arg(short = 'o', long, visible_alias = "old-style", hide = true)]
    pub(crate) oldstyle: bool,

    /// Use TLS with pre-shared keys; refused
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) tls_psk: Option<PathBuf>,

    /// Listen on AF_VSOCK; refused
    #[arg(long, hide = true)]
    pub(crate) vsock: bool,
}

/// Values of `--log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogTo {
    Stderr,
    Syslog,
    Null,
}

/// Values of `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Values of `--tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsMode {
    #[value(aliases = ["false", "no", "0"])]
    Off,
    #[value(aliases = ["true", "yes", "1"])]
    On,
    #[value(aliases = ["required", "force"])]
    Require,
}

/// The commands: everything that this program does besides serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Upload an image into a disk of an oVirt engine, which is made for it, and print the disk's
    /// id
    #[command(
        override_usage = "imageio-nbd upload FILE --storage-domain NAME|--disk NAME [--resume STATE] [OPTIONS] [-c SECTION | engine=URL user=USER password=+FILE] [NAME=VALUE]...",
        after_help = PARAMETERS
    )]
    Upload(UploadOptions),

    /// Download a disk of an oVirt engine into a file
    #[command(
        override_usage = "imageio-nbd download DISK FILE [OPTIONS] [-c SECTION | engine=URL user=USER password=+FILE] [NAME=VALUE]...",
        after_help = PARAMETERS
    )]
    Download(DownloadOptions),

    /// Back up all disks of a virtual machine into a directory: what has changed since the last
    /// backup there
    #[command(override_usage = "imageio-nbd backup VM DIR [OPTIONS] [-c SECTION | engine=URL user=USER password=+FILE] [NAME=VALUE]...", after_help = PARAMETERS)]
    Backup(BackupOptions),

    /// Tell which backups a directory has
    Backups(BackupsOptions),

    /// Restore a backup: make its disks anew in an engine, and tell their ids
    #[command(
        override_usage = "imageio-nbd restore DIR --storage-domain NAME [OPTIONS] [-c SECTION | engine=URL user=USER password=+FILE] [NAME=VALUE]...",
        after_help = PARAMETERS
    )]
    Restore(RestoreOptions),

    /// Verify by checksums that a directory still has what was backed up
    Verify(VerifyOptions),

    /// Tell what a transfer offers, its size, and its extents in sum
    #[command(
        override_usage = "imageio-nbd info [--json] url=URL|+FILE|- [NAME=VALUE]...",
        disable_version_flag = true
    )]
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,

        /// Say what happens; twice: every detail. RUST_LOG overrides it
        #[arg(short, long, action = ArgAction::Count)]
        verbose: u8,

        /// Parameters of the transfer: see below
        #[arg(value_name = "NAME=VALUE", hide = true)]
        parameters: Vec<String>,
    },

    /// Tell the server's checksum of the disk, and compare it with that of a local image
    #[command(
        override_usage = "imageio-nbd checksum [OPTIONS] url=URL|+FILE|- [NAME=VALUE]...",
        after_help = PARAMETERS
    )]
    Checksum(ChecksumOptions),

    /// Run the installed virt-v2v, and serve its disks instead of nbdkit with the Python plugin for
    /// oVirt; with --door=nbdkit as the first argument, by nbdkit with the plugin imageio
    #[command(name = "virt-v2v", disable_help_flag = true)]
    VirtV2v {
        /// virt-v2v's own
        #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

const PARAMETERS: &str = "The parameters are those of imageio-nbd: see `imageio-nbd --help`.";

/// The parser, with the parameters' help under that of the options.
pub(crate) fn command() -> clap::Command {
    let info = |info: clap::Command| info.after_help(help::parameters_of_info());
    Options::command().mut_subcommand("info", info).after_help(help::after_options())
}

#[cfg(test)]
pub(crate) mod tests;
