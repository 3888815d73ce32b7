// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workflows: whose code they run, with which rights, and what decides in the end.

use std::collections::BTreeSet;
use std::fs;

use crate::project_root;

/// Name and text of each workflow.
fn workflows() -> Vec<(String, String)> {
    let files =
        fs::read_dir(project_root().join(".github/workflows")).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
    };
    files.map(read).collect()
}

/// Returns true if an action is pinned to a commit, and a comment tells its version; or is a file
/// of ours.
fn is_pinned(action: &str) -> bool {
    let Some((name, rest)) = action.split_once('@') else { return action.starts_with("./") };
    let (commit, version) = rest.split_once(" # v").unwrap_or((rest, ""));
    let is_commit = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
    name.contains('/') && is_commit && version.starts_with(|c: char| c.is_ascii_digit())
}

#[test]
fn each_action_is_pinned_to_a_commit_whose_version_is_told() {
    assert!(is_pinned("a/b@0123456789abcdef0123456789abcdef01234567 # v1.2.3"));
    assert!(!is_pinned("a/b@v1") && !is_pinned("a/b@0123456789abcdef0123456789abcdef01234567"));
    for (file, text) in workflows() {
        for action in text.lines().filter_map(|line| line.split_once("uses: ")).map(|(_, action)| action) {
            assert!(is_pinned(action), "{file}: {action}: pin it to a commit: NAME@COMMIT # vVERSION");
        }
    }
}

#[test]
fn each_workflow_begins_with_the_right_to_read_alone() {
    for (file, text) in workflows() {
        let rights = "\npermissions:\n  contents: read\n";
        assert!(text.contains(rights), "{file}: each job that needs more than contents: read says so itself");
    }
}

/// The jobs of a workflow.
fn jobs(text: &str) -> BTreeSet<&str> {
    let (_, jobs) = text.split_once("\njobs:\n").unwrap();
    let names = jobs.lines().filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
    names.filter(|name| !name.starts_with([' ', '#'])).collect()
}

#[test]
fn the_gate_needs_all_other_jobs_and_always_runs() {
    let (_, text) = workflows().into_iter().find(|(file, _)| file == "ci.yml").unwrap();
    let (_, gate) = text.split_once("\n  gate:\n").unwrap();
    let (_, needed) = gate.split_once("needs: [").unwrap();
    let needed: BTreeSet<_> = needed.split(']').next().unwrap().split(", ").collect();
    let mut others = jobs(&text);
    assert!(others.remove("gate") && others.len() > 4, "{others:?}");
    assert_eq!(needed, others, "the job `gate` needs all others");
    assert!(gate.contains("\n    if: always()\n"), "the job `gate` runs also after others have failed");
}

/// The commands that a step may call beside `cargo xtask`: they install tools, or let git read the
/// files.
const INSTALLERS: [&str; 11] = [
    "${{ matrix.install }}",
    "apt-get ",
    "bash /tmp/rustup.sh ",
    "cargo install ",
    "curl ",
    "dnf ",
    "echo /opt/rust/bin >> ",
    "git config ",
    "python3 -m venv ",
    "rustup ",
    "target/zig/bin/pip ",
];

#[test]
fn steps_call_xtask_and_what_installs_tools() {
    for (file, text) in workflows() {
        for command in
            text.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("run: "))
        {
            let is_known = |part: &str| {
                let part = part.trim();
                part.starts_with("cargo xtask ")
                    || part == "bash .ci/run"
                    || part == "exit 1"
                    || INSTALLERS.iter().any(|installer| part.starts_with(installer))
            };
            let unknown = command.split("&&").find(|part| !is_known(part));
            assert_eq!(unknown, None, "{file}: steps call `cargo xtask`, which anyone can run at home, too");
        }
    }
}
