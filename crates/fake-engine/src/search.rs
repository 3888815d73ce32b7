// SPDX-License-Identifier: MIT OR Apache-2.0
//! The search expressions of lists: `name=a and status=up`, or words (`api-model`, "Searching").

use crate::state::Refusal;

/// The conditions that the objects of a list have to meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Search {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    /// Without one, any will do.
    key: Option<String>,
    /// May begin and end with `*`.
    value: String,
}

impl Search {
    /// From the parameter `search` of a request.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::default();
        }
        let terms = split_at_and(text).into_iter().map(|term| {
            let (key, value) = match term.split_once('=') {
                Some((key, value)) => (Some(key.trim().to_ascii_lowercase()), value),
                None => (None, term),
            };
            Term { key, value: value.trim().trim_matches('"').to_owned() }
        });
        Self { terms: terms.collect() }
    }

    /// Returns true if an object with these properties is found.
    pub(crate) fn matches(&self, properties: &[(&str, &str)]) -> Result<bool, Refusal> {
        for term in &self.terms {
            let mut candidates =
                properties.iter().filter(|(key, _)| term.key.as_deref().is_none_or(|wanted| wanted == *key));
            let mut values = candidates.by_ref().map(|(_, value)| value).peekable();
            if values.peek().is_none() {
                let key = term.key.as_deref().unwrap_or_default();
                return Err(Refusal::bad_request(format!(
                    "The search has a property that isn't known: {key}"
                )));
            }
            let is_word = term.key.is_none();
            if !values.any(|value| term.fits(value, is_word)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Term {
    /// Names are looked for whatever their case, as the engine does unless it is told otherwise for
    /// each request.
    fn fits(&self, value: &str, is_word: bool) -> bool {
        let (value, wanted) = (value.to_lowercase(), self.value.to_lowercase());
        let inner = wanted.trim_matches('*');
        match (is_word || wanted.starts_with('*'), is_word || wanted.ends_with('*')) {
            (true, true) => value.contains(inner),
            (true, false) => value.ends_with(inner),
            (false, true) => value.starts_with(inner),
            (false, false) => value == wanted,
        }
    }
}

/// The parts between the words `and`.
fn split_at_and(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.to_ascii_lowercase().find(" and ") {
        parts.push(&rest[..at]);
        rest = &rest[at + " and ".len()..];
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_terms_have_to_fit() {
        let host = [("name", "one"), ("hw_id", "AB"), ("status", "up")];
        for (search, expected) in [
            ("", true),
            ("name=one", true),
            ("name = \"one\"", true),
            ("hw_id=AB and status=Up", true),
            ("hw_id=AB AND status=down", false),
            ("name=o", false),
            ("name=o*", true),
            ("name=*n*", true),
            ("ne", true),
            ("two", false),
        ] {
            assert_eq!(Search::parse(search).matches(&host), Ok(expected), "{search}");
        }
        assert_eq!(Search::parse("color=red").matches(&host).unwrap_err().status, 400);
    }
}
