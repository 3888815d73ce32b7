// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fields of a qcow2 header that name other files (qemu's `docs/interop/qcow2.txt`, 'Header').
//!
//! A chain is only as good as what qemu finds by these names, and an image from a stranger may name
//! any file of this host.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The longest name of a backing file, in bytes.
const LONGEST_NAME: u32 = 1023;

/// The incompatible feature that the data is in another file.
const EXTERNAL_DATA: u64 = 1 << 2;

/// The fields of a header that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// In bytes.
    pub(crate) virtual_size: u64,
    /// The backing file's name as the header has it.
    pub(crate) backing_file: Option<PathBuf>,
    pub(crate) has_external_data: bool,
}

impl Header {
    /// Reads it. `None` if the file is no qcow2 image.
    pub(crate) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut start = [0; 80];
        match file.read_exact_at(&mut start, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let u32_at = |at: usize| u32::from_be_bytes(start[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_be_bytes(start[at..at + 8].try_into().expect("8 bytes"));
        let (version, name_offset, name_len) = (u32_at(4), u64_at(8), u32_at(16));
        if start[..4] != MAGIC || !(2..=3).contains(&version) || name_len > LONGEST_NAME {
            return Ok(None);
        }
        let mut name = vec![0; name_len as usize];
        let has_name = name_offset != 0;
        if has_name {
            file.read_exact_at(&mut name, name_offset)?;
        }
        Ok(Some(Self {
            virtual_size: u64_at(24),
            backing_file: has_name.then(|| OsStr::from_bytes(&name).into()),
            has_external_data: version == 3 && u64_at(72) & EXTERNAL_DATA != 0,
        }))
    }
}
