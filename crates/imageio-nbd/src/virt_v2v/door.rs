// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that takes the place of nbdkit with its Python plugin for oVirt.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, bail};

/// Tells the shim of the door, and anyone may tell us.
pub(crate) const VARIABLE: &str = "IMAGEIO_NBD_DOOR";

/// Comes before virt-v2v's own arguments.
const OPTION: &str = "--door";

/// Which of the two serves the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// This program, by itself.
    Server,
    /// nbdkit, with our plugin.
    Nbdkit,
}

const NAMES: [(&str, Door); 2] = [("imageio-nbd", Door::Server), ("nbdkit", Door::Nbdkit)];

impl Door {
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, door)| *door == self).map_or("", |(name, _)| name)
    }

    fn named(name: &str) -> Result<Self> {
        let Some((_, door)) = NAMES.iter().find(|(known, _)| *known == name) else {
            bail!("{OPTION}={name}: imageio-nbd or nbdkit is expected");
        };
        Ok(*door)
    }

    /// Returns the door that the environment names. This program serves unless it says otherwise.
    pub(crate) fn of_environment() -> Result<Self> {
        match env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => Ok(Self::Server),
        }
    }

    /// Returns the door that the first argument names, and takes that argument out; else the one
    /// that the environment names.
    pub(crate) fn choose(arguments: &mut Vec<OsString>) -> Result<Self> {
        let first = arguments.first().map(|first| first.as_bytes());
        let Some(rest) = first.and_then(|first| first.strip_prefix(OPTION.as_bytes())) else {
            return Self::of_environment();
        };
        let name = match rest {
            [] if arguments.len() > 1 => arguments.remove(1),
            [b'=', name @ ..] => OsString::from(String::from_utf8_lossy(name).into_owned()),
            _ => return Self::of_environment(),
        };
        arguments.remove(0);
        Self::named(&name.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_may_name_a_door() {
        for (given, door, left) in [
            ("--door=nbdkit -o x", Some(Door::Nbdkit), "-o x"),
            ("--door nbdkit -o x", Some(Door::Nbdkit), "-o x"),
            ("--door=imageio-nbd", Some(Door::Server), ""),
            ("--door=python", None, ""),
            ("-o x --door=nbdkit", Some(Door::Server), "-o x --door=nbdkit"),
            ("--doors x", Some(Door::Server), "--doors x"),
            ("", Some(Door::Server), ""),
        ] {
            let mut arguments: Vec<OsString> = given.split_whitespace().map(OsString::from).collect();
            assert_eq!(Door::choose(&mut arguments).ok(), door, "{given}");
            if door.is_some() {
                assert_eq!(arguments.join(" ".as_ref()), *left, "{given}");
            }
        }
    }

    #[test]
    fn each_door_has_one_name() {
        for (name, door) in NAMES {
            assert_eq!((door.name(), Door::named(name).ok()), (name, Some(door)));
        }
    }
}
