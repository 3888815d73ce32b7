// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of `qemu-nbd`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, FromArgMatches};
use support::TestResult;

use crate::asked::{Asked, is_activated};

/// What the one in front needs to know.
#[derive(Debug, Args)]
struct Front {
    #[arg(short = 'k', long)]
    socket: Option<String>,
    #[arg(short, long)]
    port: Option<String>,
    #[arg(short, long)]
    bind: Option<String>,
    #[arg(short = 'x', long, default_value = "")]
    export_name: String,
    #[arg(short = 't', long)]
    persistent: bool,
    #[arg(short, long)]
    read_only: bool,
    #[arg(short = 'B', long)]
    bitmap: Option<String>,
    #[arg(long)]
    object: Vec<String>,
    #[arg(long)]
    tls_creds: Option<String>,
    #[arg(long)]
    fork: bool,
    #[arg(long)]
    pid_file: Option<PathBuf>,
    #[arg(value_name = "FILE")]
    file: Option<String>,
}

/// The options that the server behind needs to know, with or without a value: long and short.
const BEHIND: &[(&str, Option<char>, bool)] = &[
    ("offset", Some('o'), true),
    ("format", Some('f'), true),
    ("load-snapshot", Some('l'), true),
    ("trace", Some('T'), true),
    ("cache", None, true),
    ("aio", None, true),
    ("discard", None, true),
    ("detect-zeroes", None, true),
    ("snapshot", Some('s'), false),
    ("nocache", Some('n'), false),
    ("allocation-depth", Some('A'), false),
    ("image-opts", None, false),
];

/// Options that make no difference here. There is always room for all of a test's clients, and no
/// time limit but ours.
const IGNORED: &[(&str, Option<char>, bool)] = &[
    ("shared", Some('e'), true),
    ("description", Some('D'), true),
    ("handshake-limit", None, true),
    ("tls-hostname", None, true),
    ("tls-authz", None, true),
    ("selinux-label", None, true),
    ("verbose", Some('v'), false),
];

/// With these, it is no server.
const NO_SERVER: &[(&str, Option<char>, bool)] = &[
    ("help", Some('h'), false),
    ("version", Some('V'), false),
    ("list", Some('L'), false),
    ("connect", Some('c'), true),
    ("disconnect", Some('d'), false),
];

fn command() -> clap::Command {
    let command = clap::Command::new("qemu-nbd")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    let others = [BEHIND, IGNORED, NO_SERVER].concat().into_iter().map(|(long, short, has_value)| {
        let action = if has_value { ArgAction::Set } else { ArgAction::SetTrue };
        let arg = Arg::new(long).long(long).action(action);
        if let Some(short) = short { arg.short(short) } else { arg }
    });
    Front::augment_args(command).args(others)
}

/// `None` if it is not asked to serve.
pub(crate) fn read(arguments: &[String]) -> TestResult<Option<Asked>> {
    let matches = command().try_get_matches_from(arguments)?;
    let is_given = |(long, ..): &(&str, _, _)| {
        matches.value_source(long) == Some(clap::parser::ValueSource::CommandLine)
    };
    if NO_SERVER.iter().any(is_given) {
        return Ok(None);
    }
    let mut server = Vec::new();
    for (long, _, has_value) in BEHIND.iter().filter(|option| is_given(option)) {
        let value = has_value.then(|| matches.get_one::<String>(long)).flatten();
        server.push(value.map_or_else(|| format!("--{long}"), |value| format!("--{long}={value}")));
    }
    Ok(Some(asked(Front::from_arg_matches(&matches)?, server)?))
}

fn asked(front: Front, server: Vec<String>) -> TestResult<Asked> {
    let mut asked = Asked {
        server,
        export: front.export_name,
        read_only: front.read_only,
        bitmap: front.bitmap,
        pid_file: front.pid_file,
        background: front.fork,
        ends_with_clients: !front.persistent,
        ends_with_parent: is_activated(),
        ..Asked::default()
    };
    asked.server.extend(asked.bitmap.iter().map(|bitmap| format!("--bitmap={bitmap}")));
    asked.server.extend(asked.read_only.then(|| "--read-only".to_owned()));
    for object in front.object {
        match certificates(&object, front.tls_creds.as_deref()) {
            Some(options) => asked.door.extend(options),
            None => asked.server.push(format!("--object={object}")),
        }
    }
    asked.server.push(front.file.ok_or("which image?")?);
    let has_socket = front.socket.is_some();
    if !has_socket && !is_activated() {
        asked.door_option("--port", Some(front.port.unwrap_or_else(|| "10809".into())));
        // The address is that of the option; without it, ours is on this host alone.
        asked.door_option("--ipaddr", front.bind);
    }
    asked.door_option("--unix", front.socket);
    Ok(asked)
}

/// The options of `imageio-nbd` for what an object has of TLS, if it is the one that is meant.
fn certificates(object: &str, id: Option<&str>) -> Option<Vec<String>> {
    let (kind, properties) = object.split_once(',')?;
    let property =
        |name| properties.split(',').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name);
    if property("id").map(|(_, id)| id) != Some(id?) {
        return None;
    }
    let dir = property("dir").map_or("", |(_, dir)| dir);
    let require = "--tls=require".to_owned();
    match kind {
        "tls-creds-x509" => {
            let mut options = vec![require, format!("--tls-certificates={dir}")];
            let verifies = property("verify-peer").is_none_or(|(_, value)| matches!(value, "on" | "yes"));
            options.extend(verifies.then(|| "--tls-verify-peer".to_owned()));
            Some(options)
        }
        "tls-creds-psk" => Some(vec![require, format!("--tls-psk={dir}/keys.psk")]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Option<Asked> {
        read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_is_behind_learns_nothing_of_clients() {
        let asked = asked("-v -t -k /s --fork -f raw -e 42 --pid-file=/p -x name -r -A disk").unwrap();
        assert_eq!(asked.server, ["--format=raw", "--allocation-depth", "--read-only", "disk"]);
        assert_eq!(asked.door, ["--unix=/s"]);
        assert_eq!((&*asked.export, asked.pid_file), ("name", Some("/p".into())));
        assert!(asked.background && asked.read_only && !asked.ends_with_clients);
    }

    #[test]
    fn tls_is_that_of_the_one_in_front() {
        let asked = asked(
            "--object tls-creds-x509,id=tls0,endpoint=server,dir=/d --object secret,id=s --tls-creds tls0 -p 1 disk",
        );
        let asked = asked.unwrap();
        assert_eq!(asked.server, ["--object=secret,id=s", "disk"]);
        assert_eq!(asked.door, ["--tls=require", "--tls-certificates=/d", "--tls-verify-peer", "--port=1"]);
        assert!(asked.ends_with_clients);
    }

    #[test]
    fn who_is_not_to_serve_is_itself() {
        for line in ["--version", "-L -k /s", "--pid-file=p --version"] {
            assert_eq!(asked(line), None, "{line}");
        }
    }
}
