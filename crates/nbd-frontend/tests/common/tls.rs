// SPDX-License-Identifier: MIT OR Apache-2.0
//! A CA, a server that it knows, and clients of rustls.

use std::io::{Read, Write};
use std::sync::Arc;

use nbd_frontend::{Config, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedProtocolVersion,
};
use socket2::Socket;

use super::{Client, Running};

pub const STARTTLS: u32 = 5;
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

pub type TlsStream = StreamOwned<ClientConnection, Socket>;
pub type TlsClient = Client<TlsStream>;

/// The server's and the clients' part.
pub struct Pki {
    server: Arc<ServerConfig>,
    roots: RootCertStore,
}

impl Pki {
    pub fn new() -> Self {
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(ca.self_signed(&ca_key).unwrap().der().clone()).unwrap();
        let names = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        Self { server: server_config(certificate.der().clone(), &key), roots }
    }

    pub fn required(&self) -> Config {
        Config::default().with(|config| config.tls = Tls::Required(Arc::clone(&self.server)))
    }

    pub fn offered(&self) -> Config {
        Config::default().with(|config| config.tls = Tls::Offered(Arc::clone(&self.server)))
    }

    /// A client that has not said anything yet.
    pub fn connection(&self, version: &'static SupportedProtocolVersion) -> ClientConnection {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
    }

    /// A client of TLS 1.3 in the transmission phase.
    pub fn client(&self, server: &Running) -> TlsClient {
        self.client_of(server, &TLS13)
    }

    pub fn client_of(&self, server: &Running, version: &'static SupportedProtocolVersion) -> TlsClient {
        let mut client = self.secured(server, version);
        client.go_on();
        client
    }

    /// A client that has started TLS, and goes on with options.
    pub fn secured(&self, server: &Running, version: &'static SupportedProtocolVersion) -> TlsClient {
        Client(StreamOwned::new(self.connection(version), start_tls(server).0))
    }
}

fn server_config(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

/// A client whose next byte belongs to TLS.
pub fn start_tls(server: &Running) -> Client {
    let mut client = server.connect();
    client.greet(3);
    client.option(STARTTLS, b"");
    assert_eq!(client.option_reply(STARTTLS), (1, vec![]));
    client
}

impl<S: Read + Write> Client<S> {
    /// Opens the default export, after the greeting.
    pub fn go_on(&mut self) {
        assert_eq!(self.choose(b""), 1);
    }
}

impl TlsClient {
    /// The server has said that nothing more comes: without close_notify, this would be an error.
    pub fn assert_ended(&mut self) {
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }

    /// Sends DISC and sees TLS end.
    pub fn leave(mut self) {
        self.request(super::DISC, 0, 0, 0, 0);
        self.assert_ended();
    }
}
