// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TCP proxy that does what networks do on their worse days.
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

mod pair;
mod plan;
mod proxy;

pub use plan::{Drip, Fault, Point, Way};
pub use proxy::Proxy;
