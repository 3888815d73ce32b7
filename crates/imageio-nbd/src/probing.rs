// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answers to what a program may ask before it serves anything, in nbdkit's words
//! (`nbdkit-probing(1)`).

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Result;

use crate::cli::{self, Options};
use crate::tls;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Their own names, which nbdkit doesn't list.
const LISTS: [&str; 2] = ["long-options", "short-options"];

/// The answer, if the options ask for one.
pub(crate) fn asked(options: &Options) -> Option<String> {
    match () {
        () if options.dump_config => Some(config("imageio-nbd", VERSION)),
        () if options.dump_plugin => Some(plugin()),
        () if options.long_options => Some(long_options()),
        () if options.short_options => Some(short_options()),
        () => None,
    }
}

/// `--dump-config` of a server of this name and version.
pub(crate) fn config(name: &str, version: &str) -> String {
    let mut numbers = version.split('.');
    let mut number = || numbers.next().unwrap_or("0").to_owned();
    lines(&[
        ("binary", this_program()),
        ("exit_with_parent", "yes".into()),
        ("host_cpu", std::env::consts::ARCH.into()),
        ("host_os", std::env::consts::OS.into()),
        ("name", name.into()),
        ("root_tls_certificates_dir", tls::ROOT_DIR.into()),
        ("selinux", "yes".into()),
        ("tls", "yes".into()),
        ("version", version.into()),
        ("version_major", number()),
        ("version_minor", number()),
        ("zstd", "no".into()),
    ])
}

/// `--dump-plugin`: what nbdkit would tell of the plugin that this program stands for.
fn plugin() -> String {
    let server = lines(&[
        ("path", this_program()),
        ("name", "imageio".into()),
        ("version", VERSION.into()),
        ("max_thread_model", "parallel".into()),
        ("thread_model", "parallel".into()),
        ("magic_config_key", imageio_config::MAGIC.into()),
    ]);
    imageio_config::facts(VERSION).iter().fold(server, |text, fact| text + fact + "\n")
}

/// Each with its hyphens, a line.
pub(crate) fn long_options() -> String {
    let mut command = cli::command();
    // With --help.
    command.build();
    let names = command.get_arguments().filter_map(|argument| argument.get_long_and_visible_aliases());
    let mut names: Vec<_> = names.flatten().filter(|name| !LISTS.contains(name)).collect();
    names.sort_unstable();
    names.iter().fold(String::new(), |text, name| text + "--" + name + "\n")
}

/// Each with its hyphen, a line.
pub(crate) fn short_options() -> String {
    let command = cli::command();
    let mut letters: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_short).collect();
    letters.sort_unstable();
    letters.iter().fold(String::new(), |text, letter| text + "-" + &letter.to_string() + "\n")
}

fn this_program() -> String {
    std::env::current_exe().map(|program| program.display().to_string()).unwrap_or_default()
}

fn lines(pairs: &[(&str, String)]) -> String {
    pairs.iter().fold(String::new(), |mut text, (key, value)| {
        // A string takes all.
        let _ = writeln!(text, "{key}={value}");
        text
    })
}

/// Prints an answer. The exit status.
pub(crate) fn print(answer: &str) -> Result<u8> {
    io::stdout().write_all(answer.as_bytes())?;
    Ok(0)
}
