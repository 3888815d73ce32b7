// SPDX-License-Identifier: MIT OR Apache-2.0
//! One direction of one connection: what is on its way, and when it arrives.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::link::Link;

/// The limit of pieces on their way, which is 128 MiB: 2.5 GiB/s where they take 50 ms.
const MOST_PIECES: usize = 1024;

/// For how long pieces may wait for those before them, as they do in a switch: a link with a rate
/// is never idle then, although threads are late.
const QUEUE: Duration = Duration::from_millis(5);

/// The pieces that have come and not arrived. Time is a parameter.
#[derive(Debug)]
pub(crate) struct Flight {
    delay: Duration,
    /// Bytes of a piece, at most.
    piece: usize,
    /// Nothing is sent before the connection is there, at both ends.
    established: Instant,
    pieces: VecDeque<Piece>,
    /// Memory of pieces that have arrived.
    spare: Vec<Box<[u8]>>,
    /// Until then, the queue is full, and the next piece is left with the sender.
    full_until: Instant,
    /// No more comes.
    has_ended: bool,
}

#[derive(Debug)]
struct Piece {
    due: Instant,
    memory: Box<[u8]>,
    /// The part of the memory that has not been delivered. The end of a direction is a piece
    /// without bytes.
    bytes: Range<usize>,
}

impl Flight {
    /// Of a connection that a client began now, and that takes a round trip to come about.
    pub(crate) fn new(link: Link, now: Instant) -> Self {
        let delay = link.delay;
        Self {
            delay,
            piece: link.piece(),
            established: now + 2 * delay,
            pieces: VecDeque::new(),
            spare: Vec::new(),
            full_until: now,
            has_ended: false,
        }
    }

    /// Returns true if another piece may come.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        self.is_open() && self.full_until <= now
    }

    fn is_open(&self) -> bool {
        !self.has_ended && self.pieces.len() < MOST_PIECES
    }

    /// When there is something to be done that is not yet: a piece arrives, or another may come.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let due = self.pieces.front().map(|piece| piece.due);
        let room = self.is_open().then_some(self.full_until);
        [due, room].into_iter().flatten().filter(|time| *time > now).min()
    }

    /// Takes in what `read` gives, none of which is the end. `pass` tells when the link is busy
    /// with so many bytes.
    pub(crate) fn take(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        pass: impl FnOnce(usize) -> Range<Instant>,
    ) -> io::Result<()> {
        let mut memory = self.spare.pop().unwrap_or_else(|| vec![0; self.piece].into());
        let length = match read(&mut memory) {
            Ok(length) => length,
            Err(error) => {
                self.spare.push(memory);
                return Err(error);
            }
        };
        self.has_ended = length == 0;
        let busy = pass(length);
        self.full_until = busy.start.checked_sub(QUEUE).unwrap_or(busy.start);
        let due = busy.end.max(self.established) + self.delay;
        self.pieces.push_back(Piece { due, memory, bytes: 0..length });
        Ok(())
    }

    /// The bytes that arrive next, if it is time. None at all are the end.
    pub(crate) fn arrived(&self, now: Instant) -> Option<&[u8]> {
        let piece = self.pieces.front().filter(|piece| piece.due <= now)?;
        Some(&piece.memory[piece.bytes.clone()])
    }

    /// Takes note that so many of them were delivered.
    pub(crate) fn delivered(&mut self, length: usize) {
        let Some(piece) = self.pieces.front_mut() else { return };
        piece.bytes.start += length;
        if piece.bytes.is_empty()
            && let Some(piece) = self.pieces.pop_front()
        {
            self.spare.push(piece.memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(20);
    const LINK: Link = Link { delay: DELAY, rate: None };

    /// A connection that is there, and the time.
    fn flight() -> (Flight, Instant) {
        let now = Instant::now();
        (Flight::new(LINK, now), now + 2 * DELAY)
    }

    fn take(flight: &mut Flight, busy: Range<Instant>, data: &[u8]) {
        let read = |memory: &mut [u8]| {
            memory[..data.len()].copy_from_slice(data);
            Ok(data.len())
        };
        flight.take(read, |_| busy).unwrap();
    }

    /// All that has arrived by then, and whether the end has.
    fn deliver(flight: &mut Flight, now: Instant) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        while let Some(bytes) = flight.arrived(now) {
            // A socket doesn't take all at once, either.
            let part = bytes.len().div_ceil(2);
            all.extend_from_slice(&bytes[..part]);
            if part == 0 {
                return (all, true);
            }
            flight.delivered(part);
        }
        (all, false)
    }

    #[test]
    fn any_number_of_pieces_arrives_one_delay_after_they_came() {
        let (mut flight, now) = flight();
        let pieces: Vec<Vec<u8>> = (0..=255).map(|n| vec![n; 1 + usize::from(n)]).collect();
        pieces.iter().for_each(|piece| take(&mut flight, now..now, piece));
        assert!(flight.has_room(now));
        assert_eq!(flight.next(now), Some(now + DELAY));
        assert_eq!(deliver(&mut flight, now + DELAY - Duration::from_nanos(1)), (vec![], false));
        assert_eq!(deliver(&mut flight, now + DELAY), (pieces.concat(), false));
        assert_eq!(flight.next(now + DELAY), None);
    }

    #[test]
    fn without_a_delay_they_arrive_at_once() {
        let now = Instant::now();
        let mut flight = Flight::new(Link { delay: Duration::ZERO, rate: None }, now);
        take(&mut flight, now..now, b"now");
        assert_eq!(deliver(&mut flight, now), (b"now".to_vec(), false));
    }

    #[test]
    fn the_first_piece_waits_for_the_handshakes_round_trip() {
        let now = Instant::now();
        let mut flight = Flight::new(LINK, now);
        take(&mut flight, now..now, b"first");
        assert_eq!(flight.next(now), Some(now + 3 * DELAY));
    }

    #[test]
    fn what_waits_for_others_arrives_later_and_a_full_queue_takes_no_more() {
        let (mut flight, now) = flight();
        take(&mut flight, now + QUEUE..now + DELAY, b"piece");
        assert!(flight.has_room(now));
        assert_eq!(flight.next(now), Some(now + 2 * DELAY));
        take(&mut flight, now + DELAY..now + 2 * DELAY, b"piece");
        let room = now + DELAY - QUEUE;
        assert!(!flight.has_room(now) && flight.has_room(room));
        assert_eq!(flight.next(now), Some(room));
        assert_eq!(flight.next(room), Some(now + 2 * DELAY));
    }

    #[test]
    fn the_end_comes_last_and_as_late() {
        let (mut flight, now) = flight();
        take(&mut flight, now..now, b"last");
        take(&mut flight, now..now, b"");
        assert!(!flight.has_room(now));
        assert_eq!(deliver(&mut flight, now), (vec![], false));
        assert_eq!(deliver(&mut flight, now + DELAY), (b"last".to_vec(), true));
    }

    #[test]
    fn memory_is_bounded_and_used_again() {
        let (mut flight, now) = flight();
        for _ in 0..MOST_PIECES {
            assert!(flight.has_room(now));
            take(&mut flight, now..now, b"x");
        }
        assert!(!flight.has_room(now));
        deliver(&mut flight, now + DELAY);
        assert!(flight.has_room(now + DELAY));
        assert_eq!(flight.spare.len(), MOST_PIECES);
        take(&mut flight, now..now, b"x");
        assert_eq!(flight.spare.len(), MOST_PIECES - 1);
    }

    #[test]
    fn a_read_that_fails_loses_no_memory() {
        let (mut flight, now) = flight();
        take(&mut flight, now..now, b"x");
        deliver(&mut flight, now + DELAY);
        let failed = flight.take(|_| Err(io::ErrorKind::WouldBlock.into()), |_| now..now);
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!((flight.spare.len(), flight.next(now)), (1, None));
    }
}
