// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `.deb`, by Debian's own tools.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

const CONTROL: &str = include_str!("../../deb/control");
const COPYRIGHT: &str = include_str!("../../deb/copyright");

/// What is compressed, as is Debian's rule for man pages, changelogs and long texts.
const COMPRESSED: [&str; 5] = [
    "usr/share/man/man1/imageio-nbd.1",
    "usr/share/man/man1/nbdkit-imageio-plugin.1",
    "usr/share/doc/imageio-nbd/changelog",
    "usr/share/doc/imageio-nbd/changelog.Debian",
    "usr/share/doc/imageio-nbd/THIRD-PARTY-LICENCES",
];

/// What `imageio-nbd virt-v2v` preloads.
const REDIRECT: &str = "usr/libexec/imageio-nbd/exec-redirect.so";

/// Which of Debian's tools isn't there.
pub(crate) fn missing_tool() -> Option<&'static str> {
    ["dpkg-deb", "dpkg-shlibdeps", "dpkg-architecture", "strip"]
        .into_iter()
        .find(|tool| which::which(tool).is_err())
}

/// Makes the package of what was built.
pub(crate) fn make(sh: &Shell, built: &Path, packages: &Path, date: &str) -> Result<PathBuf> {
    // Tells by a package's revision that Debian's changelog is apart from ours.
    let version = format!("{}-1", super::version());
    let architecture = cmd!(sh, "dpkg --print-architecture").quiet().read()?;
    // Where Debian's tools expect a package in the making.
    let source = tempfile::tempdir()?;
    let root = &source.path().join("debian/imageio-nbd");
    sh.create_dir(root.join("DEBIAN"))?;
    let programs = &lay_out(sh, built, root)?;
    cmd!(sh, "strip --strip-unneeded --remove-section=.comment {programs...}").quiet().run()?;
    write_texts(sh, root, &version, date)?;
    for file in COMPRESSED {
        let file = root.join(file);
        cmd!(sh, "gzip -9n {file}").quiet().run()?;
    }
    set_modes(root)?;
    let control = CONTROL
        .replace("@VERSION@", &version)
        .replace("@ARCHITECTURE@", &architecture)
        .replace("@SIZE@", &size(sh, root)?)
        .replace("@DEPENDS@", &dependencies(sh, source.path(), programs)?);
    sh.write_file(root.join("DEBIAN/control"), control)?;
    write_checksums(sh, root)?;
    let package = packages.join(format!("imageio-nbd_{version}_{architecture}.deb"));
    let _date = sh.push_env("SOURCE_DATE_EPOCH", date);
    cmd!(sh, "dpkg-deb --root-owner-group --build {root} {package}").quiet().ignore_stdout().run()?;
    Ok(package)
}

/// Copies what was built to where Debian has it. Returns the programs.
fn lay_out(sh: &Shell, built: &Path, root: &Path) -> Result<[PathBuf; 3]> {
    let libraries = cmd!(sh, "dpkg-architecture -qDEB_HOST_MULTIARCH").quiet().read()?;
    let plugin = format!("usr/lib/{libraries}/nbdkit/plugins/nbdkit-imageio-plugin.so");
    for (from, to) in [
        ("bin/imageio-nbd", "usr/bin/imageio-nbd"),
        ("nbdkit/nbdkit-imageio-plugin.so", &plugin),
        ("libexec/imageio-nbd/exec-redirect.so", REDIRECT),
        ("man/man1/imageio-nbd.1", "usr/share/man/man1/imageio-nbd.1"),
        ("man/man1/nbdkit-imageio-plugin.1", "usr/share/man/man1/nbdkit-imageio-plugin.1"),
        ("completions/bash/imageio-nbd.bash", "usr/share/bash-completion/completions/imageio-nbd"),
        ("completions/fish/imageio-nbd.fish", "usr/share/fish/vendor_completions.d/imageio-nbd.fish"),
        ("completions/zsh/_imageio-nbd", "usr/share/zsh/vendor-completions/_imageio-nbd"),
        ("systemd/imageio-nbd@.socket", "usr/lib/systemd/system/imageio-nbd@.socket"),
        ("systemd/imageio-nbd@.service", "usr/lib/systemd/system/imageio-nbd@.service"),
        ("doc/README.md", "usr/share/doc/imageio-nbd/README.md"),
        ("doc/virt-v2v.md", "usr/share/doc/imageio-nbd/virt-v2v.md"),
        ("doc/CHANGELOG.md", "usr/share/doc/imageio-nbd/changelog"),
        ("doc/THIRD-PARTY-LICENCES", "usr/share/doc/imageio-nbd/THIRD-PARTY-LICENCES"),
    ] {
        let to = root.join(to);
        sh.create_dir(to.parent().context("a file is in a directory")?)?;
        sh.copy_file(built.join(from), to)?;
    }
    let shims = sh.create_dir(root.join("usr/libexec/imageio-nbd"))?;
    symlink("../../bin/imageio-nbd", shims.join("nbdkit"))?;
    Ok([root.join("usr/bin/imageio-nbd"), root.join(plugin), root.join(REDIRECT)])
}

fn write_texts(sh: &Shell, root: &Path, version: &str, date: &str) -> Result<()> {
    let doc = root.join("usr/share/doc/imageio-nbd");
    let licence = sh.read_file("LICENSE-MIT")?;
    let licence: Vec<_> = licence
        .trim_end()
        .lines()
        .map(|line| if line.is_empty() { " .".into() } else { format!(" {line}") })
        .collect();
    sh.write_file(doc.join("copyright"), COPYRIGHT.replace("@MIT@", &licence.join("\n")))?;
    let maintainer = CONTROL.lines().find_map(|line| line.strip_prefix("Maintainer: "));
    let maintainer = maintainer.context("the package has a maintainer")?;
    let date = cmd!(sh, "date --utc --rfc-email --date=@{date}").quiet().read()?;
    let entry = format!(
        "imageio-nbd ({version}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- {maintainer}  {date}\n"
    );
    sh.write_file(doc.join("changelog.Debian"), entry)?;
    Ok(())
}

/// Modes that don't depend on the builder's.
fn set_modes(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    // Programs are executable, libraries are not.
    let mode = if dir.ends_with("bin") { 0o755 } else { 0o644 };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            set_modes(&entry.path())?;
        } else if kind.is_file() {
            fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// In KiB.
fn size(sh: &Shell, root: &Path) -> Result<String> {
    let size = cmd!(sh, "du --summarize --apparent-size --block-size=1K {root}").quiet().read()?;
    Ok(size.split_whitespace().next().unwrap_or("0").to_owned())
}

/// The libraries that the programs are linked with.
fn dependencies(sh: &Shell, source: &Path, programs: &[PathBuf]) -> Result<String> {
    let control = "Source: imageio-nbd\n\nPackage: imageio-nbd\nArchitecture: any\n";
    sh.write_file(source.join("debian/control"), control)?;
    let _here = sh.push_dir(source);
    let found = cmd!(sh, "dpkg-shlibdeps -O {programs...}").quiet().read()?;
    let depends = found.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    Ok(depends.context("dpkg-shlibdeps tells no dependencies")?.to_owned())
}

fn write_checksums(sh: &Shell, root: &Path) -> Result<()> {
    let _here = sh.push_dir(root);
    let files = cmd!(sh, "find usr -type f").quiet().read()?;
    let mut files: Vec<_> = files.lines().collect();
    files.sort_unstable();
    let sums = cmd!(sh, "md5sum {files...}").quiet().read()?;
    sh.write_file("DEBIAN/md5sums", sums + "\n")?;
    Ok(())
}
