// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with a command line, in one line: the parser has several for it, and the usage.

use std::error::Error;
use std::num::{IntErrorKind, ParseIntError};

use crate::secrets::masked;

/// Returns the parser's complaint without its usage, and without a word that could hold a ticket.
pub(crate) fn complaint(error: &clap::Error) -> String {
    let text = masked(&error.render().to_string());
    let own = text.lines().map(str::trim).take_while(|line| !is_usage(line));
    let own = own.filter(|line| !line.is_empty() && !is_about_values(line));
    let line = own.fold(String::new(), |line, next| append(line, next.trim_start_matches("error: ")));
    match error.source().and_then(|source| source.downcast_ref::<ParseIntError>()) {
        // The standard library's words are for programmers.
        Some(reason) => line.replace(&reason.to_string(), in_plain_words(reason)),
        None => line,
    }
}

fn in_plain_words(reason: &ParseIntError) -> &'static str {
    match reason.kind() {
        IntErrorKind::PosOverflow => "the number is too large",
        IntErrorKind::NegOverflow => "the number is too small",
        _ => "a number is expected",
    }
}

fn is_usage(line: &str) -> bool {
    line.starts_with("Usage:") || line.starts_with("For more information")
}

/// No argument of this program looks like an option.
fn is_about_values(line: &str) -> bool {
    line.starts_with("tip: to pass ")
}

/// Appends a line to those before: a tip, one of the things that are missing, or possible values.
fn append(line: String, next: &str) -> String {
    let (tip, is_tip) = next.strip_prefix("tip: ").map_or((next, false), |tip| (tip, true));
    let between = match &line {
        line if line.is_empty() => "",
        _ if is_tip => ": ",
        line if line.ends_with(':') || next.starts_with('[') => " ",
        _ => ", ",
    };
    line + between + tip
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn told(arguments: &str) -> String {
        let arguments = format!("imageio-nbd {arguments}");
        complaint(&cli::command().try_get_matches_from(arguments.split(' ')).unwrap_err())
    }

    #[test]
    fn each_complaint_is_a_line() {
        for (arguments, expected) in [
            (
                "--foregruond",
                "unexpected argument '--foregruond' found: a similar argument exists: '--foreground'",
            ),
            ("--of-the-future", "unexpected argument '--of-the-future' found"),
            (
                "upload",
                "the following required arguments were not provided: --storage-domain <NAME|ID>, <FILE>",
            ),
            ("-p x", "invalid value 'x' for '--port <PORT>': a number is expected"),
            (
                "-p 70000000000000000000",
                "invalid value '70000000000000000000' for '--port <PORT>': the number is too large",
            ),
            ("-t 1025", "invalid value '1025' for '--threads <N>': 1025 is not in 0..=1024"),
            ("--tls=maybe", "invalid value 'maybe' for '--tls <MODE>' [possible values: off, on, require]"),
            ("-U a -p 1", "the argument '--unix <SOCKET>' cannot be used with '--port <PORT>'"),
        ] {
            assert_eq!(told(arguments), expected);
        }
    }
}
