// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing again what was acknowledged and not flushed on a connection that was lost.

use std::sync::Arc;
use std::time::Instant;

use block_device_traits::{Errno, Error};
use imageio_client::{Connection, Flush};

use super::{Failure, ReplayingConnection};
use crate::change::Change;
use crate::counters::{Exchange, Purpose};
use crate::recovery::{self, Asked, Attempts, Ended, Failing, Stake};
use crate::tracker::{MayBeUndone, UnderWay};

/// The number of bytes after which content that is written again is flushed, so that another loss
/// doesn't begin it anew.
const STEP: u64 = 1 << 20;

/// The progress of writing again.
#[derive(Default)]
struct Progress {
    /// The place up to which all is on the new connection.
    from: u64,
    /// Bytes in all.
    written: u64,
    /// Bytes that are not flushed yet.
    unflushed: u64,
    /// Some of it is durable.
    got_further: bool,
}

impl ReplayingConnection {
    /// Opens a new connection in the place of one that was lost, writes there all that was
    /// unflushed, and flushes it. What has become durable is not written again should this fail, so
    /// that each attempt gets further. The time for attempts begins anew then.
    ///
    /// # Errors
    /// The outer one ends the transfer.
    pub(super) fn replay(&mut self, attempts: &mut Attempts) -> Result<imageio_client::Result<()>, Failure> {
        let mut progress = Progress::default();
        // The new connection has only a part of it then: a flush there must not pass for one of
        // all.
        let result = self.write_all_again(&mut progress).inspect_err(|_| self.give_up_connection())?;
        if progress.got_further {
            attempts.got_further();
        }
        if result.is_ok() {
            self.flushed();
            self.tell_of_loss(progress.written);
        } else {
            // Some servers close after some answers. From now on, each piece is flushed, so that it
            // isn't lost then.
            self.closes_early = true;
        }
        Ok(result)
    }

    fn tell_of_loss(&self, bytes: u64) {
        let is_due = self.common.told_of_loss.is_due(Instant::now());
        let level = if is_due { log::Level::Warn } else { log::Level::Debug };
        let so_far = self.common.counters.connections_lost();
        log::log!(
            level,
            "a connection was lost, and {bytes} bytes that were not flushed were written again on a new one \
             (connections lost so far: {so_far})"
        );
    }

    /// Writes all of it again, and flushes it.
    fn write_all_again(&mut self, progress: &mut Progress) -> Result<imageio_client::Result<()>, Failure> {
        loop {
            match self.write_again(progress)? {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(match progress.unflushed {
            0 => Ok(()),
            _ => self.attempt(Exchange::flush(Purpose::WriteAgain), Connection::flush_promptly),
        })
    }

    /// Writes the next piece, if there is one, on a connection that is open by then.
    fn write_again(&mut self, progress: &mut Progress) -> Result<imageio_client::Result<bool>, Failure> {
        if self.open.is_none()
            && let Err(error) = self.connect()
        {
            return Ok(Err(error));
        }
        let next = self.common.tracker.begin_again(self.owner, progress.from, self.longest_zero());
        let Some((under_way, content)) = next.map_err(|undone| self.may_be_undone(undone))? else {
            return Ok(Ok(false));
        };
        Ok(self.send_piece(&under_way, &content.into(), progress).map(|()| true))
    }

    fn send_piece(
        &mut self,
        under_way: &UnderWay,
        change: &Change,
        progress: &mut Progress,
    ) -> imageio_client::Result<()> {
        let range = under_way.range();
        let len = range.end - range.start;
        let is_step = progress.unflushed + len >= STEP || self.closes_early;
        let flush = if is_step { Flush::Prompt } else { Flush::No };
        let common = Arc::clone(&self.common);
        let exchange = change.exchange(Purpose::WriteAgain, &range, common.server);
        let sent = self.attempt(exchange, |connection| change.send(connection, &range, common.server, flush));
        if let Err(error) = &sent
            && is_in_doubt(error)
        {
            under_way.is_in_doubt(change.parts(&range, &common.tracker));
        }
        sent?;
        progress.from = range.end;
        progress.written += len;
        progress.unflushed += len;
        if is_step {
            common.tracker.flushed(self.owner, progress.from);
            (progress.unflushed, progress.got_further) = (0, true);
        }
        if self.open.is_none() {
            // From now on, each piece is flushed, and nothing is lost when the server closes.
            self.closes_early = true;
            if progress.unflushed > 0 {
                (progress.from, progress.unflushed) = (0, 0);
            }
        }
        Ok(())
    }

    fn may_be_undone(&self, MayBeUndone { offset }: MayBeUndone) -> Failure {
        let text = format!(
            "a connection was lost, and what it wrote at {offset} may be undone by the server, which may still write \
             another part of the same block"
        );
        self.failure(Failing::Transfer, Error::new(Errno::Io, text))
    }
}

/// Returns true if content that was written again may still be written after this error.
fn is_in_doubt(error: &imageio_client::Error) -> bool {
    let stake = Stake { unflushed: true, is_kept: true };
    recovery::decide(Asked::Replay, stake, Ended::with(error)).is_in_doubt
}
