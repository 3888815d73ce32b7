// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding things by name or id.

use std::fmt;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{Engine, Error, Result};

/// Kinds of things that have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A disk.
    Disk,
    /// A storage domain.
    StorageDomain,
    /// A virtual machine.
    Vm,
    /// A transfer, which has an id alone.
    Transfer,
}

impl Kind {
    fn collection(self) -> &'static str {
        match self {
            Self::Disk => "disks",
            Self::StorageDomain => "storagedomains",
            Self::Vm => "vms",
            Self::Transfer => "imagetransfers",
        }
    }
}

impl Kind {
    /// What to do where there is none of a name or an id, as a part of a message. The engine
    /// answers alike about what it doesn't have and what the user may not see.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Disk => ", or the user may not see it: look under Storage, Disks there",
            Self::StorageDomain => ", or the user may not see it: look under Storage, Domains there",
            Self::Vm => ", or the user may not see it: look under Compute, Virtual Machines there",
            Self::Transfer => "",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::StorageDomain => "storage domain",
            Self::Vm => "virtual machine",
            Self::Transfer => "transfer",
        })
    }
}

/// Something with a name.
pub(crate) trait Named: DeserializeOwned {
    const KIND: Kind;
    fn id(&self) -> &str;
    fn name(&self) -> &str;
}

impl Engine {
    /// The only one of this name, or the one with this id. An id that is also another one's name
    /// means the id.
    pub(crate) fn find<T: Named>(&self, name_or_id: &str) -> Result<T> {
        if Uuid::try_parse(name_or_id).is_ok() {
            match self.get_by_id(name_or_id) {
                Err(error) if error.is_missing() => {}
                found => return found,
            }
        }
        let found = self.search::<T>(T::KIND.collection(), &format!("name={}", quoted(name_or_id)))?;
        let found = found.into_iter().filter(|one| one.name() == name_or_id).collect();
        only(T::KIND, name_or_id, found)
    }

    /// The one with this id.
    pub(crate) fn get_by_id<T: Named>(&self, id: &str) -> Result<T> {
        let kind = T::KIND;
        let missing = || Error::Missing { kind, name: id.to_owned() };
        // It becomes a part of the request's path.
        Uuid::try_parse(id).map_err(|_| missing())?;
        self.get(&format!("/{}/{id}", kind.collection()))
            .map_err(|error| if error.is_missing() { missing() } else { error })
    }
}

fn only<T: Named>(kind: Kind, name: &str, mut found: Vec<T>) -> Result<T> {
    let name = name.to_owned();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(Error::Missing { kind, name }),
        (Some(last), false) => {
            let ids = found.iter().chain([&last]).map(|one| one.id().to_owned()).collect();
            Err(Error::Ambiguous { kind, name, ids })
        }
    }
}

/// A value in a search. Quotes keep together what has spaces in it; there is no way to have a quote
/// in a value.
pub(crate) fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.chars().all(is_plain) { value.to_owned() } else { format!("\"{}\"", value.replace('"', "*")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Disk;

    fn disks(ids: &[&str]) -> Vec<Disk> {
        let disk = |id: &&str| serde_json::from_value(serde_json::json!({"id": id, "name": "x"})).unwrap();
        ids.iter().map(disk).collect()
    }

    #[test]
    fn one_of_a_name_is_found_and_several_are_told() {
        assert_eq!(only(Kind::Disk, "x", disks(&["1"])).unwrap().id, "1");
        let missing = only(Kind::Disk, "a\nb", disks(&[])).unwrap_err().to_string();
        assert_eq!(
            missing,
            "the engine has no disk 'a\\nb', or the user may not see it: look under Storage, Disks there"
        );
        let ambiguous = only(Kind::Disk, "x", disks(&["1", "2"])).unwrap_err().to_string();
        assert_eq!(ambiguous, "the engine has 2 disks 'x': use an id: 1, 2");
    }

    #[test]
    fn a_search_s_value_is_one_word() {
        assert_eq!(quoted("my-disk_1.raw"), "my-disk_1.raw");
        assert_eq!(quoted("my disk"), "\"my disk\"");
        assert_eq!(quoted("a\" or name=\"b"), "\"a* or name=*b\"");
    }
}
