// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP proxies that do what networks do.
//!
//! A [`Proxy`] does what they do on their worse days: it closes connections, resets them, goes
//! silent, or is late, at an exact byte.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//!
//! use fault_proxy::{Fault, Point, Proxy, Way};
//!
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let proxy = Proxy::start(server.local_addr()?)?;
//! // The connection that carries the 3rd byte of the answers from now on is closed there.
//! proxy.fault(Point::Byte(Way::ToClient, 3), Fault::Kill);
//!
//! let mut client = TcpStream::connect(proxy.addr())?;
//! let (mut served, _) = server.accept()?;
//! served.write_all(b"answer")?;
//! let mut answer = Vec::new();
//! client.read_to_end(&mut answer)?;
//! assert_eq!(answer, b"ans");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A [`Relay`] is a [`Link`] that is long, or narrow:
//!
//! ```
//! use std::time::Duration;
//!
//! use fault_proxy::{Link, Relay};
//!
//! # fn test(server: std::net::SocketAddr) -> std::io::Result<()> {
//! // A round trip takes 20 ms.
//! let relay = Relay::start(server, Link::new(Duration::from_millis(10), None))?;
//! # let _ = relay.addr();
//! # Ok(())
//! # }
//! ```
//!
//! # Why this way
//!
//! The kernel can lose and delay packets (`tc netem`), but that takes root, and it can't cut a
//! connection at a certain byte of a certain message. These proxies need no rights and work on any
//! system. They carry bytes, not packets: what TCP itself does about lost packets is not shown.
//!
//! # Threads and lifecycle
//!
//! [`Proxy::start`] and [`Relay::start`] listen on a free port of `127.0.0.1` and have threads for
//! their connections. Dropping the proxy closes its connections and ends the threads. Faults may be
//! added from any thread, while connections are open.
//!
//! # Errors
//!
//! Only the start can fail, with an [`std::io::Error`]. What goes wrong on a connection later is
//! passed on to its other side.

mod flight;
mod link;
mod pair;
mod plan;
mod proxy;
mod relay;

pub use link::Link;
pub use plan::{Drip, Fault, Point, Way};
pub use proxy::Proxy;
pub use relay::Relay;

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Proxy>();
    is_send_and_sync::<Relay>();
    is_send_and_sync::<Link>();
    is_send_and_sync::<Fault>();
};
