// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for the engine, which is asked once a second and no more often: it tells nobody by
//! itself.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use error_reporter::Report;

use crate::{Engine, Error, Result};

/// The time between two questions.
const INTERVAL: Duration = Duration::from_secs(1);

/// A wait that takes longer than this is told of, so that nobody takes it for a hang.
const LONG: Duration = Duration::from_secs(15);

impl Engine {
    /// Asks until there is an answer. An engine that can't be reached, or is starting, is asked
    /// again, for as long as [`Config::reconnect_timeout`](crate::Config::reconnect_timeout) says.
    ///
    /// # Errors
    /// Those of `ask` that asking again doesn't help against; [`Error::TimedOut`], and
    /// [`Error::Stopped`].
    pub(crate) fn poll<T>(
        &self,
        what: &str,
        time: Duration,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let start = self.clock.now();
        let mut last_answer = start;
        let mut is_told = false;
        loop {
            let error = match ask() {
                Ok(answer) => {
                    self.is_given_up.store(false, Relaxed);
                    last_answer = self.clock.now();
                    match answer {
                        Some(answer) => return Ok(answer),
                        None => None,
                    }
                }
                Err(error) if error.is_transient() => Some(error),
                Err(error) => return Err(error),
            };
            let now = self.clock.now();
            let is_away = error.is_some() && self.has_to_give_up(now.duration_since(last_answer));
            if is_away || now.duration_since(start) >= time {
                // The reason why it can't be asked says more.
                return Err(error.unwrap_or(Error::TimedOut { what: what.to_owned(), time }));
            }
            if let Some(error) = &error {
                log::debug!("asking again: {}", Report::new(error));
            }
            if !is_told && now.duration_since(start) >= LONG {
                is_told = true;
                let reason = error.map_or_else(String::new, |error| format!(" ({})", Report::new(error)));
                log::warn!("the engine has not yet {what}{reason}: still asking");
            }
            if !self.clock.pause(INTERVAL) {
                return Err(Error::Stopped { what: what.to_owned() });
            }
        }
    }

    /// Returns true if an engine that hasn't answered for so long is given up.
    fn has_to_give_up(&self, away: Duration) -> bool {
        if away >= self.reconnect_timeout {
            self.is_given_up.store(true, Relaxed);
        }
        self.is_given_up.load(Relaxed)
    }

    /// Makes something, once. Where the answer is lost, it is looked up whether it was made; if it
    /// wasn't, that is tried again, one time. `what` the engine has done then is told if it stays
    /// unknown.
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
        log::warn!("{}: looking up whether it was done", Report::new(error));
        let told = format!("told whether it has {what}");
        let found = self.poll(&told, self.reconnect_timeout, || look_up().map(Some));
        if let Some(found) = found.inspect_err(|_| tell_nobody_knows(what))? {
            return Ok(found);
        }
        match make() {
            // The first one was only late.
            Err(error @ Error::Refused { status: 400 | 409, .. }) => look_up()?.ok_or(error),
            made => made.inspect_err(|error| tell_doubt(error, what)),
        }
    }
}

/// Tells that `what` may have been done, if the error leaves that open.
pub(crate) fn tell_doubt(error: &Error, what: &str) {
    if error.may_be_done() {
        tell_nobody_knows(what);
    }
}

fn tell_nobody_knows(what: &str) {
    log::error!("nobody knows whether the engine has {what}: look for it there before trying again");
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use super::*;
    use crate::error::Request;
    use crate::{Clock, Config, NoAnswer, Secret, Trust};

    /// Time that passes only when somebody waits.
    #[derive(Debug)]
    struct Patient(Mutex<Instant>);

    impl Clock for Patient {
        fn now(&self) -> Instant {
            *self.0.lock().unwrap()
        }
        fn pause(&self, time: Duration) -> bool {
            *self.0.lock().unwrap() += time;
            true
        }
    }

    fn engine(reconnect_timeout: u64) -> Engine {
        let mut config = Config::new("https://engine.example.com", "admin@internal", Secret::new("p"));
        config.trust = Trust::Insecure;
        config.reconnect_timeout = Duration::from_secs(reconnect_timeout);
        Engine::with_clock(config, Arc::new(Patient(Mutex::new(Instant::now())))).unwrap()
    }

    fn away() -> Error {
        let request = Request::new("GET", "/disks");
        let source = NoAnswer::Failed("connection refused".to_owned());
        Error::Unreachable { request, host: "engine".to_owned(), source, may_be_done: false }
    }

    /// Polls an engine whose n-th answer is `answer(n)`, and returns the number of questions with
    /// the outcome.
    fn asked(engine: &Engine, time: u64, answer: impl Fn(u64) -> Result<Option<()>>) -> (u64, Result<()>) {
        let mut questions = 0;
        let outcome = engine.poll("woken up", Duration::from_secs(time), || {
            questions += 1;
            answer(questions)
        });
        (questions, outcome)
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        let (questions, outcome) = asked(&engine(10), 100, |_| Ok(None));
        assert_eq!(questions, 101);
        assert_eq!(outcome.unwrap_err().to_string(), "the engine has not woken up within 100 s");
        let (questions, outcome) = asked(&engine(300), 100, |_| Err(away()));
        assert_eq!((questions, outcome.unwrap_err().is_transient()), (101, true));
    }

    #[test]
    fn an_engine_that_is_away_for_too_long_is_asked_once_each_time_until_it_answers() {
        let engine = engine(10);
        // It is away for nine seconds, again and again.
        let (questions, outcome) =
            asked(&engine, 100, |n| if n % 10 == 0 { Ok((n == 50).then_some(())) } else { Err(away()) });
        assert!(questions == 50 && outcome.is_ok(), "{questions} {outcome:?}");
        for expected in [11, 1, 1] {
            let (questions, outcome) = asked(&engine, 100, |_| Err(away()));
            assert_eq!((questions, outcome.unwrap_err().is_transient()), (expected, true));
        }
        assert!(asked(&engine, 100, |_| Ok(Some(()))).1.is_ok());
        assert_eq!(asked(&engine, 100, |_| Err(away())).0, 11);
    }
}
