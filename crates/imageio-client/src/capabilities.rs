// SPDX-License-Identifier: MIT OR Apache-2.0
//! The capabilities that a server offers for a transfer: the answer to `OPTIONS`.

use serde::Deserialize;

use crate::UnixAddress;

/// The operations that the server offers for this ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The ticket allows writing: `Allow` names PUT, or there is no such header.
    pub can_write: bool,
    /// `PATCH` zero.
    pub zero: bool,
    /// `PATCH` flush, and `PUT` with `flush=n`.
    pub flush: bool,
    /// `GET …/extents`.
    pub extents: bool,
    /// `GET …/checksum`.
    pub checksum: bool,
    /// The number of connections that may read at a time.
    pub max_readers: u32,
    /// The number of connections that may write at a time.
    pub max_writers: u32,
    /// The unix socket to which clients on the same host may connect instead.
    pub unix_socket: Option<UnixAddress>,
}

impl Capabilities {
    /// Returns true if two servers offer the same, wherever they may be reached.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let elsewhere = Self { unix_socket: other.unix_socket.clone(), ..self.clone() };
        elsewhere == *other
    }

    /// The capabilities of a server without `OPTIONS`: nothing but GET and PUT, on one connection.
    pub(crate) fn old_server() -> Self {
        Self {
            can_write: true,
            zero: false,
            flush: false,
            extents: false,
            checksum: false,
            max_readers: 1,
            max_writers: 1,
            unix_socket: None,
        }
    }

    /// Reads the answer's JSON and its `Allow` header.
    pub(crate) fn parse(json: &[u8], allow: Option<&str>) -> serde_json::Result<Self> {
        // Through a map, as serde would take an array for a struct too.
        let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json)?;
        let answer = Answer::deserialize(serde_json::Value::Object(keys))?;
        let offers = |feature: &str| answer.features.iter().any(|offered| offered == feature);
        Ok(Self {
            can_write: allow.is_none_or(|allow| allow.split(',').any(|method| method.trim() == "PUT")),
            zero: offers("zero"),
            flush: offers("flush"),
            extents: offers("extents"),
            checksum: offers("checksum"),
            max_readers: answer.max_readers.max(1),
            max_writers: answer.max_writers.max(1),
            unix_socket: answer.unix_socket.map(UnixAddress::new),
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    features: Vec<String>,
    #[serde(default = "one")]
    max_readers: u32,
    #[serde(default = "one")]
    max_writers: u32,
    #[serde(default)]
    unix_socket: Option<String>,
}

fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_answer() {
        let json = br#"{"unix_socket": "\u0000/org/ovirt/imageio", "features": ["checksum","extents","flush","zero"],
                        "max_readers": 8, "max_writers": 4, "new": {}}"#;
        let caps = Capabilities::parse(json, Some("OPTIONS,GET, PUT,PATCH")).unwrap();
        assert!(caps.can_write && caps.zero && caps.flush && caps.extents && caps.checksum);
        assert_eq!((caps.max_readers, caps.max_writers), (8, 4));
        assert_eq!(caps.unix_socket, Some(UnixAddress::new("\0/org/ovirt/imageio")));
    }

    #[test]
    fn missing_keys_mean_the_least() {
        let caps = Capabilities::parse(b"{}", None).unwrap();
        assert_eq!(caps, Capabilities::old_server());
    }

    #[test]
    fn a_ticket_without_put_is_read_only() {
        let caps = Capabilities::parse(br#"{"features": ["extents"]}"#, Some("OPTIONS,GET")).unwrap();
        assert!(!caps.can_write);
    }

    #[test]
    fn servers_agree_if_they_differ_in_nothing_but_the_socket() {
        let json =
            r#"{"unix_socket": "/a", "features": ["flush", "zero"], "max_readers": 8, "max_writers": 4}"#;
        let offer = |json: &str, allow| Capabilities::parse(json.as_bytes(), Some(allow)).unwrap();
        let one = offer(json, "GET,PUT");
        assert!(one.agrees_with(&offer(&json.replace("/a", "/b"), "PUT")));
        for (from, to) in [("flush", "extents"), ("8", "7"), ("4", "8"), ("[\"flush\", \"zero\"]", "[]")] {
            assert!(!one.agrees_with(&offer(&json.replace(from, to), "GET,PUT")), "{from} to {to}");
        }
        assert!(!one.agrees_with(&offer(json, "GET")));
    }

    #[test]
    fn nonsense_is_an_error() {
        for json in [&b""[..], b"[]", b"{\"features\": 3}", b"{\"max_readers\": -1}", b"<html>"] {
            assert!(Capabilities::parse(json, None).is_err(), "{json:?}");
        }
    }
}
