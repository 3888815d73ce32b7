// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs of others that are run, and the packages that have them.

/// Says that a program can't be run, what it is for as in "which does the copying", and how to get
/// it.
pub(crate) fn cannot_run(tool: &str, which: &str) -> String {
    let (debian, others) = match tool {
        "nbdcopy" | "nbdinfo" => ("libnbd-bin", "libnbd"),
        _ => ("qemu-utils", "qemu-img"),
    };
    format!(
        "cannot run {tool}, {which}: install the package {others} (Enterprise Linux, Fedora) or {debian} (Debian)"
    )
}
