// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replacing a file as a whole, so that whatever happens either the old one is there or the new
//! one; and making files safe.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// The beginning of the names of files that are not in their place yet.
pub(crate) const TEMPORARY: &str = ".replacing-";

/// Replaces the file `name` in `directory`, and returns when that survives a loss of power.
pub(crate) fn replace(directory: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = directory.join(name);
    let failed = |error| Error::io("write", &path)(error);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(directory).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    sync(directory)
}

/// Makes a file safe, or which files a directory has.
pub(crate) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("sync", path))
}
