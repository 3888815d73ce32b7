// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdkit's buffers, without copying them.

use std::ffi::c_void;
use std::process::abort;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;

use super::channel;

/// nbdkit's buffer, as long as `Bytes` of it exist.
struct Lease {
    data: *const u8,
    len: usize,
    /// Dropped with the last of the `Bytes`.
    _token: Arc<()>,
}

// SAFETY: the memory is nbdkit's, which leaves it alone until the callback returns; `lend` sees to it that no lease
// outlives that. It is only read, and any thread may do so.
unsafe impl Send for Lease {}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the caller of `lend` promised that this memory is readable and unchanged for as long as a lease exists.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }
}

/// Knows whether the lease is over.
struct Token(Arc<()>);

impl Token {
    fn is_returned(&mut self) -> bool {
        // This synchronizes with the drop of the lease in another thread, so that its last read is over, too.
        Arc::get_mut(&mut self.0).is_some()
    }
}

impl Drop for Token {
    /// Ends the process if `Bytes` outlived the call, also if that panicked. Whoever still has them may send them after
    /// nbdkit has put the next request's data there: a disk with wrong data in it, without an error. There is no other
    /// way to take them back, and waiting for a bug may take for ever.
    fn drop(&mut self) {
        if !self.is_returned() {
            channel::error(
                "bug: a write's data is still in use after its end, and would be overwritten: aborting",
            );
            abort();
        }
    }
}

/// Lends a buffer of nbdkit's to `work`, without copying it.
///
/// # Safety
/// If `len` is not 0, `data` is valid for reads of `len` bytes, and they don't change until this returns.
pub(crate) unsafe fn lend<R>(data: *const c_void, len: u32, work: impl FnOnce(Bytes) -> R) -> R {
    if len == 0 {
        // There may be no buffer at all then.
        return work(Bytes::new());
    }
    let token = Token(Arc::new(()));
    let lease = Lease { data: data.cast(), len: len as usize, _token: Arc::clone(&token.0) };
    work(Bytes::from_owner(lease))
}

/// nbdkit's buffer that a read fills.
///
/// nbdkit's own buffers have been written to: it zeroes them when they are made. Those of a filter in between may not
/// have been. That is harmless: the memory comes from code that the compiler doesn't see, so it has to take its bytes as
/// they are, and they are only ever overwritten; zeroing 4 MiB for each read would cost much and change nothing.
///
/// # Safety
/// If `len` is not 0, `data` is valid for writes of `len` bytes, and nobody else uses them for `'a`.
pub(crate) unsafe fn to_fill<'a>(data: *mut c_void, len: u32) -> &'a mut [u8] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: promised by the caller; a u8 has no alignment, and any byte is one.
    unsafe { slice::from_raw_parts_mut(data.cast(), len as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_the_buffer_itself() {
        let data = [1u8, 2, 3];
        // SAFETY: an array of three bytes.
        let same = unsafe {
            lend(data.as_ptr().cast(), 3, |bytes| bytes == data[..] && bytes.as_ptr() == data.as_ptr())
        };
        assert!(same);
        // SAFETY: no bytes are no memory.
        assert!(unsafe { lend(std::ptr::null(), 0, |bytes| bytes.is_empty()) });
    }

    #[test]
    fn a_clone_that_is_kept_is_noticed() {
        let mut token = Token(Arc::new(()));
        let lease = Lease { data: [0u8; 1].as_ptr(), len: 1, _token: Arc::clone(&token.0) };
        let bytes = Bytes::from_owner(lease);
        let kept = bytes.slice(..);
        drop(bytes);
        assert!(!token.is_returned());
        drop(kept);
        assert!(token.is_returned());
    }
}
