// SPDX-License-Identifier: MIT OR Apache-2.0
//! The structure, as the C compiler sees it.

use std::io::Write;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use super::*;

const HEADER: &str = "/usr/include/nbdkit-plugin.h";

macro_rules! fields {
    ($($ours:ident = $theirs:literal),* $(,)?) => {
        &[$(($theirs, offset_of!(NbdkitPlugin, $ours))),*]
    };
}

/// Each field's name in C, and where ours is.
const FIELDS: &[(&str, usize)] = fields![
    struct_size = "_struct_size",
    api_version = "_api_version",
    thread_model_constant = "_thread_model",
    name = "name",
    longname = "longname",
    version = "version",
    description = "description",
    load = "load",
    unload = "unload",
    config = "config",
    config_complete = "config_complete",
    config_help = "config_help",
    open = "open",
    close = "close",
    get_size = "get_size",
    can_write = "can_write",
    can_flush = "can_flush",
    is_rotational = "is_rotational",
    can_trim = "can_trim",
    v1 = "_pread_v1",
    errno_is_preserved = "errno_is_preserved",
    dump_plugin = "dump_plugin",
    can_zero = "can_zero",
    can_fua = "can_fua",
    pread = "pread",
    pwrite = "pwrite",
    flush = "flush",
    trim = "trim",
    zero = "zero",
    magic_config_key = "magic_config_key",
    can_multi_conn = "can_multi_conn",
    can_extents = "can_extents",
    extents = "extents",
    can_cache = "can_cache",
    cache = "cache",
    thread_model = "thread_model",
    can_fast_zero = "can_fast_zero",
    preconnect = "preconnect",
    get_ready = "get_ready",
    after_fork = "after_fork",
    list_exports = "list_exports",
    default_export = "default_export",
    export_description = "export_description",
    cleanup = "cleanup",
    block_size = "block_size",
];

/// The constants, as C names them.
const CONSTANTS: &[(&str, i64)] = &[
    ("NBDKIT_API_VERSION", API_VERSION as i64),
    ("NBDKIT_THREAD_MODEL_PARALLEL", THREAD_MODEL_PARALLEL as i64),
    ("NBDKIT_FLAG_MAY_TRIM", FLAG_MAY_TRIM as i64),
    ("NBDKIT_FLAG_FUA", FLAG_FUA as i64),
    ("NBDKIT_FLAG_REQ_ONE", FLAG_REQ_ONE as i64),
    ("NBDKIT_EXTENT_HOLE", EXTENT_HOLE as i64),
    ("NBDKIT_EXTENT_ZERO", EXTENT_ZERO as i64),
    ("NBDKIT_FLAG_FAST_ZERO", FLAG_FAST_ZERO as i64),
    ("NBDKIT_FUA_NONE", FUA_NONE as i64),
    ("NBDKIT_FUA_NATIVE", FUA_NATIVE as i64),
    ("NBDKIT_CACHE_NONE", CACHE_NONE as i64),
];

/// A program that prints `NAME NUMBER` for each.
fn c_program() -> String {
    let mut program = String::from(
        "#define NBDKIT_API_VERSION 2\n#include <stddef.h>\n#include <stdio.h>\n#include <nbdkit-plugin.h>\nint main(void) {\n",
    );
    for (name, _) in FIELDS {
        program += &format!("printf(\"{name} %zu\\n\", offsetof(struct nbdkit_plugin, {name}));\n");
    }
    for (name, _) in CONSTANTS {
        program += &format!("printf(\"{name} %d\\n\", (int){name});\n");
    }
    program + "printf(\"size %zu\\n\", sizeof(struct nbdkit_plugin));\nreturn 0;\n}\n"
}

fn compile_and_run(program: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("layout.c"), dir.path().join("layout"));
    std::fs::write(&source, program).unwrap();
    let built = Command::new("cc").arg("-o").arg(&binary).arg(&source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(Command::new(binary).output().unwrap().stdout).unwrap()
}

#[test]
fn the_structure_is_that_of_the_c_header() {
    if !Path::new(HEADER).exists() || which::which("cc").is_err() {
        let missing = format!("{HEADER} or cc is missing: nbdkit-plugin-dev, gcc");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{missing}");
        // Not by println, which the test harness would swallow.
        let _ = writeln!(std::io::stderr(), "not tested: {missing}");
        return;
    }
    let printed = compile_and_run(&c_program());
    let mut expected = String::new();
    for (name, offset) in FIELDS {
        expected += &format!("{name} {offset}\n");
    }
    for (name, value) in CONSTANTS {
        expected += &format!("{name} {value}\n");
    }
    // A newer header's structure may be longer.
    let (printed, size) = printed.split_at(printed.rfind("size ").unwrap());
    assert_eq!(printed, expected);
    let size: usize = size.trim_start_matches("size ").trim().parse().unwrap();
    assert!(size >= size_of::<NbdkitPlugin>(), "{size}");
}
