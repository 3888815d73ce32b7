// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table in docs/testing.md: what differs, and why.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use xshell::Shell;

const HEAD: &str = "| suite | differs | why |";

/// The tests of each suite that have a reason.
pub(crate) fn read(sh: &Shell) -> Result<BTreeMap<String, Vec<String>>> {
    let text = sh.read_file("docs/testing.md")?;
    parse(&text).context("docs/testing.md has no table of what differs")
}

fn parse(text: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let rows = text.lines().skip_while(|line| *line != HEAD).skip(1).take_while(|line| line.starts_with('|'));
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
        if let (Some(suite), Some(tests)) = (cells.next(), cells.next()) {
            // Every other part is between backticks.
            let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned);
            reasons.entry(suite.to_owned()).or_default().extend(tests);
        }
    }
    Some(reasons).filter(|reasons| !reasons.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_what_is_between_backticks() {
        let table = format!(
            "text\n{HEAD}\n|---|---|---|\n| x | `a`, `b` | it is `so` |\n| x | `c` | no |\n\n| y | `d` | |"
        );
        let reasons = parse(&table).unwrap();
        assert_eq!(reasons["x"], ["a", "b", "c"]);
        assert!(!reasons.contains_key("y"));
        assert_eq!(parse("nothing"), None);
    }
}
