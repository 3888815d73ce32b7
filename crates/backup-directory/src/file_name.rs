// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of files in a backup directory, which never lead out of it.

use std::path::{Component, Path};

/// The length in bytes that the name of a file may have, so that file systems take it with what is
/// put before and behind it.
const LONGEST: usize = 200;

/// Returns true if this can be the name of a file or of a directory: visible, and portable.
pub(crate) fn is_name(name: &str) -> bool {
    let is_portable = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= LONGEST && !name.starts_with('.') && name.chars().all(is_portable)
}

/// Returns true if this is the path of a file inside of the directory: visible names with slashes
/// between them.
pub(crate) fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_name)
}

/// The path of a file that another one names, as seen from the directory that both are in. `file`
/// is the path of the one that names it, and `reference` is relative to its place, such as
/// `../NAME`. `None` if that leads out of the directory.
pub(crate) fn resolve(file: &str, reference: &Path) -> Option<String> {
    let mut names: Vec<&str> = file.split('/').collect();
    names.pop();
    for component in reference.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => drop(names.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join("/"))
}

/// Returns the name by which a file in a directory of the backup directory refers to `file`.
pub(crate) fn from_below(file: &str) -> String {
    format!("../{file}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_stays_inside() {
        for good in ["a", "a/b", "20261127T232000Z/6f1c-9.qcow2", "a/b/c", "a..b"] {
            assert!(is_path(good), "{good}");
        }
        for bad in
            ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".a", "a/.b", "a\nb", "ä", "a b", "a\\b"]
        {
            assert!(!is_path(bad), "{bad}");
        }
        assert!(is_name(&"a".repeat(200)) && !is_name(&"a".repeat(201)));
    }

    #[test]
    fn references_are_resolved() {
        let resolve = |file: &str, reference: &str| resolve(file, Path::new(reference));
        assert_eq!(resolve("b/x", "../a/x").as_deref(), Some("a/x"));
        assert_eq!(resolve("b/x", "./y").as_deref(), Some("b/y"));
        assert_eq!(resolve("x", "a/x").as_deref(), Some("a/x"));
        assert_eq!(resolve("b/x", "../../x"), None);
        assert_eq!(resolve("b/x", "/etc/passwd"), None);
    }

    proptest! {
        #[test]
        fn what_is_referred_to_from_below_is_found(name in "[a-z0-9][a-z0-9.]{0,9}", file in "[a-z0-9]{1,9}(/[a-z0-9]{1,9})?") {
            let image = format!("{name}/image");
            prop_assert_eq!(resolve(&image, Path::new(&from_below(&file))), Some(file));
        }

        #[test]
        fn a_path_has_no_way_out(path in "[a./]{0,8}") {
            if is_path(&path) {
                prop_assert_eq!(resolve("x", Path::new(&path)), Some(path));
            }
        }
    }
}
