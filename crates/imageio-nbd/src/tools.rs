// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs of others that are run, and the packages that have them.

use std::io::{self, ErrorKind};

use anyhow::{Error, anyhow};

/// A program can't be run. Its `purpose` is as in "which does the copying". If it isn't there, the
/// error says how to get it.
pub(crate) fn cannot_run(tool: &str, purpose: &str, error: io::Error) -> Error {
    let (debian, others) = match tool {
        "nbdcopy" | "nbdinfo" => ("libnbd-bin", "libnbd"),
        _ => ("qemu-utils", "qemu-img"),
    };
    match error.kind() {
        ErrorKind::NotFound => anyhow!(
            "cannot run {tool}, {purpose}: install the package {others} (Enterprise Linux, Fedora) or {debian} (Debian)"
        ),
        _ => Error::new(error).context(format!("cannot run {tool}, {purpose}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_there_is_not_to_be_installed() {
        let told =
            |kind: ErrorKind| format!("{:#}", cannot_run("nbdcopy", "which backups need", kind.into()));
        let cannot = "cannot run nbdcopy, which backups need: ";
        let install = "install the package libnbd (Enterprise Linux, Fedora) or libnbd-bin (Debian)";
        assert_eq!(told(ErrorKind::NotFound), format!("{cannot}{install}"));
        assert_eq!(told(ErrorKind::PermissionDenied), format!("{cannot}permission denied"));
    }
}
