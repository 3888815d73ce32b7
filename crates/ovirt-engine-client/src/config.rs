// SPDX-License-Identifier: MIT OR Apache-2.0
//! An engine's address, and its user.

use std::path::Path;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::Url;

use crate::{Error, Result, Secret};

/// The engine's address, and the user who asks it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The engine's URL. `https://ENGINE/ovirt-engine/api` is the usual form; what follows the host
    /// may be left out.
    pub url: String,
    /// The user with its profile: `admin@internal`, `admin@ovirt@internalsso`.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// The certificates that are trusted.
    pub trust: Trust,
    /// The time that an answer may take.
    pub timeout: Duration,
    /// The time for which an engine is asked again that can't be reached, or doesn't answer: it may
    /// be started again meanwhile. An engine that has been given up after that time is asked once
    /// each time, until it answers.
    pub reconnect_timeout: Duration,
}

impl Config {
    /// An engine with a certificate of the system's roots.
    #[must_use]
    pub fn new(url: impl Into<String>, user: impl Into<String>, password: Secret) -> Self {
        Self {
            url: url.into(),
            user: user.into(),
            password,
            trust: Trust::System,
            timeout: Duration::from_secs(60),
            reconnect_timeout: Duration::from_secs(300),
        }
    }
}

/// The certificates that are trusted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trust {
    /// Certificates that the system's roots have signed are trusted.
    System,
    /// Certificates that these have signed are trusted: they are in PEM.
    Pem(Vec<u8>),
    /// Any certificate is trusted. Whoever is in between gets the password.
    Insecure,
}

impl Trust {
    /// Trusts the certificates that those in a file have signed: for oVirt, the engine's CA.
    ///
    /// # Errors
    /// [`Error::CaFile`] if the file can't be read.
    pub fn file(path: &Path) -> Result<Self> {
        let fail = |source| Error::CaFile { path: path.to_owned(), source };
        std::fs::read(path).map(Self::Pem).map_err(fail)
    }

    pub(crate) fn tls_config(&self) -> Result<TlsConfig> {
        let config = TlsConfig::builder();
        let config = match self {
            Self::System => config.root_certs(system_roots()?),
            Self::Pem(pem) => config.root_certs(roots_in(pem)?),
            Self::Insecure => config.disable_verification(true),
        };
        Ok(config.unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into()).build())
    }
}

fn system_roots() -> Result<RootCerts> {
    let certificates = rustls_native_certs::load_native_certs().certs;
    if certificates.is_empty() {
        return Err(Error::NoRoots);
    }
    Ok(roots(certificates.iter().map(|certificate| &**certificate)))
}

fn roots_in(pem: &[u8]) -> Result<RootCerts> {
    let certificates: std::io::Result<Vec<_>> = rustls_pemfile::certs(&mut &*pem).collect();
    let certificates = certificates.map_err(|error| Error::Certificates(Some(error)))?;
    let mut store = rustls::RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(certificates.iter().cloned());
    if usable == 0 {
        return Err(Error::Certificates(None));
    }
    Ok(roots(certificates.iter().map(|certificate| &**certificate)))
}

fn roots<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> RootCerts {
    RootCerts::from(certificates.map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>())
}

/// The engine's root, `https://ENGINE/ovirt-engine`, of whatever form the URL was given in. Two
/// URLs are of the same engine if it is the same.
///
/// # Errors
/// [`Error::Url`].
pub fn root(url: &str) -> Result<Url> {
    let fail = |reason: &str| Error::Url { reason: reason.to_owned() };
    let given = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let mut url = Url::parse(&given).map_err(|error| fail(&error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(fail("it is neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fail("it has a user in it, which is a parameter of its own"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let path = path.strip_suffix("/api").unwrap_or(&path);
    if path.contains("/images/") {
        return Err(fail("it is the URL of a transfer"));
    }
    url.set_path(if path.is_empty() { "/ovirt-engine" } else { path });
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// Checks that the user's name has a profile: without one, engines refuse with words that don't say
/// so.
pub(crate) fn check_user(user: &str) -> Result<()> {
    let is_whole =
        user.rsplit_once('@').is_some_and(|(name, profile)| !name.is_empty() && !profile.is_empty());
    if is_whole { Ok(()) } else { Err(Error::User) }
}

#[cfg(test)]
mod tests {
    use error_reporter::Report;

    use super::*;

    #[test]
    fn a_url_has_many_forms() {
        for url in [
            "engine.example.com",
            "https://engine.example.com",
            "https://engine.example.com/",
            "https://engine.example.com/ovirt-engine",
            "https://engine.example.com/ovirt-engine/api",
            "https://engine.example.com/ovirt-engine/api/#x",
        ] {
            assert_eq!(root(url).unwrap().as_str(), "https://engine.example.com/ovirt-engine", "{url}");
        }
        let port = root("http://[::1]:8080/engine/api/").unwrap();
        assert_eq!(port.as_str(), "http://[::1]:8080/engine");
    }

    #[test]
    fn what_is_no_engine_s_url_is_told_and_not_repeated() {
        for url in ["ftp://e", "https://u:secret@e/ovirt-engine", "https://", "https://e:54322/images/secret"]
        {
            let error = root(url).unwrap_err().to_string();
            assert!(error.starts_with("the engine's URL: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_user_has_a_profile() {
        assert!(check_user("admin@internal").is_ok() && check_user("admin@ovirt@internalsso").is_ok());
        for user in ["", "admin", "admin@", "@internal"] {
            assert!(check_user(user).is_err(), "{user}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_no_ca() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = Trust::Pem(pem.into()).tls_config().unwrap_err();
            assert!(matches!(error, Error::Certificates(None)), "{error:?}");
        }
        let error = Report::new(Trust::file(Path::new("/no/such")).unwrap_err()).to_string();
        assert!(error.starts_with("the engine's CA file /no/such can't be read: No such file"), "{error}");
    }
}
