// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which parts of a disk hold what: the answer to `GET …/extents`.

use serde::Deserialize;

/// What is asked about each part of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentsContext {
    /// Which parts read as zeroes.
    Zero,
    /// Which parts changed since the last backup; only tickets of incremental backups know.
    Dirty,
}

impl ExtentsContext {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Dirty => "dirty",
        }
    }
}

/// A part of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Extent {
    /// Where it starts.
    pub start: u64,
    /// How long it is.
    pub length: u64,
    /// It reads as zeroes.
    #[serde(default)]
    pub zero: bool,
    /// It is not allocated in this image, so that a backing image shows through.
    #[serde(default)]
    pub hole: bool,
    /// It changed since the last backup.
    #[serde(default)]
    pub dirty: bool,
}

/// Reads the answer: extents in order, without gaps, from the start of the disk.
pub(crate) fn parse(json: &[u8]) -> Result<Vec<Extent>, String> {
    let extents: Vec<Extent> = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let mut end = 0_u64;
    for extent in &extents {
        if extent.start != end {
            return Err(format!("an extent starts at {} where {end} was expected", extent.start));
        }
        end = end.checked_add(extent.length).ok_or("an extent ends beyond 2^64")?;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_must_follow_one_another() {
        let good =
            br#"[{"start":0,"length":5,"zero":true,"hole":false},{"start":5,"length":1,"zero":false}]"#;
        assert_eq!(parse(good).unwrap().len(), 2);
        for bad in [
            &br#"[{"start":1,"length":5}]"#[..],
            br#"[{"start":0,"length":5},{"start":6,"length":1}]"#,
            br#"[{"start":0,"length":18446744073709551615},{"start":18446744073709551615,"length":1}]"#,
            br#"{"start":0}"#,
        ] {
            assert!(parse(bad).is_err());
        }
    }
}
