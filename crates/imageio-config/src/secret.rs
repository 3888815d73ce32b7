// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts that a user typed are shown only if they hold no ticket: one may have got into another
//! parameter's place.

/// The number of characters up to which a name or value is shown. Tickets are longer: oVirt's are
/// UUIDs, of 36.
const LONGEST_SHOWN: usize = 24;

/// A value in quotes, or words for it where it could be a ticket or a URL with one.
#[must_use]
pub fn shown(value: &str) -> String {
    if may_be_shown(value) {
        return format!("'{value}'");
    }
    "what is given (it isn't shown, as it could be a ticket)".to_owned()
}

/// Returns true if a name or value surely holds no ticket: it is short, and no part of a URL.
#[must_use]
pub fn may_be_shown(value: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | ':');
    value.len() <= LONGEST_SHOWN && value.chars().all(is_plain)
}

/// Returns true if a text that should be a file's name is rather a URL, or the end of one, or a
/// ticket of oVirt alone.
#[must_use]
pub fn is_url(text: &str) -> bool {
    let lower = text.trim_start().to_ascii_lowercase();
    let has_scheme =
        lower.contains("://") || ["http:", "https:"].iter().any(|scheme| lower.starts_with(scheme));
    has_scheme || is_uuid(lower.rsplit_once("images/").map_or(&*lower, |(_, last)| last))
}

pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_shown_and_tickets_are_not() {
        for value in ["", "ten", "99999999999999999999", "colour", "-1.5e-3"] {
            assert_eq!(shown(value), format!("'{value}'"));
        }
        for value in [
            "https://h/t",
            "h:1/t",
            "/images/t",
            "0f2f8f4e-6f6c-4a40-9f3b-6f0f3c1d2e4a",
            "0f2f8f4e6f6c4a409f3b6f0f3c1d2e4a",
            "a\nb",
        ] {
            assert!(!shown(value).contains(value), "{value}");
        }
    }

    #[test]
    fn urls_are_no_file_names() {
        for text in [
            "https://h/images/t",
            "HTTPS://h",
            " http:/h",
            "x://h",
            "file://x",
            "h:1/images/0f2f8f4e-6f6c-4a40-9f3b-6f0f3c1d2e4a",
            "0f2f8f4e-6f6c-4a40-9f3b-6f0f3c1d2e4a",
        ] {
            assert!(is_url(text), "{text}");
        }
        for text in [
            "/run/0f2f8f4e-6f6c-4a40-9f3b-6f0f3c1d2e4a",
            "ca.pem",
            "/var/lib/images/ca.pem",
            "https",
            "C:/x",
            "",
        ] {
            assert!(!is_url(text), "{text}");
        }
    }
}
