// SPDX-License-Identifier: MIT OR Apache-2.0
//! The admission of clients: who gets a place, and who gives one up for it. This is the decision
//! alone, without sockets, threads or a clock.
//!
//! There are only so many places, as a client costs memory and threads. Whoever connects and says
//! nothing must not keep others out, so **a client that still negotiates gives way to a newcomer**.
//! A client that means it negotiates within milliseconds, and loses nothing that it could not ask
//! for again.
//!
//! **A client that has negotiated is never dropped**, whether it is at work or idle. One that
//! copies a disk may wait for its source for minutes, and looks like an idle one; to drop it would
//! end hours of work. So nothing that an idle client does frees its place, and a newcomer waits in
//! the end. What keeps one host from having all places, over TCP, is that **an address has at most
//! its share**: a newcomer beyond that is refused at once, unless another client of that address
//! still negotiates. To let it wait would let it stand in the way of other addresses, as there is
//! one line for all. Clients of a unix socket have no address. They all belong to who may open the
//! socket's file, so they share all places.
//!
//! A client may end its connection and come back before its old place is free. It is not refused
//! for that, but stands aside until the place is free, and nobody behind it waits for it. Only one
//! newcomer of an address stands aside at a time, as there would be no end of them otherwise; the
//! next is refused.
//!
//! Of those who negotiate, the one that has done so for longest gives way, and of an address with
//! many of them before others: who sends a flood of newcomers pushes out its own.
//!
//! | places | the newcomer's address | who still negotiates | what happens |
//! |---|---|---|---|
//! | some are free | has less than its share | | it is [accepted](Verdict::Accept) |
//! | all are taken | has less than its share | somebody | the longest of those [gives way](Verdict::GiveWay) |
//! | all are taken | has less than its share | nobody | it [waits](Verdict::Wait) |
//! | | has its share | one of that address | the longest of those gives way |
//! | | has its share, of which one is leaving | none of that address | it [stands aside](Verdict::StandAside) |
//! | | has its share | none of that address | it is [refused](Verdict::Refuse) |
//!
//! A share that is all places bounds nothing.
//!
//! A place is free again a moment after its client was told to give way. Until then, nobody else
//! gives way for it, and the newcomer [comes again](Verdict::Soon).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use socket2::{SockAddr, Socket};

/// The origin of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// This host, by a socket that only some may open.
    Unix,
    /// An address. An IPv4 address is always written as one, also on an IPv6 socket.
    Tcp(IpAddr),
}

/// The progress of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not chosen an export yet.
    Negotiating,
    /// It was told to give way, and is about to be gone.
    GivingWay,
    /// It has chosen an export, and is at work or idle.
    Negotiated,
    /// It has ended its connection. It is gone once what it had asked for is done.
    Leaving,
}

/// A client that has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occupant {
    /// Later clients have higher numbers.
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    pub(crate) phase: Phase,
}

/// The number of places, of which each is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For all clients.
    pub(crate) places: usize,
    /// For those of one address.
    pub(crate) share: usize,
}

/// The decision about a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It gets a place.
    Accept,
    /// It gets the place of this client as soon as that is gone.
    GiveWay(u64),
    /// It gets the place of a client that was told to give way, as soon as that is gone.
    Soon,
    /// It waits until a client leaves.
    Wait,
    /// It waits until one of its address is gone, and lets others pass.
    StandAside,
    /// Its connection is closed.
    Refuse,
}

/// The table above.
pub(crate) fn decide(occupants: &[Occupant], newcomer: Peer, limits: Limits) -> Verdict {
    let of_its_address = || occupants.iter().filter(|occupant| occupant.peer == newcomer);
    let is_shared = newcomer != Peer::Unix && limits.share < limits.places;
    if is_shared && of_its_address().count() >= limits.share {
        let one_leaves = of_its_address().any(|occupant| occupant.phase == Phase::Leaving);
        let otherwise = if one_leaves { Verdict::StandAside } else { Verdict::Refuse };
        return room_among(of_its_address()).unwrap_or(otherwise);
    }
    if occupants.len() >= limits.places {
        return room_among(occupants.iter()).unwrap_or(Verdict::Wait);
    }
    Verdict::Accept
}

/// Returns the way in which one of these makes room, if any does.
fn room_among<'a>(occupants: impl Iterator<Item = &'a Occupant> + Clone) -> Option<Verdict> {
    if occupants.clone().any(|occupant| occupant.phase == Phase::GivingWay) {
        return Some(Verdict::Soon);
    }
    let negotiating = occupants.filter(|occupant| occupant.phase == Phase::Negotiating);
    let mut crowds = HashMap::<Peer, usize>::new();
    negotiating.clone().for_each(|occupant| *crowds.entry(occupant.peer).or_default() += 1);
    let longest = negotiating.min_by_key(|occupant| (usize::MAX - crowds[&occupant.peer], occupant.id))?;
    Some(Verdict::GiveWay(longest.id))
}

impl Peer {
    /// Tells who is at the other end of `socket`.
    pub(crate) fn of(socket: &Socket) -> Self {
        socket.peer_addr().as_ref().map_or(Self::Unix, Self::from)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("a unix socket"),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl From<&SockAddr> for Peer {
    fn from(address: &SockAddr) -> Self {
        address.as_socket().map_or(Self::Unix, |address| Self::Tcp(address.ip().to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::{GivingWay, Leaving, Negotiated, Negotiating};
    use Verdict::{Accept, GiveWay, Refuse, Soon, StandAside, Wait};

    const LIMITS: Limits = Limits { places: 4, share: 2 };

    fn tcp(host: u8) -> Peer {
        Peer::Tcp([192, 0, 2, host].into())
    }

    /// Occupants with ids from 0.
    fn taken(occupants: &[(Peer, Phase)]) -> Vec<Occupant> {
        occupants.iter().zip(0..).map(|(&(peer, phase), id)| Occupant { id, peer, phase }).collect()
    }

    #[test]
    fn each_row_of_the_table() {
        let (a, b, c, unix) = (tcp(1), tcp(2), tcp(3), Peer::Unix);
        for (occupants, newcomer, verdict) in [
            // Some places are free.
            (&[][..], a, Accept),
            (&[(a, Negotiating)], a, Accept),
            (&[(a, Negotiated), (b, Negotiated), (b, Negotiated)], a, Accept),
            (&[(unix, Negotiated), (unix, Negotiated), (unix, Negotiated)], unix, Accept),
            // All are taken.
            (&[(b, Negotiated), (b, Negotiating), (c, Negotiating), (c, Negotiated)], a, GiveWay(1)),
            (&[(unix, Negotiating), (unix, Negotiated), (c, Negotiating), (c, Negotiated)], a, GiveWay(0)),
            (&[(unix, Negotiated), (unix, Negotiated), (c, Negotiating), (c, Negotiated)], unix, GiveWay(2)),
            (&[(b, Negotiated), (b, Negotiated), (c, Negotiated), (c, Negotiated)], a, Wait),
            (&[(unix, Negotiated), (unix, Negotiated), (unix, Negotiated), (unix, Negotiated)], unix, Wait),
            (&[(unix, Negotiated), (unix, Negotiated), (unix, Negotiated), (unix, Negotiated)], a, Wait),
            (&[(b, GivingWay), (b, Negotiating), (c, Negotiating), (c, Negotiated)], a, Soon),
            // An address has its share, be there places or not.
            (&[(a, Negotiated), (a, Negotiated)], a, Refuse),
            (&[(a, Negotiated), (b, Negotiating), (a, Negotiated)], a, Refuse),
            (&[(a, Negotiated), (b, Negotiating), (a, Negotiating)], a, GiveWay(2)),
            (&[(a, Negotiated), (b, Negotiating), (a, GivingWay)], a, Soon),
            (&[(a, Negotiated), (b, Negotiating), (a, Negotiated), (b, Negotiating)], a, Refuse),
            (&[(a, Negotiated), (b, GivingWay), (a, Negotiated), (b, Negotiating)], a, Refuse),
            (&[(a, Negotiated), (b, Leaving), (a, Negotiated)], a, Refuse),
            (&[(a, Negotiated), (a, Leaving)], a, StandAside),
            (&[(a, Negotiating), (a, Leaving)], a, GiveWay(0)),
            (&[(b, Leaving), (b, Negotiating), (c, Negotiated), (c, Negotiated)], a, GiveWay(1)),
            (&[(b, Leaving), (b, Negotiated), (c, Negotiated), (c, Negotiated)], a, Wait),
        ] {
            assert_eq!(decide(&taken(occupants), newcomer, LIMITS), verdict, "{newcomer:?} to {occupants:?}");
        }
    }

    #[test]
    fn a_share_that_is_all_places_bounds_nothing() {
        let limits = Limits { places: 1, share: 1 };
        assert_eq!(decide(&taken(&[(tcp(1), Negotiated)]), tcp(1), limits), Wait);
        assert_eq!(decide(&taken(&[(tcp(1), Negotiating)]), tcp(1), limits), GiveWay(0));
    }

    #[test]
    fn the_crowd_of_one_address_gives_way_before_others() {
        let limits = Limits { places: 5, share: 4 };
        let (flood, other) = (tcp(1), tcp(2));
        let crowd = [(other, Negotiating), (flood, Negotiated), (flood, Negotiating), (flood, Negotiating)];
        for last in [(other, Negotiated), (Peer::Unix, Negotiating)] {
            let occupants = taken(&[&crowd[..], &[last]].concat());
            for newcomer in [tcp(3), flood, other, Peer::Unix] {
                assert_eq!(decide(&occupants, newcomer, limits), GiveWay(2), "{newcomer:?}");
            }
        }
    }

    #[test]
    fn an_ipv4_address_is_the_same_on_an_ipv6_socket() {
        let peer = |address: &str| Peer::from(&address.parse::<std::net::SocketAddr>().unwrap().into());
        assert_eq!(peer("192.0.2.1:1"), tcp(1));
        assert_eq!(peer("[::ffff:192.0.2.1]:2"), tcp(1));
        assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8::2]:1"));
        assert_eq!(Peer::from(&SockAddr::unix("/tmp/sock").unwrap()), Peer::Unix);
    }
}
