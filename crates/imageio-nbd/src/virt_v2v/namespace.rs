// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mount namespace in which the shim is where nbdkit was installed.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{getgid, getuid};

use super::{PLUGIN_VARIABLE, REAL_NBDKIT, attempt};

/// What the names of real nbdkits beside the shim begin with.
const REAL: &str = "real-nbdkit-";

/// Puts the shim where these programs are, for this process and its children. Does nothing if there are none, or if
/// this was done already, by a wrapper around this one.
pub(crate) fn replace(nbdkits: &[PathBuf], program: &Path, shims: &Path, plugin: &OsStr) -> Result<()> {
    let Some(first) = nbdkits.first() else { return Ok(()) };
    if shims.join(format!("{REAL}0")).exists() {
        return Ok(());
    }
    enter().with_context(|| {
        format!(
            "this virt-v2v runs {} whatever PATH says; to replace that takes root, or user namespaces",
            first.display()
        )
    })?;
    // The namespace ends with its last process, and this with it.
    let made = mount(Some("tmpfs"), shims, Some("tmpfs"), MsFlags::empty(), Some("mode=755"));
    attempt(|| format!("cannot mount on {}", shims.display()), made)?;
    let shim = shims.join("nbdkit");
    symlink(program, &shim)?;
    for (i, nbdkit) in nbdkits.iter().enumerate() {
        let real = shims.join(format!("{REAL}{i}"));
        File::create(&real)?;
        bind(nbdkit, &real)?;
        let script = shims.join(format!("call-{i}"));
        fs::write(&script, call(&shim, &real, plugin))?;
        fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        bind(&script, nbdkit)?;
    }
    Ok(())
}

/// A script that calls the shim and tells it of what it can't know, also where the environment was cleared.
fn call(shim: &Path, real: &Path, plugin: &OsStr) -> Vec<u8> {
    let (shim, real, plugin) = (quoted(shim.as_os_str()), quoted(real.as_os_str()), quoted(plugin));
    let variables = [REAL_NBDKIT.as_bytes(), b"=", &real, b" ", PLUGIN_VARIABLE.as_bytes(), b"=", &plugin];
    [b"#!/bin/sh\n", &variables.concat()[..], b" exec ", &shim, b" \"$@\"\n"].concat()
}

/// For a shell.
fn quoted(text: &OsStr) -> Vec<u8> {
    let inside = text.as_bytes().split(|byte| *byte == b'\'').collect::<Vec<_>>().join(&b"'\\''"[..]);
    [b"'", &inside[..], b"'"].concat()
}

/// Leaves the namespace of everybody else: as root alone, else with a namespace of users, in which the user is itself.
fn enter() -> Result<()> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        attempt(|| "unshare".into(), unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS))?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    }
    // What is mounted elsewhere shows here, and nothing the other way.
    let none = None::<&str>;
    attempt(|| "mount".into(), mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none))
}

fn bind(what: &Path, place: &Path) -> Result<()> {
    let none = None::<&str>;
    let bound = mount(Some(what), place, none, MsFlags::MS_BIND, none);
    attempt(|| format!("cannot mount {} on {}", what.display(), place.display()), bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_survives_the_shell() {
        let plugin = OsStr::new("it's a \"plugin\" $HOME\n.so");
        let script = String::from_utf8(call(Path::new("/usr/bin/env"), Path::new("/real"), plugin)).unwrap();
        let output = std::process::Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("IMAGEIO_NBD_PLUGIN=it's a \"plugin\" $HOME\n.so\n"), "{printed}");
        assert!(printed.contains("IMAGEIO_NBD_NBDKIT=/real\n"), "{printed}");
    }
}
