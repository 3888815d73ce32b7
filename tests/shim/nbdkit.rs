// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of nbdkit.

use std::path::PathBuf;

use clap::{Args, FromArgMatches};
use support::TestResult;

use crate::asked::{Asked, is_activated};

#[derive(Debug, Args)]
struct Options {
    #[arg(short = 'U', long)]
    unix: Option<String>,
    #[arg(short, long)]
    port: Option<String>,
    #[arg(short, long, alias = "ip-addr")]
    ipaddr: Option<String>,
    #[arg(short, long = "export-name", aliases = ["export", "exportname"], default_value = "")]
    export: String,
    #[arg(short, long, aliases = ["read-only"])]
    readonly: bool,
    #[arg(short = 'P', long, alias = "pid-file")]
    pidfile: Option<PathBuf>,
    #[arg(short, long, aliases = ["no-fork"])]
    foreground: bool,
    #[arg(long)]
    run: Option<String>,
    #[arg(short, long, alias = "stdin")]
    single: bool,
    #[arg(long)]
    exit_with_parent: bool,
    #[arg(short, long)]
    threads: Option<String>,
    #[arg(long)]
    tls: Option<String>,
    #[arg(long)]
    tls_certificates: Option<String>,
    #[arg(long)]
    tls_psk: Option<String>,
    #[arg(long)]
    tls_verify_peer: bool,
    #[arg(long)]
    filter: Vec<String>,
    #[arg(short = 'D', long)]
    debug: Vec<String>,
    // Of how nbdkit speaks to its own clients, of which there is one here.
    #[arg(short, long)]
    newstyle: bool,
    #[arg(short, long)]
    oldstyle: bool,
    #[arg(long)]
    no_sr: bool,
    #[arg(long)]
    no_mc: bool,
    #[arg(long)]
    mask_handshake: Option<String>,
    #[arg(short, long)]
    verbose: bool,
    // With these, it is no server.
    #[arg(long)]
    help: bool,
    #[arg(short = 'V', long)]
    version: bool,
    #[arg(long)]
    dump_config: bool,
    #[arg(long)]
    dump_plugin: bool,
    /// The plugin, and its parameters.
    #[arg(value_name = "PLUGIN")]
    plugin: Vec<String>,
}

fn command() -> clap::Command {
    let command = clap::Command::new("nbdkit")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    Options::augment_args(command)
}

/// `None` if it is not asked to serve.
pub(crate) fn read(arguments: &[String]) -> TestResult<Option<Asked>> {
    let options = Options::from_arg_matches(&command().try_get_matches_from(arguments)?)?;
    let is_server = !(options.help || options.version || options.dump_config || options.dump_plugin);
    Ok(is_server.then(|| asked(options)))
}

fn asked(options: Options) -> Asked {
    let mut asked = Asked {
        export: options.export,
        read_only: options.readonly,
        pid_file: options.pidfile,
        background: !(options.foreground
            || options.run.is_some()
            || options.exit_with_parent
            || options.single
            || is_activated()),
        ends_with_parent: options.exit_with_parent || is_activated(),
        reads_input: options.plugin.iter().any(|word| word == "-"),
        ..Asked::default()
    };
    asked.server.extend(options.filter.into_iter().map(|filter| format!("--filter={filter}")));
    asked.server.extend(options.debug.into_iter().map(|flag| format!("--debug={flag}")));
    asked.server.extend(asked.read_only.then(|| "--readonly".to_owned()));
    asked.server.extend(options.plugin);
    let is_told = options.port.is_some() || options.unix.is_some() || options.single || is_activated();
    let port = options.port.or_else(|| (!is_told).then(|| "10809".to_owned()));
    for (name, value) in [
        ("--unix", options.unix),
        ("--port", port),
        ("--ipaddr", options.ipaddr),
        ("--threads", options.threads),
        ("--tls", options.tls),
        ("--tls-certificates", options.tls_certificates),
        ("--tls-psk", options.tls_psk),
        ("--run", options.run),
    ] {
        asked.door_option(name, value);
    }
    asked.door.extend(options.single.then(|| "--single".to_owned()));
    asked.door.extend(options.tls_verify_peer.then(|| "--tls-verify-peer".to_owned()));
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Option<Asked> {
        read(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_may_follow_the_plugin() {
        let words = ["-U", "-", "--filter=noextents", "data", "data= 1 2", "size=1M", "-r", "--run", "a b"];
        let asked = asked(&words).unwrap();
        assert_eq!(asked.server, ["--filter=noextents", "--readonly", "data", "data= 1 2", "size=1M"]);
        assert_eq!(asked.door, ["--unix=-", "--run=a b"]);
        assert!(asked.is_captive() && !asked.background && !asked.reads_input);
    }

    #[test]
    fn a_script_may_come_from_standard_input() {
        assert!(asked(&["-U", "-", "sh", "-", "--run", "true"]).unwrap().reads_input);
        assert!(!asked(&["-s", "memory", "1M"]).unwrap().reads_input);
    }

    #[test]
    fn who_is_not_to_serve_is_itself() {
        for words in [&["--version"][..], &["sh", "--dump-plugin"], &["memory", "--version"]] {
            assert_eq!(asked(words), None, "{words:?}");
        }
    }
}
