// SPDX-License-Identifier: MIT OR Apache-2.0
//! The needs that a program or library has of the system that it runs on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::FileHeader;

/// A version of glibc: 2.28 is newer than 2.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

/// Libraries by the name that the loader looks for, each with the versions of symbols that it must
/// have.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Needs(BTreeMap<String, BTreeSet<String>>);

impl Needs {
    /// Finds what some files need together.
    pub(crate) fn of<'path>(files: impl IntoIterator<Item = &'path Path>) -> Result<Self> {
        let mut all = Self::default();
        for file in files {
            let needs = std::fs::read(file).map_err(Into::into).and_then(|data| Self::parse(&data));
            for (library, versions) in needs.with_context(|| file.display().to_string())?.0 {
                all.0.entry(library).or_default().extend(versions);
            }
        }
        Ok(all)
    }

    /// The dynamic section (DT_NEEDED) and the version requirements (SHT_GNU_verneed): Linux
    /// Standard Base, "Symbol Versioning".
    fn parse(data: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut needs = Self::default();
        let dynamic = sections.dynamic_table(endian, data)?;
        for entry in dynamic.iter().filter(|entry| entry.tag == DT_NEEDED) {
            needs.0.entry(text(dynamic.string(entry)?)?).or_default();
        }
        let Some((mut libraries, strings)) = sections.gnu_verneed(endian, data)? else { return Ok(needs) };
        let strings = sections.strings(endian, data, strings)?;
        while let Some((library, mut versions)) = libraries.next()? {
            let known = needs.0.entry(text(library.file(endian, strings)?)?).or_default();
            while let Some(version) = versions.next()? {
                known.insert(text(version.name(endian, strings)?)?);
            }
        }
        Ok(needs)
    }

    /// The libraries.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().map(|(library, versions)| (library.as_str(), versions))
    }

    /// The oldest glibc that will do. Fails for what is not glibc, and for what is newer than
    /// `allowed`.
    pub(crate) fn glibc(&self, allowed: Version) -> Result<Version> {
        let mut needed = Version(0, 0);
        for (library, versions) in self.libraries() {
            ensure!(is_of_glibc(library), "{library} is needed, which is no part of glibc");
            for symbol in versions {
                let version = parse_version(symbol).with_context(|| {
                    format!("{symbol} of {library} is needed, which is no published version of glibc")
                })?;
                ensure!(version <= allowed, "{symbol} of {library} is needed, which is newer than {allowed}");
                needed = needed.max(version);
            }
        }
        ensure!(needed > Version(0, 0), "no version of glibc is needed, which can't be");
        Ok(needed)
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    Ok(String::from_utf8(bytes.to_vec())?)
}

/// By glibc's own list, shlib-versions.
fn is_of_glibc(library: &str) -> bool {
    let name = library.split(".so").next().unwrap_or_default();
    ["libc", "libm", "libdl", "libpthread", "librt", "libresolv", "libutil"].contains(&name)
        || name.starts_with("ld-linux")
}

/// `GLIBC_2.2.5` is of 2.2; `GLIBC_PRIVATE` is of none.
fn parse_version(symbol: &str) -> Option<Version> {
    let mut numbers = symbol.strip_prefix("GLIBC_")?.split('.').map(str::parse);
    let version = Version(numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.all(|number| number.is_ok()).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EL8: Version = Version(2, 28);

    fn needs(library: &str, versions: &[&str]) -> Needs {
        Needs([(library.to_owned(), versions.iter().map(|version| (*version).to_owned()).collect())].into())
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(Version(2, 9) < EL8 && EL8 < Version(2, 29) && Version(2, 36) < Version(3, 0));
        assert_eq!(parse_version("GLIBC_2.2.5"), Some(Version(2, 2)));
        for odd in ["GLIBC_PRIVATE", "GLIBC_2", "GLIBC_2.x", "GLIBC_2.3.x", "GCC_3.0", ""] {
            assert_eq!(parse_version(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_newest_symbol_decides() {
        let old = needs("libc.so.6", &["GLIBC_2.2.5", "GLIBC_2.28", "GLIBC_2.9"]);
        assert_eq!(old.glibc(EL8).unwrap(), EL8);
        let new = needs("libm.so.6", &["GLIBC_2.2.5", "GLIBC_2.29"]);
        let error = new.glibc(EL8).unwrap_err().to_string();
        assert_eq!(error, "GLIBC_2.29 of libm.so.6 is needed, which is newer than 2.28");
    }

    #[test]
    fn what_other_systems_may_not_have_is_refused() {
        for (library, version, complaint) in [
            ("libgcc_s.so.1", "GCC_3.0", "libgcc_s.so.1 is needed, which is no part of glibc"),
            (
                "libc.so.6",
                "GLIBC_PRIVATE",
                "GLIBC_PRIVATE of libc.so.6 is needed, which is no published version of glibc",
            ),
        ] {
            assert_eq!(needs(library, &[version]).glibc(EL8).unwrap_err().to_string(), complaint);
        }
        assert!(Needs::default().glibc(EL8).is_err(), "nothing was read");
    }

    #[test]
    fn this_very_program_tells_what_it_needs() {
        let program = std::env::current_exe().unwrap();
        let needs = Needs::of([program.as_path()]).unwrap();
        let (_, versions) = needs.libraries().find(|(library, _)| library.starts_with("libc.so.")).unwrap();
        assert!(versions.iter().any(|version| version.starts_with("GLIBC_2.")), "{versions:?}");
    }

    #[test]
    fn what_is_no_program_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("text");
        std::fs::write(&file, "no program").unwrap();
        let error = Needs::of([file.as_path()]).unwrap_err();
        assert!(format!("{error:#}").contains("text: "), "{error:#}");
    }
}
