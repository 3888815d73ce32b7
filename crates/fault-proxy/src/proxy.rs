// SPDX-License-Identifier: MIT OR Apache-2.0
//! Listening, and carrying bytes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::pair::{Next, Pair};
use crate::plan::{Fault, Plan, Point, Way};

/// A proxy on 127.0.0.1, with a thread for each direction of each connection. Dropping it ends them
/// all.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// More was carried, something has happened, or all ends.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    /// Bytes to the server, on all connections.
    carried: u64,
    plan: Option<Plan>,
    faults: u64,
    pairs: Vec<Weak<Pair>>,
    threads: Vec<JoinHandle<()>>,
    is_over: bool,
}

impl Proxy {
    /// A proxy for this server.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let state = State {
            upstream,
            carried: 0,
            plan: None,
            faults: 0,
            pairs: Vec::new(),
            threads: Vec::new(),
            is_over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        let accepting = thread::Builder::new().name("proxy".into());
        let accepting = accepting.spawn(move || for_thread.accept(&listener))?;
        Ok(Self { addr, shared, accepting: Some(accepting) })
    }

    /// Returns the address on which the proxy listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, upstream: SocketAddr) {
        self.shared.lock().upstream = upstream;
    }

    /// Has something happen once, instead of what was to happen before.
    pub fn fault(&self, point: Point, fault: Fault) {
        self.shared.lock().plan = Some(Plan::new(point, fault, false));
    }

    /// Has the fault happen each time that the point is reached, counted from the last time.
    pub fn fault_again(&self, point: Point, fault: Fault) {
        self.shared.lock().plan = Some(Plan::new(point, fault, true));
    }

    /// Has nothing happen any more.
    pub fn no_fault(&self) {
        self.shared.lock().plan = None;
    }

    /// Returns the number of faults that have happened.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.shared.lock().faults
    }

    /// Returns the number of bytes that have been carried to the server.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.shared.lock().carried
    }

    /// Waits until so many bytes have been carried to the server in all, or too long.
    #[must_use]
    pub fn has_carried(&self, bytes: u64, patience: Duration) -> bool {
        self.shared.wait_while(Some(patience), |state| state.carried < bytes)
    }

    /// Waits until no connection is open any more, or too long.
    #[must_use]
    pub fn is_deserted(&self, patience: Duration) -> bool {
        let is_open = |pair: &Weak<Pair>| pair.strong_count() > 0;
        self.shared.wait_while(Some(patience), |state| state.pairs.iter().any(is_open))
    }

    /// Waits until so many faults have happened in all, or too long.
    #[must_use]
    pub fn has_met(&self, faults: u64, patience: Duration) -> bool {
        self.shared.wait_while(Some(patience), |state| state.faults < faults)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.pairs.iter().filter_map(Weak::upgrade).for_each(|pair| pair.end());
        drop(state);
        self.shared.changed.notify_all();
        // This connection wakes the thread, so that it sees the end.
        let _ = TcpStream::connect(self.addr);
        let accepting = self.accepting.take();
        accepting.into_iter().for_each(join);
        let carrying = std::mem::take(&mut self.shared.lock().threads);
        carrying.into_iter().for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    // A panic was reported when it happened.
    let _ = thread.join();
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.lock().is_over {
                return;
            }
            // A client without a server finds its connection closed.
            let _ = client.and_then(|client| self.connect(client));
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let upstream = self.lock().upstream;
        let pair = Arc::new(Pair::new(client, TcpStream::connect(upstream)?)?);
        let at_once = self.connected(&pair);
        // A delay, and the end of both directions, begin with the client's.
        self.start(&pair, Way::ToServer, at_once)?;
        self.start(&pair, Way::ToClient, None)
    }

    /// Takes note of a connection. What happens to it at once, if anything does.
    fn connected(&self, pair: &Arc<Pair>) -> Option<Fault> {
        let mut state = self.lock();
        state.pairs.retain(|pair| pair.strong_count() > 0);
        state.pairs.push(Arc::downgrade(pair));
        if state.is_over {
            // Whoever ended all didn't know of it yet.
            pair.end();
        }
        let fault = state.plan.as_ref()?.connect()?;
        state.plan = state.plan.take().and_then(Plan::next);
        drop(state);
        self.meet(pair, fault);
        Some(fault)
    }

    fn start(self: &Arc<Self>, pair: &Arc<Pair>, way: Way, at_once: Option<Fault>) -> io::Result<()> {
        let (shared, pair) = (Arc::clone(self), Arc::clone(pair));
        let name = if way == Way::ToServer { "to-server" } else { "to-client" };
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let begun = at_once.map_or(ControlFlow::Continue(()), |fault| shared.sit_out(fault));
            if begun.is_continue() {
                // Whatever ends one direction ends the other.
                let _ = shared.carry(&pair, way);
            }
            if pair.is_silent() {
                shared.wait_while(None, |_| true);
            }
            pair.end();
            drop(pair);
            // With the lock, so that nobody looks before and waits after.
            let _state = shared.lock();
            shared.changed.notify_all();
        })?;
        let mut state = self.lock();
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
        Ok(())
    }

    fn carry(&self, pair: &Pair, way: Way) -> io::Result<()> {
        let mut from = pair.ends(way).0;
        let mut chunk = vec![0; 64 << 10];
        loop {
            let n = from.read(&mut chunk)?;
            if n == 0 || self.pass(pair, way, &chunk[..n])?.is_break() {
                return Ok(());
            }
        }
    }

    /// Carries `data`, as far as nothing happens that ends it.
    fn pass(&self, pair: &Pair, way: Way, mut data: &[u8]) -> io::Result<ControlFlow<()>> {
        while !data.is_empty() && !pair.drops(way) {
            let (before, fault) = self.look_out(way, data);
            if self.send(pair, way, &data[..before])?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            data = &data[before..];
            let Some(fault) = fault else { continue };
            self.meet(pair, fault);
            if self.sit_out(fault).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns the number of bytes of `data` that are to be carried before a fault happens, and the
    /// fault, if one does.
    fn look_out(&self, way: Way, data: &[u8]) -> (usize, Option<Fault>) {
        let mut state = self.lock();
        let found = state.plan.as_mut().and_then(|plan| plan.pass(way, data));
        let before = found.map_or(data.len(), |(before, _)| before);
        if way == Way::ToServer {
            state.carried += before as u64;
        }
        if found.is_some() {
            state.plan = state.plan.take().and_then(Plan::next);
        }
        self.changed.notify_all();
        (before, found.map(|(_, fault)| fault))
    }

    fn meet(&self, pair: &Pair, fault: Fault) {
        // First, as whoever is at the other end may look it up at once.
        self.lock().faults += 1;
        self.changed.notify_all();
        pair.meet(fault);
    }

    /// Waits for the end of what has happened; it may be that of the connection.
    fn sit_out(&self, fault: Fault) -> ControlFlow<()> {
        match fault {
            Fault::Kill | Fault::Reset => ControlFlow::Break(()),
            Fault::Delay(time) => {
                self.wait_while(Some(time), |_| true);
                ControlFlow::Continue(())
            }
            Fault::HalfClose(_) | Fault::BlackHole | Fault::Answer(_) | Fault::Drip(_) => {
                ControlFlow::Continue(())
            }
        }
    }

    fn send(&self, pair: &Pair, way: Way, mut data: &[u8]) -> io::Result<ControlFlow<()>> {
        let mut to = pair.ends(way).1;
        while !data.is_empty() {
            let n = match pair.next(way) {
                Next::Hold => return Ok(ControlFlow::Break(())),
                Next::Drop => return Ok(ControlFlow::Continue(())),
                Next::Carry => data.len(),
                Next::Drip(piece, pause) => {
                    self.wait_while(Some(pause), |_| true);
                    piece.min(data.len())
                }
            };
            to.write_all(&data[..n])?;
            data = &data[n..];
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Waits for so long, or as long as the proxy lives, while `condition` holds. Whether it
    /// doesn't any more.
    fn wait_while(&self, at_most: Option<Duration>, mut condition: impl FnMut(&State) -> bool) -> bool {
        let goes_on = |state: &mut State| !state.is_over && condition(state);
        let at_most = at_most.unwrap_or(Duration::MAX);
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, goes_on);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}
