// SPDX-License-Identifier: MIT OR Apache-2.0
//! `docs/parameters.md` has the tables that follow from the parameters' definitions.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::fs;

use imageio_config::{EXPORT, Parameter, parameters};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/parameters.md");

/// The first parameter of an engine: those before it are about the transfer.
const FIRST_OF_ENGINE: &str = "engine";

#[test]
fn the_document_has_every_parameter() {
    let is_before_engine = |parameter: &&Parameter| parameter.name != FIRST_OF_ENGINE;
    let mut expected = fs::read_to_string(DOCUMENT).unwrap();
    replace_table(&mut expected, "several", [&EXPORT].into_iter());
    replace_table(&mut expected, "transfer", parameters().take_while(is_before_engine));
    replace_table(&mut expected, "engine", parameters().skip_while(is_before_engine));
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(DOCUMENT, &expected).unwrap();
    }
    let found = fs::read_to_string(DOCUMENT).unwrap();
    assert!(
        found == expected,
        "docs/parameters.md is outdated: UPDATE_DOCUMENTS=1 cargo test -p imageio-config --test document"
    );
}

/// Puts the table behind the comment of this name, in the place of what is there up to the next
/// heading.
fn replace_table<'a>(text: &mut String, name: &str, rows: impl Iterator<Item = &'a Parameter>) {
    let mark = format!("<!-- {name} -->\n");
    let start = text.find(&mark).unwrap_or_else(|| panic!("there is no {mark}")) + mark.len();
    let end = text[start..].find("\n## ").map_or(text.len(), |length| start + length);
    let rows: String = rows.map(row).collect();
    text.replace_range(
        start..end,
        &format!("\n| parameter | default | what it does |\n|---|---|---|\n{rows}"),
    );
}

fn row(parameter: &Parameter) -> String {
    let Parameter { name, value, default, help, .. } = parameter;
    let cell = |text: &str| text.replace('|', "\\|");
    format!("| `{name}={}` | {} | {} |\n", cell(value), cell(default), cell(help))
}
