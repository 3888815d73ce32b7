// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking the server what is zero, or what is dirty: once, when the first client wants to know, on
//! a connection and by a thread of its own.
//!
//! imageio tells of the whole disk or of nothing, and takes minutes for a large one. Requests and
//! keep-alives go on meanwhile; those who want to know wait. What the answer says is kept true by
//! `tracker`.
//!
//! A server that doesn't tell is no fault of the transfer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use block_device_traits::{Batch, Errno, Error, Result};
use error_reporter::Report;
use imageio_client::{Canceller, Connection, Connector, ExtentsContext, StatusCode};

use crate::counters::Counters;
use crate::tracker::{ExtentMap, Tracker};

/// Pauses before further attempts, where the connection breaks.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The time after which it is asked again whether somebody still waits.
const ATTENTION: Duration = Duration::from_millis(100);

/// One question to the server, and those who wait for its answer.
pub(crate) struct Inquiry {
    shared: Arc<Shared>,
}

/// A waiter is told whether the server has answered, or that the device is closed.
pub(crate) type Waiter = Box<dyn FnOnce(Result<bool>, &mut Batch) + Send>;

struct Shared {
    connector: Arc<Connector>,
    tracker: Arc<Tracker>,
    counters: Arc<Counters>,
    /// In bytes.
    disk_size: u64,
    asked: ExtentsContext,
    /// The server says that it tells extents.
    is_offered: bool,
    asking: Mutex<Asking>,
    /// The stage is another.
    changed: Condvar,
}

#[derive(Default)]
struct Asking {
    stage: Stage,
    waiters: Vec<Waiter>,
    thread: Option<JoinHandle<()>>,
    /// The thread waits for a connection, which nothing can keep it from.
    is_connecting: bool,
    /// Of the connection on which the thread waits for the answer.
    canceller: Option<Canceller>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    NotAsked,
    Asking,
    Answered {
        /// The server has told what it was asked; else it could not tell.
        is_told: bool,
    },
    Closed,
}

impl Inquiry {
    /// Nothing is asked yet. `is_offered` is what the server says of itself.
    pub(crate) fn new(
        connector: Arc<Connector>,
        tracker: Arc<Tracker>,
        counters: Arc<Counters>,
        disk_size: u64,
        asked: ExtentsContext,
        is_offered: bool,
    ) -> Self {
        let (asking, changed) = (Mutex::default(), Condvar::new());
        let shared = Shared { connector, tracker, counters, disk_size, asked, is_offered, asking, changed };
        Self { shared: Arc::new(shared) }
    }

    /// Waits until the server was asked, as long as it `goes_on`, which is asked now and then.
    /// Returns true if the server has told.
    ///
    /// # Errors
    /// [`Errno::Shutdown`].
    pub(crate) fn wait(&self, goes_on: &dyn Fn() -> bool) -> Result<bool> {
        let mut asking = self.ask();
        while asking.stage == Stage::Asking {
            let waited = self.shared.changed.wait_timeout(asking, ATTENTION);
            asking = waited.unwrap_or_else(PoisonError::into_inner).0;
            if asking.stage == Stage::Asking {
                drop(asking);
                if !goes_on() {
                    return Err(Error::new(
                        Errno::Shutdown,
                        "nobody waits any more for what the server tells",
                    ));
                }
                asking = self.shared.lock();
            }
        }
        asking.stage.outcome()
    }

    /// Tells `waiter` when the server was asked: by the thread that asks it, or at once.
    pub(crate) fn when_asked(&self, waiter: Waiter) {
        let mut asking = self.ask();
        if asking.stage == Stage::Asking {
            asking.waiters.push(waiter);
            return;
        }
        let outcome = asking.stage.outcome();
        drop(asking);
        waiter(outcome, &mut Batch::default());
    }

    /// Begins to ask the server, if nobody has.
    fn ask(&self) -> MutexGuard<'_, Asking> {
        let mut asking = self.shared.lock();
        if asking.stage != Stage::NotAsked {
            return asking;
        }
        self.shared.tracker.ask_extents(self.shared.asked);
        match self.start() {
            Ok(thread) => (asking.stage, asking.thread) = (Stage::Asking, Some(thread)),
            Err(reason) => asking.stage = self.shared.note(Err(reason)),
        }
        asking
    }

    fn start(&self) -> std::result::Result<JoinHandle<()>, Failed> {
        if !self.shared.is_offered {
            return Err(Failed { is_absence: true, ..Failed::new("it doesn't offer extents") });
        }
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("extents".to_owned());
        thread
            .spawn(move || shared.run())
            .map_err(|error| Failed::new(format!("no thread can be had: {error}")))
    }

    /// Ends asking. Those who wait are told, and so are those who come later. Nothing is known any
    /// more, so that all reads get to those who know that the device is closed.
    pub(crate) fn close(&self) {
        let mut asking = self.shared.lock();
        asking.stage = Stage::Closed;
        let (waiters, thread) = (std::mem::take(&mut asking.waiters), asking.thread.take());
        asking.canceller.take().iter().for_each(Canceller::cancel);
        let is_connecting = asking.is_connecting;
        drop(asking);
        self.shared.changed.notify_all();
        self.shared.tracker.forget_extents(self.shared.asked);
        tell(waiters, Stage::Closed);
        // A thread that is just connecting ends as soon as it is, and does nothing else.
        if let Some(thread) = thread
            && !is_connecting
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            log::error!("the thread that asks for extents panicked");
        }
    }
}

impl Drop for Inquiry {
    /// Nobody waits any more, as who waits uses the device.
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Asking> {
        // Nothing under the lock leaves it half done.
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs in the thread. Those who wait are told even if it panics.
    fn run(&self) {
        let told = catch_unwind(AssertUnwindSafe(|| self.ask_again_and_again()));
        let told = told.unwrap_or_else(|_| Err(Failed::new("bug: asking for them panicked")));
        let mut asking = self.lock();
        if asking.stage == Stage::Closed {
            return;
        }
        // Under the lock, so that it doesn't come after the device is closed.
        let stage = self.note(told);
        asking.stage = stage;
        let waiters = std::mem::take(&mut asking.waiters);
        drop(asking);
        self.changed.notify_all();
        tell(waiters, stage);
    }

    fn note(&self, told: std::result::Result<ExtentMap, Failed>) -> Stage {
        let is_told = told.is_ok();
        match (&told, self.asked) {
            (Ok(map), ExtentsContext::Zero) => {
                log::info!("extents: {} ranges are zeroes or holes", map.ranges());
            }
            (Ok(map), ExtentsContext::Dirty) => log::info!("extents: {} ranges are dirty", map.ranges()),
            (Err(Failed { reason, .. }), ExtentsContext::Zero) => {
                log::warn!("the server doesn't tell what is zero, so all is taken for data: {reason}");
            }
            (Err(Failed { reason, is_absence: true, .. }), ExtentsContext::Dirty) => {
                log::info!("no dirty extents are offered: {reason}");
            }
            (Err(Failed { reason, .. }), ExtentsContext::Dirty) => {
                log::warn!(
                    "the server doesn't tell what is dirty, so no dirty extents are offered: {reason}"
                );
            }
        }
        self.tracker.extents_answered(self.asked, told.ok());
        Stage::Answered { is_told }
    }

    fn ask_again_and_again(&self) -> std::result::Result<ExtentMap, Failed> {
        for pause in PAUSES {
            match self.ask_once() {
                Err(Failed { reason, is_worth_another_attempt: true, .. }) if self.wait(pause) => {
                    log::info!("the server is asked for extents again: {reason}");
                }
                told => return told,
            }
        }
        self.ask_once()
    }

    fn ask_once(&self) -> std::result::Result<ExtentMap, Failed> {
        let mut connection = self.connect()?;
        let mut map = ExtentMap::new(self.asked);
        let end = self.counters.ask_extents(self.number(), || {
            connection.visit_extents(self.asked, |extent| {
                // The client has found that its end fits into 64 bits.
                let end = extent.start + extent.length;
                if end > self.disk_size {
                    return Err(self.wrong_end(end));
                }
                let has_room = map.add(&extent);
                has_room.then_some(()).ok_or_else(|| "there are too many".to_owned())
            })
        });
        self.lock().canceller = None;
        match end? {
            end if end == self.disk_size => Ok(map),
            end => Err(Failed::new(self.wrong_end(end))),
        }
    }

    /// Returns the inquiry's number among those of the device.
    fn number(&self) -> usize {
        match self.asked {
            ExtentsContext::Zero => 0,
            ExtentsContext::Dirty => 1,
        }
    }

    fn wrong_end(&self, end: u64) -> String {
        format!("they end at {end}, and the disk at {}", self.disk_size)
    }

    /// Opens a connection, unless the device is closed before or meanwhile.
    fn connect(&self) -> std::result::Result<Connection, Failed> {
        self.lock_open()?.is_connecting = true;
        let number = self.counters.inquirer(self.number());
        let connection = self.counters.connect(number, |moved| self.connector.connect_counted(moved));
        self.lock().is_connecting = false;
        let connection = connection?;
        self.lock_open()?.canceller = Some(connection.canceller());
        Ok(connection)
    }

    fn lock_open(&self) -> std::result::Result<MutexGuard<'_, Asking>, Failed> {
        let asking = self.lock();
        match asking.stage {
            Stage::Closed => Err(Failed::new(CLOSED)),
            Stage::NotAsked | Stage::Asking | Stage::Answered { .. } => Ok(asking),
        }
    }

    /// Waits before another attempt. False if the device is closed.
    fn wait(&self, time: Duration) -> bool {
        let is_open = |asking: &mut Asking| asking.stage != Stage::Closed;
        let waited = self.changed.wait_timeout_while(self.lock(), time, is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0.stage != Stage::Closed
    }
}

/// The reason why an attempt failed.
struct Failed {
    reason: String,
    is_worth_another_attempt: bool,
    /// The server works well, and has no such extents for this ticket.
    is_absence: bool,
}

impl Failed {
    /// Once and for all.
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_worth_another_attempt: false, is_absence: false }
    }
}

impl From<imageio_client::Error> for Failed {
    fn from(error: imageio_client::Error) -> Self {
        // A server that was silent for minutes would be so again.
        let is_silence = matches!(error, imageio_client::Error::Timeout { .. });
        let is_worth_another_attempt = error.is_transient() && !is_silence;
        // imageio's answer where the ticket or its storage knows of none.
        let is_absence = error.status() == Some(StatusCode::NOT_FOUND);
        Self { reason: Report::new(error).to_string(), is_worth_another_attempt, is_absence }
    }
}

const CLOSED: &str = "the transfer is being closed";

impl Stage {
    fn outcome(self) -> Result<bool> {
        match self {
            Self::NotAsked | Self::Asking => Ok(false),
            Self::Answered { is_told } => Ok(is_told),
            Self::Closed => Err(Error::new(Errno::Shutdown, CLOSED)),
        }
    }
}

/// Tells all that wait. One that panics harms no other.
fn tell(waiters: Vec<Waiter>, stage: Stage) {
    let mut batch = Batch::default();
    for waiter in waiters {
        let _ = catch_unwind(AssertUnwindSafe(|| waiter(stage.outcome(), &mut batch)));
    }
}
