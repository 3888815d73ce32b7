// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ticket that the server doesn't know any more, and who can bring it back.

use std::fmt::Debug;

/// A keeper has got the ticket, and can bring it back. An engine pauses a transfer that nobody has
/// used for a while, as after an outage of the network, and renews its ticket no more, so that it
/// expires. When the transfer is resumed, the engine renews the ticket.
pub trait TicketKeeper: Debug + Send + Sync {
    /// The server has refused the ticket (403). Has it renewed, if it has expired meanwhile, which
    /// may take some time. Called by several threads at a time.
    ///
    /// True if the server knows the ticket again: the request is sent once more, on a new
    /// connection. False if nothing has changed.
    fn bring_back(&self) -> bool;

    /// Returns the reason why the ticket can't be brought back, once that is known. It is told
    /// with the server's refusal, which says no more than that there is no ticket.
    fn why_lost(&self) -> Option<String>;
}
