// SPDX-License-Identifier: MIT OR Apache-2.0
//! Certificates made on the spot: good ones, and those that clients are known to stumble over.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The kind of certificate that the server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Certificate {
    /// Signed by a CA, for these subject alternative names (host names or IP addresses).
    Names(Vec<String>),
    /// A self-signed CA certificate (`CA:TRUE`) for these names, shown as the server's own.
    CaAsServer(Vec<String>),
    /// Signed by a CA, with the name only in the subject's common name, as very old installations
    /// have.
    CommonNameOnly(String),
}

impl Default for Certificate {
    /// Good for the names and addresses of the local host.
    fn default() -> Self {
        Self::Names(["127.0.0.1", "::1", "localhost"].map(str::to_owned).to_vec())
    }
}

impl Certificate {
    /// Signed by a CA, but for a host that is not this one.
    #[must_use]
    pub fn wrong_host() -> Self {
        Self::Names(vec!["wrong.example.com".to_owned()])
    }
}

/// A server's certificate and key, and the CA that clients must trust; all as PEM.
#[derive(Clone)]
#[non_exhaustive]
pub struct Pki {
    /// The certificate that clients trust, for a `cafile`.
    pub ca_pem: String,
    /// The server's certificate.
    pub cert_pem: String,
    /// The server's private key (PKCS #8).
    pub key_pem: String,
    cert: CertificateDer<'static>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("ca_pem", &self.ca_pem).finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes keys and certificates.
    ///
    /// # Errors
    /// If a name is not one that a certificate can hold.
    pub fn generate(certificate: &Certificate) -> io::Result<Self> {
        Self::try_generate(certificate).map_err(io::Error::other)
    }

    fn try_generate(certificate: &Certificate) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let (ca_pem, cert) = match certificate {
            Certificate::CaAsServer(names) => {
                let cert = ca_params(names)?.self_signed(&key)?;
                (cert.pem(), cert)
            }
            Certificate::Names(names) => signed(&server_params(names)?, &key)?,
            Certificate::CommonNameOnly(name) => {
                let mut params = server_params(&[])?;
                params.distinguished_name.push(DnType::CommonName, name.as_str());
                signed(&params, &key)?
            }
        };
        let (cert_pem, key_pem) = (cert.pem(), key.serialize_pem());
        Ok(Self { ca_pem, cert_pem, key_pem, cert: cert.der().clone(), key: key.serialize_der() })
    }

    /// TLS 1.2 and 1.3 with this certificate.
    ///
    /// # Errors
    /// If the certificate doesn't fit its key.
    pub fn server_config(&self) -> io::Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::Pkcs8(self.key.clone().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![self.cert.clone()], key))
            .map_err(io::Error::other)?;
        Ok(Arc::new(config))
    }
}

fn ca_params(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::OrganizationName, "fake-imageio");
    params.distinguished_name.push(DnType::CommonName, "fake-imageio CA");
    Ok(params)
}

fn server_params(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "fake-imageio");
    Ok(params)
}

/// A new CA's PEM, and the certificate it signed.
fn signed(params: &CertificateParams, key: &KeyPair) -> Result<(String, rcgen::Certificate), rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let ca = ca_params(&[])?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    Ok((ca_pem, params.signed_by(key, &Issuer::new(ca, ca_key))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_certificate_makes_a_server() {
        let name = || "host.example.com".to_owned();
        let kinds = [
            Certificate::default(),
            Certificate::wrong_host(),
            Certificate::CaAsServer(vec![name()]),
            Certificate::CommonNameOnly(name()),
        ];
        for kind in kinds {
            let pki = Pki::generate(&kind).unwrap();
            assert!(pki.server_config().is_ok(), "{kind:?}");
            assert_eq!(pki.ca_pem == pki.cert_pem, matches!(kind, Certificate::CaAsServer(_)));
            assert!(!format!("{pki:?}").contains("PRIVATE KEY"));
        }
    }
}
