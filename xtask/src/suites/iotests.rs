// SPDX-License-Identifier: MIT OR Apache-2.0
//! qemu's iotests for raw images over NBD, with programs of the same release.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::place::{Place, Release};
use super::{Outcome, Outcomes, Server};
use crate::tools::QEMU_NBD;

const DIR: &str = "source/tests/qemu-iotests";
/// The release of Debian whose programs these are.
const PACKAGES: &[&str] = &[
    "qemu-utils",
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "libcapstone4",
    "libfdt1",
    "libslirp0",
    "libvdeplug2",
];

pub(crate) fn prepare(sh: &Shell, place: &Place) -> Result<()> {
    place.source(sh, "qemu", Release::Installed, &["tests/qemu-iotests", "python", "scripts"])?;
    let version = cmd!(sh, "apt-cache show --no-all-versions qemu-system-x86").quiet().read()?;
    let version =
        version.lines().find_map(|line| line.strip_prefix("Version: ")).context("no qemu-system-x86")?;
    // A machine may have those of another release.
    let utils = format!("qemu-utils={version}");
    let packages: Vec<_> = std::iter::once(utils.as_str()).chain(PACKAGES[1..].iter().copied()).collect();
    let programs = place.unpack(sh, &packages)?.join("usr/bin");
    place.server(sh, QEMU_NBD, Some(&programs))?;
    // Until the server is there, instead of for a second.
    let wait = "s:sleep 1 # [F]IXME.*:while [ ! -e \"$SOCK_DIR/nbd\" ]; do sleep 0.1; done:";
    let _dir = sh.push_dir(place.path(DIR));
    cmd!(sh, "sed -i {wait} common.rc").run()?;
    Ok(())
}

pub(crate) fn run(sh: &Shell, place: &Place, server: Server) -> Result<Outcomes> {
    let programs = place.path("root/usr/bin");
    let libraries = place.path("root/usr/lib/x86_64-linux-gnu");
    let _dir = sh.push_dir(place.path(DIR));
    let mut outcomes = Outcomes::new();
    for test in tests(sh)? {
        // Each by itself: one that hangs is ended without the others.
        let check = cmd!(sh, "timeout 300 ./check -raw -nbd {test}").envs(place.environment(server)?);
        let check = check
            .env("LD_LIBRARY_PATH", &libraries)
            .env("QEMU_MODULE_DIR", libraries.join("qemu"))
            .env("QEMU_PROG", programs.join("qemu-system-x86_64"))
            .env("QEMU_IMG_PROG", programs.join("qemu-img"))
            .env("QEMU_IO_PROG", programs.join("qemu-io"))
            .env("QSD_PROG", programs.join("qemu-storage-daemon"))
            .env("QEMU_NBD_PROG", place.path("bin").join(QEMU_NBD.name));
        let output = check.quiet().ignore_status().ignore_stderr().output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        sh.write_file(place.path(&format!("{test}-{server:?}.log")), &text)?;
        outcomes.insert(test.clone(), outcome(&test, &text));
    }
    Ok(outcomes)
}

/// Lists the tests that are for raw images over NBD.
fn tests(sh: &Shell) -> Result<Vec<String>> {
    let mut tests = Vec::new();
    for file in sh.read_dir(".")? {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.len() == 3
            && name.bytes().all(|byte| byte.is_ascii_digit())
            && is_for_us(&sh.read_file(&file)?)
        {
            tests.push(name.to_owned());
        }
    }
    Ok(tests)
}

fn is_for_us(test: &str) -> bool {
    let says = |what: &str, words: [&str; 2]| {
        let mut lines = test.lines().filter(|line| line.contains(what));
        lines.any(|line| words.iter().any(|word| line.contains(word)))
    };
    says("_supported_proto", ["nbd", "generic"]) && says("_supported_fmt", ["raw", "generic"])
        || says("supported_protocols=", ["'nbd'", "\"nbd\""]) && says("supported_fmts=", ["raw", "generic"])
}

/// In a line such as `001   pass       [10:00:00] … `, which comes over one with dots.
fn outcome(test: &str, text: &str) -> Outcome {
    let lines = text.split(['\n', '\r']);
    let mut results = lines.filter_map(|line| line.strip_prefix(test)).map(str::trim_start);
    match results.next_back() {
        Some(result) if result.starts_with("pass") => Outcome::Passed,
        Some(result) if result.starts_with("not run") => Outcome::LeftOut,
        _ => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_check() {
        assert_eq!(
            outcome(
                "001",
                "x\n001   ...  [17:00]  ...\r001   pass       [17:00] [17:01]   0.5s\nPassed all 1"
            ),
            Outcome::Passed
        );
        assert_eq!(outcome("002", "002   not run    [17:00] …  not suitable\n"), Outcome::LeftOut);
        assert_eq!(outcome("003", "003   fail       [17:00]\nFailures: 003"), Outcome::Failed);
        assert_eq!(outcome("003", ""), Outcome::Failed);
    }

    #[test]
    fn tests_for_raw_over_nbd() {
        assert!(is_for_us("_supported_fmt generic\n_supported_proto generic\n"));
        assert!(is_for_us("supported_fmts=['raw'],\nsupported_protocols=['nbd']\n"));
        assert!(!is_for_us("_supported_fmt qcow2\n_supported_proto generic\n"));
        assert!(!is_for_us("_supported_fmt raw\n_supported_proto file\n"));
    }
}
