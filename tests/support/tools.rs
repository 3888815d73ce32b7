// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding the programs that tests use, and what becomes of a test whose program is missing.

use std::ffi::OsStr;
use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};

// The list that `cargo xtask test` tells of, too.
#[path = "../../xtask/src/tools.rs"]
mod table;

pub use table::*;

impl Tool {
    /// Returns the path of the tool.
    ///
    /// # Panics
    /// If it is not installed. Tests made with [`trial`] do not get that far.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.find().unwrap_or_else(|| panic!("{} is missing: {}", self.name, self.install))
    }
}

/// A test that needs tools: ignored, and visibly so, where one is missing; failed there if `CI` is
/// set.
pub fn trial(
    name: impl Into<String>,
    needs: &[Tool],
    run: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let missing: Vec<String> = needs
        .iter()
        .filter(|tool| tool.find().is_none())
        .map(|tool| format!("{} is missing: {}", tool.name, tool.install))
        .collect();
    if missing.is_empty() {
        return Trial::test(name, run);
    }
    let in_ci = std::env::var_os("CI").is_some_and(|ci| ci != OsStr::new(""));
    Trial::test(name, move || Err(missing.join("; ").into())).with_ignored_flag(!in_ci)
}
