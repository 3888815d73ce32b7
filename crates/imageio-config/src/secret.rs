// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may be shown of what a user typed: a ticket may have got into another parameter's place.

/// How many characters are shown of a name or value. Tickets are longer: oVirt's are UUIDs, of 36.
const LONGEST_SHOWN: usize = 24;

/// A value in quotes, or words for it where it could be a ticket or a URL with one.
#[must_use]
pub fn shown(value: &str) -> String {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | ':');
    if value.len() <= LONGEST_SHOWN && value.chars().all(is_plain) {
        return format!("'{value}'");
    }
    "what is given (it isn't shown, as it could be a ticket)".to_owned()
}

/// Whether a file's name is rather a URL.
#[must_use]
pub fn is_url(text: &str) -> bool {
    let text = text.trim_start().to_ascii_lowercase();
    text.contains("://") || text.starts_with("http:") || text.starts_with("https:")
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
        for text in ["https://h/images/t", "HTTPS://h", " http:/h", "x://h", "file://x"] {
            assert!(is_url(text), "{text}");
        }
        for text in ["ca.pem", "/var/lib/images/ca.pem", "https", "C:/x", ""] {
            assert!(!is_url(text), "{text}");
        }
    }
}
