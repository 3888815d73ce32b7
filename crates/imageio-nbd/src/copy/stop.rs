// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting an end to work under way: by a signal, or because a part of it has failed. Programs that
//! run are ended, and waits for the engine; what was begun in the engine is then ended in good
//! order, which takes waits of its own.

use std::fmt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use engine_transfer::Clock;
use imageio_stats::Observer;
use log::Level;
use signal_hook::consts::{SIGTERM, SIGUSR1};

use crate::logging::readable;
use crate::process::{Caught, Recipient, SignalThread};
use crate::statistics::{self, Teller};

/// A signal that comes sooner after the first belongs to it.
const AGAIN: Duration = Duration::from_secs(1);

/// For how long the message about a signal may keep what the signal asks for.
const MESSAGE: Duration = Duration::from_secs(1);

/// Tells something, and doesn't wait for a reader of standard error that stalls.
fn tell(level: Level, message: String) {
    statistics::within(MESSAGE, move || log::log!(level, "{message}"));
}

/// A switch that stops all work, and tells whether to go on.
#[derive(Default)]
pub(crate) struct Stop {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_stopped: bool,
    signal: Option<i32>,
    /// Programs that run, by a number for each.
    running: Vec<(u64, Recipient)>,
    started: u64,
    /// Whoever looks at the disks that are being copied.
    observers: Vec<Weak<Observer>>,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("is_stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}

impl Stop {
    /// From now on, a signal stops the work. One that comes much later ends the process. SIGUSR1
    /// has the figures told.
    pub(crate) fn by_signals() -> Result<(Arc<Self>, SignalThread)> {
        let stop = Arc::<Self>::default();
        let (stopping, mut first) = (Arc::clone(&stop), None);
        let observed = Arc::clone(&stop);
        let teller = Teller::start(move || observed.tell_figures())?;
        let thread = Caught::with_figures()?.forward(move |signal| match first {
            _ if signal == SIGUSR1 => teller.ask(),
            None => {
                stopping.lock().signal = Some(signal);
                stopping.stop();
                tell(
                    Level::Warn,
                    format!("signal {signal}: ending what was begun; the next signal ends at once"),
                );
                first = Some(Instant::now());
            }
            Some(first) if Instant::now().duration_since(first) >= AGAIN => {
                tell(
                    Level::Error,
                    format!(
                        "signal {signal} again: ending at once: look for backups and transfers in the engine"
                    ),
                );
                signal_hook::low_level::exit(1);
            }
            Some(_) => {}
        })?;
        Ok((stop, thread))
    }

    /// Has the figures of a disk told when somebody asks for them, as long as there is an observer.
    pub(crate) fn observe(&self, observer: &Arc<Observer>) {
        let mut state = self.lock();
        state.observers.retain(|observer| observer.strong_count() > 0);
        state.observers.push(Arc::downgrade(observer));
    }

    fn tell_figures(&self) {
        let observers: Vec<_> = self.lock().observers.iter().filter_map(Weak::upgrade).collect();
        observers.iter().for_each(|observer| statistics::tell(observer));
    }

    /// Ends all that runs, and keeps more from being started.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        state.running.iter().for_each(|(_, program)| program.send(SIGTERM));
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// The signal that has stopped it.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.lock().signal
    }

    /// A clock whose waits end when the work is stopped.
    pub(crate) fn clock(self: &Arc<Self>) -> Arc<StopClock> {
        Arc::new(StopClock { stop: Arc::clone(self), is_patient: AtomicBool::new(false) })
    }

    /// Fails once it is stopped.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(Stopped.into()) } else { Ok(()) }
    }

    /// Starts a program, unless all is to end.
    pub(crate) fn start(&self, command: &mut Command) -> Result<Program<'_>> {
        let mut state = self.lock();
        if state.is_stopped {
            return Err(Stopped.into());
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {name}"))?;
        state.started += 1;
        let number = state.started;
        state.running.push((number, Recipient::of(&child)));
        Ok(Program { stop: self, number, name, child: Some(child) })
    }

    /// Runs a program to its end, which has to be a good one.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        self.start(command.stdout(Stdio::null()).stderr(Stdio::piped()))?.finish()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that was not done, or not to its end, as all was to end.
#[derive(Debug)]
struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was stopped")
    }
}

impl std::error::Error for Stopped {}

/// A program has failed: its name, its end and what it has said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failed(String);

/// Returns true if an error comes of the end of all, and is not the reason for it.
pub(crate) fn is_consequence(error: &anyhow::Error) -> bool {
    use ovirt_engine_client::Error::Stopped as NotWaitedFor;
    let by_engine = |error: &ovirt_engine_client::Error| matches!(error, NotWaitedFor { .. });
    let by_transfer = |error: &engine_transfer::Error| matches!(error, engine_transfer::Error::Engine(error) if by_engine(error));
    error.is::<Stopped>()
        || error.downcast_ref().is_some_and(by_engine)
        || error.downcast_ref().is_some_and(by_transfer)
}

/// An error of something that a signal has stopped, in the user's words.
pub(crate) fn explained<T>(result: Result<T>, stop: &Stop, what: &str) -> Result<T> {
    match (result, stop.signal()) {
        (Err(error), Some(signal)) if is_consequence(&error) => {
            Err(anyhow!("signal {signal} has ended this command: {what}"))
        }
        (Err(error), Some(signal)) => Err(error.context(format!("signal {signal} came"))),
        (result, _) => result,
    }
}

/// A program that runs. It is ended on drop.
pub(crate) struct Program<'s> {
    stop: &'s Stop,
    number: u64,
    name: String,
    child: Option<Child>,
}

impl Program<'_> {
    /// Its standard output, if that is a pipe.
    pub(crate) fn take_output(&mut self) -> Option<std::process::ChildStdout> {
        self.child.as_mut()?.stdout.take()
    }

    /// Waits for its end, which has to be a good one.
    pub(crate) fn finish(mut self) -> Result<()> {
        let Some(child) = self.child.take() else { return Ok(()) };
        let ended = child.wait_with_output();
        self.forget();
        let Output { status, stderr, .. } =
            ended.with_context(|| format!("cannot wait for {}", self.name))?;
        let said = String::from_utf8_lossy(&stderr);
        let said: Vec<_> = said.lines().map(|line| readable(line.trim())).collect();
        // qemu-img succeeds though it couldn't write the last of an image's own tables, and only
        // says so.
        let is_whole = !said.iter().any(|line| line.to_ascii_lowercase().contains("failed to flush"));
        if status.success() && is_whole {
            said.iter().for_each(|line| log::warn!("{}: {line}", self.name));
            return Ok(());
        }
        self.stop.check()?;
        Err(Failed(format!("{} failed ({status}){}", self.name, summary(&said))).into())
    }

    fn forget(&self) {
        self.stop.lock().running.retain(|(number, _)| *number != self.number);
    }
}

/// The lines that a program has said, as the end of a message. Of many, as there are when each of
/// the requests under way fails, the first ones tell enough.
fn summary(said: &[String]) -> String {
    const TOLD: usize = 2;
    let (told, more) = said.split_at(if said.len() > TOLD + 1 { TOLD } else { said.len() });
    match (told.join("; "), more.len()) {
        (told, _) if told.is_empty() => told,
        (told, 0) => format!(": {told}"),
        (told, more) => format!(": {told}; and {more} more such lines"),
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            Recipient::of(&child).send(SIGTERM);
            // Nobody wants to know how it has ended.
            let _ = child.wait();
            self.forget();
        }
    }
}

/// The time for those who wait for the engine.
#[derive(Debug)]
pub(crate) struct StopClock {
    stop: Arc<Stop>,
    /// Waits go to their end, as what was begun is being ended.
    is_patient: AtomicBool,
}

impl StopClock {
    /// From now on, nothing ends a wait.
    pub(crate) fn be_patient(&self) {
        self.is_patient.store(true, Relaxed);
    }

    /// Does something whose waits nothing ends. Those after it are ended as before.
    pub(crate) fn patiently<T>(&self, act: impl FnOnce() -> T) -> T {
        let was_patient = self.is_patient.swap(true, Relaxed);
        let done = act();
        self.is_patient.store(was_patient, Relaxed);
        done
    }
}

impl Clock for StopClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn pause(&self, time: Duration) -> bool {
        let may_end = !self.is_patient.load(Relaxed);
        let goes_on = |state: &mut State| !(may_end && state.is_stopped);
        let waited = self.stop.changed.wait_timeout_while(self.stop.lock(), time, goes_on);
        let is_told = may_end && waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped;
        if is_told {
            // A thread that was told once has to end what was begun, which takes waits, too.
            self.be_patient();
        }
        !is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_stop_ends_one_wait_of_each_clock() {
        let stop = Arc::<Stop>::default();
        let (one, other, patient) = (stop.clock(), stop.clock(), stop.clock());
        patient.be_patient();
        assert!(one.pause(Duration::ZERO));
        let waiting = {
            let one = Arc::clone(&one);
            std::thread::Builder::new().name("waiting".into()).spawn(move || one.pause(LONG)).unwrap()
        };
        stop.stop();
        assert!(!waiting.join().unwrap());
        assert!(one.pause(Duration::from_millis(1)), "what was begun is being ended");
        assert!(!other.pause(LONG));
        let later = stop.clock();
        assert!(later.patiently(|| later.pause(Duration::from_millis(1))));
        assert!(!later.pause(LONG), "something else was begun");
        assert!(patient.pause(Duration::from_millis(1)));
    }

    #[test]
    fn a_program_is_ended_and_none_is_started_after_that() {
        let stop = Arc::<Stop>::default();
        let program = stop.start(Command::new("sleep").arg("100")).unwrap();
        stop.stop();
        assert_eq!(program.finish().unwrap_err().to_string(), "it was stopped");
        assert!(stop.start(&mut Command::new("true")).is_err());
        assert!(stop.lock().running.is_empty());
    }

    #[test]
    fn what_comes_of_a_stop_is_known() {
        let stop = Stop::default();
        stop.stop();
        let stopped = || stop.check().unwrap_err();
        let waited = || ovirt_engine_client::Error::Stopped { what: "x".to_owned() };
        assert!(is_consequence(&stopped()) && is_consequence(&stopped().context("disk \"x\"")));
        assert!(is_consequence(&waited().into()));
        assert!(is_consequence(&anyhow::Error::new(engine_transfer::Error::from(waited())).context("disk")));
        assert!(!is_consequence(&anyhow::anyhow!("it was stopped")));
    }

    #[test]
    fn what_a_program_says_is_told_in_one_line() {
        let stop = Stop::default();
        let error = stop.run(Command::new("sh").args(["-c", "echo a >&2; echo b >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 3): a; b");
        let error = stop.run(Command::new("sh").args(["-c", "seq 9 >&2; exit 1"])).unwrap_err().to_string();
        assert_eq!(error, "sh failed (exit status: 1): 1; 2; and 7 more such lines");
        let error = stop.run(Command::new("sh").args(["-c", "kill -9 $$"])).unwrap_err().to_string();
        assert_eq!(error, "sh failed (signal: 9 (SIGKILL))");
        let error = stop.run(Command::new("sh").args(["-c", r#"printf '"x"\033[2J' >&2; exit 1"#]));
        assert_eq!(error.unwrap_err().to_string(), r#"sh failed (exit status: 1): "x"\u{1b}[2J"#);
        let error = stop.run(&mut Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.to_string(), "cannot run /no/such/program");
    }

    #[test]
    fn an_image_whose_tables_are_not_written_is_a_failure() {
        let stop = Stop::default();
        let says = |text: &str| stop.run(Command::new("sh").args(["-c", &format!("echo '{text}' >&2")]));
        assert!(says("qemu-img: Failed to flush the L2 block cache: No space left on device").is_err());
        assert!(says("qemu-img: warning: something else").is_ok());
    }

    #[test]
    fn a_program_that_is_dropped_is_ended() {
        let stop = Stop::default();
        drop(stop.start(Command::new("sleep").arg("100")).unwrap());
        assert!(stop.lock().running.is_empty());
    }
}
