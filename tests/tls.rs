// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real NBD clients through TLS, with `imageio-nbd`, and with nbdkit to compare with; and what is
//! said of options that can't work.

#[path = "support/tls/cases.rs"]
mod cases;
#[path = "support/tls/options.rs"]
mod options;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use cases::{CASES, Case};
use support::TestResult;
use support::door::Door;
use support::image::{SIZE, same};
use support::listening::{Server, Via};
use support::pki::Pki;
use support::tools::{NBDINFO, trial};

/// nbdkit finds no free port.
const WAYS: [(Door, Via); 3] =
    [(Door::ImageioNbd, Via::Tcp), (Door::ImageioNbd, Via::Unix), (Door::Nbdkit, Via::Unix)];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    for (door, via) in WAYS {
        for case in CASES {
            let name = format!("{}/{}/{}", door.name(), format!("{via:?}").to_lowercase(), case.name);
            let tools = [door.tools(), case.tools].concat();
            trials.push(trial(name, &tools, move || run(door, via, case).map_err(|e| e.to_string().into())));
        }
    }
    let ours = |name: &str, tools, run: fn() -> TestResult| {
        trial(format!("imageio-nbd/{name}"), tools, move || run().map_err(|e| e.to_string().into()))
    };
    trials.push(ours("who_expects_another_name_leaves", &[NBDINFO], another_name));
    trials.push(ours("a_revoked_certificate_is_refused", &[NBDINFO], revoked));
    trials.extend(options::TESTS.iter().map(|(name, run)| ours(name, &[], *run)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(door: Door, via: Via, case: &Case) -> TestResult {
    let pki = Pki::new()?;
    let server = Server::start(door, via, &pki, case.options)?;
    let expected = (case.run)(&server, &pki);
    let (disk, said) = server.finish()?;
    let expected = expected.map_err(|error| format!("{error}\nthe server said:\n{said}"))?;
    same("the server's disk", &disk, &expected.unwrap_or_else(|| vec![0; SIZE as usize]))
}

/// The name is that of the URI, for which TCP is needed.
fn another_name() -> TestResult {
    let pki = Pki::for_host(&["elsewhere.example.com"])?;
    let server = Server::start(Door::ImageioNbd, Via::Tcp, &pki, &["--tls=require"])?;
    let refused = server.client(NBDINFO, &["--size", &server.uri(&pki.client())]);
    let (_, said) = server.finish()?;
    match refused {
        Err(error) if error.to_string().contains("certificate") => Ok(()),
        other => Err(format!("{other:?}\nthe server said:\n{said}").into()),
    }
}

fn revoked() -> TestResult {
    let pki = Pki::new()?;
    pki.revoke_client()?;
    let server = Server::start(Door::ImageioNbd, Via::Unix, &pki, &["--tls=require", "--tls-verify-peer"])?;
    let refused = server.client(NBDINFO, &["--size", &server.uri(&pki.client())]);
    let (_, said) = server.finish()?;
    match refused {
        Err(_) if said.contains("Revoked") => Ok(()),
        other => Err(format!("{other:?}\nthe server said:\n{said}").into()),
    }
}
