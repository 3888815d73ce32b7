// SPDX-License-Identifier: MIT OR Apache-2.0
//! A flag of each thread: it is writing a message just now, and so holds the locks that another one
//! would need.

use std::cell::Cell;

thread_local! {
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

/// Ends also by a panic.
struct Before(bool);

impl Drop for Before {
    fn drop(&mut self) {
        IS_WRITING.set(self.0);
    }
}

/// Writes a message: whoever panics in there must not write another in the same way.
pub(crate) fn write<T>(write: impl FnOnce() -> T) -> T {
    let _before = Before(IS_WRITING.replace(true));
    write()
}

/// Returns true if this thread is writing a message.
pub(crate) fn is_under_way() -> bool {
    IS_WRITING.get()
}
