// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking in answers, and what they can be instead of what was hoped for.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE};
use hyper::http::response::Parts;
use hyper::{HeaderMap, Request, StatusCode};

use crate::body::RequestBody;
use crate::driver::Stalled;

/// How much of an error's text is read: the server sends one line.
const ERROR_TEXT_LIMIT: usize = 4 << 10;

/// Why an exchange failed, before it is put into words.
pub(crate) enum Failure {
    Refused {
        status: StatusCode,
        text: Vec<u8>,
        /// The server announced to close: no use in sending on.
        closes: bool,
    },
    Nonsense(String),
    Http(hyper::Error),
    /// Not a byte of the request went out.
    Unsent(hyper::Error),
    Stalled(Stalled),
}

/// The result of a part of an exchange.
pub(crate) type Exchanged<T> = std::result::Result<T, Failure>;

/// hyper gives back a request of which it has sent nothing.
pub(crate) fn unsent_or_lost(mut error: TrySendError<Request<RequestBody>>) -> Failure {
    match error.take_message() {
        Some(_) => Failure::Unsent(error.into_error()),
        None => Failure::Http(error.into_error()),
    }
}

/// The next bytes of an answer.
async fn next_data(body: &mut Incoming) -> Exchanged<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        // Trailers carry nothing for us.
        if let Ok(data) = frame.map_err(Failure::Http)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Takes in exactly `len` bytes, piece by piece.
pub(crate) async fn receive(
    head: &Parts,
    mut body: Incoming,
    len: u64,
    mut take: impl FnMut(Bytes),
) -> Exchanged<()> {
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if let Some(announced) = announced.filter(|announced| *announced != len.to_string()) {
        return Err(Failure::Nonsense(format!("Content-Length: {announced}, expected {len}")));
    }
    let mut left = len;
    while let Some(data) = next_data(&mut body).await? {
        let Some(still_left) = left.checked_sub(data.len() as u64) else {
            return Err(Failure::Nonsense(format!("more than the {len} bytes asked for")));
        };
        left = still_left;
        take(data);
    }
    if left > 0 {
        return Err(Failure::Nonsense(format!("{} bytes instead of {len}", len - left)));
    }
    Ok(())
}

/// The whole body, of at most `limit` bytes.
pub(crate) async fn collected(mut body: Incoming, limit: usize) -> Exchanged<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(data) = next_data(&mut body).await? {
        if bytes.len() + data.len() > limit {
            return Err(Failure::Nonsense(format!("longer than {limit} bytes")));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Expects 200, and takes in its body, which holds nothing.
pub(crate) async fn accepted(head: &Parts, body: Incoming) -> Exchanged<()> {
    if head.status != StatusCode::OK {
        return Err(refused(head, body).await);
    }
    discard(body).await
}

/// Takes in a body that holds nothing of interest.
pub(crate) async fn discard(mut body: Incoming) -> Exchanged<()> {
    let mut length = 0;
    while let Some(data) = next_data(&mut body).await? {
        length += data.len();
        if length > ERROR_TEXT_LIMIT {
            return Err(Failure::Nonsense(format!("longer than {ERROR_TEXT_LIMIT} bytes")));
        }
    }
    Ok(())
}

/// The server's refusal with its words, as far as they come: the connection may break off.
pub(crate) async fn refused(head: &Parts, mut body: Incoming) -> Failure {
    let closes =
        head.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    let mut text = Vec::new();
    while let Ok(Some(data)) = next_data(&mut body).await {
        let room = ERROR_TEXT_LIMIT - text.len();
        text.extend_from_slice(&data[..data.len().min(room)]);
        if text.len() == ERROR_TEXT_LIMIT {
            break;
        }
    }
    Failure::Refused { status: head.status, text, closes }
}

/// The header that tells which bytes of how many these are.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_RANGE)?.to_str().ok()
}

/// hyper's own words with those of what caused them.
pub(crate) fn with_source(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
