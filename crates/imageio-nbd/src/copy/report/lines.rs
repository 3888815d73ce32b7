// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines for a program that reads standard output. Another thread writes them: a reader that stalls
//! must not keep anybody from ending what was begun.

use std::io::{self, Write};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;

/// As many lines may wait for the reader.
const WAITING: usize = 16;

/// Writes lines in order.
#[derive(Debug, Clone)]
pub(super) struct Lines(SyncSender<Line>);

struct Line {
    text: String,
    /// For whoever wants to know whether it was written.
    written: Sender<io::Result<()>>,
}

impl Lines {
    /// The thread ends when nobody has a line any more, and nobody waits for that.
    pub(super) fn start(write_line: impl FnMut(&str) -> io::Result<()> + Send + 'static) -> Self {
        let (lines, waiting) = sync_channel::<Line>(WAITING);
        let mut write_line = write_line;
        let write = move || {
            for Line { text, written } in waiting {
                let _ = written.send(write_line(&text));
            }
        };
        // Without a thread, who tells the last line hears of it.
        drop(Builder::new().name("output".into()).spawn(write));
        Self(lines)
    }

    /// Tells a line that may be left out where the reader is far behind, or has gone.
    pub(super) fn tell(&self, text: String) {
        let _ = self.0.try_send(Line { text, written: channel().0 });
    }

    /// Tells a line, and waits until it is written.
    pub(super) fn tell_surely(&self, text: String) -> io::Result<()> {
        let (written, is_written) = channel();
        let no_thread = || io::Error::other("there is no thread that writes");
        self.0.send(Line { text, written }).map_err(|_| no_thread())?;
        is_written.recv().unwrap_or_else(|_| Err(no_thread()))
    }
}

/// Writes a line to standard output.
pub(super) fn write(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_stalls_holds_up_only_who_wants_to_be_sure() {
        let ((go_on, stalls), (tell, told)) = (channel::<()>(), channel());
        let lines = Lines::start(move |line| {
            let _ = stalls.recv();
            tell.send(line.to_owned()).map_err(io::Error::other)
        });
        (0..100).for_each(|number| lines.tell(number.to_string()));
        drop(go_on);
        lines.tell_surely("last".to_owned()).unwrap();
        drop(lines);
        let told: Vec<_> = told.iter().collect();
        assert!(told.len() >= WAITING && told.len() < 100, "{told:?}");
        assert_eq!((told[0].as_str(), told[told.len() - 1].as_str()), ("0", "last"));
    }

    #[test]
    fn a_line_that_is_not_written_is_an_error_for_who_wants_to_be_sure() {
        let lines = Lines::start(|_| Err(io::Error::other("the reader has gone")));
        lines.tell("one".to_owned());
        let error = lines.tell_surely("last".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "the reader has gone");
    }
}
