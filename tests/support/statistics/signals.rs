// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals that ask for the figures, while all is busy.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

use fake_imageio::{Certificate, FakeServer};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::image::{SIZE, noise, same};
use support::pki::Pki;
use support::process::PATIENCE;
use support::tools::NBDCOPY;

use crate::figures::Figures;
use crate::{document, served};

/// Uploads the disk, and reads it back.
fn copy(dir: &Path, uri: &str) -> bool {
    [["disk", uri], [uri, "back"]].iter().all(|from_and_to| {
        let mut nbdcopy = Command::new("timeout");
        nbdcopy.arg("60").arg(NBDCOPY.path()).args(["--flush", "--request-size=65536", "--connections=4"]);
        nbdcopy.args(from_and_to).current_dir(dir).status().unwrap().success()
    })
}

/// Sends it so that one thread after another takes it, each in whatever system call it is: Linux
/// gives a signal for a process to the thread whose number was used, if that doesn't block it.
fn signal_thread(process: u32, number: usize) {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let threads: Vec<i32> =
        threads.map(|thread| thread.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    match kill(Pid::from_raw(threads[number % threads.len()]), Signal::SIGUSR1) {
        // The thread has ended meanwhile.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("{error}"),
    }
}

fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        few @ ..1024 => format!("{few}.0 MiB"),
        many => format!("{:.1} GiB", many as f64 / 1024.0),
    }
}

/// While a disk is uploaded and read back, again and again; through TLS on both sides, if there are
/// certificates.
pub(crate) fn a_thousand(pki: Option<&Pki>) {
    let builder = FakeServer::builder().size(SIZE);
    let builder = if pki.is_some() { builder.tls(Certificate::default()) } else { builder };
    let (server, dir) = (builder.start().unwrap(), tempfile::tempdir().unwrap());
    let (disk, path) = (noise(SIZE as usize, 3), dir.path().join("stats.json"));
    fs::write(dir.path().join("disk"), &disk).unwrap();
    let url = format!("url={}", server.url());
    let cafile = server.cafile().map(|cafile| format!("cafile={}", cafile.display()));
    let certificates = pki.map(|pki| format!("--tls-certificates={}", pki.server().display()));
    let options: Vec<&str> = cafile.iter().chain(&certificates).map(String::as_str).collect();
    let uri = match pki {
        Some(pki) => format!("nbds+unix:///?socket=nbd.sock&tls-certificates={}", pki.client().display()),
        None => "nbd+unix:///?socket=nbd.sock".to_owned(),
    };
    let mut served = served(dir.path(), &[&[&*url, "--stats-json=stats.json"], &options[..]].concat());
    let copies = copies_while_signals_come(dir.path(), &uri, served.id(), &path);
    // The last one is heeded.
    served.signal(Signal::SIGUSR1).unwrap();
    let written = copies * SIZE;
    let is_last = |line: &str| line.contains(&format!(" writes of {}, ", mebibytes(written))).then_some(());
    served.wait_for_line(is_last).unwrap();
    let status = served.terminate().unwrap();
    assert!(status.success(), "{:?}", served.said());
    assert!(served.said().iter().all(|line| line.contains("info: from clients: ")), "{:?}", served.said());
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    same("the disk", &server.contents().unwrap(), &disk).unwrap();
    same("what was read back", &fs::read(dir.path().join("back")).unwrap(), &disk).unwrap();
    let told = document(dir.path());
    assert_eq!(told["state"], "complete");
    let total = &told["total"];
    for kind in ["reads", "writes"] {
        let told = &total["clients"][kind];
        assert_eq!((&told["bytes"], &told["errors"]), (&written.into(), &0.into()), "{kind} {total}");
    }
    assert_eq!(
        (&total["server"]["connections"]["lost"], &total["server"]["retries"]),
        (&0.into(), &0.into())
    );
    Figures(&total["server"]).assert_agree_with(&server.log());
}

/// Copies again and again until all signals are sent. Returns how often that was.
fn copies_while_signals_come(dir: &Path, uri: &str, process: u32, document: &Path) -> u64 {
    const SIGNALS: usize = 1000;
    let (copies, are_signals_sent) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let copy_again_and_again = || {
            // Once more after the last of them.
            while !are_signals_sent.load(SeqCst) || copies.load(SeqCst) < 2 {
                assert!(copy(dir, uri));
                copies.fetch_add(1, SeqCst);
            }
        };
        let copying = std::thread::Builder::new().spawn_scoped(scope, copy_again_and_again).unwrap();
        for number in 0..SIGNALS {
            signal_thread(process, number);
            // The document is whole at any moment.
            if let Ok(text) = fs::read_to_string(document) {
                serde_json::from_str::<Value>(&text).unwrap();
            }
        }
        are_signals_sent.store(true, SeqCst);
        copying.join().unwrap();
    });
    copies.into_inner()
}
