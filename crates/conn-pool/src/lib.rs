// SPDX-License-Identifier: MIT OR Apache-2.0
//! TODO
mod connection;
mod dispatcher;
mod error;
mod flushes;
mod keeper;
mod line;
mod news;
mod pool;
mod request;
mod slots;
mod sync;
mod workers;

pub use connection::{Connection, State, Task};
pub use error::{Affected, Failure, Outcome, Panicked, PoolError};
pub use keeper::Keeper;
pub use pool::{Clock, Due, Pool};
pub use request::{Group, Place, Request, Shape};
pub use workers::Workers;
