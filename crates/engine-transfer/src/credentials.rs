// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine's address and its user: they are taken from what was given, else from `ovirt-img`'s
//! configuration file, else from the environment.

use std::env;
use std::fmt;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use configparser::ini::Ini;
use ovirt_engine_client::{Clock, Config, Engine, Secret, Trust};

use crate::Error;

/// The variable of the environment for the CA, as Ansible's collection `ovirt.ovirt` names it.
const CAFILE: &str = "OVIRT_CAFILE";

/// The greatest length of a password. A longer text is that of another file.
const LONGEST_PASSWORD: usize = 4096;

/// The engine's address, and the user who asks it. Fields that are left out are taken from a
/// section of `ovirt-img`'s configuration file, if one is named, and else from the environment:
/// `OVIRT_URL`, `OVIRT_USERNAME`, `OVIRT_PASSWORD`, `OVIRT_CAFILE`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Credentials {
    /// The engine's URL: see [`ovirt_engine_client::Config::url`].
    pub url: Option<String>,
    /// The user with its profile.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<PasswordSource>,
    /// A PEM file with the engine's CA.
    pub cafile: Option<PathBuf>,
    /// Don't verify the engine's certificate: whoever is in between gets the password.
    pub insecure: bool,
    /// The time for which an engine is asked again that doesn't answer: see
    /// [`ovirt_engine_client::Config::reconnect_timeout`].
    pub reconnect_timeout: Option<Duration>,
    /// A section of `ovirt-img.conf`, in `$XDG_CONFIG_HOME` or `~/.config`.
    pub section: Option<String>,
}

/// The place of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordSource {
    /// In the first line of a file.
    File(PathBuf),
    /// In the first line of standard input.
    Stdin,
    /// In this value.
    Inline(Secret),
}

/// What nobody can log in to an engine without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// The engine's URL.
    Url,
    /// The user with its profile.
    User,
    /// The user's password.
    Password,
}

impl Credential {
    /// The variable of the environment that gives it, as Ansible's collection `ovirt.ovirt` names
    /// it.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Url => "OVIRT_URL",
            Self::User => "OVIRT_USERNAME",
            Self::Password => "OVIRT_PASSWORD",
        }
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "the engine's URL",
            Self::User => "the engine's user",
            Self::Password => "the user's password",
        })
    }
}

/// The values in a section of the configuration file, by the names that
/// `ovirt_imageio/client/_options.py` reads.
#[derive(Debug, Default)]
struct Section {
    engine_url: Option<String>,
    username: Option<String>,
    password: Option<Secret>,
    cafile: Option<PathBuf>,
    is_insecure: bool,
}

impl Credentials {
    /// The engine, which is not asked yet. `clock` may end waits for it.
    ///
    /// # Errors
    /// Something is missing, or a file can't be read.
    pub fn engine(&self, clock: Arc<dyn Clock>) -> Result<Engine, Error> {
        let (config, _) = self.resolve()?;
        Ok(Engine::with_clock(config, clock)?)
    }

    /// Reads the password and keeps it, for those who log in more than once: what was read from
    /// standard input can't be read again.
    ///
    /// # Errors
    /// The password can't be read.
    pub fn with_password_read(mut self) -> Result<Self, Error> {
        if let Some(source) = &self.password {
            self.password = Some(PasswordSource::Inline(source.read()?));
        }
        Ok(self)
    }

    /// The root of the engine's URL, wherever that is said, in a form that can be compared.
    ///
    /// # Errors
    /// It isn't said or is none, or a file can't be read.
    pub fn engine_root(&self) -> Result<String, Error> {
        Ok(ovirt_engine_client::root(&self.url(self.section()?.engine_url)?)?.into())
    }

    fn section(&self) -> Result<Section, Error> {
        Ok(self.section.as_deref().map(Section::read).transpose()?.unwrap_or_default())
    }

    fn url(&self, of_section: Option<String>) -> Result<String, Error> {
        let url = self.url.clone().or(of_section).or_else(|| variable(Credential::Url.variable()));
        url.ok_or(Error::Missing(Credential::Url))
    }

    /// Returns the configuration that a login needs, and the CA's file, which the imageio server's
    /// certificate is signed by as well.
    ///
    /// # Errors
    /// Something is missing, or a file can't be read.
    pub(crate) fn resolve(&self) -> Result<(Config, Option<PathBuf>), Error> {
        let section = self.section()?;
        let url = self.url(section.engine_url)?;
        let user = self.user.clone().or(section.username).or_else(|| variable(Credential::User.variable()));
        let user = user.ok_or(Error::Missing(Credential::User))?;
        let password = match &self.password {
            Some(source) => Some(source.read()?),
            None => section.password.or_else(|| variable(Credential::Password.variable()).map(Secret::new)),
        };
        let password = password.ok_or(Error::Missing(Credential::Password))?;
        let cafile = self.cafile.clone().or(section.cafile).or_else(|| variable(CAFILE).map(PathBuf::from));
        let mut config = Config::new(url, user, password);
        config.reconnect_timeout = self.reconnect_timeout.unwrap_or(config.reconnect_timeout);
        config.trust = trust(self.insecure || section.is_insecure, cafile.as_deref())?;
        Ok((config, cafile))
    }
}

/// A variable of the environment that isn't empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn trust(is_insecure: bool, cafile: Option<&Path>) -> Result<Trust, Error> {
    if is_insecure {
        log::warn!("the engine's certificate is not verified, so anyone in between can get the password");
        return Ok(Trust::Insecure);
    }
    Ok(cafile.map(Trust::file).transpose()?.unwrap_or(Trust::System))
}

impl PasswordSource {
    fn read(&self) -> Result<Secret, Error> {
        let (file, line) = match self {
            Self::Inline(password) => return Ok(password.clone()),
            Self::File(path) => {
                let read = fs::File::open(path).and_then(|file| first_line(io::BufReader::new(file)));
                (Some(path.clone()), read)
            }
            Self::Stdin => (None, first_line(io::stdin().lock())),
        };
        match line {
            Ok(password) if !password.is_empty() => Ok(Secret::new(password)),
            Ok(_) => Err(Error::Password { file, source: io::Error::other("the first line is empty") }),
            Err(source) => Err(Error::Password { file, source }),
        }
    }
}

/// Some editors begin a text with this byte order mark, which is no part of it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Blanks belong to a password, and the end of the line doesn't.
fn first_line(input: impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(LONGEST_PASSWORD as u64).read_line(&mut line)?;
    if line.len() == LONGEST_PASSWORD {
        return Err(io::Error::other("the first line is too long for a password: is it another file?"));
    }
    Ok(line.trim_start_matches(BYTE_ORDER_MARK).trim_end_matches(['\r', '\n']).to_owned())
}

impl Section {
    fn read(name: &str) -> Result<Self, Error> {
        let path = config_file();
        let read = fs::read_to_string(&path).and_then(|text| Self::parse(name, &text));
        read.map_err(|source| Error::ConfigFile { path, source })
    }

    fn parse(name: &str, text: &str) -> io::Result<Self> {
        let mut file = Ini::new_cs();
        // A password may have the signs in it that begin a comment. Python's parser takes them for
        // one at a line's beginning only.
        let mut like_python = file.defaults();
        like_python.enable_inline_comments = false;
        file.load_defaults(like_python);
        // Its words may repeat a line of the file, which may have the password.
        let text = text.trim_start_matches(BYTE_ORDER_MARK);
        file.read(text.to_owned())
            .map_err(|_| invalid("a line of it is neither [SECTION] nor NAME = VALUE"))?;
        let sections = file.sections();
        if !sections.iter().any(|section| section == name) {
            let shown = |name: &str| format!("[{}]", name.escape_debug());
            let others: Vec<_> =
                sections.iter().filter(|name| *name != "DEFAULT").map(|name| shown(name)).collect();
            let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
            return Err(invalid(format!("it has no section {}: it has {others}", shown(name))));
        }
        let value = |option| {
            let value = file.get(name, option).or_else(|| file.get("DEFAULT", option));
            value.filter(|value| !value.is_empty())
        };
        Ok(Self {
            engine_url: value("engine_url"),
            username: value("username"),
            password: value("password").map(Secret::new),
            cafile: value("cafile").map(PathBuf::from),
            is_insecure: value("secure").is_some_and(|value| is_no(&value)),
        })
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Python's `configparser` takes these for false.
fn is_no(value: &str) -> bool {
    matches!(&*value.to_ascii_lowercase(), "no" | "false" | "off" | "0")
}

fn config_file() -> PathBuf {
    let base = env::var_os("XDG_CONFIG_HOME").filter(|base| !base.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| Some(env::home_dir()?.join(".config")));
    base.unwrap_or_default().join("ovirt-img.conf")
}

#[cfg(test)]
mod tests {
    use error_reporter::Report;

    use super::*;

    const FILE: &str = "\
# engines
[lab]
engine_url = https://engine.example.com
username = admin@internal
password = pass=word%1 #a;s
cafile: /etc/pki/lab.pem

[other]
engine_url = https://other.example.com
secure = no
log_level = debug
";

    #[test]
    fn a_section_is_read_as_ovirt_img_reads_it() {
        let lab = Section::parse("lab", FILE).unwrap();
        assert_eq!(lab.engine_url.as_deref(), Some("https://engine.example.com"));
        assert_eq!(lab.username.as_deref(), Some("admin@internal"));
        assert_eq!(lab.password, Some(Secret::new("pass=word%1 #a;s")));
        assert_eq!((lab.cafile.as_deref(), lab.is_insecure), (Some(Path::new("/etc/pki/lab.pem")), false));
        let other = Section::parse("other", FILE).unwrap();
        assert!(other.password.is_none() && other.is_insecure);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_file() {
        let text = "\u{feff}[lab]\nusername = admin@internal\n";
        assert_eq!(Section::parse("lab", text).unwrap().username.as_deref(), Some("admin@internal"));
        assert_eq!(first_line("\u{feff}secret\r\n".as_bytes()).unwrap(), "secret");
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told_without_its_secrets() {
        let error = |name, text: &str| Section::parse(name, text).unwrap_err().to_string();
        assert!(
            error("Lab", FILE).starts_with("it has no section [Lab]: it has ["),
            "{}",
            error("Lab", FILE)
        );
        assert_eq!(error("lab", ""), "it has no section [lab]: it has none");
        let error = error("lab", "[lab\npassword = secret");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_password_is_a_line() {
        for (text, password) in [("a b \r\nmore", "a b "), ("x", "x"), ("\n", "")] {
            assert_eq!(first_line(text.as_bytes()).unwrap(), password);
        }
        assert!(first_line("x".repeat(5000).as_bytes()).is_err());
    }

    #[test]
    fn a_password_that_was_read_is_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "p w\n").unwrap();
        let password = Some(PasswordSource::File(file.path().to_owned()));
        let given = Credentials { password, ..Credentials::default() }.with_password_read().unwrap();
        assert_eq!(given.password, Some(PasswordSource::Inline(Secret::new("p w"))));
        assert!(Credentials::default().with_password_read().unwrap().password.is_none());
    }

    #[test]
    fn what_is_given_counts_more_than_the_environment() {
        // No test sets variables, as others run at the same time.
        let mut given = Credentials {
            url: Some("https://engine.example.com".into()),
            user: Some("admin@internal".into()),
            password: Some(PasswordSource::Inline(Secret::new("p"))),
            ..Credentials::default()
        };
        let (config, _) = given.resolve().unwrap();
        assert_eq!((&*config.url, config.password.reveal()), ("https://engine.example.com", "p"));
        given.cafile = Some("/no/such/file".into());
        assert!(given.resolve().unwrap_err().to_string().contains("/no/such/file"));
        given.insecure = true;
        assert!(matches!(given.resolve().unwrap().0.trust, Trust::Insecure));
        given.password = Some(PasswordSource::File("/no/such/password".into()));
        let error = Report::new(given.resolve().unwrap_err()).to_string();
        assert!(error.starts_with("cannot read the password from /no/such/password: No such"), "{error}");
    }
}
