// SPDX-License-Identifier: MIT OR Apache-2.0
//! The users who may listen on a unix socket that gets the ticket.
//!
//! Any local user can listen on an abstract name, and plain HTTP is spoken there: who the listener
//! is takes the place of the certificate.

use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

/// The number that the system shows for a user who has none in this user namespace, so that it
/// proves nothing.
const OVERFLOW_USER: u32 = 65_534;

/// The users whose unix sockets are trusted with the ticket: root, this process's own, and perhaps
/// another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedUsers {
    numbers: Vec<u32>,
}

impl TrustedUsers {
    /// Root, the user of this process, and the one of the number `other`.
    #[must_use]
    pub fn new(other: Option<u32>) -> Self {
        Self::of(geteuid().as_raw(), other)
    }

    fn of(own: u32, other: Option<u32>) -> Self {
        let numbers = [0, own].into_iter().chain(other).filter(|number| *number != OVERFLOW_USER);
        Self { numbers: numbers.collect() }
    }

    /// Not even this process.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Self { numbers: Vec::new() }
    }

    /// Returns true if a server of this user may get the ticket.
    fn trusts(&self, user: u32) -> bool {
        self.numbers.contains(&user)
    }

    /// Refuses a connected unix socket whose listener is somebody else's.
    pub(crate) fn check(&self, socket: impl AsFd) -> io::Result<()> {
        let user = socket_peercred(socket)?.uid.as_raw();
        if self.trusts(user) {
            return Ok(());
        }
        let reason = format!("it is served by user {user}, who is not trusted with the ticket");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_oneself_and_the_one_named_are_trusted() {
        let users = TrustedUsers::of(1000, Some(36));
        for (user, expected) in
            [(0, true), (1000, true), (36, true), (1, false), (1001, false), (65_534, false)]
        {
            assert_eq!(users.trusts(user), expected, "{user}");
        }
        assert!(!TrustedUsers::of(1000, None).trusts(36));
    }

    #[test]
    fn a_user_without_a_number_is_nobody_s_proof() {
        assert!(!TrustedUsers::of(OVERFLOW_USER, Some(OVERFLOW_USER)).trusts(OVERFLOW_USER));
    }
}
