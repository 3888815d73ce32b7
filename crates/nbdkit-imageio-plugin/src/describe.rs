// SPDX-License-Identifier: MIT OR Apache-2.0
//! The texts in which the plugin describes itself: `--help` and `--dump-plugin`.

use imageio_config::{parameters, wrap};

/// Of the plugin.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Columns of a terminal.
const WIDTH: usize = 79;
const INDENT: &str = "    ";

/// One `key=value` a line.
pub(crate) fn facts() -> Vec<String> {
    let mut facts = imageio_config::facts(VERSION);
    facts.extend([
        format!("imageio_debug_flags={}", "requests pool stats"),
        concat!("hyper_version=", env!("VERSION_OF_HYPER")).to_owned(),
        concat!("rustls_version=", env!("VERSION_OF_RUSTLS")).to_owned(),
        concat!("ring_version=", env!("VERSION_OF_RING")).to_owned(),
    ]);
    facts
}

/// All parameters.
pub(crate) fn config_help() -> String {
    let mut help = String::new();
    for parameter in parameters() {
        help += &format!("{}={}  ({})\n", parameter.name, parameter.value, parameter.default);
        for line in wrap(parameter.help, WIDTH - INDENT.len()) {
            help += &format!("{INDENT}{line}\n");
        }
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_is_a_key_and_a_value_on_one_line() {
        for fact in facts() {
            let (key, value) = fact.split_once('=').unwrap();
            assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{fact}");
            assert!(!value.is_empty() && value != "unknown" && fact.lines().count() == 1, "{fact}");
        }
    }

    #[test]
    fn the_help_has_all_parameters_and_fits_a_terminal() {
        let help = config_help();
        for parameter in parameters() {
            assert!(help.lines().any(|line| line.starts_with(&format!("{}=", parameter.name))));
        }
        assert!(help.lines().all(|line| line.chars().count() <= WIDTH), "{help}");
    }
}
