// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that comes through TLS.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};

use nbd_frontend::Tls;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::serve::{converse, option, with_client};

const NAME: &str = "localhost";

struct Configs {
    server: Arc<ServerConfig>,
    clients: [Arc<ClientConfig>; 2],
}

static CONFIGS: LazyLock<Configs> = LazyLock::new(|| {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([NAME.to_owned()]).expect("keys can be made");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("it is a certificate");
    let provider = Arc::new(ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key));
    let client = |version: &'static SupportedProtocolVersion| {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&[version]).expect("it is known");
        Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    let clients = [client(&TLS12), client(&TLS13)];
    Configs { server: Arc::new(server.expect("the key is that of the certificate")), clients }
});

/// Has a server read `said` in place of TLS, behind STARTTLS. Gives what it said then.
pub fn serve_garbage_for_tls(said: &[u8]) -> Vec<u8> {
    with_tls(|client| converse(client, said))
}

/// Has a server read what a client says through TLS 1.3, or else 1.2, in records of so many bytes.
/// Gives what the server said.
pub fn serve_tls_client(is_new: bool, record: usize, said: &[u8]) -> Vec<u8> {
    with_tls(|mut client| {
        let config = Arc::clone(&CONFIGS.clients[usize::from(is_new)]);
        let name = ServerName::try_from(NAME).expect("it is one");
        let mut tls = ClientConnection::new(config, name).expect("it is configured");
        while tls.is_handshaking() {
            tls.complete_io(&mut client).expect("both are well");
        }
        let answers = converse(client, &encrypted(&mut tls, record, said));
        decrypted(&mut tls, &answers)
    })
}

fn with_tls<T>(talk: impl FnOnce(UnixStream) -> T) -> T {
    with_client(Tls::Offered(Arc::clone(&CONFIGS.server)), |mut client| {
        client.write_all(&[&3u32.to_be_bytes()[..], &option(5, b"")].concat()).expect("it listens");
        // The greeting, and that STARTTLS was acknowledged.
        client.read_exact(&mut [0; 18 + 20]).expect("it answers");
        talk(client)
    })
}

fn encrypted(tls: &mut ClientConnection, record: usize, said: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    for plaintext in said.chunks(record) {
        tls.writer().write_all(plaintext).expect("there is room");
        while tls.wants_write() {
            tls.write_tls(&mut records).expect("it is memory");
        }
    }
    records
}

/// Whatever the client has said, the server's records are sound. The last may be cut.
fn decrypted(tls: &mut ClientConnection, mut records: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    while !records.is_empty() {
        tls.read_tls(&mut records).expect("it is memory");
        if let Err(error) = tls.process_new_packets() {
            // It may tell of what it didn't like.
            assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
            break;
        }
        // An end without close_notify is an error, and no news here.
        let _ = tls.reader().read_to_end(&mut plaintext);
    }
    plaintext
}
