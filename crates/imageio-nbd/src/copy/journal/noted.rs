// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines of the file, as JSON.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use engine_transfer::Interrupted;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::copy::image_files::ImageFile;

const VERSION: u32 = 1;

/// The line before a disk is made. As long as no other follows, nothing was written to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Planned {
    /// Of this line.
    version: u32,
    /// The id that the disk gets.
    pub(super) new_disk: String,
    #[serde(flatten)]
    pub(super) plan: Plan,
}

impl Planned {
    /// With a new id.
    pub(super) fn new(plan: Plan) -> Self {
        Self { version: VERSION, new_disk: Uuid::new_v4().to_string(), plan }
    }
}

/// The plan for a disk that is to be made: one that was made for another plan isn't used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::copy) struct Plan {
    pub(in crate::copy) image: PathBuf,
    /// The engine's root.
    pub(in crate::copy) engine: String,
    /// The parameters for the engine: names and values.
    pub(in crate::copy) parameters: Vec<String>,
}

/// The line that says what is uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::copy) struct Begun {
    /// Of this line.
    version: u32,
    pub(in crate::copy) image: PathBuf,
    /// qemu's word for the image's format.
    pub(in crate::copy) format: String,
    /// The size that a guest sees, in bytes.
    pub(in crate::copy) size: u64,
    pub(in crate::copy) files: Vec<ImageFile>,
    /// The disk had nothing but zeroes before.
    pub(in crate::copy) is_zero: bool,
    /// The destination, as the user has given it.
    pub(in crate::copy) destination: Destination,
    /// The engine's root.
    #[serde(default)]
    pub(in crate::copy) engine: Option<String>,
    transfer: String,
    disk: String,
    /// The disk was made for this upload.
    is_new: bool,
}

/// The destination of an upload, in the user's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::copy) struct Destination {
    pub(in crate::copy) disk: Option<String>,
    pub(in crate::copy) storage_domain: Option<String>,
    pub(in crate::copy) disk_name: Option<String>,
}

impl Destination {
    /// Returns an option that has another value now than when the upload was begun.
    pub(in crate::copy) fn contradiction(&self, begun: &Self) -> Option<&'static str> {
        let differs = |now: &Option<String>, before: &Option<String>| now.is_some() && now != before;
        let options = [
            ("--disk", &self.disk, &begun.disk),
            ("--storage-domain", &self.storage_domain, &begun.storage_domain),
            ("--disk-name", &self.disk_name, &begun.disk_name),
        ];
        options.into_iter().find(|(_, now, before)| differs(now, before)).map(|(option, ..)| option)
    }
}

/// A further line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Flushed {
    /// All before this offset, in bytes, is on the disk for good.
    pub(super) flushed: u64,
}

impl Begun {
    pub(in crate::copy) fn new(
        (image, format, size): (PathBuf, String, u64),
        files: Vec<ImageFile>,
        is_zero: bool,
        destination: Destination,
        engine: Option<String>,
        Interrupted { transfer, disk, is_new, .. }: Interrupted,
    ) -> Self {
        Self {
            version: VERSION,
            image,
            format,
            size,
            files,
            is_zero,
            destination,
            engine,
            transfer,
            disk,
            is_new,
        }
    }

    pub(in crate::copy) fn interrupted(&self) -> Interrupted {
        Interrupted::new(&self.transfer, &self.disk, self.is_new)
    }
}

/// The notes in the file of `--resume`.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) planned: Option<Planned>,
    pub(super) begun: Option<Begun>,
    /// All before this offset, in bytes, is on the disk for good.
    pub(super) flushed: u64,
}

/// Reads what was noted, and returns it with the number of bytes that are whole lines.
pub(super) fn parse(text: &[u8]) -> Result<(Noted, u64)> {
    let (mut noted, mut whole) = (Noted::default(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if !line.ends_with(b"\n") || !noted.take(line) {
            break;
        }
        whole += line.len();
    }
    ensure!(whole > 0 || is_nothing(text), "it isn't what an upload has noted: name another file");
    let planned = noted.planned.as_ref().map(|planned| planned.version);
    let versions = [planned, noted.begun.as_ref().map(|begun| begun.version)];
    ensure!(
        versions.into_iter().flatten().all(|version| version == VERSION),
        "another version of imageio-nbd has written it: go on with that one"
    );
    Ok((noted, u64::try_from(whole)?))
}

/// Returns true if nothing was noted yet: a power failure may leave a part of the first line, or
/// zeroes in its place. A file of somebody else isn't taken for that.
fn is_nothing(text: &[u8]) -> bool {
    /// The beginnings of a first line.
    const FIRST: [&[u8]; 2] = [b"{\"version\":1,\"new_disk\":\"", b"{\"version\":1,\"image\":\"/"];
    /// In bytes: more are rather an image that has nothing on it.
    const LONGEST: usize = 4096;
    let is_cut_off = !text.contains(&b'\n') && serde_json::from_slice::<Value>(text).is_err();
    let is_zero = text.len() <= LONGEST && text.iter().all(|byte| *byte == 0);
    is_zero || is_cut_off && FIRST.iter().any(|first| text.starts_with(first))
}

impl Noted {
    /// Takes a line. False: it can't be one that follows the others.
    fn take(&mut self, line: &[u8]) -> bool {
        let Some(begun) = &self.begun else {
            if let Ok(planned) = serde_json::from_slice(line) {
                self.planned = Some(planned);
                return true;
            }
            self.begun = serde_json::from_slice(line).ok();
            return self.begun.is_some();
        };
        match serde_json::from_slice(line) {
            Ok(Flushed { flushed }) if (self.flushed..=begun.size).contains(&flushed) => {
                self.flushed = flushed;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_that_is_cut_off_is_nothing() {
        for text in
            [&b""[..], b"{\"version\":1,\"new_disk\":\"0", b"{\"version\":1,\"image\":\"/x", &[0; 100]]
        {
            let (noted, whole) = parse(text).unwrap();
            assert!(noted.planned.is_none() && noted.begun.is_none() && whole == 0, "{text:?}");
        }
        for text in [
            &b"{"[..],
            b"{\"version\":1,\"image\":\"/x\"}",
            b"{\"version\":1,\"image\":\"/x\n",
            b"\0x",
            &[0; 5000],
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn another_destination_is_a_contradiction() {
        let disk = |disk: &str| Destination { disk: Some(disk.to_owned()), ..Destination::default() };
        assert_eq!(disk("one").contradiction(&disk("one")), None);
        assert_eq!(Destination::default().contradiction(&disk("one")), None);
        assert_eq!(disk("two").contradiction(&disk("one")), Some("--disk"));
        assert_eq!(disk("two").contradiction(&Destination::default()), Some("--disk"));
    }
}
