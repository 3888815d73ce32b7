// SPDX-License-Identifier: MIT OR Apache-2.0
//! The settings that a server's command line asks for.

use std::path::PathBuf;

/// The server to be run, and the way to serve it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The real server's arguments, but for those that tell where clients are.
    pub(crate) server: Vec<String>,
    /// Options of `imageio-nbd`: where clients are, and what they may do.
    pub(crate) door: Vec<String>,
    /// The name of the export.
    pub(crate) export: String,
    /// Nobody may write.
    pub(crate) read_only: bool,
    /// The dirty bitmap that clients may ask for.
    pub(crate) bitmap: Option<String>,
    /// The file that gets the process id once clients can connect.
    pub(crate) pid_file: Option<PathBuf>,
    /// The server goes into the background once clients can connect.
    pub(crate) background: bool,
    /// It ends when the last client has gone.
    pub(crate) ends_with_clients: bool,
    /// It ends when its parent does.
    pub(crate) ends_with_parent: bool,
    /// The real server reads a script from standard input.
    pub(crate) reads_input: bool,
}

impl Asked {
    /// Adds an option of `imageio-nbd`, if there is a value for it.
    pub(crate) fn door_option(&mut self, name: &str, value: Option<String>) {
        self.door.extend(value.map(|value| format!("{name}={value}")));
    }

    /// Returns true if `imageio-nbd` has a command or a client of its own, and ends with it.
    pub(crate) fn is_captive(&self) -> bool {
        self.door.iter().any(|option| option == "--single" || option.starts_with("--run="))
    }
}

/// Returns true if sockets that listen were passed to this process.
pub(crate) fn is_activated() -> bool {
    std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string())
}
