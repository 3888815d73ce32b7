// SPDX-License-Identifier: MIT OR Apache-2.0
//! Documents in which each crate has its place.

use std::fs;

use crate::project_root;

const DOCUMENTS: [&str; 3] = ["README.md", "CHANGELOG.md", "ARCHITECTURE.md"];

/// Returns true if a text has a crate's name, and not as a part of another name.
fn names(text: &str, name: &str) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + name.len()..].chars().next());
        !before.is_some_and(is_of_name) && !after.is_some_and(is_of_name)
    })
}

#[test]
fn a_name_inside_of_another_is_not_found() {
    let text = "`nbd-frontend` and crates/nbd-wire/src";
    assert!(names(text, "nbd-frontend") && names(text, "nbd-wire"));
    assert!(!names(text, "nbd") && !names(text, "frontend"));
}

#[test]
fn each_crate_is_named_in_the_documents_about_all_of_them() {
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(project_root().join(document)).unwrap();
        for entry in fs::read_dir(project_root().join("crates")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !names(&text, &name) {
                missing.push(format!("{document} does not name the crate {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
