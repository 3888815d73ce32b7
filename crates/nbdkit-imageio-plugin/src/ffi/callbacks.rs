// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions that nbdkit calls: from C to Rust and back, nothing else.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use block_device_traits::{Errno, Error, ZeroFlags};

use super::abi::{self, Handle, NbdkitExtents};
use super::extent_list::ExtentList;
use super::guard::{answer, guard, notice, status};
use super::{channel, exit, lend, memory};
use crate::client::Client;
use crate::{describe, plugin};

pub(super) extern "C" fn load() {
    memory::keep_some_memory();
    notice(plugin::load);
}

pub(super) extern "C" fn unload() {
    notice(|| {
        let closed = plugin::close();
        plugin::unload();
        after_close(closed);
    });
}

/// nbdkit 1.26 and newer; before that, `unload` does it all.
pub(super) extern "C" fn cleanup() {
    notice(|| after_close(plugin::close()));
}

fn after_close(closed: Result<(), Error>) {
    if let Err(error) = closed {
        channel::error(&error.to_string());
        exit::fail_at_exit();
    }
}

pub(super) extern "C" fn dump_plugin() {
    notice(|| describe::facts().iter().for_each(|line| channel::print_line(line)));
}

/// # Safety
/// Both are C strings.
pub(super) unsafe extern "C" fn config(key: *const c_char, value: *const c_char) -> c_int {
    status(|| {
        // SAFETY: nbdkit passes two C strings, which live through the call.
        let (key, value) = unsafe { (CStr::from_ptr(key), CStr::from_ptr(value)) };
        let (Ok(key), Ok(value)) = (key.to_str(), value.to_str()) else {
            return Err(Error::new(
                Errno::Inval,
                format!("{}: a value in UTF-8 is expected", key.to_string_lossy()),
            ));
        };
        plugin::config(key, value)
    })
}

pub(super) extern "C" fn config_complete() -> c_int {
    status(plugin::config_complete)
}

pub(super) extern "C" fn thread_model() -> c_int {
    abi::THREAD_MODEL_PARALLEL
}

pub(super) extern "C" fn get_ready() -> c_int {
    status(plugin::get_ready)
}

pub(super) extern "C" fn after_fork() -> c_int {
    status(plugin::after_fork)
}

pub(super) extern "C" fn open(read_only: c_int) -> Handle {
    guard(ptr::null_mut(), || {
        let client = plugin::open(read_only != 0)?;
        Ok(Box::into_raw(Box::new(client)).cast())
    })
}

/// # Safety
/// `handle` is from [`open`], is used by no other call, and by none after this.
pub(super) unsafe extern "C" fn close(handle: Handle) {
    notice(|| {
        // SAFETY: promised by nbdkit: a handle is closed once, after all its requests.
        drop(unsafe { Box::from_raw(handle.cast::<Client>()) });
    });
}

/// # Safety
/// `handle` is from [`open`], and not closed for `'a`.
unsafe fn client<'a>(handle: Handle) -> &'a Client {
    // SAFETY: `open` made it from a box, and nothing but `close` ends it. It is shared only: it is
    // `Sync`.
    unsafe { &*handle.cast::<Client>() }
}

/// Callbacks that answer a question about a client.
macro_rules! questions {
    ($($name:ident: $ask:expr;)*) => {$(
        /// # Safety
        /// `handle` is from [`open`], and not closed.
        pub(super) unsafe extern "C" fn $name(handle: Handle) -> c_int {
            // SAFETY: promised by nbdkit.
            let client = unsafe { client(handle) };
            guard(-1, || Ok(($ask)(client)))
        }
    )*};
}

questions! {
    can_write: |client: &Client| c_int::from(client.can_write());
    can_flush: |client: &Client| c_int::from(client.capabilities().flush);
    can_zero: |client: &Client| c_int::from(client.can_write());
    can_fast_zero: |client: &Client| c_int::from(client.capabilities().fast_zero);
    can_multi_conn: |client: &Client| c_int::from(client.capabilities().multi_conn);
    can_extents: |client: &Client| c_int::from(client.can_extents());
    can_fua: |client: &Client| if client.capabilities().fua { abi::FUA_NATIVE } else { abi::FUA_NONE };
}

/// Answers no for what imageio doesn't have: trim, and disks' rotation.
pub(super) unsafe extern "C" fn never(_handle: Handle) -> c_int {
    answer(|| false)
}

pub(super) unsafe extern "C" fn can_cache(_handle: Handle) -> c_int {
    abi::CACHE_NONE
}

/// # Safety
/// `handle` is from [`open`], and not closed.
pub(super) unsafe extern "C" fn get_size(handle: Handle) -> i64 {
    // SAFETY: promised by nbdkit.
    let client = unsafe { client(handle) };
    guard(-1, || client.size())
}

/// # Safety
/// `handle` is from [`open`], and not closed; the others may be written to.
pub(super) unsafe extern "C" fn block_size(
    handle: Handle,
    minimum: *mut u32,
    preferred: *mut u32,
    maximum: *mut u32,
) -> c_int {
    // SAFETY: promised by nbdkit.
    let client = unsafe { client(handle) };
    status(|| {
        let size = client.capabilities().block_size;
        // SAFETY: nbdkit passes the addresses of three of its variables.
        unsafe {
            minimum.write(size.minimum);
            preferred.write(size.preferred);
            maximum.write(size.maximum);
        }
        Ok(())
    })
}

/// # Safety
/// `handle` is from [`open`], and not closed; `count` bytes may be written to `buf`.
pub(super) unsafe extern "C" fn pread(
    handle: Handle,
    buf: *mut c_void,
    count: u32,
    offset: u64,
    _flags: u32,
) -> c_int {
    // SAFETY: promised by nbdkit.
    let client = unsafe { client(handle) };
    // SAFETY: promised by nbdkit; the buffer belongs to this call until it returns.
    status(|| unsafe { lend::lend_to_fill(buf, count, |buffer| client.read(offset, buffer)) })
}

/// # Safety
/// `handle` is from [`open`], and not closed; `buf` has `count` bytes.
pub(super) unsafe extern "C" fn pwrite(
    handle: Handle,
    buf: *const c_void,
    count: u32,
    offset: u64,
    flags: u32,
) -> c_int {
    // SAFETY: promised by nbdkit.
    let client = unsafe { client(handle) };
    let fua = flags & abi::FLAG_FUA != 0;
    status(|| {
        // SAFETY: nbdkit leaves its buffer alone until this callback returns.
        unsafe { lend::lend(buf, count, |data| client.write(offset, data, fua)) }
    })
}

/// # Safety
/// `handle` is from [`open`], and not closed.
pub(super) unsafe extern "C" fn zero(handle: Handle, count: u32, offset: u64, flags: u32) -> c_int {
    // SAFETY: promised by nbdkit.
    let client = unsafe { client(handle) };
    status(|| client.zero(offset, count.into(), zero_flags(flags)))
}

/// # Safety
/// `handle` is from [`open`], and not closed.
pub(super) unsafe extern "C" fn flush(handle: Handle, _flags: u32) -> c_int {
    // SAFETY: promised by nbdkit.
    let client = unsafe { client(handle) };
    status(|| client.flush())
}

/// # Safety
/// `handle` is from [`open`], and not closed; `list` is nbdkit's, and this call's alone.
pub(super) unsafe extern "C" fn extents(
    handle: Handle,
    count: u32,
    offset: u64,
    flags: u32,
    list: *mut NbdkitExtents,
) -> c_int {
    // SAFETY: promised by nbdkit.
    let client = unsafe { client(handle) };
    // SAFETY: promised by nbdkit; it doesn't leave this call.
    let list = unsafe { ExtentList::new(list) };
    let only_first = flags & abi::FLAG_REQ_ONE != 0;
    status(|| list.add_all(offset, &client.extents(offset, count.into(), only_first)?))
}

fn zero_flags(flags: u32) -> ZeroFlags {
    ZeroFlags {
        fua: flags & abi::FLAG_FUA != 0,
        no_hole: flags & abi::FLAG_MAY_TRIM == 0,
        fast: flags & abi::FLAG_FAST_ZERO != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_nbdkit() {
        assert_eq!(zero_flags(0), ZeroFlags { no_hole: true, ..ZeroFlags::default() });
        assert_eq!(zero_flags(1 | 2), ZeroFlags { fua: true, ..ZeroFlags::default() });
        assert_eq!(zero_flags(1 | 8), ZeroFlags { fast: true, ..ZeroFlags::default() });
    }
}
