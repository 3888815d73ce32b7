// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that users meet, and the manual page of the plugin that explains them. Tests of
//! `imageio-nbd` compare the pages with its options, its parameters and nbdkit's options.

use std::collections::BTreeSet;
use std::fs;

use crate::project_root;

fn read(file: &str) -> String {
    fs::read_to_string(project_root().join(file)).unwrap()
}

fn manual_page() -> String {
    read("crates/imageio-nbd/man/nbdkit-imageio-plugin.1")
}

/// The keys of texts such as `"key={value}"` in a function.
fn keys(source: &str, function: &str) -> BTreeSet<String> {
    let (_, body) = source.split_once(function).unwrap();
    let body = body.split("\n}\n").next().unwrap();
    let texts = body.split('"').skip(1).step_by(2).filter_map(|text| text.split_once('='));
    texts.map(|(key, _)| key.to_owned()).collect()
}

#[test]
fn each_key_of_dump_plugin_is_in_the_manual() {
    let mut all = keys(&read("crates/imageio-config/src/lib.rs"), "pub fn facts(");
    all.extend(keys(&read("crates/nbdkit-imageio-plugin/src/describe.rs"), "pub(crate) fn facts("));
    assert!(all.len() >= 7, "the keys are found: {all:?}");
    let page = manual_page();
    let (_, section) = page.split_once(".SH DUMP-PLUGIN OUTPUT\n").unwrap();
    let section = section.split("\n.SH ").next().unwrap();
    for key in all {
        assert!(section.contains(&format!(".BI {key}= ")), "nbdkit-imageio-plugin(1) lacks {key}");
    }
}

#[test]
fn each_debug_flag_is_in_the_manual_and_in_the_readme() {
    const PREFIX: &str = "static imageio_debug_";
    let source = read("crates/nbdkit-imageio-plugin/src/ffi/flags.rs");
    let after = source.split(PREFIX).skip(1);
    let flags: Vec<_> = after.map(|text| text.split(':').next().unwrap()).collect();
    assert!(flags.len() >= 3, "the flags are found: {flags:?}");
    let (page, readme) = (manual_page(), read("crates/nbdkit-imageio-plugin/README.md"));
    for flag in flags {
        assert!(page.contains(&format!("\\-D imageio.{flag}=1")), "nbdkit-imageio-plugin(1) lacks {flag}");
        assert!(readme.contains(&format!("-D imageio.{flag}=1")), "the plugin's README.md lacks {flag}");
    }
}
