// SPDX-License-Identifier: MIT OR Apache-2.0
//! libnbd's `info/`, `copy/` and `interop/`: programs of its own build, with nbdkit and qemu-nbd.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::place::{Place, Release};
use super::{Outcome, Outcomes, Server};
use crate::tools::{NBDKIT, QEMU_NBD};

const DIRS: [&str; 3] = ["info", "copy", "interop"];
/// The parts of the sources that the tests' programs are made of, in the order in which they
/// are built.
const PARTS: [&str; 4] = ["common/include", "common/utils", "include", "lib"];

pub(crate) fn prepare(sh: &Shell, place: &Place) -> Result<()> {
    let source = place.source(sh, "libnbd", Release::Installed, &[])?;
    let tools = place.unpack(sh, &["gnutls-bin", "libopts25", "libunbound8"])?.join("usr");
    let nbdkit = place.server(sh, NBDKIT, None)?;
    let qemu_nbd = place.server(sh, QEMU_NBD, None)?;
    let _dir = sh.push_dir(&source);
    if !sh.path_exists("Makefile") {
        let certtool = tools.join("bin/certtool");
        let psktool = tools.join("bin/psktool");
        cmd!(sh, "./configure --quiet --disable-ocaml --disable-python --disable-golang --disable-fuse")
            .args([format!("NBDKIT={}", nbdkit.display()), format!("QEMU_NBD={}", qemu_nbd.display())])
            .args([format!("CERTTOOL={}", certtool.display()), format!("PSKTOOL={}", psktool.display())])
            .run()?;
    }
    for part in PARTS {
        cmd!(sh, "make --silent -C {part}").run()?;
    }
    cmd!(sh, "make --silent -C tests pki/stamp-pki keys.psk").run()?;
    cmd!(sh, "make --silent -C info nbdinfo").run()?;
    cmd!(sh, "make --silent -C copy nbdcopy").run()?;
    Ok(())
}

pub(crate) fn run(sh: &Shell, place: &Place, server: Server) -> Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    for dir in DIRS {
        let _dir = sh.push_dir(place.path("source").join(dir));
        for file in results(sh)? {
            sh.remove_path(file)?;
        }
        let log = place.path(&format!("{dir}-{server:?}.log"));
        let check = cmd!(sh, "timeout 1800 make --keep-going check").envs(place.environment(server)?);
        // Tests that fail are what is looked for.
        let output = check.quiet().ignore_status().ignore_stderr().output()?;
        sh.write_file(log, output.stdout)?;
        for file in results(sh)? {
            let name = file.file_stem().and_then(|name| name.to_str()).context("a test has no name")?;
            let name = name.strip_suffix(".sh").unwrap_or(name);
            outcomes.extend(outcome(&sh.read_file(&file)?).map(|outcome| (format!("{dir}/{name}"), outcome)));
        }
    }
    Ok(outcomes)
}

fn results(sh: &Shell) -> Result<Vec<std::path::PathBuf>> {
    let files = sh.read_dir(".")?;
    Ok(files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "trs")).collect())
}

/// Reads the outcome that automake's test driver has written.
fn outcome(result: &str) -> Option<Outcome> {
    let word = result.lines().find_map(|line| line.strip_prefix(":test-result: "))?;
    Some(match word {
        "PASS" => Outcome::Passed,
        "SKIP" => Outcome::LeftOut,
        _ => Outcome::Failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_result_has_no_outcome() {
        assert_eq!(outcome(":test-result: PASS\n:global-test-result: PASS\n"), Some(Outcome::Passed));
        assert_eq!(outcome(":test-result: SKIP\n"), Some(Outcome::LeftOut));
        assert_eq!(outcome(":test-result: FAIL\n"), Some(Outcome::Failed));
        assert_eq!(outcome(""), None);
    }
}
