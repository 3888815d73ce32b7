// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verification of a server's certificate.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, ClientConfig, InvalidMessage, RootCertStore};

use crate::{Error, Result, TlsError};

/// The certificates that are trusted.
#[derive(Debug, Clone)]
pub struct TlsConfig(pub(crate) Arc<ClientConfig>);

impl TlsConfig {
    /// Trusts the certificates in a PEM file: for oVirt, the engine's CA.
    ///
    /// # Errors
    /// [`Error::CaFile`] where the file can't be read or holds no certificate that could be a CA's.
    pub fn with_cafile(path: &Path) -> Result<Self> {
        let fail = |source| Error::CaFile { path: path.to_owned(), source };
        let pem = fs::read(path).map_err(|e| fail(e.into()))?;
        let certificates = pem_certificates(&pem).map_err(|e| fail(e.into()))?;
        if certificates.is_empty() {
            return Err(fail(
                "it has no certificate in it: a PEM file with the engine's CA is expected".into(),
            ));
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|e| fail(format!("it is no usable CA certificate: {e}").into()))?;
        }
        Ok(Self::verifying(roots))
    }

    /// Trusts what the system trusts.
    ///
    /// # Errors
    /// [`Error::NoRoots`] where the system has no usable root certificate.
    pub fn with_system_roots() -> Result<Self> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(Error::NoRoots);
        }
        Ok(Self::verifying(roots))
    }

    /// Trusts any server: whoever is in between can read and change everything, and gets the
    /// ticket.
    #[must_use]
    pub fn insecure() -> Self {
        Self(Arc::new(danger::client_config()))
    }

    fn verifying(roots: RootCertStore) -> Self {
        Self(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
    }
}

/// The certificates of a PEM file; other sections are passed over.
fn pem_certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    rustls_pemfile::certs(&mut &*pem).collect()
}

/// A handshake's failure in words that say what to do.
pub(crate) fn explain(error: &rustls::Error) -> TlsError {
    match error {
        // The CA of an engine that was installed anew has the old one's name and another key: a bad
        // signature.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => TlsError::UntrustedCa,
        rustls::Error::InvalidCertificate(certificate) => TlsError::Refused(explain_certificate(certificate)),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => TlsError::Refused(
            "the server doesn't speak TLS there: should the URL be http, or the port another?".into(),
        ),
        other => TlsError::Refused(other.to_string()),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForName => NAME_MISMATCH.into(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "the server's certificate names no host in its subjectAltName (a CN alone is not used): the host needs a new certificate"
                .into()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented.iter().map(|name| bare_name(name)).collect();
            format!("{NAME_MISMATCH} (it is for {})", names.join(", "))
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired, or this host's clock is wrong".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, or this host's clock is wrong".into()
        }
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the server uses a CA certificate as its own, which is refused: it needs a certificate signed by that CA"
                .into()
        }
        other => format!("the server's certificate is refused: {other}"),
    }
}

/// `host` out of `DnsName("host")`.
fn bare_name(presented: &str) -> &str {
    presented.split_once('(').map_or(presented, |(_, name)| name).trim_matches(['"', ')'])
}

const NAME_MISMATCH: &str =
    "the server's certificate is for another host name: use in the URL the name that the certificate holds";

/// The one place where verification is switched off.
mod danger {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, ring};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    struct TrustAnyone(CryptoProvider);

    pub(super) fn client_config() -> ClientConfig {
        ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAnyone(ring::default_provider())))
            .with_no_client_auth()
    }

    impl ServerCertVerifier for TrustAnyone {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp_response: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        // The certificate is anyone's, but the handshake is still to be signed with its key.
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                cert,
                dss,
                &self.0.signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                cert,
                dss,
                &self.0.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
