// SPDX-License-Identifier: MIT OR Apache-2.0
//! All tests of the workspace: what `cargo test --workspace` runs one after another runs several at
//! a time here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

use super::ignored;
use crate::at_once::{self, Program};

/// The package whose tests take the longest: they begin first, so that none of them is alone in the
/// end.
const LONGEST: &str = "tests";

/// Which tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// All of them.
    Everything,
    /// Those of the crates, which need few tools.
    Crates,
}

pub(super) fn run(sh: &Shell, of: Of) -> Result<()> {
    // The crates are the workspace's default members.
    let all = (of == Of::Everything).then_some("--workspace");
    let built = cmd!(sh, "cargo test {all...} --locked --no-run --message-format=json-render-diagnostics");
    let mut programs = Vec::new();
    for line in built.read()?.lines() {
        programs.extend(test_program(&serde_json::from_str(line)?)?);
    }
    anyhow::ensure!(!programs.is_empty(), "cargo has built no tests");
    programs.sort_by_key(|program| !program.name.starts_with(&format!("{LONGEST}/")));
    let docs = cmd!(sh, "cargo test {all...} --locked --no-fail-fast --doc");
    programs.insert(0, Program { name: "examples in the documentation".to_owned(), command: docs.into() });
    let ended = at_once::run(programs)?;
    if super::in_ci() { ignored::check(&ended) } else { Ok(()) }
}

/// The program of which a message of Cargo's tells, if it has tests. Cargo runs it in the directory
/// of its package.
fn test_program(message: &Value) -> Result<Option<Program>> {
    let Some(executable) = message["executable"].as_str() else { return Ok(None) };
    if message["profile"]["test"] != true {
        return Ok(None);
    }
    let text = |value: &Value| value.as_str().map(str::to_owned).context("Cargo's message is unknown");
    let manifest = text(&message["manifest_path"])?;
    let package = Path::new(&manifest).parent().context("a manifest is in a directory")?;
    let folder = package.file_name().context("a package is in a folder")?.to_string_lossy();
    let name = format!("{folder}/{}", text(&message["target"]["name"])?);
    let mut command = Command::new(executable);
    command.current_dir(package).env("CARGO_MANIFEST_DIR", package);
    Ok(Some(Program { name, command }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_that_have_tests_are_found_in_what_cargo_tells() {
        let artifact = |is_test: bool, executable: Value| {
            json!({
                "reason": "compiler-artifact",
                "manifest_path": "/project/crates/conn-pool/Cargo.toml",
                "target": { "name": "keeper", "kind": ["test"] },
                "profile": { "test": is_test },
                "executable": executable,
            })
        };
        let found = test_program(&artifact(true, json!("/target/keeper-1"))).unwrap().unwrap();
        assert_eq!(
            (&*found.name, found.command.get_program()),
            ("conn-pool/keeper", "/target/keeper-1".as_ref())
        );
        assert_eq!(found.command.get_current_dir(), Some(Path::new("/project/crates/conn-pool")));
        for other in [
            artifact(false, json!("/target/keeper")),
            artifact(true, json!(null)),
            json!({ "reason": "build-finished", "success": true }),
        ] {
            assert!(test_program(&other).unwrap().is_none(), "{other}");
        }
        let unknown = json!({ "executable": "/target/keeper-1", "profile": { "test": true } });
        assert!(test_program(&unknown).is_err());
    }
}
