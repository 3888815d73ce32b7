// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder of `target/suites` in which a suite is unpacked, built and run. Nothing is installed.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::Server;
use crate::tools::Tool;

/// Debian's name for what is its release now.
const STABLE: &str = "stable";

/// The release that a package is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// The release of this machine, as its programs are used.
    Installed,
    /// The latest.
    Stable,
}

/// The folder.
pub(crate) struct Place {
    dir: PathBuf,
    shim: PathBuf,
}

impl Place {
    pub(crate) fn new(sh: &Shell, suite: &str) -> Result<Self> {
        let target = crate::target_dir(sh)?;
        let dir = target.join("suites").join(suite);
        sh.create_dir(&dir)?;
        Ok(Self { dir, shim: target.join("debug/shim") })
    }

    /// A file or folder in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The sources of a Debian package, as their authors have published them; only the `parts`, if
    /// there are any.
    pub(crate) fn source(
        &self,
        sh: &Shell,
        package: &str,
        release: Release,
        parts: &[&str],
    ) -> Result<PathBuf> {
        let unpacked = self.path("source");
        if sh.path_exists(&unpacked) {
            return Ok(unpacked);
        }
        let downloads = self.path("download");
        sh.create_dir(&downloads)?;
        let release = match release {
            Release::Installed => {
                cmd!(sh, "sed -n s/^VERSION_CODENAME=//p /etc/os-release").quiet().read()?
            }
            Release::Stable => STABLE.to_owned(),
        };
        let options = self.apt_options(sh)?;
        let _dir = sh.push_dir(&downloads);
        let apt_get = || cmd!(sh, "apt-get --quiet").args(&options);
        apt_get().arg("update").run()?;
        apt_get().args(["source", "--download-only"]).arg(format!("{package}/{release}")).run()?;
        let files = sh.read_dir(".")?;
        let archive = files.iter().find(|file| {
            let name = file.to_string_lossy();
            name.contains(".orig.tar.") && !name.ends_with(".asc")
        });
        let archive = archive.with_context(|| format!("{package} has no sources"))?;
        let half = self.path("unpacking");
        sh.remove_path(&half)?;
        sh.create_dir(&half)?;
        let parts = parts.iter().map(|part| format!("*/{part}"));
        cmd!(
            sh,
            "tar --extract --file {archive} --directory {half} --strip-components=1 --wildcards {parts...}"
        )
        .run()?;
        std::fs::rename(&half, &unpacked)?;
        Ok(unpacked)
    }

    /// Programs and libraries of Debian packages, unpacked.
    pub(crate) fn unpack(&self, sh: &Shell, packages: &[&str]) -> Result<PathBuf> {
        let root = self.path("root");
        if sh.path_exists(&root) {
            return Ok(root);
        }
        let (debs, half) = (self.path("debs"), self.path("unpacking"));
        sh.remove_path(&half)?;
        sh.create_dir(&half)?;
        sh.create_dir(&debs)?;
        let _dir = sh.push_dir(&debs);
        cmd!(sh, "apt-get --quiet download {packages...}").run()?;
        for deb in sh.read_dir(".")? {
            cmd!(sh, "dpkg-deb --extract {deb} {half}").run()?;
        }
        std::fs::rename(&half, &root)?;
        Ok(root)
    }

    /// Returns the options with which apt finds sources, beside the packages that it knows; this
    /// machine's configuration stays as it is.
    fn apt_options(&self, sh: &Shell) -> Result<Vec<String>> {
        let format = "$(REPO_URI) $(RELEASE)";
        let known =
            cmd!(sh, "apt-get indextargets --format {format} 'Created-By: Packages'").quiet().read()?;
        let mut lines: Vec<String> = known.lines().flat_map(source_lines).collect();
        lines.sort_unstable();
        lines.dedup();
        let apt = self.path("apt");
        sh.create_dir(apt.join("lists/partial"))?;
        sh.create_dir(apt.join("cache/archives/partial"))?;
        sh.write_file(apt.join("sources.list"), lines.join("\n") + "\n")?;
        let apt = apt.display();
        Ok([
            format!("Dir::Etc::SourceList={apt}/sources.list"),
            "Dir::Etc::SourceParts=-".into(),
            format!("Dir::State::Lists={apt}/lists"),
            format!("Dir::Cache={apt}/cache"),
        ]
        .into_iter()
        .flat_map(|option| ["-o".into(), option])
        .collect())
    }

    /// A program that is the real one, or ours in front of it, as `environment` says.
    pub(crate) fn server(&self, sh: &Shell, tool: Tool, path: Option<&Path>) -> Result<PathBuf> {
        let real = tool.find().with_context(|| format!("{} is missing: {}", tool.name, tool.install))?;
        let real = path.map_or(real, |path| path.join(tool.name));
        let wrapper = self.path("bin").join(tool.name);
        let script = format!(
            "#!/bin/sh\n\
             if [ -n \"$SHIM\" ]; then\n    \
                 SHIM_PATH=$PATH PATH='{path}' exec \"$SHIM\" {name} \"$@\"\n\
             fi\n\
             exec '{real}' \"$@\"\n",
            path = search_path(real.parent())?.to_string_lossy(),
            name = tool.name,
            real = real.display(),
        );
        sh.create_dir(self.path("bin"))?;
        sh.write_file(&wrapper, script)?;
        std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755))?;
        Ok(wrapper)
    }

    /// Variables with which tests meet that server.
    pub(crate) fn environment(&self, server: Server) -> Result<Vec<(&'static str, OsString)>> {
        let mut variables = vec![("PATH", search_path(Some(&self.path("bin")))?)];
        if server == Server::Ours {
            variables.push(("SHIM", self.shim.clone().into()));
        }
        Ok(variables)
    }
}

/// With this folder first.
fn search_path(first: Option<&Path>) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = first.map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(dirs)?)
}

/// Of an index of packages, by its address and release.
fn source_lines(index: &str) -> Vec<String> {
    let Some((uri, release)) = index.split_once(' ') else { return Vec::new() };
    // Only the archive itself has one that is always there.
    let releases = [Some(release), (!release.contains('-')).then_some(STABLE)];
    releases.into_iter().flatten().map(|release| format!("deb-src {uri} {release} main")).collect()
}

#[cfg(test)]
mod tests {
    use super::source_lines;

    #[test]
    fn sources_are_beside_packages() {
        let lines = ["deb-src http://m/debian/ bookworm main", "deb-src http://m/debian/ stable main"];
        assert_eq!(source_lines("http://m/debian/ bookworm"), lines);
        let line = "deb-src http://m/security/ bookworm-security main";
        assert_eq!(source_lines("http://m/security/ bookworm-security"), [line]);
        assert!(source_lines("").is_empty());
    }
}
