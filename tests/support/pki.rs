// SPDX-License-Identifier: MIT OR Apache-2.0
//! Certificates of an NBD server and its clients, in files of the names that nbdkit, libnbd and
//! qemu look for.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use crate::TestResult;

/// A CA, and directories with what it has signed.
#[derive(Debug)]
pub struct Pki {
    dir: TempDir,
}

impl Pki {
    /// Makes a CA, and certificates for a server on this host and for a client.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn new() -> TestResult<Self> {
        Self::for_host(&["localhost", "127.0.0.1", "::1"])
    }

    /// Makes certificates with other names for the server.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn for_host(names: &[&str]) -> TestResult<Self> {
        let pki = Self { dir: tempfile::tempdir()? };
        let ca_key = KeyPair::generate()?;
        let ca = ca();
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let ca = Issuer::new(ca, ca_key);
        for (dir, name, names, purpose, serial) in [
            (pki.server(), "server", names, ExtendedKeyUsagePurpose::ServerAuth, 1),
            (pki.client(), "client", &["client"][..], ExtendedKeyUsagePurpose::ClientAuth, CLIENT),
        ] {
            fs::create_dir(&dir)?;
            fs::write(dir.join("ca-cert.pem"), &ca_pem)?;
            let key = KeyPair::generate()?;
            let certificate = end_entity(names, purpose, serial)?.signed_by(&key, &ca)?;
            fs::write(dir.join(format!("{name}-cert.pem")), certificate.pem())?;
            fs::write(dir.join(format!("{name}-key.pem")), key.serialize_pem())?;
        }
        fs::create_dir(pki.nobody())?;
        fs::write(pki.nobody().join("ca-cert.pem"), &ca_pem)?;
        fs::write(pki.dir.path().join("ca-crl.pem"), revocations().signed_by(&ca)?.pem()?)?;
        Ok(pki)
    }

    /// For `--tls-certificates`.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    /// For a client that shows a certificate.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.dir.path().join("client")
    }

    /// For a client that shows none.
    #[must_use]
    pub fn nobody(&self) -> PathBuf {
        self.dir.path().join("nobody")
    }

    /// For a client that trusts another CA than the one that has signed its own certificate.
    ///
    /// # Errors
    /// If a file can't be copied.
    pub fn client_trusting(&self, other: &Self) -> TestResult<PathBuf> {
        let dir = self.dir.path().join("stranger");
        fs::create_dir(&dir)?;
        for (from, name) in [
            (self.client(), "client-cert.pem"),
            (self.client(), "client-key.pem"),
            (other.client(), "ca-cert.pem"),
        ] {
            fs::copy(from.join(name), dir.join(name))?;
        }
        Ok(dir)
    }

    /// The server learns that the client's certificate counts no more.
    ///
    /// # Errors
    /// If the file can't be copied.
    pub fn revoke_client(&self) -> TestResult {
        copy("ca-crl.pem", self.dir.path(), &self.server())
    }
}

/// The serial number of the client's certificate.
const CLIENT: u64 = 2;

fn copy(name: &str, from: &Path, to: &Path) -> TestResult {
    fs::copy(from.join(name), to.join(name))?;
    Ok(())
}

fn ca() -> CertificateParams {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    ca.distinguished_name.push(DnType::CommonName, "a CA for tests");
    ca
}

fn end_entity(
    names: &[&str],
    purpose: ExtendedKeyUsagePurpose,
    serial: u64,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
    params.serial_number = Some(SerialNumber::from(serial));
    params.use_authority_key_identifier_extension = true;
    // qemu wants both.
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![purpose];
    params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or_default());
    Ok(params)
}

fn revocations() -> CertificateRevocationListParams {
    let client = RevokedCertParams {
        serial_number: SerialNumber::from(CLIENT),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2999, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![client],
        key_identifier_method: KeyIdMethod::Sha256,
    }
}
