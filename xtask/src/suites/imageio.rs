// SPDX-License-Identifier: MIT OR Apache-2.0
//! ovirt-imageio's own tests of its NBD client, its backends, and its client library: with
//! qemu-nbd.

use anyhow::Result;
use xshell::{Shell, cmd};

use super::place::Place;
use super::{Outcome, Outcomes, Server};
use crate::tools::QEMU_NBD;

const RELEASE: &str = "ovirt-imageio==2.5.1";
const TESTS: &[&str] = &[
    "test/nbd_test.py",
    "test/nbdutil_test.py",
    "test/qemu_nbd_test.py",
    "test/client_test.py",
    "test/client_io_test.py",
    "test/backends_test.py",
    "test/backends",
];

pub(crate) fn prepare(sh: &Shell, place: &Place) -> Result<()> {
    place.server(sh, QEMU_NBD, None)?;
    let (source, venv) = (place.path("source"), place.path("venv"));
    if sh.path_exists(&source) {
        return Ok(());
    }
    // Debian's Python, whose headers are installed: there is a part in C.
    cmd!(sh, "/usr/bin/python3 -m venv {venv}").run()?;
    let (pip, python) = (venv.join("bin/pip"), venv.join("bin/python"));
    cmd!(sh, "{pip} install --quiet pytest<9 pytest-timeout userstorage setuptools").run()?;
    let (downloads, half) = (place.path("download"), place.path("unpacking"));
    sh.remove_path(&half)?;
    sh.create_dir(&half)?;
    cmd!(sh, "{pip} download --quiet --no-deps --no-binary :all: --dest {downloads} {RELEASE}").run()?;
    for archive in sh.read_dir(&downloads)? {
        cmd!(sh, "tar --extract --file {archive} --directory {half} --strip-components=1").run()?;
    }
    let _dir = sh.push_dir(&half);
    cmd!(sh, "{python} setup.py --quiet build_ext --build-lib .").run()?;
    // It looks for the name of its own distribution where no other has a file.
    cmd!(sh, "sed -i s:/etc/redhat-release:/etc/os-release: test/distro.py").run()?;
    std::fs::rename(&half, &source)?;
    Ok(())
}

pub(crate) fn run(sh: &Shell, place: &Place, server: Server) -> Result<Outcomes> {
    let _dir = sh.push_dir(place.path("source"));
    let (python, temporary) = (place.path("venv/bin/python"), place.path("tmp"));
    let wrapper = place.path("bin").join(QEMU_NBD.name);
    let pytest = cmd!(sh, "{python} -m pytest --verbose --timeout 120 -o timeout_method=signal");
    let pytest = pytest.args(["--basetemp".as_ref(), temporary.as_os_str()]).args(["-m", "not benchmark"]);
    let pytest = pytest.args(TESTS).envs(place.environment(server)?).env("QEMU_NBD", wrapper);
    // Tests that fail are what is looked for.
    let output = pytest.quiet().ignore_status().output()?;
    sh.write_file(place.path(&format!("{server:?}.log")), &output.stdout)?;
    sh.remove_path(&temporary)?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(outcome).collect())
}

/// In a line such as `test/nbd_test.py::test_open[tcp] PASSED     [ 1%]`.
fn outcome(line: &str) -> Option<(String, Outcome)> {
    let (name, result) =
        line.trim_end().strip_suffix("%]")?.rsplit_once('[')?.0.trim_end().rsplit_once(' ')?;
    let outcome = match result {
        "PASSED" => Outcome::Passed,
        "FAILED" | "ERROR" => Outcome::Failed,
        "SKIPPED" | "XFAIL" | "XPASS" => Outcome::LeftOut,
        _ => return None,
    };
    Some((name.strip_prefix("test/")?.to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pytest() {
        let line = "test/nbd_test.py::test_open[a b-tcp] PASSED                  [  1%]";
        assert_eq!(outcome(line), Some(("nbd_test.py::test_open[a b-tcp]".into(), Outcome::Passed)));
        let line = "test/backends/nbd_test.py::test_dirty FAILED  [100%]";
        assert_eq!(outcome(line), Some(("backends/nbd_test.py::test_dirty".into(), Outcome::Failed)));
        assert_eq!(outcome("test/nbd_test.py ..... [ 50%]"), None);
        assert_eq!(outcome("= 1 failed, 2 passed ="), None);
    }
}
