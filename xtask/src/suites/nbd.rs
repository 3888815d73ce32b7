// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference implementation's nbd-tester-client, on qemu-nbd.

use std::path::PathBuf;

use anyhow::Result;
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
        let files = Files::new(sh, place, &format!("{name}-{server:?}"))?;
        let Files { socket, disk, pid } = &files;
        let qemu_nbd = place.path("bin").join(QEMU_NBD.name);
        let environment = place.environment(server)?;
        // It is back when clients can connect.
        cmd!(sh, "{qemu_nbd} --fork -t -e 8 -f raw -x export1 -k {socket} --pid-file {pid} {disk}")
            .args(options)
            .envs(environment)
            .run()?;
        // 6 GB go to and fro in one of them.
        let test = cmd!(sh, "timeout 300 ./nbd-tester-client -N export1 -u {socket}").args(client);
        let output = test.quiet().ignore_status().output()?;
        let outcome = if output.status.success() { Outcome::Passed } else { Outcome::Failed };
        sh.write_file(
            place.path(&format!("{name}-{server:?}.log")),
            [output.stdout, output.stderr].concat(),
        )?;
        let pid = sh.read_file(pid)?;
        let pid = pid.trim();
        cmd!(sh, "kill {pid}").quiet().run()?;
        outcomes.insert(name.to_owned(), outcome);
    }
    Ok(outcomes)
}

/// The files of a server with an empty disk. Each server has its own, as the one before may not
/// have ended yet.
struct Files {
    socket: PathBuf,
    disk: PathBuf,
    pid: PathBuf,
}

impl Files {
    fn new(sh: &Shell, place: &Place, name: &str) -> Result<Self> {
        let file = |end: &str| place.path(&format!("{name}.{end}"));
        let files = Self { socket: file("socket"), disk: file("disk"), pid: file("pid") };
        for file in [&files.socket, &files.disk, &files.pid] {
            sh.remove_path(file)?;
        }
        std::fs::File::create(&files.disk)?.set_len(SIZE)?;
        Ok(files)
    }
}
