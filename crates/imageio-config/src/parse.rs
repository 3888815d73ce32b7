// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values from text. An error says what is expected; the parameter's name is put before it.

use std::path::PathBuf;
use std::time::Duration;

use imageio_device::{NoHole, UrlSource};
use nix::unistd::User;

use crate::secret::{is_url, is_uuid, shown};

type Result<T> = std::result::Result<T, String>;

/// The words that nbdkit takes, in any case.
pub(crate) fn boolean(text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err(format!("{} is neither true nor false", shown(text))),
    }
}

/// The treatment of zeroes that are to stay allocated.
pub(crate) fn no_hole(text: &str) -> Result<NoHole> {
    match text {
        "ignore" => Ok(NoHole::Ignore),
        "write" => Ok(NoHole::Write),
        _ => Err(format!("{} is neither ignore nor write", shown(text))),
    }
}

/// Bytes, or with K, M, G, T, P, E: powers of 1024. No fractions and no other units, which mean
/// something else to others.
///
/// # Errors
/// The text says what is wrong with it, and what is expected.
pub fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| "kmgtpe".contains(c.to_ascii_lowercase()));
    let is_size = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && text.len() - digits.len() <= 1;
    let parsed = parse_size::Config::new().with_binary().parse_size(text);
    parsed.ok().filter(|_| is_size).ok_or_else(|| {
        format!("{} is not a size: a number of bytes is expected, such as 1073741824 or 1G", shown(text))
    })
}

/// NBD's rule for preferred block sizes, within what its clients take.
pub(crate) fn block_size(text: &str) -> Result<u32> {
    let bytes = u32::try_from(size(text)?).unwrap_or(u32::MAX);
    if bytes.is_power_of_two() && (512..=32 << 20).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("{} is not a power of two from 512 to 32M", shown(text)))
}

/// The length that requests to the server may reach: 0 leaves it to the clients; less than is usual
/// for one would only cost time, and storage writes whole blocks.
pub(crate) fn max_request(text: &str) -> Result<u64> {
    const LEAST: u64 = 64 << 10;
    const BLOCK: u64 = 4096;
    match size(text)? {
        0 => Ok(0),
        bytes if bytes >= LEAST && bytes % BLOCK == 0 => Ok(bytes),
        _ => Err(format!("{} is not a multiple of 4096 from 64K on, or 0", shown(text))),
    }
}

/// A number, or auto: then it follows what is measured.
pub(crate) fn or_auto<T>(text: &str, number: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
    match text {
        "auto" => Ok(None),
        _ => number(text).map(Some).map_err(|reason| format!("{reason}, or auto")),
    }
}

pub(crate) fn count(text: &str, most: u32) -> Result<u32> {
    match text.parse() {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => Err(format!("{} is not a number from 1 to {most}", shown(text))),
    }
}

/// Seconds, more than none: nothing waits for ever.
///
/// # Errors
/// The text says what is wrong with it, and what is expected.
pub fn seconds(text: &str) -> std::result::Result<Duration, String> {
    match seconds_or_none(text) {
        Ok(Some(time)) => Ok(time),
        _ => Err(format!("{} is not a number of seconds above 0", shown(text))),
    }
}

/// Seconds, where 0 switches something off.
pub(crate) fn seconds_or_none(text: &str) -> Result<Option<Duration>> {
    /// A year: adding it to the present is safe.
    const LONGEST: f64 = 365.0 * 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=LONGEST).contains(&seconds) => {
            let time = Duration::from_secs_f64(seconds);
            Ok((!time.is_zero()).then_some(time))
        }
        _ => Err(format!("{} is not a number of seconds", shown(text))),
    }
}

/// The name of a bitmap, which becomes a part of a context's name in NBD (`doc/proto.md`, 'Metadata
/// querying').
pub(crate) fn bitmap(text: &str) -> Result<String> {
    /// qemu's own limit for names in an image.
    const LONGEST: usize = 1023;
    // oVirt calls a bitmap by its checkpoint, which is a UUID, as a ticket is.
    if is_url(text) && !is_uuid(text) {
        return Err("a bitmap's name is expected, not a URL".to_owned());
    }
    if text.is_empty() || text.len() > LONGEST || text.ends_with(':') || text.contains('\0') {
        return Err(format!("a bitmap's name is expected: 1 to {LONGEST} bytes, and no colon at the end"));
    }
    Ok(text.to_owned())
}

/// The name that clients call an export by, in as many bytes as NBD has room for (`doc/proto.md`,
/// 'Values'); may be empty.
///
/// # Errors
/// The text says what is wrong with it, and what is expected.
pub fn export_name(text: &str) -> std::result::Result<String, String> {
    const LONGEST: usize = 4096;
    // A disk of oVirt is called by a UUID, as a ticket is.
    if is_url(text) && !is_uuid(text) {
        return Err("a name is expected, not a URL".to_owned());
    }
    if text.len() > LONGEST || text.contains('\0') {
        return Err(format!("a name of at most {LONGEST} bytes is expected"));
    }
    Ok(text.to_owned())
}

/// A path, made absolute: a daemon changes its directory before it is used.
pub(crate) fn path(text: &str) -> Result<PathBuf> {
    if is_url(text) {
        return Err("a file name is expected, not a URL or a ticket".to_owned());
    }
    std::path::absolute(text).map_err(|_| "a file name is expected".to_owned())
}

/// A path, made absolute, or `-`.
pub(crate) fn output(text: &str) -> Result<PathBuf> {
    if text == "-" { Ok(text.into()) } else { path(text) }
}

/// The number of a user of this host, who is given by name or number.
pub(crate) fn user(text: &str) -> Result<u32> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match user_named(text) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err(format!("{} is not a user of this host", shown(text))),
        Err(error) => Err(format!("cannot look up {}: {error}", shown(text))),
    }
}

/// The number of the user of that name, if there is one.
pub(crate) fn user_named(name: &str) -> nix::Result<Option<u32>> {
    // No user has such a name, and a lookup can't be asked for it.
    if name.contains('\0') {
        return Ok(None);
    }
    Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
}

/// Returns true if [`url`] may take a value that stands alone: another word is rather a typing
/// error.
pub(crate) fn may_be_url(text: &str) -> bool {
    text.is_empty() || text == "-" || text.starts_with('+') || text.contains("://")
}

/// A URL, or `+` and the name of a file with the URL, or `-` for standard input. What is wrong with
/// a URL is found when it is used.
pub(crate) fn url(text: &str) -> Result<UrlSource> {
    match text.strip_prefix('+') {
        Some(file) => Ok(UrlSource::File(path(file)?)),
        None if text == "-" => Ok(UrlSource::Stdin),
        None if text.is_empty() => Err("a URL is expected, such as https://HOST:54322/images/TICKET".into()),
        None => Ok(UrlSource::Inline(text.to_owned())),
    }
}
