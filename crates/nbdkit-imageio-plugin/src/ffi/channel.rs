// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdkit's channel for messages, for the errno of a request, and for the news that a request is no
//! longer worth its while.
//!
//! nbdkit decides where messages go: standard error, or the system's log once it is a daemon.

use std::ffi::CString;

use block_device_traits::Errno;
use rustix::io::Errno as Os;

/// Tells the user of an error.
pub(crate) fn error(text: &str) {
    server::error(&c_text(text));
}

/// Tells something that shows only with `-v`.
pub(crate) fn debug(text: &str) {
    server::debug(&c_text(text));
}

/// Sets the error for the client whose request fails on this thread.
pub(crate) fn set_errno(errno: Errno) {
    server::set_errno(os_errno(errno).raw_os_error());
}

/// Returns true if the request that this thread carries out should go on: not once nbdkit ends, or
/// its client has gone. nbdkit says so in a message of its own.
pub(crate) fn goes_on() -> bool {
    server::goes_on()
}

/// Prints a line for `--dump-plugin`. By way of C's standard output, as nbdkit's own lines, so that
/// the order is kept.
pub(crate) fn print_line(line: &str) {
    let line = c_text(line);
    // SAFETY: `line` is a C string that lives through the call.
    unsafe { super::abi::puts(line.as_ptr()) };
}

fn os_errno(errno: Errno) -> Os {
    match errno {
        Errno::Perm => Os::PERM,
        Errno::Io => Os::IO,
        Errno::NoMem => Os::NOMEM,
        Errno::Inval => Os::INVAL,
        Errno::NoSpc => Os::NOSPC,
        Errno::Overflow => Os::OVERFLOW,
        // In Linux the same number as ENOTSUP.
        Errno::NotSup => Os::OPNOTSUPP,
        Errno::Shutdown => Os::SHUTDOWN,
    }
}

/// One line for C. A text may come from the server, and hold anything: a NUL would end it early,
/// such as the one that an abstract socket's name starts with.
fn c_text(text: &str) -> CString {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => line.push_str("\\0"),
            c if c.is_control() => line.push(' '),
            c => line.push(c),
        }
    }
    CString::new(line).unwrap_or_default()
}

#[cfg(not(test))]
mod server {
    use std::ffi::{CStr, c_int};

    use super::super::abi;

    pub(super) fn error(text: &CStr) {
        // SAFETY: the format takes one C string, and both strings live through the call. Any thread
        // may call it.
        unsafe { abi::nbdkit_error(c"%s".as_ptr(), text.as_ptr()) };
    }

    pub(super) fn debug(text: &CStr) {
        // SAFETY: as for `nbdkit_error`.
        unsafe { abi::nbdkit_debug(c"%s".as_ptr(), text.as_ptr()) };
    }

    pub(super) fn set_errno(errno: c_int) {
        // SAFETY: it takes any number, and keeps it for the calling thread.
        unsafe { abi::nbdkit_set_error(errno) };
    }

    pub(super) fn goes_on() -> bool {
        // The shortest nap there is, which fails where there is no point in going on. No nap at all
        // would do as well, but nobody promises that.
        // SAFETY: it takes any numbers, and any thread of nbdkit may call it.
        unsafe { abi::nbdkit_nanosleep(0, 1) == 0 }
    }
}

/// The stand-in for nbdkit in unit tests: each thread remembers what it said.
#[cfg(test)]
pub(crate) mod server {
    use std::cell::{Cell, RefCell};
    use std::ffi::{CStr, c_int};

    thread_local! {
        static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        static ERRNO: Cell<c_int> = const { Cell::new(0) };
    }

    pub(super) fn error(text: &CStr) {
        SAID.with_borrow_mut(|said| said.push(format!("error: {}", text.to_string_lossy())));
    }

    pub(super) fn debug(text: &CStr) {
        SAID.with_borrow_mut(|said| said.push(format!("debug: {}", text.to_string_lossy())));
    }

    pub(super) fn set_errno(errno: c_int) {
        ERRNO.set(errno);
    }

    pub(super) fn goes_on() -> bool {
        true
    }

    /// Takes the messages of this thread since the last call.
    pub(crate) fn said() -> Vec<String> {
        SAID.take()
    }

    pub(crate) fn errno() -> c_int {
        ERRNO.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_one_c_string() {
        assert_eq!(c_text("%s\0/org\n\u{7}é").to_str().unwrap(), "%s\\0/org  é");
        error("100%n\0x");
        assert_eq!(server::said(), ["error: 100%n\\0x"]);
    }

    #[test]
    fn each_errno_is_that_of_its_name() {
        set_errno(Errno::Shutdown);
        assert_eq!(server::errno(), 108);
        set_errno(Errno::NoSpc);
        assert_eq!(server::errno(), 28);
    }
}
