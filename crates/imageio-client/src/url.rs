// SPDX-License-Identifier: MIT OR Apache-2.0
//! The URL of a transfer, whose last part is the credential.

use std::fmt;

use url::{Host, ParseError, Url};

use crate::redact::Secret;
use crate::{Error, Result};

/// The greatest length of a path in bytes, percent-encoded. imageio takes 64 KiB for the whole
/// first line of a request, which has the method and a query besides.
const LONGEST_PATH: usize = 60 << 10;

/// The number of characters that are shown of a server's words. The real ones take less than 200.
const LONGEST_LINE: usize = 500;

/// The way to reach a transfer, as its URL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// The URL of a transfer, `https://HOST[:PORT]/images/TICKET`.
///
/// Whoever has the ticket can read and overwrite the disk, so `Display` and `Debug` leave it out.
#[derive(Clone, PartialEq, Eq)]
pub struct TransferUrl {
    scheme: Scheme,
    host: Host,
    port: u16,
    path: String,
}

const EXPECTED: &str = "https://HOST:54322/images/TICKET";

impl TransferUrl {
    /// Reads a URL. IPv6 literals, percent-encoded paths and a missing port are all right.
    ///
    /// # Errors
    /// [`Error::Url`] says in one line what is wrong; it doesn't repeat the URL, which holds the
    /// ticket.
    pub fn parse(text: &str) -> Result<Self> {
        // The URL standard would take the first part of the path for the host.
        if text.contains(":///") {
            return Err(Error::Url(format!("the host is missing: {EXPECTED} is expected")));
        }
        let url = Url::parse(text).map_err(|e| match e {
            ParseError::RelativeUrlWithoutBase => Error::Url(format!("{EXPECTED} is expected")),
            other => Error::Url(format!("{other}: {EXPECTED} is expected")),
        })?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => {
                return Err(Error::Url(format!("the scheme must be https or http, not {other}")));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Url(
                "it has a user name or a password, which imageio doesn't use: leave them out".into(),
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::Url(
                "it has a query or a fragment, which no transfer has: leave them out".into(),
            ));
        }
        if url.path().len() < 2 {
            return Err(Error::Url(format!("the path is missing: {EXPECTED} is expected")));
        }
        if url.path().len() > LONGEST_PATH {
            return Err(Error::Url(format!(
                "the path is longer than {LONGEST_PATH} bytes, which no server takes"
            )));
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Error::Url(format!("the host is missing: {EXPECTED} is expected")));
        };
        Ok(Self { scheme, host: host.to_owned(), port, path: url.path().to_owned() })
    }

    /// Plain or TLS.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host as a name or address.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOST:PORT`, with brackets around an IPv6 address, for the `Host` header and for messages.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The path of the transfer, percent-encoded. It holds the ticket.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns true if both are of one transfer, perhaps by way of different hosts: the ticket
    /// tells.
    #[must_use]
    pub fn is_same_transfer(&self, other: &Self) -> bool {
        self.ticket() == other.ticket()
    }

    /// The ticket: the last part of the path.
    fn ticket(&self) -> &str {
        self.path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default()
    }

    /// `text` in one line that is not too long, with the ticket taken out, and whatever else a
    /// terminal would obey.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.redact_part(text, false)
    }

    /// Does what [`redact`](Self::redact) does, for a text that may be `cut` off in the midst of
    /// the ticket.
    pub(crate) fn redact_part(&self, text: &str, cut: bool) -> String {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        // A character of which only the beginning came is shown as this one.
        let line = if cut { line.trim_end_matches(char::REPLACEMENT_CHARACTER) } else { line };
        let line = Secret::new(self.ticket()).redact(&line.replace(char::is_control, ""), cut);
        match line.char_indices().nth(LONGEST_LINE) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}

impl fmt::Display for TransferUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let dir = self.path.strip_suffix(self.ticket()).unwrap_or("/");
        write!(f, "{scheme}://{}{dir}TICKET", self.authority())
    }
}

impl fmt::Debug for TransferUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_all_shapes() {
        for (text, authority, path, shown) in [
            ("https://h:54322/images/t-1", "h:54322", "/images/t-1", "https://h:54322/images/TICKET"),
            ("https://h/images/t", "h:443", "/images/t", "https://h:443/images/TICKET"),
            ("http://h/images/t", "h:80", "/images/t", "http://h:80/images/TICKET"),
            ("https://[::1]:1/images/t", "[::1]:1", "/images/t", "https://[::1]:1/images/TICKET"),
            ("http://1.2.3.4:5/images/a%2Fb", "1.2.3.4:5", "/images/a%2Fb", "http://1.2.3.4:5/images/TICKET"),
        ] {
            let url = TransferUrl::parse(text).unwrap();
            assert_eq!(url.authority(), authority);
            assert_eq!(url.path(), path);
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_them() {
        for text in [
            "",
            "secret",
            "/images/secret",
            "ftp://h/images/secret",
            "https://h",
            "https://h/",
            "https:///images/secret",
            "https://u:p@h/images/secret",
            "https://h/images/secret?x=1",
            "https://h:99999/images/secret",
        ] {
            let error = TransferUrl::parse(text).expect_err(text).to_string();
            assert!(!error.contains("secret"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn every_url_fits_into_a_request_or_is_refused() {
        use crate::operation::Heads;
        // The characters, and how long each becomes.
        for (ticket, len) in [("t", 1), (" ", 3), ("é", 6)] {
            let near = |limit: usize| (limit / len).saturating_sub(20)..limit / len + 20;
            for n in [LONGEST_PATH, 65_534, 65_536].into_iter().flat_map(near) {
                let path = "/images/x".len() + n * len;
                match TransferUrl::parse(&format!("https://h/images/{}x", ticket.repeat(n))) {
                    Ok(url) => {
                        assert!(path <= LONGEST_PATH && url.path().len() == path, "{n} {ticket}");
                        assert!(Heads::new(&url).is_ok(), "{n} {ticket}");
                    }
                    Err(error) => {
                        assert!(path > LONGEST_PATH, "{n} {ticket}");
                        assert!(error.to_string().contains("the path is longer than 61440 bytes"), "{error}");
                    }
                }
            }
        }
        // CPython's http.server has this limit.
        assert!("OPTIONS /extents?context=dirty HTTP/1.1\r\n".len() + LONGEST_PATH < 65_536);
    }

    #[test]
    fn redaction_keeps_one_line_without_the_ticket() {
        let url = TransferUrl::parse("https://h/images/abc-123").unwrap();
        assert_eq!(url.redact("\n No such ticket: abc-123 \nmore"), "No such ticket: TICKET");
        assert_eq!(url.redact(&"é".repeat(5000)), "é".repeat(LONGEST_LINE) + "…");
        assert_eq!(url.redact_part("No abc-123: no abc-1", true), "No TICKET: no …");
        assert_eq!(url.redact("\x1b[31mNo abc\u{1}-123\r\u{7f}"), "[31mNo TICKET");
    }
}
