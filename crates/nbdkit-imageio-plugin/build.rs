// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link arguments of the plugin, and the versions that `--dump-plugin` tells.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The crates whose versions matter when a user reports trouble with a connection.
const TOLD: &[&str] = &["hyper", "rustls", "ring"];

fn main() {
    // The code stays mapped after nbdkit's dlclose: Rust's own destructors of thread locals, and
    // what is to run when the process exits, may still need it.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let lock = lock_file();
    if let Some(lock) = &lock {
        println!("cargo::rerun-if-changed={}", lock.display());
    }
    let lock = lock.and_then(|lock| fs::read_to_string(lock).ok()).unwrap_or_default();
    for name in TOLD {
        let version = version_in(&lock, name).unwrap_or("unknown");
        println!("cargo::rustc-env=VERSION_OF_{}={version}", name.to_uppercase());
    }
}

/// The workspace's, or none where the crate is built by itself from a package.
fn lock_file() -> Option<PathBuf> {
    let here = env::var_os("CARGO_MANIFEST_DIR")?;
    Path::new(&here).ancestors().map(|dir| dir.join("Cargo.lock")).find(|lock| lock.is_file())
}

fn version_in<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    after.split('"').next()
}
