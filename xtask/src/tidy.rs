// SPDX-License-Identifier: MIT OR Apache-2.0
//! House rules that no lint knows, as tests.

mod metadata;

#[cfg(test)]
mod documents;
#[cfg(test)]
mod messages;

#[cfg(test)]
mod comments;
#[cfg(test)]
mod crates;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod workflows;

use anyhow::Result;
use xshell::{Shell, cmd};

#[cfg(test)]
pub(crate) use tests::sources;

/// Checks the rules, which are tests of this package.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    cmd!(sh, "cargo test --quiet --locked --package xtask --bin xtask tidy::").run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use xshell::{Shell, cmd};

    use crate::project_root;

    /// Which of our crates a crate may use, directly or not. `ARCHITECTURE.md` has the picture.
    const MAY_USE: &[(&str, &[&str])] = &[
        ("backup-directory", &[]),
        ("blkhash", &[]),
        ("block-device-traits", &[]),
        ("io-buffer-pool", &[]),
        ("conn-pool", &[]),
        ("exec-redirect", &[]),
        ("fake-engine", &["fake-imageio"]),
        ("fake-imageio", &[]),
        ("fault-proxy", &[]),
        ("imageio-client", &[]),
        ("nbd-wire", &[]),
        ("nbd-frontend", &["block-device-traits", "io-buffer-pool", "nbd-wire"]),
        ("imageio-device", &["block-device-traits", "conn-pool", "imageio-client", "io-buffer-pool"]),
        (
            "imageio-stats",
            &["block-device-traits", "conn-pool", "imageio-client", "imageio-device", "io-buffer-pool"],
        ),
        ("ovirt-engine-client", &[]),
        (
            "engine-transfer",
            &[
                "block-device-traits",
                "conn-pool",
                "imageio-client",
                "imageio-device",
                "io-buffer-pool",
                "ovirt-engine-client",
            ],
        ),
        (
            "imageio-config",
            &[
                "block-device-traits",
                "conn-pool",
                "engine-transfer",
                "imageio-client",
                "imageio-device",
                "io-buffer-pool",
                "ovirt-engine-client",
            ],
        ),
        (
            "nbdkit-imageio-plugin",
            &[
                "block-device-traits",
                "conn-pool",
                "engine-transfer",
                "imageio-client",
                "imageio-config",
                "imageio-device",
                "imageio-stats",
                "io-buffer-pool",
                "ovirt-engine-client",
            ],
        ),
        (
            "imageio-nbd",
            &[
                "backup-directory",
                "blkhash",
                "block-device-traits",
                "conn-pool",
                "engine-transfer",
                "imageio-client",
                "imageio-config",
                "imageio-device",
                "imageio-stats",
                "io-buffer-pool",
                "nbd-frontend",
                "nbd-wire",
                "ovirt-engine-client",
            ],
        ),
    ];

    pub(crate) fn sources() -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in ["crates", "tests", "xtask"] {
            find_sources(&project_root().join(dir), &mut files);
        }
        assert!(files.len() > 30, "the sources are found");
        files.retain(|file| !file.starts_with(project_root().join("tests/fuzz/target")));
        files
    }

    fn find_sources(dir: &Path, files: &mut Vec<PathBuf>) {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                find_sources(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }

    #[test]
    fn every_file_names_its_licence() {
        for file in sources() {
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("// SPDX-License-Identifier: MIT OR Apache-2.0\n"),
                "{}",
                file.display()
            );
        }
    }

    #[test]
    fn no_file_is_too_long_to_read() {
        for file in sources() {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 400, "{}: {lines} lines", file.display());
        }
    }

    /// A source file's module, such as `["tracker", "in_doubt"]`; empty for `lib.rs`.
    fn module(source: &Path, file: &Path) -> Vec<String> {
        let path = file.strip_prefix(source).unwrap().with_extension("");
        let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
        names.filter(|name| name != "lib").collect()
    }

    /// The longest part of a path that is a module.
    fn resolve(modules: &[Vec<String>], mut path: Vec<String>) -> Option<usize> {
        loop {
            match modules.iter().position(|module| *module == path) {
                Some(found) => return Some(found),
                None => path.pop()?,
            };
        }
    }

    /// The paths that the `use` declarations of a file name, from the crate's root, each up to its
    /// first brace or name.
    fn used_paths(module: &[String], text: &str) -> Vec<Vec<String>> {
        let code = text.split("#[cfg(test)]").next().unwrap();
        let uses = code
            .lines()
            .map(str::trim)
            .filter_map(|line| line.split_once("use "))
            .filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        uses.map(|(_, path)| {
            let path = path.split(['{', ';', ' ']).next().unwrap_or_default();
            let mut from = module.to_vec();
            for name in path.split("::").filter(|name| !name.is_empty()) {
                match name {
                    "crate" => from.clear(),
                    "super" => drop(from.pop()),
                    "self" => {}
                    name => from.push(name.to_owned()),
                }
            }
            from
        })
        .collect()
    }

    /// Tells which file imports which, by the index of the file.
    fn imports(source: &Path) -> (Vec<PathBuf>, Vec<Vec<usize>>) {
        let mut files = Vec::new();
        find_sources(source, &mut files);
        files.retain(|file| file.file_name().is_some_and(|name| name != "tests.rs"));
        let modules: Vec<_> = files.iter().map(|file| module(source, file)).collect();
        let imports = files.iter().zip(&modules).enumerate().map(|(at, (file, module))| {
            let text = fs::read_to_string(file).unwrap();
            let used = used_paths(module, &text).into_iter();
            // Paths of this crate begin with one of its modules; all others would end at the root.
            let used = used.filter_map(|path| resolve(&modules, path)).filter(|&used| used != at);
            used.filter(|&used| !modules[used].is_empty()).collect()
        });
        let imports = imports.collect();
        (files, imports)
    }

    /// A file that imports itself by way of others, if there is one.
    fn circle(imports: &[Vec<usize>]) -> Option<usize> {
        (0..imports.len()).find(|&start| {
            let (mut seen, mut next) = (vec![false; imports.len()], imports[start].clone());
            while let Some(at) = next.pop() {
                if !std::mem::replace(&mut seen[at], true) {
                    next.extend(&imports[at]);
                }
            }
            seen[start]
        })
    }

    #[test]
    fn the_files_of_the_core_import_each_other_in_no_circle() {
        assert_eq!(circle(&[vec![1], vec![2], vec![0]]), Some(0));
        assert_eq!(circle(&[vec![1, 2], vec![2], vec![]]), None);
        for name in ["conn-pool", "imageio-device"] {
            let (files, imports) = imports(&project_root().join("crates").join(name).join("src"));
            let edges: usize = imports.iter().map(Vec::len).sum();
            assert!(edges > 15, "{name}: {edges} imports are found");
            let circle = circle(&imports).map(|at| files[at].display().to_string());
            assert_eq!(circle, None, "{name}");
        }
    }

    #[test]
    fn every_crate_says_who_should_use_it() {
        for (name, _) in MAY_USE {
            let readme =
                fs::read_to_string(project_root().join("crates").join(name).join("README.md")).unwrap();
            assert!(readme.contains("Use it"), "{name}");
        }
    }

    #[test]
    fn arrows_point_the_way_they_are_drawn() {
        let sh = Shell::new().unwrap();
        sh.change_dir(project_root());
        let crates: Vec<_> = fs::read_dir(project_root().join("crates"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(crates.len(), MAY_USE.len(), "each crate has its line in MAY_USE");
        for (name, may_use) in MAY_USE {
            let tree = cmd!(sh, "cargo tree --package {name} --edges normal,build --prefix none");
            let tree = tree.quiet().read().unwrap();
            let used =
                tree.lines().filter(|line| line.contains("(/")).filter_map(|line| line.split(' ').next());
            for used in used.filter(|used| used != name) {
                assert!(may_use.contains(&used), "{name} must not use {used}");
            }
        }
    }

    #[test]
    fn unsafe_code_is_forbidden_but_where_c_is_spoken() {
        let speaks_c = ["exec-redirect", "nbdkit-imageio-plugin"];
        for (name, _) in MAY_USE.iter().filter(|(name, _)| !speaks_c.contains(name)) {
            let manifest =
                fs::read_to_string(project_root().join("crates").join(name).join("Cargo.toml")).unwrap();
            assert!(manifest.contains("[lints]\nworkspace = true"), "{name}");
        }
    }
}
