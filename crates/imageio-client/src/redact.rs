// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking a secret out of texts, also where they hold it percent-encoded, in other letters, or
//! without hyphens.

use percent_encoding::percent_decode_str;

/// This word stands in a text for the secret.
const PLACEHOLDER: &[u8] = b"TICKET";

/// This character stands for the end of a text, where that may be the beginning of the secret.
const CUT: &str = "…";

/// A secret, as a URL holds it and as it is meant.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    forms: [Vec<u8>; 2],
}

/// The part of the secret that was found at a place in a text.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The secret, in so many bytes.
    Whole(usize),
    /// The text ends within what may be the secret.
    Beginning,
    Nothing,
}

impl Secret {
    /// `encoded` may be percent-encoded.
    pub(crate) fn new(encoded: &str) -> Self {
        Self { forms: [encoded.into(), percent_decode_str(encoded).collect()] }
    }

    /// `text` without the secret. A text that is `cut` off may end with a beginning of the secret,
    /// which goes too.
    pub(crate) fn redact(&self, text: &str, cut: bool) -> String {
        let (mut rest, mut shown, mut end) = (text.as_bytes(), Vec::new(), "");
        while let Some((first, after)) = rest.split_first() {
            match self.find_in(rest) {
                Found::Whole(len) => {
                    shown.extend_from_slice(PLACEHOLDER);
                    rest = &rest[len..];
                }
                Found::Beginning if cut => {
                    end = CUT;
                    break;
                }
                Found::Beginning | Found::Nothing => {
                    shown.push(*first);
                    rest = after;
                }
            }
        }
        String::from_utf8_lossy(&shown).into_owned() + end
    }

    fn find_in(&self, text: &[u8]) -> Found {
        let found = self.forms.iter().map(|form| find(form, text));
        found.reduce(Found::or).unwrap_or(Found::Nothing)
    }
}

impl Found {
    /// Rather too much of the text than too little.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Self::Whole(one.max(other)),
            (Self::Whole(len), _) | (_, Self::Whole(len)) => Self::Whole(len),
            (Self::Beginning, _) | (_, Self::Beginning) => Self::Beginning,
            _ => Self::Nothing,
        }
    }
}

/// Finds `secret`, or its beginning, at the beginning of `text`, where each byte may stand as it is
/// or percent-encoded, small or capital, and a hyphen may be missing: tickets are UUIDs, which are
/// the same then.
fn find(secret: &[u8], text: &[u8]) -> Found {
    if secret.is_empty() {
        return Found::Nothing;
    }
    let mut found = Found::Nothing;
    // The lengths of either that match so far; there is more than one way only where the secret has
    // a percent sign or a hyphen.
    let mut ways = vec![(0, 0)];
    while let Some((of_secret, of_text)) = ways.pop() {
        let Some(&wanted) = secret.get(of_secret) else {
            found = found.or(if of_text > 0 { Found::Whole(of_text) } else { Found::Nothing });
            continue;
        };
        let rest = &text[of_text..];
        if rest.is_empty() || (rest.len() < 3 && rest[0] == b'%') {
            found = found.or(if of_text > 0 || !rest.is_empty() { Found::Beginning } else { Found::Nothing });
        }
        if wanted == b'-' {
            ways.push((of_secret + 1, of_text));
        }
        if rest.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&wanted)) {
            ways.push((of_secret + 1, of_text + 1));
        }
        if encoded(rest).is_some_and(|byte| byte.eq_ignore_ascii_case(&wanted)) {
            ways.push((of_secret + 1, of_text + 3));
        }
    }
    found
}

/// The byte that a text begins with, percent-encoded.
fn encoded(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_the_secret_goes() {
        let secret = Secret::new("a%20b%2fc");
        for text in ["a b/c", "a%20b%2fc", "a%20b%2Fc", "%61%20%62%2f%63", "a b%2Fc"] {
            assert_eq!(secret.redact(&format!("x{text}{text}y"), false), "xTICKETTICKETy");
        }
        let percent = Secret::new("5%25");
        assert_eq!(percent.redact("5%, 5%25, 5%2525, 5", false), "TICKET, TICKET, TICKET, 5");
    }

    #[test]
    fn what_is_not_the_secret_stays() {
        let secret = Secret::new("abc");
        for text in ["", "ab", "abd", "aab%6", "é%zz%"] {
            assert_eq!(secret.redact(text, false), text);
        }
        assert_eq!(Secret::new("").redact("all", true), "all");
    }

    #[test]
    fn a_text_that_is_cut_off_does_not_show_a_beginning_of_the_secret() {
        let secret = Secret::new("abc%20d");
        for end in ["a", "ab", "abc", "abc ", "abc%", "abc%2", "abc%20", "%61b", "%6"] {
            assert_eq!(secret.redact(&format!("abc d is {end}"), true), "TICKET is …", "{end}");
        }
        assert_eq!(secret.redact("abc d is b", true), "TICKET is b");
    }

    #[test]
    fn other_forms_of_a_uuid_go_too() {
        const TICKET: &str = "5a3c1f7e-9d24-4b68-8e0b-c17f62a9d043";
        let secret = Secret::new(TICKET);
        for form in [TICKET.to_uppercase(), TICKET.replace('-', ""), TICKET.replace('-', "%2D")] {
            assert_eq!(secret.redact(&format!("No ticket {form}."), true), "No ticket TICKET.");
            let cut = &form[..30];
            assert_eq!(secret.redact(&format!("No ticket {cut}"), true), "No ticket …");
        }
        assert_eq!(Secret::new("--").redact("a-b--c", false), "aTICKETbTICKETc");
    }
}
