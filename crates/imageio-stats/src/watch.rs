// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that looks whether transfers stall.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::observer::{Export, Observer};
use crate::stall::{Event, Stall};

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Logs when a transfer stalls and when it goes on, until it is dropped: to wait for a client is
/// worth an info, and for the server a warning.
#[derive(Debug)]
pub struct Watch {
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread: not before a fork.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(observer: Arc<Observer>) -> io::Result<Self> {
        let (end, ended) = channel();
        let watch = move || {
            let mut stalls: Vec<_> = observer.exports().iter().map(|_| Stall::new(Instant::now())).collect();
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                for (export, stall) in observer.exports().iter().zip(&mut stalls) {
                    stall.look(export.look(), Instant::now()).for_each(|event| tell(export, &event));
                }
            }
        };
        let thread = Builder::new().name("stall-watch".into()).spawn(watch)?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

fn tell(export: &Export, event: &Event) {
    let level = if event.is_warning() { log::Level::Warn } else { log::Level::Info };
    log::log!(level, "{}", export.labelled(event));
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("bug: the thread that looks for stalls panicked");
        }
    }
}
