// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comments, and attributes that need one.

use std::fs;

use super::sources;

/// The columns that a comment may take, with its indentation.
const COLUMNS: usize = 100;

/// The lines of a source file that are comments and too long. A row of a table can't be broken.
fn too_long(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines());
    lines.filter(|(_, line)| {
        let comment = line.trim_start();
        let is_row = comment.trim_start_matches(['/', '!']).trim_start().starts_with('|');
        comment.starts_with("//") && !is_row && line.chars().count() > COLUMNS
    })
}

#[test]
fn no_comment_is_too_wide_to_read() {
    let mut found = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        found.extend(too_long(&text).map(|(line, _)| format!("{}:{line}", file.display())));
    }
    assert!(
        found.is_empty(),
        "these {} comments have more than {COLUMNS} columns: break the lines\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn a_wide_comment_is_found_and_a_wide_table_is_not() {
    let wide = "é".repeat(COLUMNS - 3);
    let text = format!("// {wide}\n    // {wide}\n//! | {wide} |\nlet wide = \"{wide}{wide}\";\n");
    assert_eq!(too_long(&text).map(|(line, _)| line).collect::<Vec<_>>(), [2]);
}

#[test]
fn no_test_is_ignored_without_a_reason() {
    // In two pieces, so that this line is not one of those.
    let ignored = concat!("#[", "ignore]");
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(ignored), "{}: write #[ignore = \"REASON\"]", file.display());
    }
}
