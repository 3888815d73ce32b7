// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads that fail: virt-v2v fails too, at once, and its log says why and what to do.

use std::fs;

use fake_imageio::{Builder, Certificate, FakeServer, Fault, What};
use libtest_mimic::Trial;
use support::image::{SIZE, guest_disk};
use support::tools::{NBDCOPY, NBDKIT, trial};

use super::layout::{Layout, VERSION_2_10, stand_in};

/// A failure, and the words that virt-v2v's log has in one line then.
struct Failure {
    name: &'static str,
    server: fn(Builder) -> Builder,
    /// Of the server's own CA.
    cafile: fn(&FakeServer) -> String,
    told: [&'static str; 2],
    /// The words of nbdkit in the same case.
    told_by_nbdkit: [&'static str; 2],
    /// nbdkit does not start, so that virt-v2v waits for its pid file. Where our server does not,
    /// there is one.
    ends_nbdkit: bool,
}

const FAILURES: &[Failure] = &[
    Failure {
        name: "a_wrong_ca",
        server: |server| server,
        cafile: |_| "other-ca.pem".into(),
        told: ["certificate", "cafile="],
        told_by_nbdkit: ["certificate", "cafile="],
        ends_nbdkit: true,
    },
    Failure {
        name: "a_ticket_for_reading",
        server: |server| server.read_only(true),
        cafile,
        told: ["the ticket allows reading only", "ask for a transfer that allows upload"],
        told_by_nbdkit: ["the ticket allows reading only", "ask for a transfer that allows it"],
        ends_nbdkit: false,
    },
    Failure {
        name: "a_server_that_dies_for_good",
        server: |server| server.fault(Fault::any().nth(9).every().then(What::Reset { after: 0 })),
        cafile,
        told: ["the disk may be incomplete", "begin the upload anew"],
        // nbdkit may come to grief over a client that goes (an assertion in `connections.c`),
        // before the plugin's last word.
        told_by_nbdkit: ["error: write of", "data may be lost"],
        ends_nbdkit: false,
    },
];

fn cafile(server: &FakeServer) -> String {
    server.cafile().unwrap().display().to_string()
}

/// Each failure, through both doors.
pub(crate) fn trials() -> Vec<Trial> {
    let doors = ["imageio-nbd", "nbdkit"];
    let cases = FAILURES.iter().flat_map(|failure| doors.map(|door| (failure, door)));
    cases
        .map(|(failure, door)| {
            let run = move || {
                fails(failure, door);
                Ok(())
            };
            trial(format!("{}_fails_by_{door}", failure.name), &[NBDKIT, NBDCOPY], run)
        })
        .collect()
}

fn fails(failure: &Failure, door: &str) {
    let layout = Layout::new();
    let server = || FakeServer::builder().size(SIZE).tls(Certificate::default());
    let (server, other) = ((failure.server)(server()).start().unwrap(), server().start().unwrap());
    fs::write(layout.path().join("other-ca.pem"), other.ca_pem().unwrap()).unwrap();
    let cafile = (failure.cafile)(&server);
    let disk = format!("size={SIZE} url={} cafile={cafile} reconnect-timeout=0.1", server.url());
    let script = stand_in(&layout, &VERSION_2_10, &[disk.clone(), disk]);
    layout.add_script("virt-v2v", &format!("patience=100\n{script}"));
    fs::write(layout.path().join("guest.img"), guest_disk(3)).unwrap();

    let ended = layout.run(&["virt-v2v", &format!("--door={door}"), "-o", "rhv-upload"]);
    assert_ne!(ended.code, 0, "{ended:?}");
    assert_ne!(ended.code, 124, "it hung: {ended:?}");
    let told = if door == "nbdkit" { failure.told_by_nbdkit } else { failure.told };
    let is_told = |line: &str| told.iter().all(|words| line.contains(words));
    assert!(ended.err.lines().any(is_told), "{told:?} are in no line of {ended:?}");
    // nbdkit writes no pid file where nothing is served.
    let waited_in_vain = ended.err.contains("nbdkit did not start up");
    assert_eq!(waited_in_vain, failure.ends_nbdkit && door == "nbdkit", "{ended:?}");
    assert!(!ended.err.contains(server.url().rsplit('/').next().unwrap()), "a ticket is told: {ended:?}");
}
