// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the values of an engine's parameters.

use std::time::Duration;

use engine_transfer::{ContentType, Direction, DiskFormat, PasswordSource};

use crate::parse::path;
use crate::secret::{is_url, is_uuid, shown};

/// A name or an id, or another text for the engine. Disks have UUIDs, as tickets have.
///
/// # Errors
/// The text says what is wrong with it, and what is expected.
pub fn name(text: &str) -> Result<String, String> {
    const LONGEST: usize = 255;
    if is_url(text) && !is_uuid(text) {
        return Err("a name is expected, not a URL".to_owned());
    }
    if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
        return Err(format!("a text of 1 to {LONGEST} bytes in one line is expected"));
    }
    Ok(text.to_owned())
}

pub(super) fn engine(text: &str) -> Result<String, String> {
    if text.is_empty() || is_uuid(text) || text.contains("images/") {
        return Err("the engine's URL is expected, https://ENGINE/ovirt-engine/api".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn user(text: &str) -> Result<String, String> {
    if !text.contains('@') || is_url(text) {
        return Err(format!("{} has no profile: a user such as admin@internal is expected", shown(text)));
    }
    name(text)
}

pub(super) fn password(text: &str) -> Result<PasswordSource, String> {
    match text.strip_prefix('+') {
        Some(file) => Ok(PasswordSource::File(path(file)?)),
        None if text == "-" => Ok(PasswordSource::Stdin),
        // It isn't repeated.
        None => {
            Err("put it into a file, and give that as +FILE, as every user of this host sees a command line"
                .to_owned())
        }
    }
}

/// More than the connections are kept idle.
pub(super) fn inactivity(text: &str) -> Result<Duration, String> {
    whole_seconds(text, 30)
}

/// Whole seconds, no less than this and no more than a day.
pub(super) fn whole_seconds(text: &str, least: u64) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (least..=86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{} is not a number of seconds from {least} to 86400", shown(text))),
    }
}

pub(super) fn direction(text: &str) -> Result<Direction, String> {
    match text {
        "upload" => Ok(Direction::Upload),
        "download" => Ok(Direction::Download),
        _ => Err(format!("{} is neither upload nor download", shown(text))),
    }
}

pub(super) fn format(text: &str) -> Result<DiskFormat, String> {
    match text {
        "raw" => Ok(DiskFormat::Raw),
        "cow" | "qcow2" => Ok(DiskFormat::Cow),
        _ => Err(format!("{} is neither cow nor raw", shown(text))),
    }
}

pub(super) fn content_type(text: &str) -> Result<ContentType, String> {
    match text {
        "data" => Ok(ContentType::Data),
        "iso" => Ok(ContentType::Iso),
        _ => Err(format!("{} is neither data nor iso", shown(text))),
    }
}

pub(super) fn tracks_changes(text: &str) -> Result<bool, String> {
    match text {
        "incremental" => Ok(true),
        "none" => Ok(false),
        _ => Err(format!("{} is neither incremental nor none", shown(text))),
    }
}
