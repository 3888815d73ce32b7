// SPDX-License-Identifier: MIT OR Apache-2.0
//! House rules that no lint knows, as tests.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use xshell::{Shell, cmd};

    /// Which of our crates a crate may use, directly or not. `ARCHITECTURE.md` has the picture.
    const MAY_USE: &[(&str, &[&str])] = &[
        ("block-device", &[]),
        ("buffer-pool", &[]),
        ("conn-pool", &[]),
        ("fake-imageio", &[]),
        ("fault-proxy", &[]),
        ("imageio-client", &[]),
        ("nbd-wire", &[]),
        ("nbd-frontend", &["block-device", "buffer-pool", "nbd-wire"]),
        ("imageio-device", &["block-device", "buffer-pool", "conn-pool", "imageio-client"]),
        ("imageio-config", &["block-device", "buffer-pool", "conn-pool", "imageio-client", "imageio-device"]),
        (
            "nbdkit-imageio-plugin",
            &[
                "block-device",
                "buffer-pool",
                "conn-pool",
                "imageio-client",
                "imageio-config",
                "imageio-device",
            ],
        ),
        (
            "imageio-nbd",
            &[
                "block-device",
                "buffer-pool",
                "conn-pool",
                "imageio-client",
                "imageio-config",
                "imageio-device",
                "nbd-frontend",
                "nbd-wire",
            ],
        ),
    ];

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    fn sources() -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in ["crates", "tests", "xtask"] {
            find_sources(&root().join(dir), &mut files);
        }
        assert!(files.len() > 30, "the sources are found");
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
            assert!(lines <= 600, "{}: {lines} lines", file.display());
        }
    }

    #[test]
    fn every_crate_says_who_should_use_it() {
        for (name, _) in MAY_USE {
            let readme = fs::read_to_string(root().join("crates").join(name).join("README.md")).unwrap();
            assert!(readme.contains("Use it"), "{name}");
        }
    }

    #[test]
    fn arrows_point_the_way_they_are_drawn() {
        let sh = Shell::new().unwrap();
        sh.change_dir(root());
        let crates: Vec<_> =
            fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
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
    fn unsafe_code_is_forbidden_but_in_the_plugin() {
        for (name, _) in MAY_USE.iter().filter(|(name, _)| *name != "nbdkit-imageio-plugin") {
            let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
            assert!(manifest.contains("[lints]\nworkspace = true"), "{name}");
        }
    }
}
