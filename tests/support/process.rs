// SPDX-License-Identifier: MIT OR Apache-2.0
//! Child processes that never outlive their test.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The time that a program may take to be ready, or to end.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process whose standard error is read line by line. Dropping it sends SIGTERM, and SIGKILL if
/// that does not help; and fails if it has said a ticket.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    // Several tests may look at one process; only one of them listens.
    lines: Mutex<Receiver<String>>,
    said: Vec<String>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts it, with nothing on its standard input and output.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::spawn_with_input(command, Stdio::null())
    }

    /// Runs a program with this as its standard input.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn_with_input(command: &mut Command, input: Stdio) -> io::Result<Self> {
        let command = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let tickets = tickets(command);
        let (sender, lines) = channel();
        let stderr = child.stderr.take().map(BufReader::new);
        let reader = std::thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            // Read to the end even if nobody wants the lines: a full pipe would stop the process.
            for line in stderr.into_iter().flat_map(|stderr| stderr.lines().map_while(Result::ok)) {
                // nbdkit itself shows parameters where it debugs.
                let is_secret = !line.starts_with("nbdkit: debug: ") && says_one_of(&line, &tickets);
                assert!(!is_secret, "the ticket is in {line:?}");
                let _ = sender.send(line);
            }
        })?;
        Ok(Self { child, lines: Mutex::new(lines), said: Vec::new(), reader: Some(reader) })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error for which `find` has an answer.
    ///
    /// # Errors
    /// If the process ends or [`PATIENCE`] does before such a line; with what it said so far.
    pub fn wait_for_line<T>(&mut self, mut find: impl FnMut(&str) -> Option<T>) -> io::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next_line(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = find(&line);
                    self.said.push(line);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(error) => return Err(io::Error::other(format!("{error}; it said: {:?}", self.said))),
            }
        }
    }

    /// Tries something until it succeeds.
    ///
    /// # Errors
    /// The last error, if the process ends or [`PATIENCE`] does before.
    pub fn retry<T>(&mut self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match attempt() {
                Ok(success) => return Ok(success),
                Err(error) => error,
            };
            // The pause between two attempts ends early if the process does.
            match self.next_line(Duration::from_millis(5)) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    return Err(io::Error::new(error.kind(), format!("{error}; it said: {:?}", self.said)));
                }
            }
        }
    }

    /// Returns what it said so far on standard error, as far as anybody waited for it.
    #[must_use]
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// Sends SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn terminate(&mut self) -> io::Result<ExitStatus> {
        self.end(PATIENCE)
    }

    /// Sends the signal again and again: qemu-nbd and the imageio daemon both have a moment in
    /// which they miss one.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn terminate_insistently(&mut self) -> io::Result<ExitStatus> {
        self.end(Duration::from_millis(500))
    }

    fn end(&mut self, repeat: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                self.listen(Instant::now() + PATIENCE);
                return Ok(status);
            }
            self.signal(Signal::SIGTERM)?;
            if self.listen(deadline.min(Instant::now() + repeat)) {
                return self.child.wait();
            }
        }
        self.child.kill()?;
        self.child.wait()?;
        Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end on SIGTERM"))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        if self.listen(Instant::now() + PATIENCE) {
            return self.child.wait();
        }
        self.child.kill()?;
        self.child.wait()?;
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not end; it said: {:?}", self.said)))
    }

    fn next_line(&mut self, patience: Duration) -> Result<String, RecvTimeoutError> {
        self.lines.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(patience)
    }

    /// Takes in what it says until its standard error closes, which happens when it ends. False if
    /// it goes on.
    fn listen(&mut self, deadline: Instant) -> bool {
        loop {
            match self.next_line(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(error) => return error == RecvTimeoutError::Disconnected,
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If there is no such process any more.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), signal).map_err(io::Error::from)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.terminate_insistently().is_err() {
            // Nothing is left to try, and a panic here would hide the test's.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let read = self.reader.take().map(JoinHandle::join);
        let is_secret_kept = read.is_none_or(|read| read.is_ok());
        assert!(is_secret_kept || std::thread::panicking(), "it has said the ticket");
    }
}

/// The tickets of the URLs in a command line: the program must not say them. Those that are a
/// letter are said by anyone.
pub(crate) fn tickets(command: &Command) -> Vec<String> {
    let urls = command.get_args().filter_map(|argument| argument.to_str()?.split_once("/images/"));
    urls.map(|(_, ticket)| ticket.to_owned()).filter(|ticket| ticket.len() > 8).collect()
}

/// Returns true if a text has one of these tickets.
pub(crate) fn says_one_of(text: &str, tickets: &[String]) -> bool {
    tickets.iter().any(|ticket| text.contains(ticket))
}
