// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of both doors are those of the server's log and of the client, also after faults;
//! and they can be had at any moment.

#![allow(clippy::unwrap_used)]

#[path = "support/statistics/figures.rs"]
mod figures;
#[path = "support/statistics/signals.rs"]
mod signals;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use fake_imageio::{FakeServer, Fault, Gate, Op, What};
use figures::{Figures, amount};
use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::door::{Door, Served, built};
use support::image::{SIZE, guest_disk, noise, same};
use support::pki::Pki;
use support::process::{Daemon, PATIENCE};
use support::run::imageio_nbd;
use support::tools::{NBDCOPY, Tool, trial};
use tempfile::TempDir;

type TestOfDoors = (&'static str, fn(Door));

const OF_BOTH_DOORS: &[TestOfDoors] = &[
    ("an_upload_without_faults_agrees", without_faults),
    ("an_upload_with_faults_agrees", with_faults),
    ("what_may_be_lost_is_told_as_incomplete", incomplete),
    ("a_file_that_can_t_be_written_is_an_error_before_anything_is_served", unwritable),
    ("a_file_that_can_t_be_written_in_the_end_is_a_warning", unwritable_in_the_end),
];

const OF_BOTH_DOORS_AS_ROOT: &[TestOfDoors] =
    &[("a_file_that_the_user_of_u_can_t_write_is_an_error_at_the_start", unwritable_by_another_user)];

type Test = (&'static str, &'static [Tool], fn());

const TESTS: &[Test] = &[
    ("a_thousand_signals_under_load_lose_nothing", &[NBDCOPY], || signals::a_thousand(None)),
    ("a_thousand_signals_through_tls_lose_nothing", &[NBDCOPY], || {
        signals::a_thousand(Some(&Pki::new().unwrap()));
    }),
    ("a_signal_has_the_figures_told_whatever_is_logged", &[], told_on_a_signal),
    ("standard_error_gets_one_line", &[], on_standard_error),
    ("a_start_that_fails_with_a_device_is_told", &[], start_that_fails),
    ("who_loses_patience_has_the_figures_all_the_same", &[], out_of_patience),
    ("all_exports_are_in_one_document", &[NBDCOPY], several_exports),
];

fn main() -> ExitCode {
    let mut trials = Vec::new();
    let is_root = rustix::process::getuid().is_root();
    for door in Door::ALL {
        let of_root = OF_BOTH_DOORS_AS_ROOT.iter().map(|test| (test, !is_root));
        for (&(name, run), ignored) in OF_BOTH_DOORS.iter().map(|test| (test, false)).chain(of_root) {
            let test = move || {
                run(door);
                Ok(())
            };
            let note = if ignored { " (it takes root)" } else { "" };
            let name = format!("{}/{name}{note}", door.name());
            let trial = trial(name, &[door.tools(), &[NBDCOPY]].concat(), test);
            trials.push(if ignored { trial.with_ignored_flag(true) } else { trial });
        }
    }
    for &(name, tools, run) in TESTS {
        let test = move || {
            run();
            Ok(())
        };
        trials.push(trial(name, tools, test));
    }
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().collect::<Vec<Trial>>()).exit_code()
}

fn server() -> (FakeServer, TempDir) {
    (FakeServer::builder().size(SIZE).start().unwrap(), tempfile::tempdir().unwrap())
}

fn parameters(server: &FakeServer, dir: &Path, more: &[&str]) -> Vec<String> {
    let stats_json = format!("stats-json={}", dir.join("stats.json").display());
    let parameters = [format!("url={}", server.url()), stats_json];
    parameters.into_iter().chain(more.iter().map(|&more| more.to_owned())).collect()
}

fn document(dir: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(dir.join("stats.json")).unwrap()).unwrap()
}

fn nbdcopy(dir: &Path, served: &Served, disk: &[u8], requests: &str) -> bool {
    fs::write(dir.join("disk"), disk).unwrap();
    let mut nbdcopy = Command::new("timeout");
    nbdcopy.arg("60").arg(NBDCOPY.path()).args(["--flush", requests, "disk", &served.uri()]).current_dir(dir);
    nbdcopy.stderr(Stdio::null()).status().unwrap().success()
}

/// Uploads a disk, and compares what the program, its server and its client know of that.
fn assert_agrees(door: Door, server: &FakeServer, dir: &Path, more: &[&str]) -> Value {
    let disk = guest_disk(7);
    let served = door.serve(dir, &parameters(server, dir, more)).unwrap();
    assert!(nbdcopy(dir, &served, &disk, "--request-size=262144"));
    let (status, said) = served.finish().unwrap();
    assert!(status.success(), "{said}");
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    same("the disk", &server.contents().unwrap(), &disk).unwrap();
    let told = document(dir);
    assert_eq!((&told["version"], &told["state"]), (&1.into(), &"complete".into()));
    let export = &told["exports"][0];
    assert_eq!(
        (export["clients"].clone(), export["server"].clone()),
        (told["total"]["clients"].clone(), told["total"]["server"].clone())
    );
    Figures(&export["server"]).assert_agree_with(&server.log());
    // nbdcopy writes each byte once: as data or as zeroes.
    let clients = &export["clients"];
    let bytes = |kind: &str| clients[kind]["bytes"].as_u64().unwrap();
    assert_eq!(bytes("writes") + bytes("zeroes"), SIZE, "{clients}");
    // nbdkit doesn't always tell that a client has gone, once it ends itself.
    assert!(clients["connected"] == 0 || door == Door::Nbdkit, "{clients}");
    assert!(
        clients["accepted"].as_u64().unwrap() > 0 && clients["flushes"]["requests"].as_u64().unwrap() > 0
    );
    let line = said.lines().find(|line| line.contains("from clients: ")).expect("the line at the end");
    assert!(line.contains("; to the server: ") && line.contains(", waited "), "{line}");
    told
}

fn without_faults(door: Door) {
    let (server, dir) = server();
    let told = assert_agrees(door, &server, dir.path(), &[]);
    let (clients, server) = (&told["total"]["clients"], &told["total"]["server"]);
    for kind in ["writes", "zeroes"] {
        let (sent, answered) =
            (amount(&server["all"][kind]["sent"]), amount(&server["all"][kind]["answered"]));
        assert_eq!(sent, answered);
        assert_eq!(Some(answered.1), clients[kind]["bytes"].as_u64(), "what goes in comes out");
        assert_eq!(server["written_again"][kind]["sent"]["bytes"], 0);
    }
    assert_eq!((&server["connections"]["lost"], &server["retries"]), (&0.into(), &0.into()));
}

fn with_faults(door: Door) {
    let (server, dir) = server();
    let status = |status| What::Status { status, text: "for a reason".to_owned() };
    for (op, nth, what) in [
        (Op::Put, 2, What::LoseAnswer),
        (Op::Put, 4, What::Reset { after: 100_000 }),
        (Op::Put, 6, status(503)),
        (Op::Put, 9, What::Close { after: 5000 }),
        (Op::Put, 12, What::LoseAnswer),
        (Op::Flush, 1, What::LoseAnswer),
        (Op::Zero, 1, status(500)),
    ] {
        server.fault(Fault::on(op).nth(nth).then(what));
    }
    // A request that meets a connection that was closed a moment before would be sent, and the
    // server would not see it.
    let told = assert_agrees(door, &server, dir.path(), &["connections=1", "reconnect-timeout=30"]);
    let server = &told["total"]["server"];
    let written_again = amount(&server["written_again"]["writes"]["answered"]);
    assert!(written_again.1 > 0, "{server}");
    assert!(server["connections"]["lost"].as_u64().unwrap() >= 5, "{server}");
    assert!(server["retries"].as_u64().unwrap() >= 5, "{server}");
}

fn incomplete(door: Door) {
    let (server, dir) = server();
    server.fault(Fault::on(Op::Flush).every().then(What::Status { status: 500, text: "no luck".into() }));
    let served = door.serve(dir.path(), &parameters(&server, dir.path(), &["replay-buffer=0"])).unwrap();
    assert!(!nbdcopy(dir.path(), &served, &noise(1 << 20, 1), "--request-size=262144"));
    let (status, said) = served.finish().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    let told = document(dir.path());
    assert_eq!(told["state"], "incomplete");
    Figures(&told["exports"][0]["server"]).assert_agree_with(&server.log());
    assert!(told["total"]["clients"]["flushes"]["errors"].as_u64().unwrap() > 0, "{told}");
}

fn unwritable(door: Door) {
    let (server, dir) = server();
    for (file, reason) in [("no/such/file", "No such file or directory"), (".", "is a directory")] {
        let parameters = [format!("url={}", server.url()), format!("stats-json={file}")];
        let mut command = door.command(dir.path(), &["-U".as_ref(), "-".as_ref()], &parameters).unwrap();
        let ended = command.args(["--run", "true"]).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        let error = said.lines().find(|line| line.contains("cannot write the statistics to ")).expect(&said);
        assert!(error.contains(reason), "{said}");
    }
    assert_eq!(server.log().requests.len(), 0, "nobody has asked the server");
}

fn unwritable_by_another_user(door: Door) {
    let (server, dir) = server();
    // The directory is root's alone.
    let options = ["-f", "-U", "nbd.sock", "-u", "65534"].map(AsRef::as_ref);
    let mut command = door.command(dir.path(), &options, &parameters(&server, dir.path(), &[])).unwrap();
    let mut served = Daemon::spawn(command.current_dir(dir.path())).unwrap();
    assert_eq!(served.wait().unwrap().code(), Some(1), "{:?}", served.said());
    let is_told = |line: &String| {
        line.contains("cannot write the statistics to ") && line.contains("Permission denied")
    };
    assert!(served.said().iter().any(is_told), "{:?}", served.said());
}

fn unwritable_in_the_end(door: Door) {
    let (server, dir) = server();
    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    let parameters = [format!("url={}", server.url()), format!("stats-json={}", sub.join("stats").display())];
    let served = door.serve(dir.path(), &parameters).unwrap();
    // A client that is served knows that the start is over.
    figures::write(served.socket(), 0, &[1; 4096]);
    fs::remove_dir(&sub).unwrap();
    let (status, said) = served.finish().unwrap();
    assert!(status.success(), "{said}");
    assert!(said.contains("warning: cannot write the statistics to "), "{said}");
}

/// In the foreground, with this level of messages.
fn served(dir: &Path, options: &[&str]) -> Daemon {
    let mut command = Command::new(built("imageio-nbd"));
    command.args(["-f", "-U", "nbd.sock", "--print-uri", "-P", "pid"]).args(options).current_dir(dir);
    let mut served = Daemon::spawn(&mut command).unwrap();
    served.retry(|| fs::read_to_string(dir.join("pid"))).unwrap();
    served
}

fn told_on_a_signal() {
    let (server, dir) = server();
    let mut served = served(dir.path(), &[&format!("url={}", server.url()), "--stats-json=stats.json"]);
    assert!(!dir.path().join("stats.json").exists());
    served.signal(Signal::SIGUSR1).unwrap();
    let line = served.wait_for_line(|line| Some(line.to_owned())).unwrap();
    assert_eq!(line, "imageio-nbd: info: from clients: nothing; to the server: waited 0.0 s");
    // It is written after the line.
    served.retry(|| fs::metadata(dir.path().join("stats.json"))).unwrap();
    assert_eq!(document(dir.path())["state"], "running");
    assert!(served.terminate().unwrap().success());
    assert_eq!(served.said().len(), 1, "without -v, nothing is told in the end: {:?}", served.said());
    assert_eq!(document(dir.path())["state"], "complete");
}

fn on_standard_error() {
    let (server, dir) = server();
    let url = format!("url={}", server.url());
    let ended = imageio_nbd(dir.path(), &["-U", "-", "stats-json=-", &url, "--run", "true"]).unwrap();
    assert_eq!((ended.code, ended.err.lines().count()), (0, 1), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!(told["state"], "complete");
    assert!(told["program"].as_str().unwrap().starts_with("imageio-nbd "));
    let refused = imageio_nbd(dir.path(), &["-U", "sock", "--stats-json", "-", &url]).unwrap();
    assert_eq!((refused.code, refused.err.lines().count()), (1, 1), "{refused:?}");
    assert!(refused.err.contains("stats-json=-: nobody sees the standard error of a daemon"), "{refused:?}");
    let refused = imageio_nbd(dir.path(), &["info", "stats-json=x", &url]).unwrap();
    assert!(refused.code == 1 && refused.err.contains("stats-json: "), "{refused:?}");
}

fn start_that_fails() {
    let (server, dir) = server();
    let url = format!("url={}", server.url());
    // There is no shell.
    let ended = Command::new(built("imageio-nbd"))
        .args(["-U", "-", "--stats-json=stats.json", &url, "--run", "true"])
        .env("PATH", "/nonexistent")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("cannot start a shell for --run"), "{said}");
    assert_eq!(document(dir.path())["state"], "incomplete");
}

fn out_of_patience() {
    let (server, dir) = server();
    let gate = Gate::new();
    server.fault(Fault::on(Op::Flush).every().then(What::Block(gate.clone())));
    let url = format!("url={}", server.url());
    let mut served = served(dir.path(), &[&url, "--stats-json=stats.json"]);
    figures::write(&dir.path().join("nbd.sock"), 0, &[1; 4096]);
    assert_eq!(served.terminate_insistently().unwrap().code(), Some(1));
    let told = document(dir.path());
    assert_eq!(
        (&told["state"], &told["total"]["clients"]["writes"]["bytes"]),
        (&"incomplete".into(), &4096.into())
    );
    gate.open();
}

fn several_exports() {
    let (first, dir) = server();
    let second = FakeServer::builder().ticket("another").size(SIZE).start().unwrap();
    let run = "nbdcopy --flush disk \"nbd+unix:///sdb?socket=$unixsocket\"";
    fs::write(dir.path().join("disk"), noise(SIZE as usize, 5)).unwrap();
    let urls = [&first, &second].map(|server| format!("url={}", server.url()));
    let arguments =
        ["-v", "-U", "-", "stats_json=stats.json", "export=sda", &urls[0], "export=sdb", &urls[1]];
    let ended = imageio_nbd(dir.path(), &[&arguments[..], &["--run", run]].concat()).unwrap();
    assert_eq!(ended.code, 0, "{ended:?}");
    let told = document(dir.path());
    for (at, (name, server)) in [("sda", &first), ("sdb", &second)].into_iter().enumerate() {
        let export = &told["exports"][at];
        assert_eq!(export["name"], name);
        Figures(&export["server"]).assert_agree_with(&server.log());
    }
    let written = |of: &Value| of["clients"]["writes"]["bytes"].as_u64().unwrap();
    assert_eq!([&told["exports"][0], &told["exports"][1], &told["total"]].map(written), [0, SIZE, SIZE]);
    for line in [
        "info: export 'sda': from clients: nothing; ",
        "info: export 'sdb': from clients: ",
        "info: all exports: from",
    ] {
        assert!(ended.err.contains(line), "{ended:?}");
    }
}
