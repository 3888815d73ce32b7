// SPDX-License-Identifier: MIT OR Apache-2.0
//! The document's destination: a file that is always whole, or standard error.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::Builder;

/// The document's destination.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// One line on standard error.
    StandardError,
    /// A file, which is replaced as a whole each time.
    File(PathBuf),
}

/// The document can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the statistics to {}", path.display())]
pub struct OutputError {
    path: PathBuf,
    source: io::Error,
}

impl Output {
    /// Returns the destination that `path` names; `-` is standard error. A path should be absolute
    /// if the process changes its directory before it writes.
    ///
    /// Tries whether the file can be made, with one that has no name. So nothing is left behind,
    /// whatever comes next. To be called again by a process that has become another user.
    ///
    /// # Errors
    /// [`OutputError`], also for what is neither a file nor a free name: to replace a device or a
    /// pipe is surely not meant.
    pub fn prepare(path: &Path) -> Result<Self, OutputError> {
        if path == Path::new("-") {
            return Ok(Self::StandardError);
        }
        // The file that a link leads to is meant, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match prepare(&path) {
            Ok(()) => Ok(Self::File(path)),
            Err(source) => Err(OutputError { path, source }),
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// [`OutputError`]. The file is as it was before then.
    pub(crate) fn write(&self, text: &str, standard_error: &mut dyn Write) -> Result<(), OutputError> {
        match self {
            Self::StandardError => standard_error
                .write_all(text.as_bytes())
                .map_err(|source| OutputError { path: "standard error".into(), source }),
            Self::File(path) => {
                replace(path, text).map_err(|source| OutputError { path: path.clone(), source })
            }
        }
    }
}

fn prepare(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_symlink() => {
            return Err(io::Error::other("it is a link to what is not there: give the file itself"));
        }
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::other("it is not a file: give a file, or - for standard error"));
        }
        Ok(_) | Err(_) => {}
    }
    let dir = directory(path);
    // The usual mistake, told without the name of a temporary file.
    dir.metadata()?;
    tempfile::tempfile_in(dir).map(drop)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let before = fs::metadata(path).ok().map(|metadata| metadata.permissions().mode() & 0o777);
    // The system takes off what the umask says, as from any new file. A temporary file would be its
    // owner's alone.
    let mode = Permissions::from_mode(before.unwrap_or(0o666));
    let mut file = Builder::new().permissions(mode.clone()).tempfile_in(directory(path))?;
    if before.is_some() {
        file.as_file().set_permissions(mode)?;
    }
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
        let path = dir.path().join("stats.json");
        let output = Output::prepare(&path).unwrap();
        assert_eq!(names().count(), 0, "nothing is there before it is written");
        let write = |text: &str| output.write(text, &mut io::empty()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        write("first, and longer\n");
        // The system makes the mode of the umask, which belongs to the whole process.
        let other = dir.path().join("other");
        fs::write(&other, "").unwrap();
        assert_eq!(mode(&path), mode(&other));
        fs::remove_file(&other).unwrap();
        // A program that has the file open sees what was there.
        let before = fs::File::open(&path).unwrap();
        for kept in [0o600, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(kept)).unwrap();
            write("second\n");
            assert_eq!(mode(&path), kept);
        }
        assert_eq!(io::read_to_string(before).unwrap(), "first, and longer\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        assert_eq!(names().collect::<Vec<_>>(), ["stats.json"]);
    }

    #[test]
    fn a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        Output::prepare(&link).unwrap().write("new", &mut io::empty()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn what_can_not_be_written_is_told_in_one_line_before() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let dangling = dir.path().join("dangling");
        symlink(dir.path().join("nothing"), &dangling).unwrap();
        for (path, reason) in [
            (dangling, "it is a link to what is not there"),
            (dir.path().join("no/file"), "No such file or directory"),
            (dir.path().to_owned(), "is a directory"),
            ("/dev/null".into(), "it is not a file"),
            (socket, "it is not a file"),
        ] {
            let error = Output::prepare(&path).unwrap_err();
            assert!(error.to_string().starts_with("cannot write the statistics to /"), "{error}");
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains(reason) && !error.to_string().contains(&cause), "{error}: {cause}");
            assert_eq!(cause.lines().count(), 1);
        }
        assert_eq!(Output::prepare(Path::new("-")).unwrap(), Output::StandardError);
    }

    #[test]
    fn what_fails_in_the_end_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/stats.json");
        fs::create_dir(dir.path().join("sub")).unwrap();
        let output = Output::prepare(&path).unwrap();
        fs::remove_dir(dir.path().join("sub")).unwrap();
        let error = output.write("text", &mut io::empty()).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the statistics to "), "{error}");
    }
}
