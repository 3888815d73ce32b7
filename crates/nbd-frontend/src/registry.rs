// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which sessions there are, and how they and the accept loop are told to stop.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use socket2::Socket;

use crate::admission::{Limits, Occupant, Peer, Phase, Verdict, decide};
use crate::lock;

/// The sessions of a server, shared with its handles.
#[derive(Debug)]
pub(crate) struct Registry {
    sessions: Mutex<Sessions>,
    gone: Condvar,
    stopping: AtomicBool,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Sessions {
    last_id: u64,
    live: HashMap<u64, Place>,
}

/// The registry's view of a session.
#[derive(Debug)]
struct Place {
    // Weak, so that the socket of a session that has ended is closed before the session is
    // forgotten.
    control: Weak<Control>,
    peer: Peer,
    phase: Phase,
}

/// A client's socket, which can be shut from outside the session.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) id: u64,
    pub(crate) socket: Socket,
    stopping: AtomicBool,
}

/// A place in the registry, given up on drop: the socket first, then the entry.
#[derive(Debug)]
pub(crate) struct Registered {
    control: Arc<Control>,
    entry: Entry,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    registry: Arc<Registry>,
}

impl Registry {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            sessions: Mutex::default(),
            gone: Condvar::new(),
            stopping: AtomicBool::new(false),
            waker: Waker::new()?,
        }))
    }

    /// Decides about a newcomer. A session that has to give way is cut off.
    pub(crate) fn admit(&self, newcomer: Peer, limits: Limits) -> Verdict {
        let mut sessions = lock(&self.sessions);
        sessions.look_who_has_left(newcomer);
        let verdict = decide(&sessions.occupants(), newcomer, limits);
        if let Verdict::GiveWay(id) = verdict
            && let Some(place) = sessions.live.get_mut(&id)
        {
            // Under the lock, so that it can't complete its negotiation meanwhile.
            place.phase = Phase::GivingWay;
            place.control.upgrade().inspect(|control| control.cut_off());
        }
        verdict
    }

    pub(crate) fn register(self: &Arc<Self>, socket: Socket, peer: Peer) -> Registered {
        let mut sessions = lock(&self.sessions);
        sessions.last_id += 1;
        let id = sessions.last_id;
        let control = Arc::new(Control { id, socket, stopping: AtomicBool::new(false) });
        let place = Place { control: Arc::downgrade(&control), peer, phase: Phase::Negotiating };
        sessions.live.insert(id, place);
        Registered { control, entry: Entry { id, registry: Arc::clone(self) } }
    }

    /// Returns the number of sessions.
    pub(crate) fn count(&self) -> usize {
        lock(&self.sessions).live.len()
    }

    /// Tells the accept loop to stop.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Becomes readable when the accept loop should look around: a session has gone, or it is to
    /// stop.
    pub(crate) fn woken(&self) -> &Waker {
        &self.waker
    }

    /// Ends all sessions: each finishes the requests it has read, but those left after `grace` are
    /// cut off. Returns how many that were.
    pub(crate) fn end_sessions(&self, grace: Duration) -> usize {
        self.for_each(Control::stop);
        let sessions = lock(&self.sessions);
        let busy = |sessions: &mut Sessions| !sessions.live.is_empty();
        drop(self.gone.wait_timeout_while(sessions, grace, busy).unwrap_or_else(PoisonError::into_inner));
        self.for_each(Control::cut_off)
    }

    fn for_each(&self, end: impl Fn(&Control)) -> usize {
        // Collected first: sessions that end meanwhile need the lock.
        let live: Vec<_> =
            lock(&self.sessions).live.values().filter_map(|place| place.control.upgrade()).collect();
        live.iter().for_each(|control| end(control));
        live.len()
    }
}

impl Sessions {
    /// A newcomer comes after the end of its earlier connections, so that end has arrived, whether
    /// or not the sessions know of it.
    fn look_who_has_left(&mut self, newcomer: Peer) {
        let of_its_address = self.live.values_mut().filter(|place| place.peer == newcomer);
        for place in of_its_address.filter(|place| place.phase == Phase::Negotiated) {
            if place.control.upgrade().is_none_or(|control| control.is_left()) {
                place.phase = Phase::Leaving;
            }
        }
    }

    fn occupants(&self) -> Vec<Occupant> {
        self.live.iter().map(|(&id, &Place { peer, phase, .. })| Occupant { id, peer, phase }).collect()
    }
}

impl Registered {
    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Keeps the place for good, as the client has negotiated. False if it had to give way before.
    pub(crate) fn keep_place(&self) -> bool {
        let mut sessions = lock(&self.entry.registry.sessions);
        let Some(place) = sessions.live.get_mut(&self.entry.id) else { return false };
        if place.phase == Phase::Negotiating {
            place.phase = Phase::Negotiated;
        }
        place.phase == Phase::Negotiated
    }

    /// The session has ended, and the place is free in a moment.
    pub(crate) fn leave(&self) {
        let mut sessions = lock(&self.entry.registry.sessions);
        if let Some(place) = sessions.live.get_mut(&self.entry.id) {
            place.phase = Phase::Leaving;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.registry.sessions).live.remove(&self.id);
        self.registry.gone.notify_all();
        self.registry.waker.wake();
    }
}

impl Control {
    /// No further request is read.
    fn stop(&self) {
        // The flag is for data that has arrived already: a socket delivers that even after it is
        // shut for reading.
        self.stopping.store(true, Ordering::SeqCst);
        self.shut(Shutdown::Read);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Nothing is read or sent any more; whoever is blocked on the socket returns.
    pub(crate) fn cut_off(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.shut(Shutdown::Both);
    }

    /// Returns true if the client has ended its side of the connection.
    fn is_left(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        matches!(retry_on_intr(|| poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))), Ok(1..))
    }

    /// The end of everything that is sent.
    pub(crate) fn finish_sending(&self) {
        self.shut(Shutdown::Write);
    }

    fn shut(&self, how: Shutdown) {
        // It fails if the peer has gone: then there is nothing to shut.
        let _ = self.socket.shutdown(how);
    }
}

/// Interrupts a `poll`.
#[derive(Debug)]
pub(crate) struct Waker {
    read: UnixStream,
    write: UnixStream,
}

impl Waker {
    fn new() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        Ok(Self { read, write })
    }

    fn wake(&self) {
        // If the socket is full, the wake-up is there already.
        let _ = (&self.write).write(&[0]);
    }

    /// Forgets the wake-ups so far.
    pub(crate) fn clear(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.read).read(&mut bytes), Ok(64)) {}
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}
