// SPDX-License-Identifier: MIT OR Apache-2.0
//! The man pages of both doors and the shell completions.
//!
//! The pages' text is in `man/`; options and parameters come from the definitions that the command
//! line is parsed by.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use imageio_config::{EXPORT, Parameter, parameters};

use crate::cli;
use crate::nbdkit::{OPTIONS, Treatment};

/// Name and text of each page.
const PAGES: [(&str, &str); 2] = [
    ("imageio-nbd", include_str!("../man/imageio-nbd.1")),
    ("nbdkit-imageio-plugin", include_str!("../man/nbdkit-imageio-plugin.1")),
];

/// Lines that stand for what comes from definitions.
const OPTIONS_HERE: &str = ".\\\" OPTIONS\n";
const PARAMETERS_HERE: &str = ".\\\" PARAMETERS\n";
const NBDKIT_HERE: &str = ".\\\" NBDKIT\n";
const EXPORT_HERE: &str = ".\\\" EXPORT\n";
/// Lines that stand for the options of commands, each with the command.
const COMMANDS_HERE: [(&str, &str); 5] = [
    ("checksum", ".\\\" CHECKSUM OPTIONS\n"),
    ("upload", ".\\\" UPLOAD OPTIONS\n"),
    ("download", ".\\\" DOWNLOAD OPTIONS\n"),
    ("backup", ".\\\" BACKUP OPTIONS\n"),
    ("restore", ".\\\" RESTORE OPTIONS\n"),
];

pub(crate) fn generate(dir: &Path) -> Result<()> {
    let write = || {
        fs::create_dir_all(dir)?;
        for (name, text) in PAGES {
            fs::write(dir.join(format!("{name}.1")), page(name, text)?)?;
        }
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut cli::command(), "imageio-nbd", dir)?;
        }
        std::io::Result::Ok(())
    };
    write().with_context(|| format!("cannot write into {}", dir.display()))
}

fn page(name: &str, text: &str) -> std::io::Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let title = format!(".TH {name} 1 \"\" \"imageio\\-nbd {version}\" \"User Commands\"\n");
    let options_of_all = options(cli::command())?;
    let (mut all, mut page) = (cli::command(), text.to_owned());
    for (name, here) in COMMANDS_HERE {
        let command = all.find_subcommand_mut(name).map(std::mem::take).unwrap_or_default();
        page = page.replace(here, &options(command)?);
    }
    let page = page
        .replace(OPTIONS_HERE, &options_of_all)
        .replace(NBDKIT_HERE, &options_of_nbdkit())
        .replace(EXPORT_HERE, &list([&EXPORT]))
        .replace(PARAMETERS_HERE, &list(parameters()));
    Ok(title + &page)
}

/// The body of the section.
fn options(command: clap::Command) -> std::io::Result<String> {
    let mut section = Vec::new();
    Man::new(command).render_options_section(&mut section)?;
    let section = String::from_utf8_lossy(&section);
    Ok(section.split_once(".SH OPTIONS\n").map_or(&*section, |(_, body)| body).to_owned())
}

fn list<'a>(parameters: impl IntoIterator<Item = &'a Parameter>) -> String {
    let mut list = Roff::new();
    for parameter in parameters {
        list.control("TP", []);
        list.text([bold(format!("{}=", parameter.name)), italic(parameter.value)]);
        list.text([roman(parameter.help)]);
        list.text([roman(default(parameter))]);
    }
    list.render()
}

/// Lists the options of nbdkit with their treatment: first those that work as they do there, then
/// the others one by one.
fn options_of_nbdkit() -> String {
    let name = |letter: &Option<char>, name: &str| match letter {
        Some(letter) => format!("-{letter}, --{name}"),
        None => format!("--{name}"),
    };
    let mut list = Roff::new();
    let same = OPTIONS.iter().filter(|(.., treatment)| matches!(treatment, Treatment::Works));
    let same: Vec<_> = same.map(|(letter, long, _)| name(letter, long)).collect();
    list.control("TP", []);
    list.text([bold("The same")]);
    list.text([roman(same.join("; "))]);
    for (letter, long, treatment) in OPTIONS {
        let (what, reason) = match treatment {
            Treatment::Works => continue,
            Treatment::Differs(how) => ("Works, with a difference: ", how),
            Treatment::Ignored(reason) => ("Accepted, without effect: ", reason),
            Treatment::Refused(_, reason) => ("Refused: ", reason),
        };
        list.control("TP", []);
        list.text([bold(name(letter, long))]);
        list.text([roman(what), roman(*reason), roman(".")]);
    }
    list.render()
}

fn default(parameter: &Parameter) -> String {
    match parameter.default {
        "required" => "Required.".into(),
        default => format!("Default: {default}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(page: &str) -> Vec<&str> {
        page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect()
    }

    #[test]
    fn every_page_has_every_parameter_and_no_place_left_open() {
        for (name, text) in PAGES {
            let page = page(name, text).unwrap();
            for parameter in parameters() {
                let entry = format!("\\fB{}=\\fR", parameter.name.replace('-', "\\-"));
                assert!(page.contains(&entry), "{name} lacks {entry}");
            }
            assert!(!page.contains(".\\\" "), "{name}");
        }
    }

    #[test]
    fn every_option_is_there() {
        let page = page(PAGES[0].0, PAGES[0].1).unwrap();
        let command = cli::command();
        let of_commands =
            COMMANDS_HERE.iter().flat_map(|(name, _)| command.find_subcommand(name).unwrap().get_arguments());
        for argument in command.get_arguments().chain(of_commands).filter(|argument| !argument.is_hide_set())
        {
            let Some(option) = argument.get_long() else { continue };
            assert!(page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))), "{option}");
        }
    }

    #[test]
    fn what_becomes_of_each_option_of_nbdkit_is_told() {
        let page = page(PAGES[0].0, PAGES[0].1).unwrap();
        let section = page.split_once(".SH OPTIONS OF NBDKIT\n").unwrap().1;
        let section = section.split(".SH ").next().unwrap();
        for (_, name, _) in OPTIONS {
            assert!(section.contains(&format!("\\-\\-{}", name.replace('-', "\\-"))), "{name}");
        }
    }

    /// nbdkit(1) has its examples before its options, and ends with the environment.
    #[test]
    fn the_program_is_described_in_the_order_of_nbdkit() {
        const FIRST: [&str; 5] = ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "OPTIONS"];
        let sections = sections(PAGES[0].1);
        assert_eq!(sections[..FIRST.len()], FIRST);
        assert!(sections.ends_with(&[
            "EXIT STATUS",
            "SIGNALS",
            "STATISTICS",
            "FILES",
            "ENVIRONMENT",
            "SEE ALSO"
        ]));
    }

    #[test]
    fn the_sections_are_in_the_order_of_nbdkit() {
        const ORDER: [&str; 11] = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "EXAMPLES",
            "PARAMETERS",
            "DUMP-PLUGIN OUTPUT",
            "DEBUG FLAGS",
            "ERRORS",
            "FILES",
            "VERSION",
            "SEE ALSO",
        ];
        assert_eq!(sections(PAGES[1].1), ORDER);
    }
}
