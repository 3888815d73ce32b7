// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for the engine, which is asked once a second and no more often: it tells nobody by itself.

use std::time::Duration;

use crate::{Engine, Error, Result};

/// The time between two questions.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an engine may be away that is being started again.
const RESTART: Duration = Duration::from_secs(300);

impl Engine {
    /// Asks until there is an answer. An engine that can't be reached, or is starting, is asked again.
    ///
    /// # Errors
    /// Those of `ask` that asking again doesn't help against; [`Error::TimedOut`], and [`Error::Stopped`].
    pub(crate) fn poll<T>(
        &self,
        what: &str,
        time: Duration,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let start = self.clock.now();
        loop {
            let error = match ask() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => None,
                Err(error) if error.is_transient() => {
                    log::debug!("asking again: {error}");
                    Some(error)
                }
                Err(error) => return Err(error),
            };
            if self.clock.now().duration_since(start) >= time {
                // Why it can't be asked says more.
                return Err(error.unwrap_or(Error::TimedOut { what: what.to_owned(), time }));
            }
            if !self.clock.pause(INTERVAL) {
                return Err(Error::Stopped { what: what.to_owned() });
            }
        }
    }

    /// Makes something, once. Where the answer is lost, it is looked up whether it was made; if it wasn't, that is tried again,
    /// one time.
    pub(crate) fn recover<T>(
        &self,
        what: &str,
        make: impl Fn() -> Result<T>,
        look_up: impl Fn() -> Result<Option<T>>,
    ) -> Result<T> {
        let error = match make() {
            Err(error) if error.may_be_done() => error,
            made => return made,
        };
        log::warn!("{error}: looking up whether it was done");
        if let Some(found) = self.poll(what, RESTART, || look_up().map(Some))? {
            return Ok(found);
        }
        match make() {
            // The first one was only late.
            Err(error @ Error::Refused { status: 400 | 409, .. }) => look_up()?.ok_or(error),
            made => made,
        }
    }
}
