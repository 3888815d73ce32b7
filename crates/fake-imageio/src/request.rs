// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parser of requests. It reads them as the real server does: the order of the checks is its
//! order, too.

use hyper::header::{CONTENT_LENGTH, HeaderMap, RANGE};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::answer::Refusal;
use crate::fault::Op;

type Result<T> = std::result::Result<T, Refusal>;

/// The resource of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Image,
    Extents,
    Checksum,
    Algorithms,
}

/// Which resource of which ticket a path names.
pub(crate) fn route(path: &str) -> Option<(Resource, String)> {
    let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let rest = path.strip_prefix("/images/")?;
    let suffixes = [
        ("/extents", Resource::Extents),
        ("/checksum/algorithms", Resource::Algorithms),
        ("/checksum", Resource::Checksum),
    ];
    for (suffix, resource) in suffixes {
        if let Some(ticket) = rest.strip_suffix(suffix) {
            return Some((resource, ticket.to_owned()));
        }
    }
    Some((Resource::Image, rest.to_owned()))
}

/// The value of a key in a query; the last one wins.
pub(crate) fn query<'a>(query: Option<&'a str>, key: &str) -> Option<&'a str> {
    let pairs = query?.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .rfind(|(k, _)| *k == key)
        .map(|(_, value)| value)
}

/// One of a few allowed values of a key in a query.
pub(crate) fn choice<'a>(found: Option<&'a str>, name: &str, values: &[&'a str]) -> Result<&'a str> {
    let Some(value) = found else { return Ok(values[0]) };
    let allowed = values.contains(&value);
    allowed.then_some(value).ok_or_else(|| {
        Refusal::new(400, format!("Unsupported value '{value}' for '{name}', expecting one of {values:?}"))
    })
}

/// The length of a request's body, if it says so.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// First byte and length of a `Range`; no length means up to the end.
pub(crate) fn range(headers: &HeaderMap) -> Result<Option<(u64, Option<u64>)>> {
    let Some(value) = headers.get(RANGE) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let refuse = |why| Refusal::new(416, format!("Cannot satisfy range '{text}', {why}"));
    let invalid = || refuse("invalid range or multiple ranges");
    let (first, last) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')).ok_or_else(invalid)?;
    let number = |digits: &str| {
        let digits_only = digits.bytes().all(|b| b.is_ascii_digit());
        digits_only.then(|| digits.parse::<u64>()).and_then(std::result::Result::ok).ok_or_else(invalid)
    };
    match (first, last) {
        ("", "") => Err(refuse("no first or last")),
        ("", last) => {
            number(last)?;
            Err(Refusal::new(416, "suffix-byte-range-spec not supported yet"))
        }
        (first, "") => Ok(Some((number(first)?, None))),
        (first, last) => match (number(first)?, number(last)?) {
            (first, last) if first > last => Err(refuse("first > last")),
            (first, last) => Ok(Some((first, Some(last - first + 1)))),
        },
    }
}

/// First byte of a `Content-Range`; the rest of it is checked, but not used.
pub(crate) fn content_range(headers: &HeaderMap) -> Result<u64> {
    let Some(value) = headers.get("content-range") else { return Ok(0) };
    let text = String::from_utf8_lossy(value.as_bytes());
    parse_content_range(&text).ok_or_else(|| Refusal::new(400, format!("Invalid Content-Range '{text}'")))
}

fn parse_content_range(text: &str) -> Option<u64> {
    let (range, complete) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let bound = |text: &str| if text == "*" { Some(None) } else { text.parse::<u64>().ok().map(Some) };
    let (last, complete) = (bound(last)?, bound(complete)?);
    let in_order = last.is_none_or(|last| first <= last && complete.is_none_or(|complete| last < complete));
    in_order.then_some(first)
}

/// The content of a `PATCH`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) op: Op,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) flush: bool,
}

/// Reads the body of a `PATCH`; `offered` are the ops that this server has.
pub(crate) fn patch(body: &[u8], offered: &[&str]) -> Result<Patch> {
    let message: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, format!("Invalid JSON message {error}")))?;
    if !message.is_object() {
        // The real server trips over it.
        return Err(Refusal::new(500, "Server failed to perform the request, check logs"));
    }
    let op = message.get("op").ok_or_else(|| Refusal::new(400, "Missing required value for op"))?;
    match op.as_str().filter(|op| offered.contains(op)) {
        Some("zero") => {
            let size = integer(&message, "size", None)?;
            let offset = integer(&message, "offset", Some(0))?;
            Ok(Patch { op: Op::Zero, offset, size, flush: boolean(&message, "flush")? })
        }
        Some("flush") => Ok(Patch { op: Op::Flush, offset: 0, size: 0, flush: true }),
        _ => Err(Refusal::new(400, format!("Unsupported value {op} for 'op', expecting one of {offered:?}"))),
    }
}

fn integer(message: &Value, name: &str, default: Option<u64>) -> Result<u64> {
    let Some(value) = message.get(name) else {
        return default.ok_or_else(|| Refusal::new(400, format!("Missing required value for '{name}'")));
    };
    match (value.as_u64(), value.as_i64()) {
        (Some(number), _) => Ok(number),
        (None, Some(negative)) => Err(Refusal::new(400, format!("Invalid value {negative} < 0"))),
        (None, None) => Err(Refusal::new(400, format!("Integer required {value}"))),
    }
}

fn boolean(message: &Value, name: &str) -> Result<bool> {
    let Some(value) = message.get(name) else { return Ok(false) };
    value.as_bool().ok_or_else(|| Refusal::new(400, format!("Boolean required {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(hyper::header::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn paths_name_resources() {
        let resource = |path| route(path).map(|(resource, ticket)| (resource, ticket.len()));
        assert_eq!(resource("/images/t"), Some((Resource::Image, 1)));
        assert_eq!(resource("/images/"), Some((Resource::Image, 0)));
        assert_eq!(resource("/images/%74/extents"), Some((Resource::Extents, 1)));
        assert_eq!(resource("/images/t/checksum"), Some((Resource::Checksum, 1)));
        assert_eq!(resource("/images/t/checksum/algorithms"), Some((Resource::Algorithms, 1)));
        assert_eq!(resource("/info/"), None);
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        assert_eq!(query(Some("flush=y&x&flush=n"), "flush"), Some("n"));
        assert_eq!(query(Some("x=1"), "flush"), None);
        assert_eq!(choice(None, "flush", &["y", "n"]), Ok("y"));
        assert_eq!(choice(Some("maybe"), "flush", &["y", "n"]).unwrap_err().status, 400);
    }

    #[test]
    fn ranges() {
        let parse = |value| range(&headers("range", value)).map_err(|refusal| refusal.status);
        assert_eq!(parse("bytes=0-0"), Ok(Some((0, Some(1)))));
        assert_eq!(parse("bytes=5-"), Ok(Some((5, None))));
        for bad in
            ["bytes=-5", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "bytes=+1-2", "lines=0-1", "bytes=a-b"]
        {
            assert_eq!(parse(bad), Err(416), "{bad}");
        }
        assert_eq!(range(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn content_ranges() {
        let parse = |value| content_range(&headers("content-range", value)).map_err(|refusal| refusal.status);
        for good in ["bytes 7-9/*", "bytes 7-9/10", "bytes 7-*/*"] {
            assert_eq!(parse(good), Ok(7), "{good}");
        }
        for bad in ["bytes 7-6/*", "bytes 7-9/9", "bytes */10", "7-9/*", "bytes 7-9"] {
            assert_eq!(parse(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn patches() {
        let ok = patch(br#"{"op":"zero","offset":1,"size":2,"flush":true}"#, &["zero", "flush"]).unwrap();
        assert_eq!(ok, Patch { op: Op::Zero, offset: 1, size: 2, flush: true });
        let status = |body: &str| patch(body.as_bytes(), &["flush"]).map_err(|refusal| refusal.status);
        assert!(status(r#"{"op":"flush"}"#).is_ok());
        assert_eq!(status("[]"), Err(500));
        for bad in ["", "{", "{}", r#"{"op":"zero","size":1}"#, r#"{"op":1}"#] {
            assert_eq!(status(bad), Err(400), "{bad}");
        }
        for bad in [r#""offset":0"#, r#""size":-1"#, r#""size":"1""#, r#""size":1,"flush":1"#] {
            let body = format!(r#"{{"op":"zero",{bad}}}"#);
            assert_eq!(patch(body.as_bytes(), &["zero"]).unwrap_err().status, 400, "{bad}");
        }
    }
}
