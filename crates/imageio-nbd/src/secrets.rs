// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ticket that was typed in the wrong place of a command line isn't repeated in an error.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use imageio_config::{is_url, may_be_shown};

use crate::cli::{Options, complaint};
use crate::logging::readable;

/// Prints the parser's words, its help or what is wrong with the command line. The exit status that
/// goes with them.
pub(crate) fn print(error: &clap::Error) -> ExitCode {
    let printed = if error.use_stderr() {
        writeln!(io::stderr(), "imageio-nbd: error: {}: see --help", readable(&complaint(error)))
    } else {
        // With the colors of a terminal.
        error.print()
    };
    // If nobody reads the message, the exit status is left.
    drop(printed);
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Options whose value is shown in errors have none that may hold a ticket.
pub(crate) fn check(options: &Options) -> Result<()> {
    let path = |path: &Option<_>| path.as_deref().map(|path: &Path| path.to_string_lossy().into_owned());
    let values = [
        ("-U", path(&options.unix)),
        ("-P", path(&options.pidfile)),
        ("-i", options.ipaddr.clone()),
        ("-u", options.user.clone()),
        ("-g", options.group.clone()),
        ("--selinux-label", options.selinux_label.clone()),
        ("--tls-certificates", path(&options.tls_certificates)),
    ];
    for (option, value) in values {
        ensure!(
            !value.is_some_and(|value| is_url(&value)),
            "{option}: a URL or a ticket is given, and none is expected"
        );
    }
    Ok(())
}

/// An error of the parser with a mark in place of each word that could hold a ticket. Its own words
/// are short.
pub(crate) fn masked(text: &str) -> String {
    text.split_inclusive(char::is_whitespace).map(masked_word).collect()
}

fn masked_word(word: &str) -> String {
    let bare = word.trim().trim_matches(['\'', '"', '.', ',', ':', ';']);
    if may_be_shown(bare) { word.to_owned() } else { word.replace(bare, "…") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    const TICKET: &str = "e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a";

    fn error(arguments: &[&str]) -> clap::Error {
        let arguments = [&["imageio-nbd"], arguments].concat();
        cli::command().try_get_matches_from(arguments).unwrap_err()
    }

    #[test]
    fn the_parser_s_errors_do_not_repeat_a_ticket() {
        let url = format!("https://host:54322/images/{TICKET}");
        for arguments in [
            &["-p", &url][..],
            &["-p", TICKET],
            &[&format!("-p{url}")],
            &[&format!("--threads={url}")],
            &[&format!("--{url}")],
            &[&format!("--url={url}")],
            &["-U", "x", "-p", "1", &url],
        ] {
            let text = complaint(&error(arguments));
            assert!(!text.is_empty() && !text.contains(TICKET), "{text}");
        }
    }

    #[test]
    fn other_errors_are_as_they_are() {
        for arguments in [&["-p", "none"][..], &["--exit-with-parents"], &["-U", "x", "-p", "1"], &["--run"]]
        {
            let text = error(arguments).render().to_string();
            assert_eq!(masked(&text), text);
        }
    }
}
