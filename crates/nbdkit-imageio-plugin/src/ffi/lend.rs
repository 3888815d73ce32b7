// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdkit's buffers, without copying them.

use std::ffi::c_void;
use std::process::abort;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use block_device_traits::ReadBuffer;
use bytes::Bytes;

use super::channel;

/// nbdkit's buffer, as long as `Bytes` of it exist.
struct LentData {
    data: *const u8,
    len: usize,
    /// Dropped with the last of the `Bytes`.
    _token: Arc<()>,
}

// SAFETY: the memory is nbdkit's, which leaves it alone until the callback returns; `lend` sees to
// it that no lent outlives that. It is only read, and any thread may do so.
unsafe impl Send for LentData {}

impl AsRef<[u8]> for LentData {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the caller of `lend` promised that this memory is readable and unchanged for as
        // long as a lent exists.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }
}

/// Knows whether what was lent is back.
struct Token(Arc<()>);

impl Token {
    fn is_returned(&mut self) -> bool {
        // This synchronizes with the drop of the lent in another thread, so that its last read is
        // over, too.
        Arc::get_mut(&mut self.0).is_some()
    }
}

impl Drop for Token {
    /// Ends the process if what was lent outlived the call, also if that panicked. Whoever still
    /// has a write's data may send it after nbdkit has put the next request's there: a disk with
    /// wrong data in it, without an error. There is no other way to take it back, and waiting for a
    /// bug may take for ever.
    fn drop(&mut self) {
        if !self.is_returned() {
            channel::error(
                "bug: a request's buffer is still in use after its end, and would be overwritten: aborting",
            );
            abort();
        }
    }
}

/// Lends a buffer of nbdkit's to `work`, without copying it.
///
/// # Safety
/// If `len` is not 0, `data` is valid for reads of `len` bytes, and they don't change until this
/// returns.
pub(crate) unsafe fn lend<R>(data: *const c_void, len: u32, work: impl FnOnce(Bytes) -> R) -> R {
    if len == 0 {
        // There may be no buffer at all then.
        return work(Bytes::new());
    }
    let token = Token(Arc::new(()));
    let lent = LentData { data: data.cast(), len: len as usize, _token: Arc::clone(&token.0) };
    work(Bytes::from_owner(lent))
}

/// nbdkit's buffer that a read fills, as long as this exists.
struct LentBuffer {
    data: *mut u8,
    len: usize,
    _token: Arc<()>,
}

// SAFETY: the memory is this call's alone until it returns; `lend_to_fill` sees to it that this
// doesn't outlive that.
unsafe impl Send for LentBuffer {}

impl ReadBuffer for LentBuffer {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the caller of `lend_to_fill` promised that nobody else uses this memory, and
        // there is one `LentBuffer` of it; a u8 has no alignment, and any byte is one.
        unsafe { slice::from_raw_parts_mut(self.data, self.len) }
    }
}

/// Lends a buffer of nbdkit's to `work`, which fills it.
///
/// nbdkit's own buffers have been written to: it zeroes them when they are made. Those of a filter
/// in between may not have been. That is harmless: the memory comes from code that the compiler
/// doesn't see, so it has to take its bytes as they are, and they are only ever overwritten;
/// zeroing 4 MiB for each read would cost much and change nothing.
///
/// # Safety
/// If `len` is not 0, `data` is valid for writes of `len` bytes, and nobody else uses them until
/// this returns.
pub(crate) unsafe fn lend_to_fill<R>(
    data: *mut c_void,
    len: u32,
    work: impl FnOnce(Box<dyn ReadBuffer>) -> R,
) -> R {
    let token = Token(Arc::new(()));
    // There may be no buffer at all where it has no bytes.
    let data = if len == 0 { NonNull::dangling().as_ptr() } else { data.cast() };
    work(Box::new(LentBuffer { data, len: len as usize, _token: Arc::clone(&token.0) }))
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
    fn what_is_to_be_filled_is_the_buffer_itself() {
        let mut data = [0u8; 3];
        // SAFETY: an array of three bytes.
        unsafe { lend_to_fill(data.as_mut_ptr().cast(), 3, |mut buffer| buffer.bytes().fill(7)) };
        assert_eq!(data, [7; 3]);
        // SAFETY: no bytes are no memory.
        assert!(unsafe { lend_to_fill(std::ptr::null_mut(), 0, |mut buffer| buffer.bytes().is_empty()) });
    }

    #[test]
    fn a_clone_that_is_kept_is_noticed() {
        let mut token = Token(Arc::new(()));
        let lent = LentData { data: [0u8; 1].as_ptr(), len: 1, _token: Arc::clone(&token.0) };
        let bytes = Bytes::from_owner(lent);
        let kept = bytes.slice(..);
        drop(bytes);
        assert!(!token.is_returned());
        drop(kept);
        assert!(token.is_returned());
    }
}
