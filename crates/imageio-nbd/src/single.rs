// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client at the other end of standard input and output (`--single`).
//!
//! A program that starts a server in this way gives it a socket, as inetd and libnbd
//! (`nbd_connect_command(3)`) do, or two pipes, as a shell and some versions of `sshd` do. The NBD
//! server serves sockets, so what comes through pipes is passed on to one.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::getpeername;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::logging;

/// The time that a client may take to read the last replies.
const GRACE: Duration = Duration::from_secs(10);

/// The one client.
pub(crate) struct Single {
    /// For the server.
    socket: OwnedFd,
    pipes: Option<Pipes>,
}

/// The two pipes that a client may have instead of a socket.
struct Pipes {
    input: File,
    output: File,
    /// The other end of that of the server.
    socket: UnixStream,
}

/// Passes bytes on between pipes and the server, until either side has ended.
pub(crate) struct Relay {
    sent: Receiver<()>,
}

/// Programs such as inetd give the client's socket as standard error, too. Messages go to syslog
/// then, and never among the replies.
pub(crate) fn keep_messages_out() -> Result<()> {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    // One that is closed is nobody's socket.
    let Ok(messages) = copy(io::stderr().as_fd()) else { return Ok(()) };
    for client in [copy(io::stdin().as_fd()), copy(io::stdout().as_fd())] {
        if is_one_socket(&messages, &client.context("-s")?).context("-s")? {
            logging::to_syslog();
            return dup2_stderr(File::options().write(true).open("/dev/null")?).context("-s");
        }
    }
    Ok(())
}

impl Single {
    /// Takes standard input and output, and leaves `/dev/null` there: nothing that is printed gets
    /// among the replies.
    pub(crate) fn take() -> Result<Self> {
        ensure!(
            !io::stdin().is_terminal() && !io::stdout().is_terminal(),
            "-s: standard input and output are a terminal, and an NBD client is expected: a program that starts \
             this one with a socket or pipes there"
        );
        let input =
            File::from(io::stdin().as_fd().try_clone_to_owned().context("-s: standard input can't be used")?);
        let output = File::from(
            io::stdout().as_fd().try_clone_to_owned().context("-s: standard output can't be used")?,
        );
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .context("-s: /dev/null can't be opened")?;
        dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).context("-s")?;
        Self::of(input, output).context("-s")
    }

    fn of(input: File, output: File) -> io::Result<Self> {
        if is_one_socket(&input, &output)? {
            // It fails where nobody is at the other end, as with a socket that listens.
            getpeername(&input)?;
            return Ok(Self { socket: input.into(), pipes: None });
        }
        for pipe in [&input, &output] {
            fcntl_setfl(pipe, fcntl_getfl(pipe)? - OFlags::NONBLOCK)?;
        }
        let (ours, socket) = UnixStream::pair()?;
        Ok(Self { socket: ours.into(), pipes: Some(Pipes { input, output, socket }) })
    }

    /// The socket for the server; what comes through pipes, where there are any, is passed on from
    /// now on, until the server has closed its socket.
    pub(crate) fn connect(self) -> io::Result<(OwnedFd, Option<Relay>)> {
        Ok((self.socket, self.pipes.map(Relay::start).transpose()?))
    }
}

impl Relay {
    fn start(pipes: Pipes) -> io::Result<Self> {
        let Pipes { mut input, mut output, socket } = pipes;
        let mut to_server = socket.try_clone()?;
        let mut from_server = socket;
        let (sender, sent) = channel();
        thread::Builder::new().name("stdin".into()).spawn(move || {
            // However it ends, nothing more comes.
            let _ = pass_on(&mut input, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        })?;
        thread::Builder::new().name("stdout".into()).spawn(move || {
            if pass_on(&mut from_server, &mut output).is_err() {
                // The client doesn't read any more: that ends the session.
                let _ = from_server.shutdown(Shutdown::Both);
            }
            drop(output);
            let _ = sender.send(());
        })?;
        Ok(Self { sent })
    }

    /// Waits until the client has got all that the server has sent it, or for the grace that other
    /// clients have, too. The thread that reads from it ends with the process.
    pub(crate) fn finish(&self) {
        if self.sent.recv_timeout(GRACE).is_err() {
            log::warn!("the client on standard output has not read the last replies");
        }
    }
}

/// Until the end of `from`. [`io::copy`] would use `splice(2)`, which keeps the client from reading
/// its pipe as long as nothing more comes for it.
fn pass_on(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_one_socket(input: &File, output: &File) -> io::Result<bool> {
    let (one, other) = (input.metadata()?, output.metadata()?);
    Ok(one.file_type().is_socket() && (one.dev(), one.ino()) == (other.dev(), other.ino()))
}
