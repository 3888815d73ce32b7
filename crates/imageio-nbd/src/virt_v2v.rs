// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd virt-v2v`: the installed virt-v2v, with nbdkit and its Python plugin for oVirt
//! replaced.
//!
//! virt-v2v runs nbdkit by its name, so a directory first in `PATH` has a [`shim`] of that name.
//! Since 2.10 it runs nbdkit by the full path that was found when it was built, so a library is
//! preloaded, by which virt-v2v and its children execute the shim where they would execute a file
//! of that path (crate `exec-redirect`). Neither touches what others see, nor who owns what: in a
//! namespace of users, root's files would seem to be nobody's, also to what makes libguestfs's
//! appliance of them, which is kept.
//!
//! virt-v2v takes the place of this process: signals, terminal and exit status are its own.

mod answers;
pub(crate) mod door;
pub(crate) mod shim;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail, ensure};

use door::Door;

/// The directory of the shim, seen from that of this program.
const SHIM_DIR: &str = "../libexec/imageio-nbd";

/// The library that is preloaded, in the shim's directory.
const REDIRECT: &str = "exec-redirect.so";

/// The variables of the library: one has the paths that it redirects, with a colon between two; the
/// other one has the path that it executes instead.
const REDIRECT_FROM: &str = "EXEC_REDIRECT_FROM";
const REDIRECT_TO: &str = "EXEC_REDIRECT_TO";

/// The variable with the libraries that the dynamic linker loads first (`ld.so(8)`).
const PRELOAD: &str = "LD_PRELOAD";

/// The plugin in a tree that isn't installed, seen from the directory of this program.
const PLUGIN: &str = "../nbdkit/nbdkit-imageio-plugin.so";

/// The name by which nbdkit finds the plugin in its own directory of plugins.
const INSTALLED_PLUGIN: &str = "imageio";

/// Tells the shim of the plugin, and anyone may tell us.
const PLUGIN_VARIABLE: &str = "IMAGEIO_NBD_PLUGIN";

/// Becomes virt-v2v. Returns only if that fails.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let mut arguments = arguments.into_iter().collect();
    let door = Door::choose(&mut arguments)?;
    let program = env::current_exe().context("cannot find this program's own file")?;
    let shims = shim_dir(&program)?;
    let virt_v2v = find("virt-v2v", &program).context("virt-v2v is not in PATH: install it")?;
    let nbdkits = nbdkits(&virt_v2v, &program)?;
    let mut command = Command::new(&virt_v2v);
    if door == Door::Nbdkit {
        let plugin = plugin(&program)?;
        check_all(&nbdkits, &plugin)?;
        command.env(PLUGIN_VARIABLE, plugin);
    }
    let from = env::join_paths(nbdkits.iter().map(Path::new).chain(USUAL.map(Path::new)))
        .context("the path of an nbdkit has a colon: move that nbdkit")?;
    command
        .args(arguments)
        .env("PATH", first_in_path(&shims)?)
        .env(PRELOAD, preload(&shims)?)
        .env(REDIRECT_FROM, from)
        .env(REDIRECT_TO, shims.join("nbdkit"))
        .env(door::VARIABLE, door.name());
    let error = command.exec();
    Err(anyhow!(error).context(format!("cannot run {}", virt_v2v.display())))
}

/// The directory, with all that has to be in it.
fn shim_dir(program: &Path) -> Result<PathBuf> {
    let dir = program.parent().unwrap_or(Path::new("/")).join(SHIM_DIR);
    for name in ["nbdkit", REDIRECT] {
        if !dir.join(name).is_file() {
            bail!(
                "{} is missing: install the package again, or run `cargo xtask build`",
                dir.join(name).display()
            );
        }
    }
    Ok(dir.canonicalize()?)
}

/// The library before all that is preloaded anyway.
fn preload(shims: &Path) -> Result<OsString> {
    let library = shims.join(REDIRECT).into_os_string();
    // The dynamic linker takes both for the end of a name.
    ensure!(
        !library.as_bytes().iter().any(|byte| b" :".contains(byte)),
        "{}: a library whose path has a space or a colon can't be preloaded: move the program",
        library.display()
    );
    let rest = preloaded_by_others();
    Ok(if rest.is_empty() { library } else { [library, rest].join(OsStr::new(":")) })
}

/// Returns the libraries that the environment preloads besides ours.
fn preloaded_by_others() -> OsString {
    let all = env::var_os(PRELOAD).unwrap_or_default();
    let names = all.as_bytes().split(|byte| b" :".contains(byte)).map(OsStr::from_bytes);
    let others =
        names.filter(|name| !name.is_empty() && Path::new(name).file_name() != Some(REDIRECT.as_ref()));
    others.collect::<Vec<_>>().join(OsStr::new(":"))
}

/// Returns the plugin as nbdkit is to be told of it: a file's absolute name, as virt-v2v may change
/// its directory, or a plugin's name.
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

/// The absolute name of a program in `PATH` that isn't ours under another name, whichever copy of
/// it.
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
    env::join_paths(dirs).context("the shim's directory can't be in PATH: move the program")
}

/// The paths of nbdkit in distributions. A virt-v2v that is a script has no constants, and runs
/// another program that has.
const USUAL: [&str; 2] = ["/usr/sbin/nbdkit", "/usr/bin/nbdkit"];

/// The full paths by which virt-v2v runs nbdkit: those that it has as constants, whether they are
/// there or not, and what is in `PATH`.
fn nbdkits(virt_v2v: &Path, ours: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read(virt_v2v).with_context(|| format!("cannot read {}", virt_v2v.display()))?;
    let all = paths_to_nbdkit(&text).chain(find("nbdkit", ours));
    let mut found: Vec<_> = all.filter(|file| !is_shim(file, ours)).collect();
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

/// Tries each nbdkit that is there.
fn check_all(nbdkits: &[PathBuf], plugin: &OsStr) -> Result<()> {
    let present: Vec<_> = nbdkits.iter().filter(|file| is_program(file)).collect();
    ensure!(!present.is_empty(), "nbdkit is not in PATH: install it");
    present.into_iter().try_for_each(|nbdkit| check(nbdkit, plugin))
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
