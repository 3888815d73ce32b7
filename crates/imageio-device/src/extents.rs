// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking the server what is zero: once, when the first client wants to know, on a connection and by a thread of its own.
//!
//! imageio tells of the whole disk or of nothing, and takes minutes for a large one. Requests and keep-alives go on
//! meanwhile; those who want to know wait. What the answer says is kept true by `tracker`.
//!
//! A server that doesn't tell is no fault of the transfer: everything is taken for data then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use block_device::{ALLOCATION, Batch, Errno, Error, Result};
use imageio_client::{Canceller, Connection, Connector, ExtentsContext};

use crate::tracker::{Context, ExtentMap, Tracker};

/// How deep below the image a range's content is: qemu's name, whose 0 is imageio's hole.
const DEPTH: &str = "qemu:allocation-depth";

/// Pauses before further attempts, where the connection breaks.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// What is known of the disk's ranges, and how it comes to be known.
pub(crate) struct Extents {
    shared: Arc<Shared>,
    /// Their names, in the order of `contexts`.
    names: Vec<String>,
    contexts: Vec<Context>,
}

/// Who is told that the server was asked, or that the device is closed.
pub(crate) type Waiter = Box<dyn FnOnce(Result<()>, &mut Batch) + Send>;

struct Shared {
    connector: Arc<Connector>,
    tracker: Arc<Tracker>,
    /// In bytes.
    disk_size: u64,
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
    Answered,
    Closed,
}

impl Extents {
    /// Nothing is asked yet. `is_offered` is what the server says of itself.
    pub(crate) fn new(
        connector: Arc<Connector>,
        tracker: Arc<Tracker>,
        disk_size: u64,
        is_offered: bool,
    ) -> Self {
        let (asking, changed) = (Mutex::default(), Condvar::new());
        let all = [(ALLOCATION, Context::Zero), (DEPTH, Context::Depth)];
        let offered = all.into_iter().filter(|(_, context)| is_offered || *context == Context::Zero);
        let (names, contexts) = offered.map(|(name, context)| (name.to_owned(), context)).unzip();
        let shared = Shared { connector, tracker, disk_size, is_offered, asking, changed };
        Self { shared: Arc::new(shared), names, contexts }
    }

    /// The names of what can be asked for.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// What has this index among the names.
    pub(crate) fn context(&self, index: usize) -> Option<Context> {
        self.contexts.get(index).copied()
    }

    /// Waits until the server was asked.
    ///
    /// # Errors
    /// [`Errno::Shutdown`].
    pub(crate) fn wait(&self) -> Result<()> {
        let asking = self.ask();
        let is_asking = |asking: &mut Asking| asking.stage == Stage::Asking;
        let asking = self.shared.changed.wait_while(asking, is_asking);
        asking.unwrap_or_else(PoisonError::into_inner).stage.outcome()
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
        self.shared.tracker.ask_extents();
        match self.start() {
            Ok(thread) => (asking.stage, asking.thread) = (Stage::Asking, Some(thread)),
            Err(reason) => {
                self.shared.note(Err(reason));
                asking.stage = Stage::Answered;
            }
        }
        asking
    }

    fn start(&self) -> std::result::Result<JoinHandle<()>, String> {
        if !self.shared.is_offered {
            return Err("it doesn't offer extents".to_owned());
        }
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("extents".to_owned());
        thread.spawn(move || shared.run()).map_err(|error| format!("no thread can be had: {error}"))
    }

    /// Ends asking. Those who wait are told, and so are those who come later. Nothing is known to be zero any more, so that
    /// all reads get to those who know that the device is closed.
    pub(crate) fn close(&self) {
        let mut asking = self.shared.lock();
        asking.stage = Stage::Closed;
        let (waiters, thread) = (std::mem::take(&mut asking.waiters), asking.thread.take());
        asking.canceller.take().iter().for_each(Canceller::cancel);
        let is_connecting = asking.is_connecting;
        drop(asking);
        self.shared.changed.notify_all();
        self.shared.tracker.forget_extents();
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

impl Drop for Extents {
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

    /// What the thread does. Those who wait are told even if it panics.
    fn run(&self) {
        let told = catch_unwind(AssertUnwindSafe(|| self.ask_again_and_again()));
        let told = told.unwrap_or_else(|_| Err("bug: asking for them panicked".to_owned()));
        let mut asking = self.lock();
        if asking.stage == Stage::Closed {
            return;
        }
        // Under the lock, so that it doesn't come after the device is closed.
        self.note(told);
        asking.stage = Stage::Answered;
        let waiters = std::mem::take(&mut asking.waiters);
        drop(asking);
        self.changed.notify_all();
        tell(waiters, Stage::Answered);
    }

    fn note(&self, told: std::result::Result<ExtentMap, String>) {
        match &told {
            Ok(map) => log::info!("extents: {} ranges are zeroes or holes", map.ranges()),
            Err(reason) => {
                log::warn!("the server doesn't tell what is zero, so all is taken for data: {reason}");
            }
        }
        self.tracker.extents_answered(told.ok());
    }

    fn ask_again_and_again(&self) -> std::result::Result<ExtentMap, String> {
        for pause in PAUSES {
            match self.ask_once() {
                Err(Failed { reason, is_worth_another_attempt: true }) if self.wait(pause) => {
                    log::info!("asking for extents again: {reason}");
                }
                told => return told.map_err(|failed| failed.reason),
            }
        }
        self.ask_once().map_err(|failed| failed.reason)
    }

    fn ask_once(&self) -> std::result::Result<ExtentMap, Failed> {
        let mut connection = self.connect()?;
        let mut map = ExtentMap::default();
        let end = connection.visit_extents(ExtentsContext::Zero, |extent| {
            // The client has found that its end fits into 64 bits.
            let range = extent.start..extent.start + extent.length;
            if range.end > self.disk_size {
                return Err(self.wrong_end(range.end));
            }
            let has_room = map.add(range, extent.zero, extent.hole);
            has_room.then_some(()).ok_or_else(|| "there are too many".to_owned())
        });
        self.lock().canceller = None;
        match end? {
            end if end == self.disk_size => Ok(map),
            end => Err(Failed { reason: self.wrong_end(end), is_worth_another_attempt: false }),
        }
    }

    fn wrong_end(&self, end: u64) -> String {
        format!("they end at {end}, and the disk at {}", self.disk_size)
    }

    /// Opens a connection, unless the device is closed before or meanwhile.
    fn connect(&self) -> std::result::Result<Connection, Failed> {
        self.lock_open()?.is_connecting = true;
        let connection = self.connector.connect();
        self.lock().is_connecting = false;
        let connection = connection?;
        self.lock_open()?.canceller = Some(connection.canceller());
        Ok(connection)
    }

    fn lock_open(&self) -> std::result::Result<MutexGuard<'_, Asking>, Failed> {
        let asking = self.lock();
        match asking.stage {
            Stage::Closed => Err(Failed { reason: CLOSED.to_owned(), is_worth_another_attempt: false }),
            Stage::NotAsked | Stage::Asking | Stage::Answered => Ok(asking),
        }
    }

    /// Waits before another attempt. False if the device is closed.
    fn wait(&self, time: Duration) -> bool {
        let is_open = |asking: &mut Asking| asking.stage != Stage::Closed;
        let waited = self.changed.wait_timeout_while(self.lock(), time, is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0.stage != Stage::Closed
    }
}

/// Why an attempt failed.
struct Failed {
    reason: String,
    is_worth_another_attempt: bool,
}

impl From<imageio_client::Error> for Failed {
    fn from(error: imageio_client::Error) -> Self {
        // Who was silent for minutes would be so again.
        let is_silence = matches!(error, imageio_client::Error::Timeout { .. });
        let is_worth_another_attempt = error.is_transient() && !is_silence;
        Self { reason: error.to_string(), is_worth_another_attempt }
    }
}

const CLOSED: &str = "the transfer is being closed";

impl Stage {
    fn outcome(self) -> Result<()> {
        match self {
            Self::NotAsked | Self::Asking | Self::Answered => Ok(()),
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
