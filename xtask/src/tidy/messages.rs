// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages that `docs/troubleshooting.md` quotes are those that the programs print.

use std::fs;
use std::path::Path;

use crate::project_root;

/// Messages of other programs and servers, which are in none of our sources.
const OF_OTHERS: &[&str] =
    &["403 Forbidden", "500 Internal Server Error", "Resource temporarily unavailable"];

/// Stands in a quoted message for what differs from case to case.
const GAP: char = '…';

/// The messages of the document: each is a heading in backticks.
fn quoted(text: &str) -> Vec<&str> {
    let headings = text.lines().filter_map(|line| line.strip_prefix("### `"));
    headings.filter_map(|heading| heading.strip_suffix('`')).collect()
}

/// The parts of a message that are always the same.
fn fixed_parts(message: &str) -> impl Iterator<Item = &str> {
    message.split(GAP).map(|part| part.trim_matches([' ', ':'])).filter(|part| !part.is_empty())
}

/// The sources with each string as it is printed: what a backslash continues is on one line.
fn printed(dir: &Path, text: &mut String) {
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            // A text that only a test prints is no message of a program.
            if !path.ends_with("tests") {
                printed(&path, text);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&without_continuations(&fs::read_to_string(path).unwrap()));
        }
    }
}

fn without_continuations(source: &str) -> String {
    let mut parts = source.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

#[test]
fn the_quoted_messages_are_those_of_the_programs() {
    let document = fs::read_to_string(project_root().join("docs/troubleshooting.md")).unwrap();
    let mut sources = String::new();
    printed(&project_root().join("crates"), &mut sources);
    let messages = quoted(&document);
    assert!(messages.len() > 15, "the messages are found");
    for message in messages {
        for part in fixed_parts(message).filter(|part| !OF_OTHERS.contains(part)) {
            // An error, its cause and the advice, which stand in different places.
            let is_told = sources.contains(part) || part.split(": ").all(|piece| sources.contains(piece));
            assert!(is_told, "no program says {part:?}, as in {message:?}");
        }
    }
}

#[test]
fn messages_and_their_parts_are_found() {
    assert_eq!(quoted("# x\n### `a … b`\n### c\n"), ["a … b"]);
    assert_eq!(fixed_parts("a: … b …").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(without_continuations("\"a \\\n    b\""), "\"a b\"");
}
