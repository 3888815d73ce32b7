// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd virt-v2v`: the installed virt-v2v, with nbdkit's Python plugin for oVirt replaced by ours.
//!
//! virt-v2v runs nbdkit by its name, so a directory first in `PATH` has a [`shim`] of that name. Since 2.10 it runs
//! nbdkit by the full path that was found when it was built, so the shim is put there too, in a [`namespace`] that
//! only this virt-v2v and its children see.
//!
//! virt-v2v takes the place of this process: signals, terminal and exit status are its own.

mod namespace;
pub(crate) mod shim;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, io};

use anyhow::{Context, Result, anyhow, bail};

/// The directory of the shim, seen from that of this program.
const SHIM_DIR: &str = "../libexec/imageio-nbd";

/// The plugin in a tree that isn't installed, seen from the directory of this program.
const PLUGIN: &str = "../nbdkit/nbdkit-imageio-plugin.so";

/// What nbdkit finds in its own directory of plugins.
const INSTALLED_PLUGIN: &str = "imageio";

/// Tells the shim of the real nbdkit.
const REAL_NBDKIT: &str = "IMAGEIO_NBD_NBDKIT";

/// Tells the shim of the plugin, and anyone may tell us.
const PLUGIN_VARIABLE: &str = "IMAGEIO_NBD_PLUGIN";

/// Becomes virt-v2v. Returns only if that fails.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let shims = shim_dir(&program)?;
    let virt_v2v = find("virt-v2v", &program).context("virt-v2v is not in PATH: install it")?;
    let by_path = nbdkits_by_path(&virt_v2v, &program)?;
    let by_name = find("nbdkit", &program);
    if by_name.is_none() && by_path.is_empty() {
        bail!("nbdkit is not in PATH: install it");
    }
    let plugin = plugin(&program)?;
    for nbdkit in by_name.iter().chain(&by_path) {
        check(nbdkit, &plugin)?;
    }
    namespace::replace(&by_path, &program, &shims, &plugin)?;
    let error = Command::new(&virt_v2v)
        .args(arguments)
        .env("PATH", first_in_path(&shims)?)
        .env(PLUGIN_VARIABLE, plugin)
        .exec();
    Err(anyhow!(error).context(format!("cannot run {}", virt_v2v.display())))
}

fn shim_dir(program: &Path) -> Result<PathBuf> {
    let dir = program.parent().unwrap_or(Path::new("/")).join(SHIM_DIR);
    if !dir.join("nbdkit").is_file() {
        bail!(
            "{} is missing: it is in the package, and in what `cargo xtask build` makes",
            dir.join("nbdkit").display()
        );
    }
    Ok(dir.canonicalize()?)
}

/// As nbdkit is to be told of it: a file's absolute name, as virt-v2v may change its directory, or a plugin's name.
fn plugin(program: &Path) -> Result<OsString> {
    let beside = program.parent().unwrap_or(Path::new("/")).join(PLUGIN);
    match env::var_os(PLUGIN_VARIABLE).filter(|plugin| !plugin.is_empty()) {
        // By nbdkit's rule of what is a file.
        Some(file) if file.as_bytes().iter().any(|byte| b"/.".contains(byte)) => {
            Ok(std::path::absolute(file)?.into())
        }
        Some(name) => Ok(name),
        None => Ok(beside.canonicalize().map_or_else(|_| INSTALLED_PLUGIN.into(), Into::into)),
    }
}

/// The absolute name of a program in `PATH` that isn't ours under another name, whichever copy of it.
fn find(name: &str, ours: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    // An empty name in PATH is the current directory.
    let mut files = env::split_paths(&path).filter_map(|dir| std::path::absolute(dir.join(name)).ok());
    files.find(|file| is_program(file) && !is_shim(file, ours))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

/// The shim is a link to this program, or to another copy of it.
fn is_shim(file: &Path, ours: &Path) -> bool {
    let is_copy = |file: PathBuf| file.file_name() == Some(OsStr::new("imageio-nbd"));
    is_same(file, ours) || file.canonicalize().is_ok_and(is_copy)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |file: &Path| fs::metadata(file).map(|meta| (meta.dev(), meta.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

fn first_in_path(dir: &Path) -> Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(dir.to_owned()).chain(env::split_paths(&rest));
    env::join_paths(dirs).context("the shim's directory can't be in PATH")
}

/// Every nbdkit that virt-v2v would run by its full path, whatever `PATH` says.
fn nbdkits_by_path(virt_v2v: &Path, ours: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read(virt_v2v).with_context(|| format!("cannot read {}", virt_v2v.display()))?;
    let mut found: Vec<_> = paths_to_nbdkit(&text)
        .filter(|file| is_program(file) && !is_shim(file, ours))
        .filter_map(|file| file.canonicalize().ok())
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Paths of the name `nbdkit` that a program has as a constant, or as a part of one.
fn paths_to_nbdkit(program: &[u8]) -> impl Iterator<Item = PathBuf> {
    const NAME: &[u8] = b"/nbdkit";
    let ends = program.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    ends.filter_map(|(start, _)| {
        let end = start + NAME.len();
        let ended = program.get(end).is_none_or(|byte| !is_in_path(*byte));
        let before = program[..start].iter().rev().take_while(|byte| is_in_path(**byte)).count();
        let path = Path::new(OsStr::from_bytes(&program[start - before..end]));
        (ended && path.is_absolute()).then(|| path.to_owned())
    })
}

fn is_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte)
}

/// Tries whether nbdkit takes the plugin, before a long conversion starts.
fn check(nbdkit: &Path, plugin: &OsStr) -> Result<()> {
    let tried = Command::new(nbdkit).arg(plugin).arg("--dump-plugin").output();
    let said = match tried {
        Ok(Output { status, .. }) if status.success() => return Ok(()),
        Ok(Output { stderr, .. }) => String::from_utf8_lossy(&stderr).trim().replace('\n', "; "),
        Err(error) => error.to_string(),
    };
    bail!(
        "{} doesn't take the plugin {}: {said}: {PLUGIN_VARIABLE}=FILE tells of another",
        nbdkit.display(),
        plugin.display()
    );
}

/// An error of the operating system, with what was tried.
fn attempt<T>(what: impl FnOnce() -> String, result: nix::Result<T>) -> Result<T> {
    result.map_err(io::Error::from).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_of_a_program_are_found_in_it() {
        let program =
            b"\x7fELF /usr/share/nbdkit\0nbdkit python %s\0/usr/sbin/nbdkit\0\0\x07run /x/nbdkit now\0\
                        /usr/lib64/nbdkit/plugins\0/opt/nbdkit\0nbdkit\0lib/nbdkit\0";
        let found: Vec<_> = paths_to_nbdkit(program).collect();
        let expected = ["/usr/share/nbdkit", "/usr/sbin/nbdkit", "/x/nbdkit", "/opt/nbdkit"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn another_copy_of_the_program_is_a_shim_too() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("imageio-nbd");
        fs::write(&copy, "").unwrap();
        std::os::unix::fs::symlink(&copy, dir.path().join("nbdkit")).unwrap();
        assert!(is_shim(&dir.path().join("nbdkit"), Path::new("/nonexistent")));
    }

    #[test]
    fn a_program_under_another_name_is_still_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        fs::write(&one, "").unwrap();
        fs::hard_link(&one, &other).unwrap();
        assert!(is_same(&one, &other));
        assert!(!is_same(&one, dir.path()) && !is_same(&dir.path().join("none"), &dir.path().join("none")));
        assert!(!is_program(&one), "not executable");
    }
}
