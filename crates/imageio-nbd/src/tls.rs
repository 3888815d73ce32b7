// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS for NBD clients: certificates in files of nbdkit's names.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use nbd_frontend::Tls;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::cli::{Options, TlsMode};

const CA: &str = "ca-cert.pem";
const CERTIFICATE: &str = "server-cert.pem";
const KEY: &str = "server-key.pem";
/// May be missing.
const REVOKED: &str = "ca-crl.pem";

/// The directory in which nbdkit looks when root runs it.
pub(crate) const ROOT_DIR: &str = "/etc/pki/nbdkit";
/// The directories in which nbdkit looks otherwise, under `$HOME`.
const HOME_DIRS: [&str; 2] = [".pki/nbdkit", ".config/pki/nbdkit"];

/// Sets TLS up as the options ask for and the files allow. Without any of the options, TLS is
/// offered where there are certificates in nbdkit's place for them. With one of them, what is
/// missing is an error.
pub(crate) fn configure(options: &Options) -> Result<Tls> {
    let Some(dir) = find(options)? else {
        return Ok(if options.tls == Some(TlsMode::Off) { Tls::Off } else { Tls::Unsupported });
    };
    log::debug!("TLS with the certificates in {}", dir.display());
    let config = Arc::new(server_config(&dir, options.tls_verify_peer)?);
    if options.tls == Some(TlsMode::Require) {
        return Ok(Tls::Required(config));
    }
    if options.tls_verify_peer {
        log::warn!(
            "--tls-verify-peer: clients without TLS are admitted, too: add --tls=require to refuse them"
        );
    }
    Ok(Tls::Offered(config))
}

/// The directory with the certificates, if there is to be TLS.
fn find(options: &Options) -> Result<Option<PathBuf>> {
    let wants = match options.tls {
        Some(TlsMode::Off) => return Ok(None),
        Some(TlsMode::On) => Some("--tls=on"),
        Some(TlsMode::Require) => Some("--tls=require"),
        None => options.tls_verify_peer.then_some("--tls-verify-peer"),
    };
    if let Some(dir) = &options.tls_certificates {
        check(dir).context("--tls-certificates")?;
        return Ok(Some(dir.clone()));
    }
    let dirs = default_dirs(rustix::process::geteuid().is_root(), std::env::home_dir());
    match (dirs.iter().find(|dir| check(dir).is_ok()), wants) {
        (Some(dir), _) => Ok(Some(dir.clone())),
        (None, None) => Ok(None),
        (None, Some(option)) => {
            let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            bail!(
                "{option}: there are no certificates in {}: name a directory with {CA}, {CERTIFICATE} and {KEY} by \
                 --tls-certificates DIR",
                dirs.join(" or ")
            );
        }
    }
}

fn default_dirs(is_root: bool, home: Option<PathBuf>) -> Vec<PathBuf> {
    if is_root {
        return vec![ROOT_DIR.into()];
    }
    let home = home.unwrap_or_else(|| "/".into());
    HOME_DIRS.iter().map(|dir| home.join(dir)).collect()
}

/// Checks that a directory has all that nbdkit would look for.
fn check(dir: &Path) -> Result<()> {
    for name in [CA, CERTIFICATE, KEY] {
        let path = dir.join(name);
        fs::File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(())
}

/// TLS 1.2 and 1.3 with the certificate in `dir`. A session is never resumed: each client shows
/// what it has.
fn server_config(dir: &Path, verify_peer: bool) -> Result<ServerConfig> {
    let provider = Arc::new(provider());
    let verifier =
        if verify_peer { client_verifier(dir, &provider)? } else { WebPkiClientVerifier::no_client_auth() };
    let path = dir.join(KEY);
    let key = PrivateKeyDer::from_pem_file(&path).map_err(|e| unreadable(&path, "private key", &e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(read(&dir.join(CERTIFICATE), "certificate")?, key)
        .map_err(|e| unusable(dir, &e))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Admits a client that shows a certificate of the CA which the CA has not revoked.
fn client_verifier(dir: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
    let path = dir.join(CA);
    let mut roots = RootCertStore::empty();
    for certificate in read(&path, "certificate")? {
        roots.add(certificate).map_err(|e| anyhow!("{} is no usable CA certificate: {e}", path.display()))?;
    }
    let path = dir.join(REVOKED);
    let revoked: Vec<CertificateRevocationListDer<'static>> =
        if is_there(&path) { read(&path, "revocation list")? } else { Vec::new() };
    // nbdkit has the same rules: what no list is about is not revoked, and an outdated list is not
    // believed.
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .with_crls(revoked)
        .allow_unknown_revocation_status()
        .enforce_revocation_expiration()
        .build()
        .map_err(|e| anyhow!("{} can't be used: {e}", path.display()))
}

/// A link that leads nowhere is there, too: who wants a list must not be served without.
fn is_there(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Without the ciphers that end a connection of TLS 1.2, which can't renew its keys, after 256 GiB:
/// a disk may be larger.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit == u64::MAX,
        SupportedCipherSuite::Tls13(_) => true,
    });
    provider
}

/// The parts of a PEM file that are of a kind; one at least.
fn read<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>> {
    let parts = T::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<T>, _>>);
    match parts.map_err(|e| unreadable(path, what, &e))? {
        parts if parts.is_empty() => Err(unreadable(path, what, &pem::Error::NoItemsFound)),
        parts => Ok(parts),
    }
}

fn unreadable(path: &Path, what: &str, error: &pem::Error) -> anyhow::Error {
    let path = path.display();
    match error {
        pem::Error::NoItemsFound => anyhow!("{path} has no {what} in it: a PEM file is expected"),
        pem::Error::Io(error) => anyhow!("cannot read {path}: {error}"),
        // Some errors of the parser quote a line of the file, which may be the key.
        _ => anyhow!("{path} is not a valid PEM file"),
    }
}

fn unusable(dir: &Path, error: &rustls::Error) -> anyhow::Error {
    let dir = dir.display();
    match error {
        rustls::Error::InconsistentKeys(_) => anyhow!("{dir}: {KEY} is not the key of {CERTIFICATE}"),
        error => anyhow!("{dir}: {CERTIFICATE} and {KEY} can't be used: {error}"),
    }
}
