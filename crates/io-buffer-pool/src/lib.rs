// SPDX-License-Identifier: MIT OR Apache-2.0
//! Buffers that are recycled, and a budget for those that are lent.
//!
//! A server takes memory for each request and gives it back. If the system has to find that memory
//! each time, its page faults cost more than the request. A [`Pool`] keeps what comes back for the
//! next request.
//!
//! ```
//! let pool = io_buffer_pool::Pool::new(1 << 20);
//! let mut buffer = pool.take(5000);
//! buffer[..4].copy_from_slice(b"data");
//! assert_eq!(buffer.len(), 5000);
//! let address = buffer.as_ptr();
//! // The buffer goes back to the pool when it is dropped, and the next one gets its memory.
//! drop(buffer);
//! assert_eq!(pool.take(6000).as_ptr(), address);
//! ```
//!
//! # The budget
//!
//! [`Pool::take`] waits while the buffers that are lent would exceed the budget, so that a client
//! that sends fast waits for itself. A pool that has lent nothing lends one buffer of any size, so
//! no request waits for ever. [`Pool::take_if_room`] never waits. Whoever keeps a buffer for long
//! takes it out of the budget by [`Buffer::uncounted`].
//!
//! Sizes are powers of two, from 4 KiB on: a buffer finds its next user sooner, and up to half of
//! it is unused. Contents are arbitrary, because clearing them would cost as much as copying.
//!
//! # Threads and errors
//!
//! A pool is shared by an [`Arc`], and a [`Buffer`] may be dropped by any thread. Only one thread
//! at a time may wait in [`Pool::take`]; the others use [`Pool::take_if_room`] or
//! [`Pool::take_uncounted`]. Nothing here fails.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The smallest buffer; larger ones have a power of two, so that few sizes occur and buffers find
/// their next user.
const SMALLEST: usize = 4096;

/// Lends buffers, up to `budget` bytes at a time. Buffers that come back are kept, as long as all
/// there are, lent or not, don't take more than the budget, or than were in use at one time.
#[derive(Debug)]
pub struct Pool {
    /// In bytes. It is looked at under the lock.
    budget: AtomicUsize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lent: usize,
    /// Bytes of all buffers that somebody has, whether they count or not; and the most that this
    /// ever was.
    used: usize,
    most_used: usize,
    /// Somebody waits for room. A notification is a system call, also where nobody listens.
    waiting: bool,
    idle: Vec<Vec<u8>>,
    idle_bytes: usize,
}

impl Pool {
    /// A pool with a budget in bytes.
    #[must_use]
    pub fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self { budget: AtomicUsize::new(budget), state: Mutex::default(), returned: Condvar::new() })
    }

    /// Changes the budget, in bytes. What is lent stays lent.
    pub fn set_budget(&self, budget: usize) {
        self.budget.store(budget, Relaxed);
    }

    fn budget(&self) -> usize {
        self.budget.load(Relaxed)
    }

    /// A buffer of `len` bytes with arbitrary contents. Waits until the budget has room; a pool
    /// that has lent nothing lends one buffer of any size. Only one thread at a time may wait.
    #[must_use]
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        if len == 0 {
            return Buffer { data: Vec::new(), len, lease: self.lease(0) };
        }
        let size = len.max(SMALLEST).next_power_of_two();
        let state = self.lock();
        let full = |state: &mut State| {
            state.waiting = state.lent > 0 && state.lent + size > self.budget();
            state.waiting
        };
        let state = self.returned.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        self.lend(state, len, size)
    }

    /// A buffer of `len` bytes with arbitrary contents, if the budget has room for it now.
    #[must_use]
    pub fn take_if_room(self: &Arc<Self>, len: usize) -> Option<Buffer> {
        let size = len.max(SMALLEST).next_power_of_two();
        let state = self.lock();
        (state.lent + size <= self.budget()).then(|| self.lend(state, len, size))
    }

    fn lend(self: &Arc<Self>, mut state: MutexGuard<'_, State>, len: usize, size: usize) -> Buffer {
        state.lent += size;
        let recycled = state.take(size, self.budget());
        drop(state);
        // New memory comes zeroed from the system; a recycled buffer is not cleared again.
        Buffer { data: recycled.unwrap_or_else(|| vec![0; size]), len, lease: self.lease(size) }
    }

    /// A buffer of `len` bytes with arbitrary contents, which counts nowhere. Never waits.
    #[must_use]
    pub fn take_uncounted(self: &Arc<Self>, len: usize) -> Buffer {
        let size = if len == 0 { 0 } else { len.max(SMALLEST).next_power_of_two() };
        let recycled = self.lock().take(size, self.budget());
        Buffer { data: recycled.unwrap_or_else(|| vec![0; size]), len, lease: self.lease(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(self: &Arc<Self>, size: usize) -> Lease {
        Lease { size, pool: Arc::clone(self) }
    }

    fn give_back(&self, data: Vec<u8>) {
        let mut state = self.lock();
        state.used -= data.len();
        if state.used + state.idle_bytes + data.len() <= self.budget().max(state.most_used) {
            state.idle_bytes += data.len();
            state.idle.push(data);
        }
    }

    fn end_lease(&self, size: usize) {
        let mut state = self.lock();
        state.lent -= size;
        let waiting = state.waiting;
        drop(state);
        if waiting {
            self.returned.notify_one();
        }
    }
}

impl State {
    /// Counts a buffer as used, and gives an idle one of that size, if there is any. Makes room for
    /// it otherwise.
    fn take(&mut self, size: usize, budget: usize) -> Option<Vec<u8>> {
        self.used += size;
        self.most_used = self.most_used.max(self.used);
        let recycled = self.pop(|idle| idle == size);
        while self.used + self.idle_bytes > budget.max(self.most_used) && self.pop(|_| true).is_some() {}
        recycled
    }

    /// An idle buffer whose size suits, the most recently used first: it may still be in the cache.
    fn pop(&mut self, suits: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
        let at = self.idle.iter().rposition(|idle| suits(idle.len()))?;
        let data = self.idle.swap_remove(at);
        self.idle_bytes -= data.len();
        Some(data)
    }
}

/// Some bytes that go back to their pool when they are dropped.
#[derive(Debug)]
pub struct Buffer {
    data: Vec<u8>,
    len: usize,
    lease: Lease,
}

/// The share of a buffer in the budget, which ends when this is dropped.
#[derive(Debug)]
pub struct Lease {
    size: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    /// Takes the buffer out of the budget, so that it may be kept for as long as someone likes. The
    /// lease counts in its stead.
    #[must_use]
    pub fn uncounted(mut self) -> (Self, Lease) {
        let pool = Arc::clone(&self.lease.pool);
        let lease = std::mem::replace(&mut self.lease, pool.lease(0));
        (self, lease)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.data.is_empty() {
            self.lease.pool.give_back(std::mem::take(&mut self.data));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.size > 0 {
            self.pool.end_lease(self.size);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.data[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Pool>();
    is_send_and_sync::<Buffer>();
    is_send_and_sync::<Lease>();
};

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pool: &Pool) -> (usize, usize) {
        let state = pool.lock();
        assert_eq!(state.idle_bytes, state.idle.iter().map(Vec::len).sum::<usize>());
        (state.lent, state.idle_bytes)
    }

    #[test]
    fn buffers_are_recycled_by_size() {
        let pool = Pool::new(1 << 16);
        let mut buffer = pool.take(5000);
        assert_eq!((buffer.len(), held(&pool)), (5000, (8192, 0)));
        let address = buffer.as_ptr();
        buffer[4999] = 7;
        drop(buffer);
        assert_eq!(held(&pool), (0, 8192));
        let buffer = pool.take(8192);
        assert_eq!((buffer.as_ptr(), buffer[4999]), (address, 7));
        let other = pool.take(4096);
        assert_ne!(other.as_ptr(), address);
    }

    #[test]
    fn idle_buffers_make_room_and_never_exceed_what_was_in_use() {
        let pool = Pool::new(3 * 4096);
        drop((pool.take(4096), pool.take(1), pool.take(4096)));
        assert_eq!(held(&pool), (0, 3 * 4096));
        let large = pool.take(8192);
        assert_eq!(held(&pool), (8192, 4096));
        drop(large);
        assert_eq!(held(&pool), (0, 3 * 4096));
        let huge = pool.take(1 << 20);
        assert_eq!(held(&pool), (1 << 20, 0));
        drop(huge);
        assert_eq!(held(&pool), (0, 1 << 20));
        let small = pool.take(4096);
        assert_eq!(held(&pool), (4096, 0), "both together would be more than ever");
        drop(small);
    }

    #[test]
    fn what_is_kept_counts_no_longer() {
        let pool = Pool::new(8192);
        let (kept, lease) = pool.take(8192).uncounted();
        assert_eq!(held(&pool), (8192, 0));
        drop(lease);
        assert_eq!(held(&pool), (0, 0));
        let other = pool.take(4096);
        drop(kept);
        assert_eq!(held(&pool), (4096, 8192));
        let another = pool.take(4096);
        assert_eq!(held(&pool), (8192, 0), "there is no room for it");
        drop((other, another));
        assert_eq!(held(&pool), (0, 8192));
    }

    #[test]
    fn what_does_not_count_is_recycled_too() {
        let pool = Pool::new(8192);
        let _all = pool.take(8192);
        let buffer = pool.take_uncounted(5000);
        let address = buffer.as_ptr();
        assert_eq!((buffer.len(), held(&pool)), (5000, (8192, 0)));
        drop(buffer);
        assert_eq!(held(&pool), (8192, 8192));
        assert_eq!(pool.take_uncounted(8000).as_ptr(), address);
        assert!(pool.take_uncounted(0).is_empty());
    }

    #[test]
    fn who_does_not_wait_gets_what_there_is_room_for() {
        let pool = Pool::new(8192);
        let some = pool.take_if_room(5000).unwrap();
        assert_eq!((some.len(), held(&pool)), (5000, (8192, 0)));
        assert!(pool.take_if_room(1).is_none());
        drop(some);
        assert!(pool.take_if_room(8193).is_none(), "not even if nothing is lent");
        assert_eq!(pool.take_if_room(8192).unwrap().len(), 8192);
    }

    #[test]
    fn nothing_costs_nothing() {
        let pool = Pool::new(1);
        let _all = pool.take(100);
        assert!(pool.take(0).is_empty());
    }

    #[test]
    fn who_finds_no_room_waits_for_a_return() {
        let pool = Pool::new(8192);
        let (first, second) = (pool.take(4096), pool.take(4096));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.take(4096).len());
            assert_eq!(held(&pool), (8192, 0));
            drop(first);
            assert_eq!(waiting.join().unwrap(), 4096);
        });
        drop(second);
    }
}
