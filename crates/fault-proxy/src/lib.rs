// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP proxies that do what networks do.
//!
//! A [`Proxy`] does what they do on their worse days:
//!
//! ```
//! use fault_proxy::{Fault, Point, Proxy, Way};
//!
//! # fn test(server: std::net::SocketAddr) -> std::io::Result<()> {
//! let proxy = Proxy::start(server)?;
//! // The connection that carries the 1000th byte of the answers from now on is reset there.
//! proxy.fault(Point::Byte(Way::ToClient, 1000), Fault::Reset);
//! # Ok(())
//! # }
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
//! let relay = Relay::start(server, Link { delay: Duration::from_millis(10), rate: None })?;
//! # let _ = relay.addr();
//! # Ok(())
//! # }
//! ```

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
