// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking in answers, and what they can be instead of what was hoped for.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, TRANSFER_ENCODING};
use hyper::http::response::Parts;
use hyper::{HeaderMap, StatusCode, Version};

use crate::failure::{Exchanged, Failure};

/// The most bytes that are read of an error's text: the server sends one line.
const ERROR_TEXT_LIMIT: usize = 4 << 10;

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

/// Checks the length that was announced, if one was. Whether it was.
fn is_announced(head: &Parts, len: u64) -> Exchanged<bool> {
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match announced {
        Some(announced) if announced != len.to_string() => {
            Err(Failure::Nonsense(format!("it announces {announced} bytes instead of {len}")))
        }
        other => Ok(other.is_some()),
    }
}

/// Takes in exactly `len` bytes, piece by piece.
pub(crate) async fn receive(head: &Parts, body: Incoming, len: u64) -> Exchanged<Vec<Bytes>> {
    is_announced(head, len)?;
    take_in(body, len, false).await
}

/// Takes of `len` bytes what hyper has read ahead. The rest is to come straight from the
/// connection; there is none where hyper had all, or the answer is not of the plainest kind: then
/// hyper knows better where it ends, and what becomes of the connection.
pub(crate) async fn receive_start(head: &Parts, body: Incoming, len: u64) -> Exchanged<Vec<Bytes>> {
    let stops = is_announced(head, len)? && is_plain(head);
    take_in(body, len, stops).await
}

/// HTTP/1.1, with the body as it is, on a connection that stays open. A transfer coding overrides a
/// length.
fn is_plain(head: &Parts) -> bool {
    let stays = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    head.version == Version::HTTP_11
        && !head.headers.contains_key(TRANSFER_ENCODING)
        && head.headers.get_all(CONNECTION).iter().all(stays)
}

/// Takes in `len` bytes or, if it `stops`, what is there of them. Nobody reads from the connection
/// between that and the return, so what isn't there by then stays in it.
async fn take_in(mut body: Incoming, len: u64, stops: bool) -> Exchanged<Vec<Bytes>> {
    let (mut pieces, mut left) = (Vec::new(), len);
    loop {
        let mut next = pin!(next_data(&mut body));
        let data = match poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
            Poll::Pending if stops && left > 0 => return Ok(pieces),
            Poll::Pending => next.await?,
            Poll::Ready(data) => data?,
        };
        let Some(data) = data else { break };
        left = left.checked_sub(data.len() as u64).ok_or_else(|| {
            Failure::Nonsense(format!("it has more than the {len} bytes that were asked for"))
        })?;
        pieces.push(data);
    }
    match left {
        0 => Ok(pieces),
        _ => Err(Failure::Nonsense(format!("it has {} bytes instead of {len}", len - left))),
    }
}

/// The whole body, of at most `limit` bytes.
pub(crate) async fn collected(body: Incoming, limit: usize) -> Exchanged<Vec<u8>> {
    let mut bytes = Vec::new();
    let collect = |data: &[u8]| {
        bytes.extend_from_slice(data);
        Ok(())
    };
    each_piece(body, limit, collect).await?;
    Ok(bytes)
}

/// Gives the body to `take`, piece by piece as it comes; it has at most `limit` bytes.
pub(crate) async fn each_piece(
    mut body: Incoming,
    limit: usize,
    mut take: impl FnMut(&[u8]) -> Exchanged<()>,
) -> Exchanged<()> {
    let mut left = limit;
    while let Some(data) = next_data(&mut body).await? {
        let fits = left.checked_sub(data.len());
        left = fits.ok_or_else(|| Failure::Nonsense(format!("it is longer than {limit} bytes")))?;
        take(&data)?;
    }
    Ok(())
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
            return Err(Failure::Nonsense(format!("it is longer than {ERROR_TEXT_LIMIT} bytes")));
        }
    }
    Ok(())
}

/// The server's refusal with its words, as far as they come: the connection may break off.
pub(crate) async fn refused(head: &Parts, mut body: Incoming) -> Failure {
    let closes =
        head.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    let mut text = Vec::new();
    let cut = loop {
        match next_data(&mut body).await {
            Ok(None) => break false,
            Ok(Some(data)) => text.extend_from_slice(&data),
            Err(_) => break true,
        }
        if text.len() > ERROR_TEXT_LIMIT {
            text.truncate(ERROR_TEXT_LIMIT);
            break true;
        }
    };
    Failure::Refused { status: head.status, text, cut, closes }
}

/// The header that tells which bytes of how many these are.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_RANGE)?.to_str().ok()
}
