// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs that give an oVirt disk to NBD clients.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;

use crate::process::Daemon;
use crate::tools::{NBDKIT, NBDKIT_PYTHON, Tool, VIRT_V2V};

/// A program that gives an oVirt disk to NBD clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `imageio-nbd`.
    ImageioNbd,
    /// The plugin in nbdkit.
    Nbdkit,
    /// The plugin in Python whose place ours takes, in nbdkit: to compare with.
    Reference,
}

impl Door {
    /// Ours.
    pub const ALL: [Self; 2] = [Self::ImageioNbd, Self::Nbdkit];

    /// For the names of tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ImageioNbd => "imageio-nbd",
            Self::Nbdkit => "nbdkit",
            Self::Reference => "reference",
        }
    }

    /// Returns the tools that it needs.
    #[must_use]
    pub fn tools(self) -> &'static [Tool] {
        match self {
            Self::ImageioNbd => &[],
            Self::Nbdkit => &[NBDKIT],
            Self::Reference => &[NBDKIT, NBDKIT_PYTHON, VIRT_V2V],
        }
    }

    /// Serves on a unix socket in `dir`, as virt-v2v would have it served.
    ///
    /// # Errors
    /// If it ends before clients can connect; with what it said.
    pub fn serve(self, dir: &Path, parameters: &[String]) -> io::Result<Served> {
        self.serve_with(dir, parameters, &[])
    }

    /// Starts the door with variables in its environment.
    ///
    /// # Errors
    /// If it ends before clients can connect; with what it said.
    pub fn serve_with(
        self,
        dir: &Path,
        parameters: &[String],
        environment: &[(&str, &OsStr)],
    ) -> io::Result<Served> {
        let socket = dir.join("nbd.sock");
        let ready = match self {
            Self::ImageioNbd => "listening: ",
            Self::Nbdkit | Self::Reference => "bound to unix socket",
        };
        let options = ["-f".as_ref(), "-v".as_ref(), "-U".as_ref(), socket.as_os_str()];
        let mut command = self.command(dir, &options, parameters)?;
        let mut process = Daemon::spawn(command.envs(environment.iter().copied()))?;
        process.wait_for_line(|line| line.contains(ready).then_some(()))?;
        Ok(Served { socket, process })
    }

    /// Its command line, with options of `imageio-nbd` or nbdkit; `dir` is for its files.
    ///
    /// # Errors
    /// If a part of it can't be made.
    pub fn command(self, dir: &Path, options: &[&OsStr], parameters: &[String]) -> io::Result<Command> {
        let (program, plugin) = match self {
            Self::ImageioNbd => (built("imageio-nbd"), vec![]),
            Self::Nbdkit => (NBDKIT.path(), vec![built("libnbdkit_imageio_plugin.so").into()]),
            Self::Reference => (NBDKIT.path(), reference_plugin(dir)?),
        };
        let mut command = Command::new(program);
        command.args(options).args(plugin).args(parameters);
        if self == Self::Reference {
            // Another Python in PATH would lead Debian's to the wrong modules.
            command.env("PATH", "/usr/bin:/bin");
        }
        Ok(command)
    }

    /// Calls the door as virt-v2v calls nbdkit for the plugin in Python: ours by the program that
    /// `imageio-nbd virt-v2v` puts in nbdkit's place, which serves, or runs nbdkit.
    ///
    /// # Errors
    /// If a part of it can't be made.
    pub fn call_of_virt_v2v(
        self,
        dir: &Path,
        options: &[&OsStr],
        parameters: &[String],
    ) -> io::Result<Command> {
        if self == Self::Reference {
            return self.command(dir, options, parameters);
        }
        // It is known by its name, and nobody reads it.
        let script = format!("script={}", dir.join(SCRIPT).display());
        let mut command = Command::new(built("imageio-nbd"));
        command.arg0("nbdkit").args(options).args(["python", &script]).args(parameters);
        command.env("IMAGEIO_NBD_DOOR", self.name());
        command.env("IMAGEIO_NBD_PLUGIN", built("libnbdkit_imageio_plugin.so"));
        Ok(command)
    }
}

/// The name of the plugin in Python that virt-v2v has.
const SCRIPT: &str = "rhv-upload-plugin.py";

/// A program that serves.
#[derive(Debug)]
pub struct Served {
    socket: PathBuf,
    process: Daemon,
}

impl Served {
    /// Returns the socket at which NBD clients connect.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the socket as an NBD URI.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line of its log with this text.
    ///
    /// # Errors
    /// If it ends or too much time passes before.
    pub fn wait_for(&mut self, text: &str) -> io::Result<()> {
        self.process.wait_for_line(|line| line.contains(text).then_some(()))
    }

    /// Ends it as a kernel does that is out of memory.
    ///
    /// # Errors
    /// If there is no such process any more.
    pub fn kill(mut self) -> io::Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait().map(drop)
    }

    /// Waits until it ends by itself, and returns how it ended and all that it said.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn wait(mut self) -> io::Result<(ExitStatus, String)> {
        let status = self.process.wait()?;
        Ok((status, self.process.said().join("\n")))
    }

    /// Sends SIGTERM as virt-v2v does, and returns how it ended and all that it said.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn finish(mut self) -> io::Result<(ExitStatus, String)> {
        let status = self.process.terminate()?;
        Ok((status, self.process.said().join("\n")))
    }
}

/// nbdkit's arguments for the plugin in Python, which is cut out of virt-v2v into `dir`. It is
/// under the GPL, so there is no copy of it here.
fn reference_plugin(dir: &Path) -> io::Result<Vec<OsString>> {
    const START: &[u8] = b"# -*- python -*-\n# oVirt or RHV upload nbdkit plugin";
    let program = fs::read(VIRT_V2V.path())?;
    let start = program.windows(START.len()).position(|bytes| bytes == START);
    let text = start.and_then(|start| program[start..].split(|&byte| byte == 0).next());
    let text = text.ok_or_else(|| io::Error::other("virt-v2v has no upload plugin inside"))?;
    let script = dir.join(SCRIPT);
    fs::write(&script, text)?;
    let mut argument = OsString::from("script=");
    argument.push(script);
    Ok(vec!["python".into(), argument])
}

/// A program of this workspace, beside the test's own or one folder above it.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let mut places = test.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    places
        .find(|program| program.exists())
        .unwrap_or_else(|| panic!("{name} is missing: run `cargo xtask test`, or build it first"))
}
