// SPDX-License-Identifier: MIT OR Apache-2.0
//! A root directory of a test's own, with packages of this Debian system in it: their files are
//! copied, which takes a second, where installing them from the network takes a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::TestResult;
use crate::tools::UNSHARE;

/// A root directory.
#[derive(Debug)]
pub struct Root(TempDir);

/// The user that a program in a root directory believes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Root may change all of it.
    Root,
    /// Somebody without rights, by number, to whom all is read-only but some directories, which are
    /// new and empty.
    Nobody {
        /// User and group.
        id: u32,
        /// These can be written to.
        writable: &'static str,
    },
}

/// Returns true if this system lets us enter a root directory: Debian, with namespaces of users.
#[must_use]
pub fn can_be_entered() -> bool {
    let enter = |unshare: PathBuf| {
        Command::new(unshare).args(["--map-root-user", "--mount", "true"]).stderr(Stdio::null()).status()
    };
    let entered = UNSHARE.find().map(enter);
    Path::new("/var/lib/dpkg/status").exists() && matches!(entered, Some(Ok(status)) if status.success())
}

impl Root {
    /// With Debian's essential packages and these, and with all that they depend on.
    ///
    /// # Errors
    /// If a package isn't installed here, or can't be copied.
    pub fn with(packages: &[&str]) -> TestResult<Self> {
        let root = Self(tempfile::Builder::new().prefix("root-").tempdir()?);
        fs::set_permissions(root.0.path(), fs::Permissions::from_mode(0o755))?;
        let status = fs::read_to_string("/var/lib/dpkg/status")?;
        let status = Status::parse(&status);
        let packages = status.closure(packages)?;
        root.link_top_level()?;
        root.copy(&packages.iter().flat_map(|package| files(package)).collect())?;
        root.register(&status, &packages)?;
        for dir in ["dev", "proc", "tmp", "root"] {
            fs::create_dir_all(root.path(dir))?;
        }
        for file in ["etc/passwd", "etc/group"] {
            fs::copy(Path::new("/").join(file), root.path(file))?;
        }
        Ok(root)
    }

    /// Returns the path of something in it.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.path().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A program in it, which sees the network of this system, and nothing else of it.
    ///
    /// # Panics
    /// If [`can_be_entered`] wasn't asked before.
    #[must_use]
    pub fn command(&self, user: User, directory: &str, program: &str) -> Command {
        let script = match user {
            User::Root => {
                r#"mount --rbind /dev "$1/dev"; mount --rbind /proc "$1/proc"; root=$1; dir=$2; shift 4
                   exec unshare --root="$root" --wd="$dir" "$@""#
            }
            User::Nobody { .. } => {
                r#"mount --rbind "$1" "$1"; mount -o remount,bind,ro "$1"
                   mount --rbind /dev "$1/dev"; mount --rbind /proc "$1/proc"
                   for dir in $4; do mount -t tmpfs -o mode=1777 tmpfs "$1$dir"; done
                   root=$1; dir=$2; id=$3; shift 4
                   exec unshare --map-user="$id" --map-group="$id" --root="$root" --wd="$dir" "$@""#
            }
        };
        let (id, writable) = match user {
            User::Root => (0, ""),
            User::Nobody { id, writable } => (id, writable),
        };
        let mut command = Command::new("timeout");
        command.args(["--foreground", "60"]).arg(UNSHARE.path());
        command.args(["--map-root-user", "--mount", "sh", "-ec", script, "sh"]).arg(self.0.path());
        command.args([directory, &id.to_string(), writable, program]);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// `/bin` and others, which point into `/usr`.
    fn link_top_level(&self) -> TestResult {
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
                fs::create_dir_all(self.path(&target))?;
                symlink(target, self.path(name))?;
            }
        }
        Ok(())
    }

    fn copy(&self, files: &BTreeSet<String>) -> TestResult {
        let list = self.path("files");
        fs::write(&list, files.iter().map(|file| format!("{file}\n")).collect::<String>())?;
        let mut read = Command::new("tar")
            .args(["--create", "--no-recursion", "--ignore-failed-read", "--warning=none", "-C", "/", "-T"])
            .arg(&list)
            .stdout(Stdio::piped())
            .spawn()?;
        let written = Command::new("tar")
            .args(["--extract", "--keep-directory-symlink", "--no-same-owner", "-C"])
            .arg(self.0.path())
            .stdin(read.stdout.take().ok_or("tar has an output")?)
            .status()?;
        fs::remove_file(list)?;
        if read.wait()?.success() && written.success() { Ok(()) } else { Err("tar can't copy".into()) }
    }

    /// Lets its dpkg know what is there.
    fn register(&self, status: &Status<'_>, packages: &[&str]) -> TestResult {
        let dpkg = self.path("var/lib/dpkg");
        for dir in ["info", "updates", "triggers"] {
            fs::create_dir_all(dpkg.join(dir))?;
        }
        let known: String =
            packages.iter().map(|package| format!("{}\n\n", status.0[package].text)).collect();
        fs::write(dpkg.join("status"), known)?;
        for list in packages.iter().filter_map(|package| list(package)) {
            fs::copy(&list, dpkg.join("info").join(list.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }
}

/// The list of a package's files.
fn list(package: &str) -> Option<PathBuf> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let names = [format!("{package}.list"), format!("{package}:{architecture}.list")];
    let lists = names.into_iter().map(|name| Path::new("/var/lib/dpkg/info").join(name));
    lists.into_iter().find(|list| list.exists())
}

/// A package's files, without what only people read.
fn files(package: &str) -> Vec<String> {
    let list = list(package).and_then(|list| fs::read_to_string(list).ok()).unwrap_or_default();
    let is_link = |path: &str| !path[1..].contains('/') && Path::new(path).is_symlink();
    let is_text = |path: &str| path.starts_with("/usr/share/doc/") || path.starts_with("/usr/share/locale/");
    let files =
        list.lines().filter(|path| path.len() > 1 && *path != "/." && !is_link(path) && !is_text(path));
    files.map(|path| path[1..].to_owned()).collect()
}

/// dpkg's list of what is installed: its manual, deb-control(5).
struct Status<'a>(BTreeMap<&'a str, Installed<'a>>);

#[derive(Default)]
struct Installed<'a> {
    text: &'a str,
    is_essential: bool,
    /// For each, any of these will do.
    depends: Vec<Vec<&'a str>>,
    provides: Vec<&'a str>,
}

impl<'a> Status<'a> {
    fn parse(text: &'a str) -> Self {
        let mut packages = BTreeMap::new();
        for text in text.split("\n\n").filter(|text| text.contains("\nStatus: install ok installed\n")) {
            let mut package = Installed { text: text.trim_end(), ..Installed::default() };
            let mut name = "";
            for (field, value) in text.lines().filter_map(|line| line.split_once(": ")) {
                match field {
                    "Package" => name = value,
                    "Essential" => package.is_essential = value == "yes",
                    "Depends" | "Pre-Depends" => {
                        package
                            .depends
                            .extend(value.split(", ").map(|any| any.split(" | ").map(bare).collect()));
                    }
                    "Provides" => package.provides = value.split(", ").map(bare).collect(),
                    _ => {}
                }
            }
            packages.insert(name, package);
        }
        Self(packages)
    }

    /// The essential packages and these, and all that they depend on.
    fn closure(&self, packages: &[&'a str]) -> TestResult<Vec<&'a str>> {
        let essential = self.0.iter().filter(|(_, package)| package.is_essential).map(|(name, _)| *name);
        let mut next: Vec<_> = essential.chain(packages.iter().copied()).collect();
        let mut found = BTreeSet::new();
        while let Some(name) = next.pop() {
            let package = self.0.get(name).ok_or_else(|| format!("{name} isn't installed here"))?;
            if found.insert(name) {
                next.extend(
                    package.depends.iter().filter_map(|any| any.iter().find_map(|name| self.provider(name))),
                );
            }
        }
        Ok(found.into_iter().collect())
    }

    fn provider(&self, name: &'a str) -> Option<&'a str> {
        let provides = |package: &Installed<'_>| package.provides.contains(&name);
        let by_another = || self.0.iter().find(|(_, package)| provides(package)).map(|(name, _)| *name);
        if self.0.contains_key(name) { Some(name) } else { by_another() }
    }
}

/// A relation's package, without its architecture and version.
fn bare(relation: &str) -> &str {
    relation.split([' ', ':', '(']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_depends_on_comes_along() {
        let installed = |fields: &str| format!("Status: install ok installed\n{fields}\n");
        let text = [
            format!("Package: base\n{}", installed("Essential: yes\nPre-Depends: libc6 (>= 2.28)")),
            format!("Package: libc6\n{}", installed("Architecture: amd64")),
            format!("Package: tool\n{}", installed("Depends: missing | python3:any, mail-agent")),
            format!("Package: python3\n{}", installed("Depends: tool")),
            format!("Package: postfix\n{}", installed("Provides: mail-agent (= 1), smtp")),
            format!("Package: unused\n{}", installed("Section: misc")),
            "Package: removed\nStatus: deinstall ok config-files\nEssential: yes\n".into(),
        ]
        .join("\n");
        let status = Status::parse(&text);
        assert_eq!(status.closure(&["tool"]).unwrap(), ["base", "libc6", "postfix", "python3", "tool"]);
        assert!(status.closure(&["removed"]).unwrap_err().to_string().contains("removed isn't installed"));
    }
}
