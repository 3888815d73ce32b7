// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parameters of a transfer, each declared once: [`parameters`] feed the parser, the help and the man page.
//!
//! A name may be written with hyphens or underscores. A parameter may be given again; the last one counts.
//!
//! A [`Parser`] takes those of one transfer, and [`Exports`] those of several.

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

pub use exports::{ExportSettings, Exports};
pub use parse::{export_name, seconds, size};
use secret::shown;
pub use secret::{is_url, may_be_shown};
pub use table::{EXPORT, Parameter, STATS_JSON, parameters, wrap};

/// The parameter that a value without a name belongs to.
pub const MAGIC: &str = "url";

/// What is wrong with the parameters: one line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No parameter has this name.
    #[error("unknown parameter {}: known are {}", shown(name), known())]
    Unknown {
        /// As it was given. It could hold a ticket, so the text of the error shows it only if it is short.
        name: String,
    },

    /// The value can't be used. It isn't repeated where it could be secret.
    #[error("{name}: {reason}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What is wrong, and what is expected.
        reason: String,
    },

    /// The transfer isn't named.
    #[error(
        "url is missing: url=https://HOST:54322/images/TICKET, or url=+FILE with that in its first line; or disk=NAME of an engine"
    )]
    MissingUrl,

    /// Something is wrong with one of several exports.
    #[error("{}: {error}", export_label(name))]
    Export {
        /// The export's.
        name: String,
        /// What it is.
        error: Box<ConfigError>,
    },
}

impl ConfigError {
    fn of(self, export: &str) -> Self {
        Self::Export { name: export.to_owned(), error: Box::new(self) }
    }
}

/// How messages call one of several exports.
#[must_use]
pub fn export_label(name: &str) -> String {
    format!("export '{}'", name.escape_debug())
}

/// What the device can do where the server can.
const FEATURES: &str =
    "http https unix-socket flush fua-native zero extents multi-conn keep-alive block-size";

/// What both doors tell of themselves by `--dump-plugin`: one `key=value` a line.
#[must_use]
pub fn facts(version: &str) -> Vec<String> {
    let names: Vec<_> = parameters().map(|parameter| parameter.name).collect();
    vec![
        format!("imageio_version={version}"),
        format!("imageio_features={FEATURES}"),
        format!("imageio_parameters={}", names.join(" ")),
    ]
}

fn known() -> String {
    parameters().map(|parameter| parameter.name).collect::<Vec<_>>().join(", ")
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

/// For how long a server is waited for whose transfer an engine can resume: a host may be started again.
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
    /// As [`set`](Self::set).
    pub fn set_argument(&mut self, argument: &str) -> Result<(), ConfigError> {
        let (name, value) = split(argument);
        self.set(name, value)
    }

    /// Where the [figures](STATS_JSON) are to be written; `-` is standard error.
    #[must_use]
    pub fn stats_json(&self) -> Option<&Path> {
        self.stats_json.as_deref()
    }

    fn names_a_disk(&self) -> bool {
        self.url.is_some() || self.engine.has_target()
    }

    /// Where the disk is, and how to treat it.
    ///
    /// # Errors
    /// [`ConfigError::MissingUrl`], or [`ConfigError::Value`] where parameters contradict each other.
    pub fn finish(self) -> Result<Source, ConfigError> {
        let unix_socket_user = self.settings.unix_socket_user.or_else(|| self.default_user());
        let engine = self.engine.finish(self.settings.size)?;
        let default = engine.as_ref().map_or(self.settings.reconnect_timeout, |_| ENGINE_RECONNECT_TIMEOUT);
        let reconnect_timeout = self.reconnect_timeout.unwrap_or(default);
        let settings = Settings { unix_socket_user, reconnect_timeout, ..self.settings };
        match (self.url, engine) {
            (None, Some(engine)) => Ok(Source::engine(settings, engine)),
            (Some(url), None) => Ok(Source::url(Settings { url, ..settings })),
            (None, None) => Err(ConfigError::MissingUrl),
            (Some(_), Some(_)) => {
                let reason = "disk= is given, too: the engine tells the URL".to_owned();
                Err(ConfigError::Value { name: MAGIC, reason })
            }
        }
    }

    /// imageio's user, if the unix socket may be used and this host has that user.
    fn default_user(&self) -> Option<u32> {
        // With an engine, it turns out later whether this is a host of oVirt.
        let may_be_host = self.settings.is_ovirt_host || self.url.is_none();
        let is_wanted = may_be_host && self.settings.unix_socket;
        // What can't be looked up isn't trusted; the warning about the socket tells who it was.
        if is_wanted { parse::user_named(IMAGEIO_USER).ok().flatten() } else { None }
    }
}

/// The name and the value of an argument.
fn split(argument: &str) -> (&str, &str) {
    argument.split_once('=').filter(|(name, _)| is_name(name)).unwrap_or((MAGIC, argument))
}

/// Whether what stands before a `=` is a parameter's name, by nbdkit's rule.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Result<Settings, ConfigError> {
        let mut parser = Parser::new();
        for argument in arguments {
            parser.set_argument(argument)?;
        }
        parser.finish().map(|source| source.settings)
    }

    #[test]
    fn what_virt_v2v_gives() {
        let given = ["size=1", "url=https://h/images/1", "size=1073741824", "url=https://h/images/2"];
        let more = ["cafile=/etc/ca.pem", "insecure=TRUE", "is_ovirt_host=1"];
        let settings = settings(&[&given[..], &more].concat()).unwrap();
        assert_eq!(settings.size, Some(1 << 30));
        assert_eq!(settings.url, UrlSource::Inline("https://h/images/2".into()));
        assert_eq!(settings.cafile.as_deref(), Some("/etc/ca.pem".as_ref()));
        assert!(settings.insecure && settings.is_ovirt_host);
    }

    #[test]
    fn a_value_alone_is_the_url_also_with_an_equals_sign_in_it() {
        let settings = settings(&["https://h/images/a=b", "is-ovirt-host=no"]).unwrap();
        assert_eq!(settings.url, UrlSource::Inline("https://h/images/a=b".into()));
        assert!(!settings.is_ovirt_host);
    }

    #[test]
    fn paths_become_absolute_before_a_daemon_changes_directory() {
        let settings = settings(&["url=+ticket", "cafile=ca.pem"]).unwrap();
        let here = std::env::current_dir().unwrap();
        let mut parser = Parser::new();
        parser.set_argument("stats_json=stats").unwrap();
        assert_eq!(parser.stats_json(), Some(&*here.join("stats")));
        parser.set_argument("stats-json=-").unwrap();
        assert_eq!(parser.stats_json(), Some(Path::new("-")));
        assert_eq!(settings.cafile, Some(here.join("ca.pem")));
        assert_eq!(settings.url, UrlSource::File(here.join("ticket")));
    }

    #[test]
    fn the_url_may_come_from_standard_input() {
        assert_eq!(settings(&["-"]).unwrap().url, UrlSource::Stdin);
    }

    #[test]
    fn sizes_and_times() {
        let given = ["url=u", "size=2M", "keep-alive=0", "timeout=0.5", "connections=8"];
        let sizes = ["max_request=1M", "preferred_block_size=32M", "read_ahead=8M"];
        let recovery = ["replay-buffer=0", "reconnect-timeout=0"];
        let settings = settings(&[&given[..], &sizes, &recovery].concat()).unwrap();
        assert_eq!((settings.replay_buffer, settings.reconnect_timeout), (Some(0), Duration::ZERO));
        assert_eq!((settings.max_request, settings.preferred_block_size), (Some(1 << 20), 32 << 20));
        assert_eq!((settings.size, settings.read_ahead), (Some(2 << 20), 8 << 20));
        assert_eq!(settings.keep_alive, None);
        assert_eq!(settings.timeouts.data, Duration::from_millis(500));
        assert_eq!(settings.connections, Some(8));
    }

    #[test]
    fn what_follows_the_link_unless_it_is_given() {
        let chosen = |arguments: &[&str]| {
            let settings = settings(&[&["url=u"], arguments].concat()).unwrap();
            (settings.connections, settings.max_request, settings.replay_buffer)
        };
        assert_eq!(chosen(&[]), (None, None, None));
        assert_eq!(
            chosen(&["connections=2", "max-request=4M", "replay-buffer=0"]),
            (Some(2), Some(4 << 20), Some(0))
        );
        let again =
            ["connections=2", "max-request=0", "connections=auto", "max_request=auto", "replay-buffer=auto"];
        assert_eq!(chosen(&again), (None, None, None));
    }

    #[test]
    fn bad_values_are_told_in_one_line() {
        for argument in [
            "size=-1",
            "size=ten",
            "size=",
            "size=99999999999999999999",
            "insecure=maybe",
            "no-hole=keep",
            "max-request=much",
            "max-request=65535",
            "max-request=1000000",
            "read-ahead=far",
            "preferred-block-size=0",
            "preferred-block-size=4095",
            "preferred-block-size=256",
            "preferred-block-size=64M",
            "preferred-block-size=99G",
            "replay-buffer=-1",
            "reconnect-timeout=x",
            "dirty-bitmap=",
            "dirty-bitmap=sda:",
            "connections=0",
            "connections=1000",
            "connections=x",
            "timeout=0",
            "timeout=-1",
            "timeout=inf",
            "timeout=1e30",
            "keep-alive=soon",
            "cafile=",
            "url=",
            "url=+",
            "stats-json=",
            "colour=red",
        ] {
            let error = settings(&["url=u", argument]).expect_err(argument).to_string();
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(error.contains(argument.split_once('=').unwrap().0), "{error}");
        }
        assert_eq!(settings(&["size=1"]), Err(ConfigError::MissingUrl));
    }

    #[test]
    fn a_bitmap_may_be_called_by_a_checkpoint() {
        let name = "0f2f8f4e-6f6c-4a40-9f3b-6f0f3c1d2e4a";
        let bitmap = |argument: &str| settings(&["url=u", argument]).unwrap().dirty_bitmap;
        assert_eq!(bitmap(&format!("dirty_bitmap={name}")), name);
        assert_eq!(
            (bitmap("dirty-bitmap=a b:c"), bitmap("size=1")),
            ("a b:c".to_owned(), "dirty".to_owned())
        );
    }

    #[test]
    fn a_user_is_given_by_name_or_number() {
        let user = |argument| settings(&["url=u", argument]).map(|settings| settings.unix_socket_user);
        assert_eq!(user("unix-socket-user=root"), Ok(Some(0)));
        assert_eq!(user("unix_socket_user=36"), Ok(Some(36)));
        assert_eq!(user("size=1"), Ok(None));
        for argument in ["unix-socket-user=", "unix-socket-user=-1", "unix-socket-user=no such user"] {
            let error = user(argument).expect_err(argument).to_string();
            assert!(error.starts_with("unix-socket-user: ") && error.contains("not a user"), "{error}");
        }
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_shown() {
        const TICKET: &str = "e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a";
        let url = format!("https://host:54322/images/{TICKET}");
        let places = parameters().map(|parameter| parameter.name).filter(|name| *name != "url");
        let values = [TICKET, &url, &format!("+{url}"), &url[8..]].map(str::to_owned);
        let wrong = places.flat_map(|name| values.iter().map(move |value| format!("{name}={value}")));
        // These have such names, too.
        let may_be_uuid = |argument: &str| {
            let (name, value) = split(argument);
            value == TICKET
                && ["dirty-bitmap", "disk", "new-disk", "snapshot", "storage-domain", "config", "description"]
                    .contains(&name)
        };
        let wrong = wrong.filter(|argument| !may_be_uuid(argument));
        let more = [
            format!("{TICKET}=x"),
            format!("ticket={TICKET}"),
            format!("ulr={url}"),
            format!("url=+{url}"),
            format!("+{url}"),
        ];
        for argument in wrong.chain(more) {
            let error = settings(&["url=u", &argument]).expect_err(&argument).to_string();
            assert!(!error.contains(TICKET), "{argument}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = Parser::new().set(&url, "x").unwrap_err().to_string();
        assert!(error.starts_with("unknown parameter ") && !error.contains(TICKET), "{error}");
    }

    #[test]
    fn long_texts_become_lines() {
        assert_eq!(wrap("a bc  def\nghij kl", 6), ["a bc", "def", "ghij", "kl"]);
        assert_eq!(wrap("longer than", 3), ["longer", "than"]);
        assert_eq!(wrap("", 3), [""; 0]);
    }

    #[test]
    fn the_table_is_fit_for_a_man_page() {
        for parameter in parameters() {
            assert!(is_name(parameter.name) && !parameter.name.contains('_'));
            assert!(parameter.help.ends_with('.'), "{}", parameter.name);
        }
    }
}
