// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking for the disk's checksum.

use hyper::StatusCode;
use serde::Deserialize;

use super::Connection;
use crate::Result;
use crate::operation::Operation;

/// The greatest length of the answer, in bytes: three short values.
const ANSWER_LIMIT: usize = 4 << 10;

/// The longest digest that any algorithm has, in hexadecimal digits.
const LONGEST_DIGEST: usize = 128;

#[derive(Deserialize)]
struct Answer {
    algorithm: String,
    block_size: u64,
    checksum: String,
}

impl Connection {
    /// The disk's checksum, in hexadecimal digits: a hash over the hashes of its blocks of
    /// `block_size` bytes. `algorithm` is one of the server's names for hash functions, such as
    /// `blake2b`. The server reads all that isn't zero for it, and says nothing meanwhile, so that
    /// it may take as long as [`Timeouts::operation`](crate::Timeouts::operation).
    ///
    /// # Errors
    /// [`Error::Status`](crate::Error::Status) (400: an algorithm or a block size that the server
    /// doesn't take; 404 or 405: a server without
    /// checksums); [`Error::Protocol`](crate::Error::Protocol) where the answer is about something
    /// else.
    pub fn checksum(&mut self, algorithm: &'static str, block_size: u64) -> Result<String> {
        let operation = Operation::Checksum { algorithm, block_size };
        let answer = self.collect(operation, ANSWER_LIMIT, &[StatusCode::OK])?;
        let parsed: std::result::Result<Answer, _> = serde_json::from_slice(&answer.body);
        let answer = parsed.map_err(|error| self.nonsense(operation, &error.to_string()))?;
        if (&*answer.algorithm, answer.block_size) != (algorithm, block_size) {
            let reason = format!("it is by {}, blocks of {} bytes", answer.algorithm, answer.block_size);
            return Err(self.nonsense(operation, &reason));
        }
        if !is_digest(&answer.checksum) {
            return Err(self.nonsense(operation, "the checksum is not a number in hexadecimal digits"));
        }
        Ok(answer.checksum.to_ascii_lowercase())
    }
}

fn is_digest(text: &str) -> bool {
    (1..=LONGEST_DIGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
