// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interruptions of a transfer: the engine pauses it, somebody cancels it, a signal ends its user.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use fake_engine::{DEFAULT_PASSWORD, DEFAULT_USER, Fault, Phase, Transfer, What};
use nix::sys::signal::Signal;
use support::TestResult;
use support::door::built;
use support::image::{SIZE, same};
use support::process::Daemon;
use support::tools::QEMU_IO;

use crate::Test;
use crate::serving::{assert_all_well, site};
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("a_paused_transfer_is_resumed", a_paused_transfer_is_resumed),
    ("a_transfer_that_a_user_has_paused_waits_for_that_user", a_user_s_pause),
    ("a_ticket_that_the_host_has_lost_is_a_failure", a_ticket_that_the_host_has_lost_is_a_failure),
    ("a_token_that_expires_is_renewed", a_token_that_expires_is_renewed),
    (
        "a_user_who_may_nothing_any_more_is_told_what_is_left",
        a_user_who_may_nothing_any_more_is_told_what_is_left,
    ),
    ("a_cancelled_transfer_is_a_failure", a_cancelled_transfer_is_a_failure),
    ("an_upload_counts_if_its_client_says_goodbye", an_upload_counts_if_its_client_says_goodbye),
];

const PATIENCE: Duration = Duration::from_secs(30);

/// Writes one half of the disk, says so, and writes the other when it may. What was written isn't
/// flushed until then.
const IN_HALVES: &str = r#"half() { qemu-io -t unsafe -f raw -c "write -P $1 $2 12M" "$uri" >qemu-io.out; }
    half 1 0 && echo half >&2 && read -r go && half 2 12M && qemu-io -f raw -c flush "$uri" >qemu-io.out"#;

/// Starts an upload into a new disk by a command with this standard input.
fn start(
    site: &Installation,
    command: &str,
    input: impl Into<Stdio>,
    parameters: &[&str],
) -> TestResult<Daemon> {
    let mut imageio_nbd = self::command(site);
    imageio_nbd.args(["--run", command]).args(parameters);
    Ok(Daemon::spawn_with_input(&mut imageio_nbd, input.into())?)
}

/// `imageio-nbd` with a new disk.
fn command(site: &Installation) -> Command {
    let mut imageio_nbd = Command::new(built("imageio-nbd"));
    imageio_nbd
        .args([format!("engine={}", site.engine.url()), format!("user={DEFAULT_USER}")])
        .args(["password=+password", "engine-cafile=ca.pem", "new-disk=uploaded"])
        .args([format!("storage-domain={STORAGE_DOMAIN}"), format!("size={SIZE}")])
        .current_dir(site.path(""));
    imageio_nbd
}

/// Uploads in halves, with something done between them. The exit status, and what was said.
fn upload_in_halves(
    site: &Installation,
    parameters: &[&str],
    between: impl FnOnce(&Transfer) -> TestResult,
) -> TestResult<(ExitStatus, String)> {
    let (input, mut go) = std::io::pipe()?;
    let mut upload = start(site, IN_HALVES, input, parameters)?;
    upload.wait_for_line(|line| (line == "half").then_some(()))?;
    let transfers = site.engine.transfers();
    between(transfers.first().ok_or("there is no transfer")?)?;
    writeln!(go)?;
    let status = upload.wait()?;
    Ok((status, upload.said().join("\n")))
}

fn phase(site: &Installation, id: &str) -> Option<Phase> {
    site.engine.transfers().iter().find(|transfer| transfer.id == id).map(|transfer| transfer.phase)
}

fn a_paused_transfer_is_resumed() -> TestResult {
    let site = site()?;
    let (status, said) = upload_in_halves(&site, &[], |transfer| {
        site.engine.pause_transfer(&transfer.id);
        // The engine extends it no more.
        site.daemon.expire_ticket(transfer.ticket.secret())?;
        let is_paused =
            site.engine.wait_for(PATIENCE, |_| phase(&site, &transfer.id) == Some(Phase::PausedSystem));
        if is_paused { Ok(()) } else { Err("it isn't paused".into()) }
    })?;
    assert!(status.success(), "{status} {said}");
    assert!(said.contains("the engine had paused transfer"), "{said}");
    assert_halves(&site)?;
    assert_all_well(&site);
    Ok(())
}

/// A user pauses the transfer in the web interface, and has it go on there when the upload waits
/// for that: nobody else does.
fn a_user_s_pause() -> TestResult {
    let site = site()?;
    let act = |id: &str, action: &str| -> TestResult {
        let url = format!("{}/ovirt-engine/api/imagetransfers/{id}/{action}", site.engine.base());
        let user = format!("{DEFAULT_USER}:{DEFAULT_PASSWORD}");
        let json = "Content-Type: application/json";
        succeed(site.run(
            "curl".as_ref(),
            ["-sSf", "--cacert", "ca.pem", "-u", &user, "-H", json, "-d", "{}", &url],
        )?)?;
        Ok(())
    };
    let (mut asked, mut paused) = (0, String::new());
    let questions = |id: &str| {
        let path = format!("api/imagetransfers/{id}");
        site.engine.journal().iter().filter(|request| request.method == "GET" && request.path == path).count()
    };
    let (input, mut go) = std::io::pipe()?;
    let mut upload = start(&site, IN_HALVES, input, &[])?;
    upload.wait_for_line(|line| (line == "half").then_some(()))?;
    if let Some(transfer) = site.engine.transfers().first() {
        act(&transfer.id, "pause")?;
        site.daemon.expire_ticket(transfer.ticket.secret())?;
        (asked, paused) = (questions(&transfer.id), transfer.id.clone());
    }
    writeln!(go)?;
    // Its second question comes when it has seen that the transfer is paused.
    assert!(site.engine.wait_for(PATIENCE, |_| questions(&paused) >= asked + 2), "the engine isn't asked");
    assert_eq!(phase(&site, &paused), Some(Phase::PausedUser));
    act(&paused, "resume")?;
    let status = upload.wait()?;
    let said = upload.said().join("\n");
    assert!(status.success() && said.contains("the engine had paused transfer"), "{status} {said}");
    assert_halves(&site)?;
    assert_all_well(&site);
    Ok(())
}

/// Both halves are on the disk.
fn assert_halves(site: &Installation) -> TestResult {
    let image = site.engine.image_file(&site.disk()?).display().to_string();
    site.qemu_img(&["convert", "-f", "raw", "-O", "raw", &image, "stored.raw"])?;
    let half = usize::try_from(SIZE)? / 2;
    same("the disk", &fs::read(site.path("stored.raw"))?, &[vec![1; half], vec![2; half]].concat())
}

/// The imageio server was started again: the engine pauses the transfer, and to resume it renews
/// what isn't there.
fn a_ticket_that_the_host_has_lost_is_a_failure() -> TestResult {
    let site = site()?;
    let (status, said) = upload_in_halves(&site, &["engine-timeout=3"], |transfer| {
        site.daemon.remove_ticket(transfer.ticket.secret())?;
        let is_paused =
            site.engine.wait_for(PATIENCE, |_| phase(&site, &transfer.id) == Some(Phase::PausedSystem));
        if is_paused { Ok(()) } else { Err("it isn't paused".into()) }
    })?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("begin the upload anew"), "{said}");
    site.assert_no_secret(&said)?;
    let ended = site.engine.transfers();
    assert!(ended.iter().all(|transfer| transfer.phase == Phase::FinishedFailure), "{ended:?} {said}");
    assert!(site.engine.disks().is_empty() && site.engine.sessions() == 0, "{said}");
    Ok(())
}

fn a_token_that_expires_is_renewed() -> TestResult {
    let site = site()?;
    let (status, said) = upload_in_halves(&site, &[], |_| {
        site.engine.expire_tokens();
        Ok(())
    })?;
    assert!(status.success(), "{status} {said}");
    let journal = site.engine.journal();
    let logins = journal.iter().filter(|request| request.path == "sso/oauth/token").count();
    let refused = journal.iter().filter(|request| request.status == Some(401)).count();
    assert_eq!((logins, refused), (2, 1), "{journal:?}");
    assert_halves(&site)?;
    assert_all_well(&site);
    Ok(())
}

/// A new token is of no use, either. It is asked for once for each request.
fn a_user_who_may_nothing_any_more_is_told_what_is_left() -> TestResult {
    let site = site()?;
    let (status, said) = upload_in_halves(&site, &[], |_| {
        let what = What::Status { status: 401, reason: String::new(), detail: String::new() };
        for path in ["api/imagetransfers/*", "api/disks/*"] {
            site.engine.fault(Fault::on("GET", path).every().then(what.clone()));
        }
        Ok(())
    })?;
    assert_eq!(status.code(), Some(1), "{said}");
    let transfers = site.engine.transfers();
    assert!(transfers.iter().all(|transfer| said.contains(&transfer.id)), "{said}");
    assert!(said.contains(&site.disk()?.id) && said.contains("is not accepted"), "{said}");
    let logins = site.engine.journal().iter().filter(|request| request.path == "sso/oauth/token").count();
    assert!(logins <= 4, "an account could be locked: {logins} logins, {said}");
    Ok(())
}

fn a_cancelled_transfer_is_a_failure() -> TestResult {
    let site = site()?;
    let (status, said) = upload_in_halves(&site, &[], |transfer| {
        site.engine.cancel_transfer(&transfer.id);
        let is_removed = |_: &_| site.engine.transfers().iter().all(|transfer| !transfer.has_ticket);
        if site.engine.wait_for(PATIENCE, is_removed) { Ok(()) } else { Err("the ticket is there".into()) }
    })?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(": the engine has ended transfer"), "{said}");
    assert!(site.engine.disks().is_empty(), "{:?}", site.engine.disks());
    assert_eq!(site.engine.sessions(), 0);
    Ok(())
}

/// The way in which a client leaves a server that runs until it is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    SaysGoodbye,
    Dies,
    NeverCame,
}

fn an_upload_counts_if_its_client_says_goodbye() -> TestResult {
    for leaving in [Leaving::SaysGoodbye, Leaving::Dies, Leaving::NeverCame] {
        let site = site()?;
        let mut server = serve(&site)?;
        let socket = site.path("socket");
        server.retry(|| fs::metadata(site.path("pid")))?;
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        match leaving {
            Leaving::SaysGoodbye => {
                site.qemu_img(&["convert", "-n", "-f", "raw", "-O", "raw", "disk.img", &uri])?;
            }
            Leaving::Dies => write_and_die(&uri)?,
            Leaving::NeverCame => {}
        }
        server.signal(Signal::SIGTERM)?;
        let status = server.wait()?;
        let said = server.said().join("\n");
        assert_eq!(status.success(), leaving == Leaving::SaysGoodbye, "{leaving:?}: {said}");
        if status.success() {
            site.assert_same("disk.img", "raw", &site.disk()?)?;
            assert_all_well(&site);
        } else {
            assert!(said.contains("so the upload was given up"), "{said}");
            assert!(site.engine.disks().is_empty() && site.engine.sessions() == 0, "{said}");
        }
    }
    Ok(())
}

/// Serves a new disk until it is told to stop.
fn serve(site: &Installation) -> TestResult<Daemon> {
    let mut imageio_nbd = command(site);
    imageio_nbd.args(["-f", "-P", "pid", "-U", "socket"]);
    Ok(Daemon::spawn(&mut imageio_nbd)?)
}

/// A client that is killed after a write.
fn write_and_die(uri: &str) -> TestResult {
    let mut client = Command::new(QEMU_IO.path())
        .args(["-f", "raw", uri])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = client.stdin.take().ok_or("no standard input")?;
    writeln!(input, "write 0 64k")?;
    let output = BufReader::new(client.stdout.take().ok_or("no standard output")?);
    let has_written = output.lines().map_while(Result::ok).any(|line| line.contains("wrote"));
    client.kill()?;
    client.wait()?;
    if has_written { Ok(()) } else { Err("it has not written".into()) }
}
