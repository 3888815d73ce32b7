// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference implementation's nbd-tester-client, on qemu-nbd.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use super::place::{Place, Release};
use super::{Outcome, Outcomes, Server};
use crate::tools::QEMU_NBD;

const DIR: &str = "source/tests/run";
const SIZE: u64 = 50 << 20;
/// A name, options of qemu-nbd, and options of the client: those of its own script.
const TESTS: &[(&str, &[&str], &[&str])] = &[
    ("cfg1", &[], &[]),
    ("cfgsize", &[], &["-o"]),
    ("write", &[], &["-w"]),
    ("flush", &[], &["-w", "-f"]),
    ("integrity", &[], &["-i", "-t", "integrity-test.tr"]),
    ("integrityhuge", &[], &["-i", "-t", "integrityhuge-test.tr"]),
    ("rowrite", &["-r"], &["-w", "-F"]),
    ("handshake", &[], &["-h"]),
];

pub(crate) fn prepare(sh: &Shell, place: &Place) -> Result<()> {
    place.server(sh, QEMU_NBD, None)?;
    let source = place.source(sh, "nbd", Release::Stable, &[])?;
    let tools = place.unpack(sh, &["libglib2.0-dev", "bison"])?.join("usr");
    let _dir = sh.push_dir(&source);
    if !sh.path_exists("Makefile") {
        let (include, lib) =
            (tools.join("include/glib-2.0"), tools.join("lib/x86_64-linux-gnu/glib-2.0/include"));
        // The manual pages are not made.
        cmd!(sh, "./configure --quiet --enable-manpages DB2M=true GLIB_LIBS=-l:libglib-2.0.so.0")
            .arg(format!("YACC={} -y", tools.join("bin/bison").display()))
            .arg(format!("GLIB_CFLAGS=-I{} -I{}", include.display(), lib.display()))
            .run()?;
    }
    cmd!(sh, "make --silent -C tests/run nbd-tester-client").run()?;
    Ok(())
}

pub(crate) fn run(sh: &Shell, place: &Place, server: Server) -> Result<Outcomes> {
    let _dir = sh.push_dir(place.path(DIR));
    let mut outcomes = Outcomes::new();
    for &(name, options, client) in TESTS {
        let served = Served::start(sh, place, server, options)?;
        let socket = &served.socket;
        // 6 GB go to and fro in one of them.
        let test = cmd!(sh, "timeout 300 ./nbd-tester-client -N export1 -u {socket} {client...}");
        let output = test.quiet().ignore_status().output()?;
        let outcome = if output.status.success() { Outcome::Passed } else { Outcome::Failed };
        sh.write_file(
            place.path(&format!("{name}-{server:?}.log")),
            [output.stdout, output.stderr].concat(),
        )?;
        served.stop(sh)?;
        outcomes.insert(name.to_owned(), outcome);
    }
    Ok(outcomes)
}

/// A server with an empty disk.
struct Served {
    socket: std::path::PathBuf,
    process: Child,
}

impl Served {
    fn start(sh: &Shell, place: &Place, server: Server, options: &[&str]) -> Result<Self> {
        let (socket, disk, pid) = (place.path("socket"), place.path("disk"), place.path("pid"));
        for file in [&socket, &disk, &pid] {
            sh.remove_path(file)?;
        }
        std::fs::File::create(&disk)?.set_len(SIZE)?;
        let mut command = Command::new(place.path("bin").join(QEMU_NBD.name));
        command.args(["-t", "-e", "8", "-f", "raw", "-x", "export1", "-k"]).arg(&socket);
        command.arg("--pid-file").arg(&pid).args(options).arg(&disk).envs(place.environment(server)?);
        let mut process = command.spawn()?;
        wait_for(&pid, &mut process)?;
        Ok(Self { socket, process })
    }

    fn stop(mut self, sh: &Shell) -> Result<()> {
        let pid = self.process.id().to_string();
        cmd!(sh, "kill {pid}").quiet().run()?;
        self.process.wait()?;
        Ok(())
    }
}

/// Clients can connect once it is there.
fn wait_for(file: &Path, process: &mut Child) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !file.exists() {
        ensure!(process.try_wait()?.is_none(), "the server has ended");
        ensure!(Instant::now() < deadline, "the server does not begin to serve");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
