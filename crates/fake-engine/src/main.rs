// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fake engine on the command line.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::{Context, Result};
use clap::Parser;
use fake_engine::{
    Builder, Certificate, ControlSocket, DEFAULT_PASSWORD, DEFAULT_USER, Delays, FakeEngine, FakeImageio,
    OldEngine, Pki,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A fake oVirt engine: knows disks, image transfers and backups, and has an imageio server serve
/// their data, until SIGTERM or SIGINT.
///
/// The first line on standard output is the URL of its API; it is printed when the engine is ready.
/// Further ones tell the identifiers of the virtual machines.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The control socket of an imageio daemon, which may be started later
    /// [default: fake imageio servers, and disks that are plain files]
    #[arg(long, value_name = "SOCKET", requires = "transfer_url")]
    control: Option<PathBuf>,
    /// Where clients reach that daemon, such as http://127.0.0.1:54322
    #[arg(long, value_name = "URL", requires = "control")]
    transfer_url: Option<String>,
    /// Where they reach it by way of a proxy [default: the same]
    #[arg(long, value_name = "URL", requires = "control")]
    proxy_url: Option<String>,

    /// A storage domain; may be given again
    #[arg(long, value_name = "NAME", default_value = "data")]
    storage_domain: Vec<String>,
    /// A virtual machine; may be given again
    #[arg(long, value_name = "NAME")]
    vm: Vec<String>,
    /// The directory for the disks [default: a temporary one]
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,

    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// TCP port; 0 lets the kernel choose
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Speak HTTPS, and write ca.pem, cert.pem and key.pem into this directory, for clients and for
    /// the daemon
    #[arg(long, value_name = "PATH")]
    pki: Option<PathBuf>,
    /// Who may log in
    #[arg(long, default_value = DEFAULT_USER)]
    user: String,
    /// A file with the password [default: the password is fake-password]
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,

    /// Each phase that passes by itself takes so many milliseconds
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
    /// Remove transfers as soon as they are finished, as engines before 4.4.7 do
    #[arg(long)]
    removes_finished_transfers: bool,
    /// Refuse requests with timeout_policy, as engines before 4.4 do
    #[arg(long)]
    refuses_timeout_policy: bool,
    /// Refuse incremental backups of which a disk can only be backed up as a whole, as clusters of
    /// old versions do
    #[arg(long)]
    refuses_mixed_backups: bool,
    /// Exit when standard input is closed. Until then, a line `attach VM DISK` there attaches a
    /// disk, by their identifiers, and is answered by `attached DISK`, or by `refused:` and the
    /// reason
    #[arg(long)]
    exit_with_parent: bool,
}

impl Args {
    fn builder(&self) -> Result<Builder> {
        let pki = self.pki.as_deref().map(|dir| self.make_pki(dir)).transpose()?;
        let mut builder = match (&self.control, &self.transfer_url) {
            (Some(path), Some(transfer_url)) => FakeEngine::builder(ControlSocket::new(
                path,
                transfer_url,
                self.proxy_url.as_ref().unwrap_or(transfer_url),
            )),
            // clap has made sure that there are both or none.
            _ => FakeEngine::builder(FakeImageio::new(pki.clone())),
        };
        builder =
            builder.address(&self.address).port(self.port).user(&self.user, self.password()?).old_engine(
                OldEngine::default().with(|engine| {
                    engine.removes_finished_transfers = self.removes_finished_transfers;
                    engine.refuses_timeout_policy = self.refuses_timeout_policy;
                    engine.refuses_mixed_backups = self.refuses_mixed_backups;
                }),
            );
        builder = self.storage_domain.iter().fold(builder, |builder, name| builder.storage_domain(name));
        builder = self.vm.iter().fold(builder, |builder, name| builder.vm(name));
        if let Some(delay) = self.delay.map(std::time::Duration::from_millis) {
            builder = builder.delays(Delays::all(delay));
        }
        if let Some(dir) = &self.dir {
            builder = builder.dir(dir);
        }
        Ok(match pki {
            Some(pki) => builder.tls(pki),
            None => builder,
        })
    }

    fn password(&self) -> Result<String> {
        let Some(path) = &self.password_file else { return Ok(DEFAULT_PASSWORD.to_owned()) };
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn make_pki(&self, dir: &Path) -> Result<Pki> {
        let certificate = match self.address.as_str() {
            "127.0.0.1" => Certificate::default(),
            address => Certificate::Names(vec![address.to_owned(), "localhost".to_owned()]),
        };
        let pki = Pki::generate(&certificate)?;
        for (name, pem) in [("ca.pem", &pki.ca_pem), ("cert.pem", &pki.cert_pem), ("key.pem", &pki.key_pem)] {
            let path = dir.join(name);
            std::fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(pki)
    }
}

/// An event from outside.
enum Event {
    Stop,
    /// A line came from standard input.
    Command(String),
}

/// Tells what happens from now on.
fn events(mut signals: Signals, stdin: bool) -> Result<mpsc::Receiver<Event>> {
    let (sender, receiver) = mpsc::channel();
    let from_signal = sender.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // The receiver may be gone, if both happen at once.
        if signals.forever().next().is_some() {
            let _ = from_signal.send(Event::Stop);
        }
    })?;
    if stdin {
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            // An error ends standard input as well as its end does.
            let lines = io::stdin().lock().lines().map_while(io::Result::ok);
            for event in lines.map(Event::Command).chain([Event::Stop]) {
                let _ = sender.send(event);
            }
        })?;
    }
    Ok(receiver)
}

/// Does what a line asks for, and returns the answer.
fn obey(engine: &FakeEngine, line: &str) -> String {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["attach", vm, disk] => match engine.attach_disk(vm, disk) {
            Ok(()) => format!("attached {disk}"),
            Err(error) => format!("refused: {error}"),
        },
        _ => "refused: attach VM DISK is expected".to_owned(),
    }
}

fn run(args: &Args) -> Result<()> {
    // Before the URL is told: whoever reads it may send a signal at once.
    let signals = Signals::new([SIGINT, SIGTERM])?;
    let engine = args.builder()?.start().context("cannot start the engine")?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", engine.url())?;
    for vm in engine.vms() {
        writeln!(stdout, "vm {} {}", vm.name, vm.id)?;
    }
    stdout.flush()?;
    for event in events(signals, args.exit_with_parent)? {
        match event {
            Event::Stop => break,
            Event::Command(line) => writeln!(stdout, "{}", obey(&engine, &line))?,
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    env_logger::init();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The last words go to standard error; if that is closed, nobody listens.
            let _ = writeln!(io::stderr(), "fake-engine: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_disk_that_is_not_there_is_not_attached() {
        let engine = FakeEngine::builder(FakeImageio::new(None)).vm("guest").start().unwrap();
        let vm = &engine.vms()[0].id;
        assert!(obey(&engine, &format!("attach {vm} none")).starts_with("refused: "));
        assert_eq!(obey(&engine, "detach"), "refused: attach VM DISK is expected");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let daemon = ["fake-engine", "--control=/run/sock", "--transfer-url=http://127.0.0.1:54322"];
        for good in [&daemon[..1], &daemon[..]] {
            assert!(Args::parse_from(good).builder().is_ok());
        }
        assert!(Args::try_parse_from(&daemon[..2]).is_err());
        let bad = Args::parse_from(["fake-engine", "--password-file=/nonexistent"]);
        assert!(bad.builder().unwrap_err().to_string().contains("/nonexistent"));
    }
}
