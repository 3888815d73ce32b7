// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server's replies to a client that has negotiated chunks ('Structured reply chunk message').

use std::collections::HashMap;

use crate::Chosen;

const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;
const EXTENDED: u32 = 0x6e8a_278c;

const DONE: u16 = 1;
const OFFSET_DATA: u16 = 1;
const OFFSET_HOLE: u16 = 2;
const BLOCK_STATUS: u16 = 5;
const BLOCK_STATUS_EXT: u16 = 6;
const ERROR: u16 = 1 << 15;

/// Panics where `answers`, all that a server has said, is not what the protocol allows. A reset may
/// have cut its end.
pub fn check_chunks(chosen: Chosen, answers: &[u8]) {
    let mut rest = Bytes(answers);
    let Some(()) = skip_negotiation(&mut rest) else { return };
    // The number of chunks that each cookie got since its last request was done. Cookies may be
    // used again.
    let mut open = HashMap::new();
    while let Some(chunk) = Chunk::read(chosen, &mut rest) {
        chunk.check(chosen);
        if chunk.flags & DONE == 0 {
            let chunks: &mut u32 = open.entry(chunk.cookie).or_default();
            *chunks += 1;
            assert!(*chunks < 1 << 16, "a reply without an end");
        } else {
            open.remove(&chunk.cookie);
        }
    }
}

/// Up to the acknowledged GO.
fn skip_negotiation(rest: &mut Bytes<'_>) -> Option<()> {
    assert!(rest.take(18)?.starts_with(b"NBDMAGICIHAVEOPT"));
    loop {
        assert_eq!(rest.number::<8>()?, 0x0003_e889_0455_65a9);
        let (option, kind, len) = (rest.number::<4>()?, rest.number::<4>()?, rest.number::<4>()?);
        rest.take(len as usize)?;
        assert!(kind < 1 << 31, "option {option} was refused");
        if (option, kind) == (7, 1) {
            return Some(());
        }
    }
}

struct Chunk<'a> {
    flags: u16,
    kind: u16,
    cookie: u64,
    payload: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// `None` where the answers end.
    fn read(chosen: Chosen, rest: &mut Bytes<'a>) -> Option<Self> {
        let magic = rest.number::<4>()? as u32;
        if magic == SIMPLE && !chosen.extended {
            // Of whatever has no payload.
            let error = rest.number::<4>()?;
            return Some(Self { flags: DONE, kind: 0, cookie: rest.number::<8>()?, payload: &[] })
                .inspect(|_| assert!(error < 200, "error {error}"));
        }
        assert_eq!(magic, if chosen.extended { EXTENDED } else { STRUCTURED });
        let (flags, kind) = (rest.number::<2>()? as u16, rest.number::<2>()? as u16);
        let cookie = rest.number::<8>()?;
        let len = match chosen.extended {
            true => (rest.number::<8>()?, rest.number::<8>()?).1,
            false => rest.number::<4>()?,
        };
        assert!(len <= (64 << 20) + 8, "a chunk of {len} bytes");
        Some(Self { flags, kind, cookie, payload: rest.take(len as usize)? })
    }

    fn check(&self, chosen: Chosen) {
        let mut payload = Bytes(self.payload);
        let well_formed = match self.kind {
            0 => self.payload.is_empty() && self.flags & DONE != 0,
            OFFSET_DATA => payload
                .number::<8>()
                .is_some_and(|at| !payload.0.is_empty() && at + payload.0.len() as u64 <= chosen.size()),
            OFFSET_HOLE => matches!(
                (payload.number::<8>(), payload.number::<4>()),
                (Some(at), Some(len)) if len > 0 && at + len <= chosen.size() && payload.0.is_empty()
            ),
            BLOCK_STATUS => !chosen.extended && check_extents::<4>(&mut payload, chosen),
            BLOCK_STATUS_EXT => chosen.extended && check_extents::<8>(&mut payload, chosen),
            kind if kind & ERROR != 0 => {
                payload.number::<4>().is_some_and(|error| error > 0) && {
                    let len = payload.number::<2>();
                    len.is_some_and(|len| payload.0.len() as u64 >= len)
                }
            }
            _ => false,
        };
        assert!(well_formed, "chunk {:#x} with {:x?}", self.kind, self.payload);
    }
}

/// Numbers of `N` bytes tell lengths and states.
fn check_extents<const N: usize>(payload: &mut Bytes<'_>, chosen: Chosen) -> bool {
    // The second context is not there.
    let is_selected = matches!(payload.number::<4>(), Some(1 | 3));
    let count = if N == 8 { payload.number::<4>() } else { Some((payload.0.len() / 8) as u64) };
    let (mut extents, mut end, mut last) = (0, 0, None);
    while let (Some(length), Some(status)) = (payload.number::<N>(), payload.number::<N>()) {
        assert!(length > 0 && last != Some(status), "neighbours are the same");
        (extents, end, last) = (extents + 1, end + length, Some(status));
    }
    is_selected && payload.0.is_empty() && extents > 0 && count == Some(extents) && end <= chosen.size()
}

/// The bytes that are left.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Big-endian.
    fn number<const N: usize>(&mut self) -> Option<u64> {
        Some(self.take(N)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}
