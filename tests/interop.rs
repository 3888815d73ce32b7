// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real NBD clients, through each door, over each way, into each kind of server: the disk is right
//! afterwards.

#[path = "support/interop/cases.rs"]
mod cases;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use cases::{CASES, Case, Session};
use support::TestResult;
use support::daemon::Daemons;
use support::door::Door;
use support::image::same;
use support::process::PATIENCE;
use support::target::{Kind, Target, Via};
use support::tools::trial;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // The daemons end when this is dropped, after the last trial.
    let daemons = Arc::new(Daemons::default());
    let mut trials: Vec<Trial> = Vec::new();
    for door in Door::ALL {
        for kind in Kind::ALL {
            for via in Via::ALL {
                for case in CASES {
                    let name = format!("{}/{}/{}/{}", door.name(), kind.name(), via.name(), case.name);
                    let tools = [door.tools(), kind.tools(), case.tools].concat();
                    let daemons = Arc::clone(&daemons);
                    let run = move || run(&daemons, door, kind, via, case).map_err(|e| e.to_string().into());
                    trials.push(trial(name, &tools, run));
                }
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(daemons: &Daemons, door: Door, kind: Kind, via: Via, case: &Case) -> TestResult {
    let mut target = Target::new(daemons, kind, via)?;
    let served = door.serve(target.dir(), &target.parameters())?;
    let session =
        Session { uri: served.uri(), socket: served.socket().to_owned(), dir: target.dir().to_owned() };
    let expected = (case.run)(&session);
    let (status, said) = served.finish()?;
    let expected = expected.map_err(|error| format!("{error}\nthe server said:\n{said}"))?;
    if !status.success() {
        return Err(format!("{status}, having said:\n{said}").into());
    }
    if let Some(fake) = &target.fake {
        check_log(fake, via)?;
    }
    same("the server's disk", &target.contents()?, &expected)
}

/// Checks what must be true of any client's requests.
fn check_log(fake: &fake_imageio::FakeServer, via: Via) -> TestResult {
    // The server may notice the end of a connection a little later than the client.
    let all_closed = fake.wait_for(PATIENCE, |log| log.open().count() == 0);
    let log = fake.log();
    if log.lost_unflushed() > 0 || !all_closed {
        return Err(format!("left unflushed or open: {:?}", log.connections).into());
    }
    let transport =
        if via == Via::Unix { fake_imageio::Transport::Unix } else { fake_imageio::Transport::Tcp };
    let data =
        |request: &&fake_imageio::RequestRecord| request.op != fake_imageio::Op::Options && request.size > 1;
    match log.requests.iter().filter(data).find(|request| request.transport != transport) {
        Some(request) => Err(format!("went another way: {request:?}").into()),
        None => Ok(()),
    }
}
