// SPDX-License-Identifier: MIT OR Apache-2.0
//! A line that tells how far it is, for whoever watches a terminal (`--progress`).

use std::io::{self, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use imageio_stats::{Observer, size};
use indicatif::{ProgressBar, ProgressStyle};

use crate::writing;

/// The time after which the line is drawn anew.
const INTERVAL: Duration = Duration::from_millis(250);

const TEMPLATE: &str = "{elapsed_precise} {binary_bytes_per_sec} {wide_msg}";

/// The line that is drawn on the terminal, if one is. Whoever writes there besides goes through
/// [`StandardError`].
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Something that is done again and again by a thread, until this is dropped.
pub(crate) struct Ticker {
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts to do it: at once, after each interval, and once more in the end.
    pub(crate) fn start(interval: Duration, mut tell: impl FnMut() + Send + 'static) -> Result<Self> {
        let (end, ended) = channel();
        let tick = move || {
            loop {
                tell();
                if ended.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    break tell();
                }
            }
        };
        let thread =
            Builder::new().name("progress".into()).spawn(tick).context("cannot tell the progress")?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It doesn't panic; and there is nothing to do if it did.
            let _ = thread.join();
        }
    }
}

/// The line, until it is dropped.
pub(crate) struct Line {
    /// Dropped before the line is wiped out.
    ticker: Option<Ticker>,
}

impl Line {
    /// Starts to draw what transfers do, if standard error is a terminal.
    pub(crate) fn draw(observer: Arc<Observer>) -> Result<Option<Self>> {
        Self::draw_as(move || {
            let progress = observer.progress();
            let (clients, server) = (size(progress.from_clients), size(progress.to_server));
            let message = format!("clients {clients}, server {server}, waiting for {}", progress.awaited);
            (progress.from_clients, message)
        })
    }

    /// Starts to draw what `tell` says: how many bytes are done, and a message.
    pub(crate) fn draw_as(mut tell: impl FnMut() -> (u64, String) + Send + 'static) -> Result<Option<Self>> {
        // Its target is standard error, and it is hidden where that is no terminal.
        let bar = ProgressBar::no_length().with_style(style());
        if bar.is_hidden() {
            return Ok(None);
        }
        set(Some(bar.clone()));
        let ticker = Ticker::start(INTERVAL, move || update(&bar, tell()))?;
        Ok(Some(Self { ticker: Some(ticker) }))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        drop(self.ticker.take());
        clear();
    }
}

/// Wipes the line out, and draws no other.
pub(crate) fn clear() {
    if let Some(bar) = set(None) {
        bar.finish_and_clear();
    }
}

/// Writes something to the terminal. The line is wiped out before, and drawn again after it.
pub(crate) fn around<T>(write: impl FnOnce() -> T) -> T {
    writing::write(|| match &*lock() {
        Some(bar) => bar.suspend(write),
        None => write(),
    })
}

/// Standard error, where the line stays whole.
pub(crate) struct StandardError;

impl Write for StandardError {
    /// Writes all of it.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        around(|| io::stderr().write_all(text))?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn update(bar: &ProgressBar, (done, message): (u64, String)) {
    bar.set_message(message);
    bar.set_position(done);
    bar.tick();
}

fn set(bar: Option<ProgressBar>) -> Option<ProgressBar> {
    std::mem::replace(&mut *lock(), bar)
}

fn lock() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE).expect("the template is sound")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_sound() {
        super::style();
    }
}
