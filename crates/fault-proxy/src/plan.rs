// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plans of faults: each has a fault, and the point at which it happens.

use std::time::Duration;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A fault of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Both sides find it closed (FIN).
    Kill,
    /// Both sides find it reset (RST).
    Reset,
    /// One side finds it closed; what that side sends is still carried, what is sent to it isn't.
    HalfClose(Way),
    /// Nothing passes any more, in either direction, and neither side is told.
    BlackHole,
    /// The client gets an answer with this HTTP status from the proxy, as if it had lost the
    /// server, and both sides find the connection closed.
    Answer(u16),
    /// The next bytes are late.
    Delay(Duration),
    /// The next bytes come in small pieces.
    Drip(Drip),
}

/// The sizes and the pauses of a connection that drips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drip {
    /// Bytes of each piece.
    pub piece: usize,
    /// The pause before each.
    pub pause: Duration,
    /// After so many pieces, in both directions together, it flows again.
    pub pieces: u32,
}

impl Drip {
    /// So many pieces of so many bytes, with a pause before each.
    #[must_use]
    pub const fn new(piece: usize, pause: Duration, pieces: u32) -> Self {
        Self { piece, pause, pieces }
    }
}

/// The point at which a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Point {
    /// When a connection is accepted.
    Connect,
    /// When so many more bytes have been carried, on all connections together: that very byte is
    /// the last.
    Byte(Way, u64),
    /// When so many more bytes have been carried after the end of the next HTTP head. For one
    /// connection at a time.
    Body(Way, u64),
}

const HEAD_END: &[u8] = b"\r\n\r\n";

/// A fault that is still to happen.
#[derive(Debug)]
pub(crate) struct Plan {
    fault: Fault,
    point: Point,
    again: bool,
    /// The rest of the way to `point`.
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Connect,
    /// The first number is how many bytes of a head's end were seen; the second, how many bytes
    /// follow it.
    Head(Way, usize, u64),
    Bytes(Way, u64),
}

impl Rest {
    fn of(point: Point) -> Self {
        match point {
            Point::Connect => Self::Connect,
            Point::Byte(way, bytes) => Self::Bytes(way, bytes.max(1)),
            Point::Body(way, bytes) => Self::Head(way, 0, bytes),
        }
    }

    /// Returns the number of bytes of `data` that pass before the point is reached, if it is.
    fn pass(&mut self, way: Way, data: &[u8]) -> Option<usize> {
        let mut start = 0;
        if let Self::Head(of, seen, bytes) = *self
            && of == way
        {
            match find_head_end(seen, data) {
                Ok(end) => (start, *self) = (end, Self::Bytes(way, bytes)),
                Err(seen) => *self = Self::Head(way, seen, bytes),
            }
        }
        let Self::Bytes(of, left) = self else { return None };
        let here = (data.len() - start) as u64;
        if *of != way {
            return None;
        }
        if *left <= here {
            return Some(start + *left as usize);
        }
        *left -= here;
        None
    }
}

/// Returns the place at which a head ends of whose end `seen` bytes came before. An error is the
/// number of bytes of its end that have come by now.
fn find_head_end(mut seen: usize, data: &[u8]) -> Result<usize, usize> {
    for (at, &byte) in data.iter().enumerate() {
        seen = match byte {
            _ if byte == HEAD_END[seen] => seen + 1,
            b'\r' => 1,
            _ => 0,
        };
        if seen == HEAD_END.len() {
            return Ok(at + 1);
        }
    }
    Err(seen)
}

impl Plan {
    pub(crate) fn new(point: Point, fault: Fault, again: bool) -> Self {
        Self { fault, point, again, rest: Rest::of(point) }
    }

    /// Returns the fault that happens when a connection is accepted, if one does.
    pub(crate) fn connect(&self) -> Option<Fault> {
        matches!(self.rest, Rest::Connect).then_some(self.fault)
    }

    /// Returns the number of bytes of `data` that pass before the fault happens, and the fault, if
    /// it does.
    pub(crate) fn pass(&mut self, way: Way, data: &[u8]) -> Option<(usize, Fault)> {
        Some((self.rest.pass(way, data)?, self.fault))
    }

    /// Returns the plan that follows once the fault has happened: the same again, or none.
    pub(crate) fn next(self) -> Option<Self> {
        self.again.then(|| Self::new(self.point, self.fault, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(point: Point) -> Plan {
        Plan::new(point, Fault::Kill, false)
    }

    #[test]
    fn a_byte_is_counted_in_its_direction() {
        let mut plan = plan(Point::Byte(Way::ToServer, 5));
        assert_eq!(plan.connect(), None);
        assert_eq!(plan.pass(Way::ToClient, b"abcdefgh"), None);
        assert_eq!(plan.pass(Way::ToServer, b"abc"), None);
        assert_eq!(plan.pass(Way::ToServer, b"abc"), Some((2, Fault::Kill)));
    }

    #[test]
    fn a_body_begins_where_its_head_ends_however_that_is_cut() {
        let message = b"PUT /\r\nx: \r\r\n\r\nbody";
        for cut in 0..message.len() - 2 {
            let mut plan = plan(Point::Body(Way::ToServer, 2));
            assert_eq!(plan.pass(Way::ToServer, &message[..cut]), None, "{cut}");
            let left = message.len() - 2 - cut;
            assert_eq!(plan.pass(Way::ToServer, &message[cut..]), Some((left, Fault::Kill)), "{cut}");
        }
    }

    #[test]
    fn what_happens_again_counts_from_where_it_happened() {
        let mut plan = Plan::new(Point::Byte(Way::ToClient, 2), Fault::Reset, true);
        assert_eq!(plan.pass(Way::ToClient, b"abc"), Some((2, Fault::Reset)));
        let mut plan = plan.next().unwrap();
        assert_eq!(plan.pass(Way::ToClient, b"c"), None);
        assert_eq!(plan.pass(Way::ToClient, b"d"), Some((1, Fault::Reset)));
        assert!(Plan::new(Point::Connect, Fault::Kill, false).next().is_none());
    }
}
