// SPDX-License-Identifier: MIT OR Apache-2.0
//! `Debug` for what holds connections. It tells no state, as that would take the lock.

use std::fmt::{Debug, Formatter, Result};

use crate::connection::Connection;
use crate::keeper::Keeper;
use crate::pool::{Due, Pool};
use crate::workers::{Submitter, Workers};

impl<C: Connection> Debug for Pool<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl<C: Connection> Debug for Due<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Due").finish_non_exhaustive()
    }
}

impl<C: Connection> Debug for Keeper<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl<C: Connection> Debug for Workers<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

impl<C: Connection> Debug for Submitter<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Submitter").finish_non_exhaustive()
    }
}
