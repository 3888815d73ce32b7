// SPDX-License-Identifier: MIT OR Apache-2.0
//! The label of a socket for SELinux (`--selinux-label`), as nbdkit sets it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The label that the kernel gives the next sockets of this thread (`setsockcreatecon(3)`).
const SOCKET_LABEL: &str = "/proc/thread-self/attr/sockcreate";

/// Takes it back. To write nothing would be no system call.
const NONE: &str = "\n";

/// This file is there where SELinux is enabled.
const ENABLED: &str = "/sys/fs/selinux/enforce";

/// The files by which SELinux is asked and told.
struct Kernel {
    socket_label: PathBuf,
    enabled: PathBuf,
}

/// Makes sockets that have this label, if there is one. Where SELinux isn't enabled, they have
/// none, and need none.
pub(crate) fn with_label<T>(label: Option<&str>, make: impl FnOnce() -> Result<T>) -> Result<T> {
    let kernel = Kernel { socket_label: SOCKET_LABEL.into(), enabled: ENABLED.into() };
    kernel.with_label(label, make)
}

impl Kernel {
    fn with_label<T>(&self, label: Option<&str>, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(label) = label else { return make() };
        if !self.enabled.exists() {
            log::debug!("--selinux-label: SELinux is not enabled here, so the socket gets no label");
            return make();
        }
        let what = || format!("--selinux-label: SELinux doesn't take the label {label} for a socket");
        self.set(label).with_context(what)?;
        let made = make();
        self.set(NONE).context("--selinux-label: the label of further sockets can't be taken back")?;
        made
    }

    /// In one write, as the kernel wants it.
    fn set(&self, label: &str) -> std::io::Result<()> {
        fs::write(Path::new(&self.socket_label), label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_is_set_while_a_socket_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let kernel = Kernel { socket_label: file("sockcreate"), enabled: file("enforce") };
        let seen = || Ok(fs::read_to_string(file("sockcreate")).unwrap_or_default());

        assert_eq!(kernel.with_label(Some("l"), seen).unwrap(), "", "SELinux is not enabled");
        fs::write(file("enforce"), "1").unwrap();
        assert_eq!(kernel.with_label(None, seen).unwrap(), "");
        assert_eq!(kernel.with_label(Some("u:r:t:s0"), seen).unwrap(), "u:r:t:s0");
        assert_eq!(seen().unwrap(), NONE, "it is taken back");
        let failed: Result<()> = kernel.with_label(Some("l"), || anyhow::bail!("no socket"));
        assert_eq!(failed.unwrap_err().to_string(), "no socket");
        assert_eq!(seen().unwrap(), NONE, "also after a failure");
    }

    #[test]
    fn a_label_that_can_not_be_set_is_an_error_where_selinux_is_enabled() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = Kernel { socket_label: dir.path().join("none/sockcreate"), enabled: dir.path().into() };
        let error =
            kernel.with_label(Some("bad"), || -> Result<()> { panic!("no socket is made") }).unwrap_err();
        assert!(error.to_string().contains("--selinux-label: SELinux doesn't take the label bad"), "{error}");
    }
}
