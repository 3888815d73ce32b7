// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exit status of nbdkit when data may be lost.
//!
//! nbdkit has no means for that: `cleanup` and `unload` return nothing, and its `main` then
//! returns 0. Calling `exit` is not allowed by then, and would leave behind what nbdkit removes
//! last, such as the socket of `-U -`. So this waits for the exit, when nbdkit is done. With
//! `--run` nbdkit ignores the status of its serving process: only the message is left then.

use std::ffi::c_int;
use std::ptr;

use super::abi;

const FAILURE: c_int = 1;

/// Makes the process end with status 1, whatever it returns later.
pub(crate) fn fail_at_exit() {
    // SAFETY: `fail` is in code that stays mapped (-z nodelete); were it not, the C library would
    // call it when it is unmapped. It takes and returns nothing.
    unsafe { abi::atexit(fail) };
}

extern "C" fn fail() {
    // SAFETY: null stands for all of C's output streams, which `_exit` would not write out; nbdkit
    // is done, so nobody holds one. `_exit` may end a process at any time.
    unsafe {
        abi::fflush(ptr::null_mut());
        abi::_exit(FAILURE)
    }
}
