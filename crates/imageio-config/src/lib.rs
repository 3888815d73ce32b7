// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parameters of an oVirt transfer, each declared once: [`parameters`] feed the parser, the
//! help texts and the man pages.
//!
//! ```
//! use imageio_config::Parser;
//!
//! let mut parser = Parser::new();
//! let url = "https://host:54322/images/ticket";
//! for argument in [url, "cafile=/etc/pki/ca.pem", "read_ahead=4M"] {
//!     parser.set_argument(argument)?;
//! }
//! let source = parser.finish()?;
//! assert_eq!(source.settings.read_ahead, 4 << 20);
//!
//! let error = Parser::new().set("connections", "many").unwrap_err();
//! assert_eq!(error.to_string(), "connections: 'many' is not a number from 1 to 64, or auto");
//! # Ok::<(), imageio_config::ConfigError>(())
//! ```
//!
//! A name may be written with hyphens or underscores. A parameter may be given again, and the last
//! one counts. A value without a name is the URL ([`MAGIC`]). A [`Parser`] takes the parameters of
//! one transfer, and [`Exports`] takes those of several.
//!
//! # Why this way
//!
//! The parameters come by nbdkit's `key=value` as well as on a command line of our own, so they are
//! not declared for a library of command lines. A table of names, defaults, help texts and
//! functions is all that both need.
//!
//! # Threads and lifecycle
//!
//! Nothing here starts a thread, opens a connection or reads a file: all that can be said about
//! parameters by themselves is said before a process forks. The system is asked for users, by name,
//! and for the current directory, which makes paths absolute.
//!
//! # Errors
//!
//! A [`ConfigError`] is one line that says which parameter is wrong and what is expected. It shows
//! no value that may be a ticket. [`one_line`] puts the errors of a disk into words for users, with
//! the parameters that help.

mod advice;
mod engine;
mod exports;
mod parse;
mod secret;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine_transfer::Source;
use imageio_device::{Settings, UrlSource};

use engine::EngineArguments;

pub use advice::{one_line, without_advice};
pub use engine::name;
pub use exports::{ExportSettings, Exports};
pub use parse::{export_name, seconds, size};
pub use secret::{is_url, may_be_shown, shown};
pub use table::{EXPORT, Parameter, STATS_JSON, parameters, wrap};

/// The parameter that a value without a name belongs to.
pub const MAGIC: &str = "url";

/// An error in the parameters: one line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No parameter has this name.
    #[error("unknown parameter {}: {}--help lists all parameters", shown(name), suggestion(name))]
    Unknown {
        /// As it was given. It could hold a ticket, so the text of the error shows it only if it is
        /// short.
        name: String,
    },

    /// An argument is neither a parameter nor a URL, such as a command with a typing error.
    #[error("{} is neither NAME=VALUE, nor a URL, nor +FILE: see --help", shown(argument))]
    Argument {
        /// The argument as it was given. It could hold a ticket, so the text of the error shows it
        /// only if it is short.
        argument: String,
    },

    /// The value can't be used. It isn't repeated where it could be secret.
    #[error("{name}: {reason}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// The reason why it is wrong, and what is expected.
        reason: String,
    },

    /// The transfer isn't named.
    #[error(
        "url is missing: give url=https://HOST:54322/images/TICKET, or url=+FILE with that in its first line, or disk=NAME for a disk of an engine"
    )]
    MissingUrl,

    /// Something is wrong with one of several exports.
    #[error("{}: {error}", export_label(name))]
    Export {
        /// The export's name.
        name: String,
        /// The export's error.
        error: Box<ConfigError>,
    },
}

impl ConfigError {
    fn of(self, export: &str) -> Self {
        Self::Export { name: export.to_owned(), error: Box::new(self) }
    }
}

/// Returns the name that messages call one of several exports by.
#[must_use]
pub fn export_label(name: &str) -> String {
    format!("export '{}'", name.escape_debug())
}

/// The features that the device has where the server has them.
const FEATURES: &str =
    "http https unix-socket flush fua-native zero extents multi-conn keep-alive block-size";

/// Returns the facts that both doors tell of themselves by `--dump-plugin`: one `key=value` a line.
#[must_use]
pub fn facts(version: &str) -> Vec<String> {
    let names: Vec<_> = parameters().map(|parameter| parameter.name).collect();
    vec![
        format!("imageio_version={version}"),
        format!("imageio_features={FEATURES}"),
        format!("imageio_parameters={}", names.join(" ")),
    ]
}

/// Asks whether the parameter was meant whose name is most like this one, if any is.
fn suggestion(name: &str) -> String {
    /// The part of the letters that are right, where two that changed places are one mistake.
    const LEAST: f64 = 0.6;
    let wanted = name.replace('_', "-");
    let likeness = |name| strsim::normalized_damerau_levenshtein(&wanted, name);
    let measured = parameters().map(|parameter| (likeness(parameter.name), parameter.name));
    let nearest =
        measured.filter(|(likeness, _)| *likeness >= LEAST).max_by(|one, two| one.0.total_cmp(&two.0));
    nearest.map_or_else(String::new, |(_, name)| format!("did you mean {name}? "))
}

/// Takes parameters one by one, and gives the settings.
#[derive(Debug, Clone)]
pub struct Parser {
    url: Option<UrlSource>,
    engine: EngineArguments,
    reconnect_timeout: Option<Duration>,
    settings: Settings,
    stats_json: Option<PathBuf>,
}

/// The time that a server is waited for whose transfer an engine can resume: a host may be started
/// again.
const ENGINE_RECONNECT_TIMEOUT: Duration = Duration::from_secs(600);

/// The user that imageio's daemon has on a host of oVirt.
const IMAGEIO_USER: &str = "ovirtimg";

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// All parameters at their defaults.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings::new(UrlSource::Inline(String::new()));
        Self {
            url: None,
            engine: EngineArguments::default(),
            reconnect_timeout: None,
            settings,
            stats_json: None,
        }
    }

    /// Takes one parameter.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] or [`ConfigError::Value`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let wanted = name.replace('_', "-");
        let parameter = parameters()
            .chain([&EXPORT])
            .find(|parameter| parameter.name == wanted)
            .ok_or_else(|| ConfigError::Unknown { name: name.to_owned() })?;
        (parameter.set)(self, value).map_err(|reason| ConfigError::Value { name: parameter.name, reason })
    }

    /// Takes a command line argument: `name=value`, or a value alone for [`MAGIC`].
    ///
    /// # Errors
    /// As [`set`](Self::set); [`ConfigError::Argument`] if a value alone can't be that of
    /// [`MAGIC`].
    pub fn set_argument(&mut self, argument: &str) -> Result<(), ConfigError> {
        let (name, value) = split(argument)?;
        self.set(name, value)
    }

    /// The file that gets the [figures](STATS_JSON); `-` is standard error.
    #[must_use]
    pub fn stats_json(&self) -> Option<&Path> {
        self.stats_json.as_deref()
    }

    fn names_a_disk(&self) -> bool {
        self.url.is_some() || self.engine.has_target()
    }

    /// Returns the disk's source, and the settings for it.
    ///
    /// # Errors
    /// [`ConfigError::MissingUrl`], or [`ConfigError::Value`] where parameters contradict each
    /// other.
    pub fn finish(self) -> Result<Source, ConfigError> {
        let unix_socket_user = self.settings.unix_socket_user.or_else(|| self.default_user());
        let engine = self.engine.finish(self.settings.size)?;
        let default = engine.as_ref().map_or(self.settings.reconnect_timeout, |_| ENGINE_RECONNECT_TIMEOUT);
        let reconnect_timeout = self.reconnect_timeout.unwrap_or(default);
        let settings = self.settings.with(|settings| {
            settings.unix_socket_user = unix_socket_user;
            settings.reconnect_timeout = reconnect_timeout;
        });
        match (self.url, engine) {
            (None, Some(engine)) => Ok(Source::engine(settings, engine)),
            (Some(url), None) => Ok(Source::url(settings.with(|settings| settings.url = url))),
            (None, None) => Err(ConfigError::MissingUrl),
            (Some(_), Some(_)) => {
                let reason =
                    "a disk of an engine is given, too: leave out url=, as the engine tells it".to_owned();
                Err(ConfigError::Value { name: MAGIC, reason })
            }
        }
    }

    /// imageio's user, if the unix socket may be used and this host has that user.
    fn default_user(&self) -> Option<u32> {
        // With an engine, it turns out later whether this is a host of oVirt.
        let may_be_host = self.settings.is_ovirt_host || self.url.is_none();
        let is_wanted = may_be_host && self.settings.unix_socket;
        // A user that can't be looked up isn't trusted; the warning about the socket tells who it
        // was.
        if is_wanted { parse::user_named(IMAGEIO_USER).ok().flatten() } else { None }
    }
}

/// The name and the value of an argument.
fn split(argument: &str) -> Result<(&str, &str), ConfigError> {
    match named(argument) {
        Some(pair) => Ok(pair),
        None if parse::may_be_url(argument) => Ok((MAGIC, argument)),
        None => Err(ConfigError::Argument { argument: argument.to_owned() }),
    }
}

/// Returns the name and the value of an argument `NAME=VALUE`.
#[must_use]
pub fn named(argument: &str) -> Option<(&str, &str)> {
    argument.split_once('=').filter(|(name, _)| is_name(name))
}

/// Returns true if the text before a `=` is a parameter's name, by nbdkit's rule.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Parser>();
    is_send_and_sync::<Exports>();
    is_send_and_sync::<ExportSettings>();
    is_send_and_sync::<Parameter>();
    is_send_and_sync::<ConfigError>();
};

#[cfg(test)]
mod tests;
