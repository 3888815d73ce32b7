// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mount namespace in which the shim is where nbdkit was installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{getgid, getuid};

use super::attempt;

/// The real nbdkit's name beside the shim.
const REAL: &str = "real-nbdkit";

/// Puts `shim` where these programs are, for this process and its children, and returns where the first of them is
/// now. Does nothing if there are none.
pub(crate) fn replace(nbdkits: &[PathBuf], shim: &Path, shims: &Path) -> Result<Option<PathBuf>> {
    let Some(first) = nbdkits.first() else {
        return Ok(None);
    };
    enter().with_context(|| {
        format!(
            "this virt-v2v runs {} whatever PATH says; to replace that takes root, or user namespaces",
            first.display()
        )
    })?;
    let real = shims.join(REAL);
    // The namespace ends with its last process, and this with it.
    let made = mount(Some("tmpfs"), shims, Some("tmpfs"), MsFlags::empty(), Some("mode=755"));
    attempt(|| format!("cannot mount on {}", shims.display()), made)?;
    std::os::unix::fs::symlink(shim, shims.join("nbdkit"))?;
    File::create(&real)?;
    bind(first, &real)?;
    for nbdkit in nbdkits {
        bind(shim, nbdkit)?;
    }
    Ok(Some(real))
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
