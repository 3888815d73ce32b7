// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of nbdkit: a command line of nbdkit without its plugin does the same by
//! `imageio-nbd`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use fake_imageio::FakeServer;
use libtest_mimic::{Arguments, Trial};
use support::door::built;
use support::process::PATIENCE;
use support::run::{Ended, imageio_nbd};
use support::tools::{NBDINFO, NBDKIT, Tool, trial};
use tempfile::TempDir;

type Test = (&'static str, &'static [Tool], fn());

const TESTS: &[Test] = &[
    ("each_option_of_the_installed_nbdkit_is_known", &[NBDKIT], each_is_known),
    ("the_same_command_line_does_the_same", &[NBDKIT, NBDINFO], does_the_same),
    ("what_is_dumped_has_the_keys_of_nbdkit", &[NBDKIT], dumps),
    ("what_is_refused_is_told_in_one_line", &[], refuses),
    ("addresses_of_one_family_are_listened_on", &[NBDINFO], listens_to_one_family),
    ("the_uri_is_printed", &[], prints_its_uri),
    ("messages_go_where_they_are_wanted", &[], logs),
    ("a_client_that_does_not_negotiate_is_dropped_in_time", &[], drops_who_waits),
    ("a_label_of_selinux_is_taken", &[], labels),
];

/// They take root's rights.
const TESTS_OF_ROOT: &[Test] = &[
    ("the_process_becomes_a_user_and_a_member_of_a_group", &[], becomes_somebody),
    ("memory_is_kept_from_being_swapped_out", &[], locks_memory),
];

fn main() -> ExitCode {
    let is_root = rustix::process::getuid().is_root();
    let of_root = TESTS_OF_ROOT.iter().map(|test| (test, !is_root));
    let trials =
        TESTS.iter().map(|test| (test, false)).chain(of_root).map(|(&(name, tools, run), ignored)| {
            let run = move || {
                run();
                Ok(())
            };
            let name = if ignored { format!("{name} (it takes root)") } else { name.to_owned() };
            let trial = trial(name, tools, run);
            if ignored { trial.with_ignored_flag(true) } else { trial }
        });
    libtest_mimic::run(&Arguments::from_args(), trials.collect::<Vec<Trial>>()).exit_code()
}

fn server() -> (FakeServer, TempDir) {
    (FakeServer::builder().start().unwrap(), tempfile::tempdir().unwrap())
}

fn ours(options: &[&str]) -> Ended {
    let (server, dir) = server();
    let url = format!("url={}", server.url());
    imageio_nbd(dir.path(), &[options, &[&url]].concat()).unwrap()
}

fn nbdkit(options: &[&str]) -> Ended {
    let server = server().0;
    let plugin = built("libnbdkit_imageio_plugin.so");
    let mut command = Command::new(NBDKIT.path());
    command.args(options).arg(plugin).arg(format!("url={}", server.url())).output().unwrap().into()
}

/// A list of nbdkit's options, one a line.
fn lines(ended: &Ended) -> Vec<String> {
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    ended.out.lines().map(str::to_owned).collect()
}

fn each_is_known() {
    for list in ["--long-options", "--short-options"] {
        let theirs: Ended = Command::new(NBDKIT.path()).arg(list).output().unwrap().into();
        let (theirs, ours) = (lines(&theirs), lines(&ours(&[list])));
        assert!(theirs.len() > 10, "{theirs:?}");
        let missing: Vec<_> = theirs.iter().filter(|option| !ours.contains(option)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

/// Each by what a client sees.
fn does_the_same() {
    let is = |what: &str| {
        format!("nbdinfo --is {what} \"$uri\" && echo yes; nbdinfo --can {what} \"$uri\" || echo no")
    };
    let protocol = "nbdinfo \"$uri\" | grep -E '^protocol|contexts|base:alloc'".to_owned();
    for (options, run) in [
        (&["-U", "-"][..], is("read-only")),
        (&["-U", "-", "-r"], is("read-only")),
        (&["-U", "-", "--no-sr"], protocol.clone()),
        (&["-U", "-", "-n", "-D", "nbdkit.backend.datapath=0"], protocol),
        (&["-U", "-", "--exportname", "a b"], "echo \"$exportname ${uri%%?socket*}\"".to_owned()),
        (&["-fU", "-", "-t1", "--exit-with-parent"], "nbdinfo --size \"$uri\"".to_owned()),
        (&["-U", "-", "--tls=off"], "echo ${uri%%:*}".to_owned()),
        (&["-U", "-"], "exit 7".to_owned()),
        (&["-r", "-r", "-t", "0", "-t", "5", "-U", "/nonexistent", "-U", "-"], is("read-only")),
        (&["--foregr", "--thread=3", "--un", "-"], "echo ${uri%%:*}".to_owned()),
    ] {
        let options = [options, &["--run", &run]].concat();
        let (theirs, ours) = (nbdkit(&options), ours(&options));
        assert_eq!((ours.code, &ours.out), (theirs.code, &theirs.out), "{options:?}: {ours:?}, {theirs:?}");
    }
}

fn dumps() {
    let keys = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_once('=').unwrap().0.to_owned()).collect()
    };
    let config: Ended = Command::new(NBDKIT.path()).arg("--dump-config").output().unwrap().into();
    let ours_config = ours(&["--dump-config"]);
    let (theirs, known) = (keys(&config.out), keys(&ours_config.out));
    assert!(known.len() > 8 && known.iter().all(|key| theirs.contains(key)), "{known:?}");
    let (plugin, ours) = (nbdkit(&["--dump-plugin"]), ours(&["--dump-plugin"]));
    assert!(ours.out.lines().count() > 8, "{ours:?}");
    for line in ours.out.lines().filter(|line| !line.starts_with("path=")) {
        assert!(plugin.out.lines().any(|other| other == line), "{line} is not in {plugin:?}");
    }
}

fn refuses() {
    for options in [
        &["--filter=log"][..],
        &["--mask-handshake=0"],
        &["-o"],
        &["--tls-psk=keys"],
        &["--vsock"],
        &["-u", "no-such-user"],
        &["-g", "no-such-group"],
    ] {
        let ended = ours(&[options, &["-U", "-", "--run", "echo served"]].concat());
        assert_eq!((ended.code, ended.out.as_str(), ended.err.lines().count()), (1, "", 1), "{ended:?}");
        assert!(ended.err.starts_with("imageio-nbd: error: --"), "{ended:?}");
    }
    let url = "https://h/images/e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a";
    for option in ["-u", "-g", "--selinux-label"] {
        let ended = imageio_nbd(tempfile::tempdir().unwrap().path(), &[option, url, "-U", "-", url]).unwrap();
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    }
}

fn listens_to_one_family() {
    // By the export's name, as another program may have the same port of the other family.
    let reached = |address: &str, host: &str| {
        format!("timeout 10 nbdinfo --size nbd://{host}:$port/only-here >/dev/null 2>&1 && echo {address}")
    };
    let run = format!("{}; {}; true", reached("127.0.0.1", "127.0.0.1"), reached("::1", "'[::1]'"));
    for (option, address) in [("-4", "127.0.0.1"), ("--ipv6-only", "::1")] {
        for host in [&[][..], &["-i", "any"]] {
            let ended = ours(&[&[option, "-p", "0", "-e", "only-here", "--run", &run], host].concat());
            assert_eq!((ended.code, ended.out), (0, format!("{address}\n")), "{option} {host:?}");
        }
    }
    let other = ours(&["-4", "-i", "::1", "-p", "0", "--run", "true"]);
    assert!(other.code == 1 && other.err.contains("-i ::1: it has no address for --ipv4-only"), "{other:?}");
}

fn prints_its_uri() {
    let ended = ours(&["-U", "-", "-e", "x", "--print-uri", "--run", "echo \"$uri\""]);
    let lines: Vec<_> = ended.out.lines().collect();
    assert!(lines.len() == 2 && lines[0] == lines[1] && lines[0].starts_with("nbd+unix:///x?"), "{ended:?}");
}

fn logs() {
    let fails =
        |log: &[&str]| imageio_nbd(tempfile::tempdir().unwrap().path(), &[log, &["-s", "url=x"]].concat());
    let told = fails(&["--log=stderr"]).unwrap();
    assert!(told.code == 1 && told.err.starts_with("imageio-nbd: error: "), "{told:?}");
    let untold = fails(&["--log=null"]).unwrap();
    assert_eq!((untold.code, untold.err.as_str()), (1, ""));
    let wrong = fails(&["--log=file"]).unwrap();
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

fn drops_who_waits() {
    let (server, dir) = server();
    let socket = dir.path().join("socket");
    let mut command = Command::new(built("imageio-nbd"));
    command.arg("-f").args(["--timeout", "0.01", "--print-uri", "-U"]).arg(&socket);
    let mut running = command.arg(server.url()).stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = [0];
    running.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
    let mut client = UnixStream::connect(&socket).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = Vec::new();
    client.read_to_end(&mut greeting).unwrap();
    assert_eq!(greeting.len(), 18);
    running.kill().unwrap();
    running.wait().unwrap();
}

fn labels() {
    let ended =
        ours(&["--selinux-label", "system_u:object_r:svirt_socket_t:s0", "-U", "-", "--run", "echo $uri"]);
    assert!(ended.code == 0 && ended.out.starts_with("nbd+unix:"), "{ended:?}");
}

/// A line of what `/proc/PID/status` tells of the server while it runs.
fn status_of_server(options: &[&str], field: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let pidfile = dir.path().join("pid");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let run = format!(
        "until [ -s {0} ]; do sleep 0.01; done; grep ^{field} /proc/$(cat {0})/status",
        pidfile.display()
    );
    let ended = ours(&[options, &["-U", "-", "-P", pidfile.to_str().unwrap(), "--run", &run]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.out.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn becomes_somebody() {
    assert_eq!(status_of_server(&["-u", "65534"], "Uid"), "65534 65534 65534 65534");
    let run = "id -u; test -w \"$unixsocket\" && echo \"$unixsocket\"";
    let ended = ours(&["-u", "nobody", "-U", "-", "--run", run]);
    let socket = ended.out.strip_prefix("65534\n").map(|socket| Path::new(socket.trim()));
    assert!(ended.code == 0 && socket.is_some(), "{ended:?}");
    assert!(
        socket.is_some_and(|socket| !socket.exists() && !socket.parent().unwrap().exists()),
        "it is left"
    );
    assert_eq!(status_of_server(&["-u", "nobody"], "Gid"), "65534 65534 65534 65534");
    assert_eq!(status_of_server(&["-u", "nobody", "-g", "12"], "Gid"), "12 12 12 12");
    assert_eq!(status_of_server(&["-u", "nobody", "-g", "12"], "Groups"), "12");
    assert_eq!(status_of_server(&["--group=12"], "Uid"), "0 0 0 0");
}

fn locks_memory() {
    assert_eq!(status_of_server(&[], "VmLck"), "0 kB");
    assert_ne!(status_of_server(&["--swap"], "VmLck"), "0 kB");
}
