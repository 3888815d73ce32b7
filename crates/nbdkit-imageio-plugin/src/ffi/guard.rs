// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way out of every callback: no panic crosses into C, and each error is told.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use block_device_traits::{Errno, Error};

use super::channel;

/// Runs a callback; `failed` is what nbdkit takes for a failure. The panic hook has told of a
/// panic.
pub(crate) fn guard<T>(failed: T, work: impl FnOnce() -> Result<T, Error>) -> T {
    // If a panic leaves something half done, that is the device's or behind a lock: the next call
    // finds out.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            tell(&error);
            failed
        }
        Err(_) => {
            channel::set_errno(Errno::Io);
            failed
        }
    }
}

/// [`guard`] for callbacks that return 0 or -1.
pub(crate) fn status(work: impl FnOnce() -> Result<(), Error>) -> c_int {
    guard(-1, || work().map(|()| 0))
}

/// [`guard`] for callbacks that answer a question.
pub(crate) fn answer(work: impl FnOnce() -> bool) -> c_int {
    guard(-1, || Ok(c_int::from(work())))
}

/// [`guard`] for callbacks that return nothing.
pub(crate) fn notice(work: impl FnOnce()) {
    guard((), || {
        work();
        Ok(())
    });
}

/// Tells the client of an error. A refusal of a fast zero is no failure: nbdkit's client goes on
/// with writing.
fn tell(error: &Error) {
    match error.errno() {
        Errno::NotSup => channel::debug(&error.to_string()),
        _ => channel::error(&error.to_string()),
    }
    // After the message, though that keeps errno: this is what the client gets.
    channel::set_errno(error.errno());
}

#[cfg(test)]
mod tests {
    use super::channel::server;
    use super::*;

    #[test]
    fn a_panic_is_eio() {
        assert_eq!(status(|| panic!("a bug (this is a test)")), -1);
        assert_eq!(server::errno(), 5);
    }

    #[test]
    fn an_error_is_told_with_its_errno() {
        assert_eq!(status(|| Err(Error::new(Errno::NoSpc, "full"))), -1);
        assert_eq!((server::errno(), server::said()), (28, vec!["error: full".to_owned()]));
        assert_eq!(answer(|| true), 1);
    }
}
