// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: nbdkit's, where nbdkit has the option.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use blkhash::Algorithm;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum};
use imageio_config::{EXPORT, PARAMETERS, Parameter, wrap};

/// Serve an oVirt disk transfer as an NBD device.
#[derive(Debug, Parser)]
#[command(
    name = "imageio-nbd",
    version,
    disable_version_flag = true,
    override_usage = "imageio-nbd [OPTIONS] url=URL|+FILE|- [size=BYTES] [NAME=VALUE]...\n       \
                      imageio-nbd [OPTIONS] [NAME=VALUE]... export=NAME url=URL|+FILE|- [NAME=VALUE]... [export=NAME ...]\n       \
                      imageio-nbd checksum [--compare FILE|NBD-URI] url=URL|+FILE|- [NAME=VALUE]...\n       \
                      imageio-nbd info [--json] url=URL|+FILE|- [NAME=VALUE]...\n       \
                      imageio-nbd virt-v2v [ARGUMENTS]...",
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub(crate) struct Options {
    /// Listen on this unix socket; "-" makes a private one for --run
    #[arg(short = 'U', long = "unix", value_name = "SOCKET", conflicts_with_all = ["port", "ipaddr"])]
    pub(crate) unix: Option<PathBuf>,

    /// Listen on this TCP port; 0 takes a free one [default: 10809, with --ipaddr]
    #[arg(short, long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// Listen on this address; "any" is every address of this host, for every host that reaches it [default: 127.0.0.1
    /// and ::1, with --port]
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) ipaddr: Option<String>,

    /// Write the process id here once clients can connect
    #[arg(short = 'P', long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,

    /// Stay in the foreground instead of becoming a daemon
    #[arg(short, long, visible_alias = "no-fork")]
    pub(crate) foreground: bool,

    /// Refuse writes
    #[arg(short, long, visible_alias = "read-only")]
    pub(crate) readonly: bool,

    /// How many requests of one NBD connection are taken at a time
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,

    /// How many NBD clients are served at a time; over TCP, half of them from one address. A further client takes the
    /// place of one that has connected and said nothing. Else it waits, or is refused where its address has its half
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) max_clients: u16,

    /// Name the export; clients may also ask for the empty name. Several are named by export=
    #[arg(short, long = "export-name", visible_aliases = ["export", "exportname"], value_name = "NAME", value_parser = imageio_config::export_name)]
    pub(crate) export_name: Option<String>,

    /// Whether clients may use TLS (on), must (require) or can't (off) [default: on if there are certificates, else off]
    #[arg(long, value_name = "MODE", ignore_case = true)]
    pub(crate) tls: Option<TlsMode>,

    /// The directory with ca-cert.pem, server-cert.pem, server-key.pem and, if there is one, ca-crl.pem [default:
    /// /etc/pki/nbdkit for root, else ~/.pki/nbdkit or ~/.config/pki/nbdkit]
    #[arg(long, value_name = "DIR")]
    pub(crate) tls_certificates: Option<PathBuf>,

    /// Refuse TLS to clients that show no certificate of the CA in ca-cert.pem, or one that ca-crl.pem has. Takes
    /// --tls=require to refuse those without TLS, too
    #[arg(long)]
    pub(crate) tls_verify_peer: bool,

    /// Use TLS with pre-shared keys; not supported, and refused
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) tls_psk: Option<PathBuf>,

    /// Run this shell command once clients can connect, and exit when it ends. $uri, $unixsocket, $port and
    /// $exportname tell where
    #[arg(long, value_name = "COMMAND")]
    pub(crate) run: Option<String>,

    /// Serve one client on standard input and output, and exit when it has gone
    #[arg(short, long, conflicts_with_all = ["unix", "port", "ipaddr", "run"])]
    pub(crate) single: bool,

    /// Exit when the parent process does
    #[arg(long)]
    pub(crate) exit_with_parent: bool,

    /// Say what happens; twice: every detail. RUST_LOG overrides it
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Set a debug flag of nbdkit; accepted for its command lines, and of no effect
    #[arg(short = 'D', long = "debug", value_name = "FLAG=N", hide = true)]
    pub(crate) debug_flags: Vec<String>,

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
    /// That they tell where clients are, and nothing else does. TCP has to be asked for: whoever is on this host could
    /// connect.
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

    /// How much is to be logged.
    pub(crate) fn verbosity(&self) -> u8 {
        match &self.command {
            Some(Command::Info { verbose, .. }) => *verbose,
            Some(Command::Checksum(options)) => options.verbose,
            Some(Command::VirtV2v { .. }) | None => self.verbose,
        }
    }

    /// Whether the process goes into the background once clients can connect.
    pub(crate) fn becomes_daemon(&self, is_activated: bool) -> bool {
        !(self.foreground || self.run.is_some() || self.exit_with_parent || self.single || is_activated)
    }
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

/// What else this program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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

    /// Run the installed virt-v2v with nbdkit-imageio-plugin instead of its Python plugin for oVirt
    #[command(name = "virt-v2v", disable_help_flag = true)]
    VirtV2v {
        /// virt-v2v's own
        #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },

    /// Tell the server's checksum of the disk, and compare it with that of a local image
    #[command(
        override_usage = "imageio-nbd checksum [OPTIONS] url=URL|+FILE|- [NAME=VALUE]...",
        after_help = "The parameters are those of imageio-nbd: see `imageio-nbd --help`."
    )]
    Checksum(ChecksumOptions),
}

/// Options of `imageio-nbd checksum`.
#[derive(Debug, clap::Args)]
pub(crate) struct ChecksumOptions {
    /// Compare with this image, which is a raw file or block device, or what an NBD URI names. If they differ, the exit
    /// status is 1
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

/// What imageio takes.
fn block_size(text: &str) -> std::result::Result<u64, String> {
    match imageio_config::size(text)? {
        size if (1 << 20..=16 << 20).contains(&size) && size % 4096 == 0 => Ok(size),
        _ => Err("a multiple of 4096 from 1M to 16M is expected".to_owned()),
    }
}

/// The parser, with the parameters' help under that of the options.
pub(crate) fn command() -> clap::Command {
    let info = |info: clap::Command| info.after_help(parameters_help());
    Options::command().mut_subcommand("info", info).after_help(after_help())
}

fn after_help() -> String {
    parameters_help() + &parameter_help(&EXPORT) + EXIT_STATUS
}

fn parameters_help() -> String {
    let heading = "Parameters (a hyphen may be an underscore; the last of a name counts):\n".to_owned();
    heading + &PARAMETERS.iter().map(parameter_help).collect::<String>()
}

fn parameter_help(Parameter { name, value, default, help, .. }: &Parameter) -> String {
    let lines = wrap(&format!("{help} [default: {default}]"), 86);
    let lines: String = lines.iter().map(|line| format!("          {line}\n")).collect();
    format!("  {name}={value}\n{lines}")
}

const EXIT_STATUS: &str = "
Exit status:
  0  all is well: what was written is flushed, and the connections are closed
  1  an error, told in one line; or data may be lost
  2  the command line can't be understood
  With --run: that of the command, if it is not 0; 128 and the number of the signal that ended it.

Examples:
  imageio-nbd -U - url=+url.txt cafile=ca.pem --run 'nbdcopy --flush disk.img \"$uri\"'
  imageio-nbd -f -U /run/disk.sock url=+url.txt size=10G
  imageio-nbd -f -U /run/vm.sock cafile=ca.pem export=sda url=+sda.txt export=sdb url=+sdb.txt
  imageio-nbd -s url=+url.txt
  nbdcopy --flush -- disk.img [ imageio-nbd --exit-with-parent url=+url.txt cafile=ca.pem ]
  imageio-nbd checksum url=+url.txt cafile=ca.pem --compare disk.img
  imageio-nbd info --json url=+url.txt cafile=ca.pem
  imageio-nbd virt-v2v -i disk guest.img -o rhv-upload …";

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn options(arguments: &str) -> Options {
        let matches = command().get_matches_from(arguments.split_whitespace());
        Options::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn what_virt_v2v_gives_nbdkit() {
        let options = options(
            "imageio-nbd --exit-with-parent --foreground --pidfile /p --unix /s --threads 8 \
             -D nbdkit.backend.datapath=0 --verbose size=1 url=https://h/images/t",
        );
        assert!(options.exit_with_parent && options.foreground);
        assert_eq!(options.unix, Some("/s".into()));
        assert_eq!(options.parameters, ["size=1", "url=https://h/images/t"]);
    }

    #[test]
    fn the_arguments_of_virt_v2v_are_its_own() {
        let Some(Command::VirtV2v { arguments }) =
            options("imageio-nbd virt-v2v --help -o rhv-upload -U x -- -V").command
        else {
            panic!("another command");
        };
        assert_eq!(arguments, ["--help", "-o", "rhv-upload", "-U", "x", "--", "-V"]);
        assert!(options("imageio-nbd -U - virt-v2v-is-not-a-url=x").command.is_none());
    }

    #[test]
    fn info_takes_parameters_and_options_in_any_order() {
        let options = options("imageio-nbd info url=+t --json -v cafile=ca.pem");
        assert_eq!(options.verbosity(), 1);
        let Some(Command::Info { json, parameters, .. }) = options.command else { panic!("another command") };
        assert!(json);
        assert_eq!(parameters, ["url=+t", "cafile=ca.pem"]);
    }

    #[test]
    fn tls_takes_the_words_of_nbdkit() {
        for (word, mode) in [("off", TlsMode::Off), ("1", TlsMode::On), ("REQUIRED", TlsMode::Require)] {
            assert_eq!(options(&format!("imageio-nbd --tls={word} u")).tls, Some(mode));
        }
        assert_eq!(options("imageio-nbd u").tls, None);
    }

    #[test]
    fn sockets_that_were_passed_take_the_place_of_options() {
        let (told, untold) = (options("imageio-nbd -s u"), options("imageio-nbd u"));
        assert!(told.check(false).is_ok() && untold.check(true).is_ok());
        assert!(told.check(true).is_err() && untold.check(false).is_err());
        assert!(!told.becomes_daemon(false) && !untold.becomes_daemon(true));
        assert!(options("imageio-nbd -U s u").becomes_daemon(false));
    }

    #[test]
    fn a_checksum_has_options_of_its_own() {
        let Some(Command::Checksum(options)) =
            options("imageio-nbd checksum url=u --compare disk.img --block-size 1M timeout=5 -v").command
        else {
            panic!("another command");
        };
        assert_eq!(options.parameters, ["url=u", "timeout=5"]);
        assert_eq!((options.block_size, options.algorithm.name(), options.verbose), (1 << 20, "blake2b", 1));
        for wrong in ["--block-size=1048577", "--block-size=32M", "--block-size=4096", "--algorithm=crc32"] {
            assert!(
                command().try_get_matches_from(["imageio-nbd", "checksum", "url=u", wrong]).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_dash_is_a_value_and_short_options_combine() {
        let options = options("imageio-nbd -frvv -U - u");
        assert!(options.foreground && options.readonly);
        assert_eq!((options.verbose, options.unix), (2, Some("-".into())));
    }
}
