// SPDX-License-Identifier: MIT OR Apache-2.0
//! Certificates, good and bad, and what is said of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use common::{TIMEOUTS, connect, connector, connector_to, error, with_causes};
use fake_imageio::{Certificate, FakeServer, Pki};
use imageio_client::{Error, Fault, TlsConfig, TlsError};

fn server(certificate: Certificate) -> FakeServer {
    FakeServer::builder().tls(certificate).start().unwrap()
}

fn local_names() -> Vec<String> {
    ["127.0.0.1", "localhost"].map(str::to_owned).to_vec()
}

/// Servers that must be refused, each with what has to be said.
fn refused() -> [(Certificate, &'static str); 5] {
    [
        (Certificate::wrong_host(), "use in the URL the name that the certificate holds"),
        (Certificate::wrong_host(), "wrong.example.com"),
        (Certificate::CaAsServer(local_names()), "it needs a certificate signed by that CA"),
        (Certificate::CommonNameOnly("127.0.0.1".to_owned()), "the host needs a new certificate"),
        (Certificate::CommonNameOnly("localhost".to_owned()), "names no host in its subjectAltName"),
    ]
}

#[test]
fn names_and_addresses_of_a_certificate_are_accepted() {
    for (listen, host) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("::1", "[::1]")] {
        let server = FakeServer::builder().host(listen).tls(Certificate::default()).start().unwrap();
        let tls = TlsConfig::with_cafile(server.cafile().unwrap()).unwrap();
        let connector = connector_to(&server.url_for_host(host), Some(tls), TIMEOUTS);
        assert_eq!(connector.connect().unwrap().size().unwrap(), Some(1 << 20), "{host}");
    }
}

#[test]
fn no_tls_before_1_2_is_offered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/images/ticket", listener.local_addr().unwrap());
    let connector = connector_to(&url, Some(TlsConfig::insecure()), TIMEOUTS);
    thread::scope(|scope| {
        scope.spawn(|| connector.connect().unwrap_err());
        let mut record = [0; 5];
        let mut socket = listener.accept().unwrap().0;
        socket.read_exact(&mut record).unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([record[3], record[4]]))];
        socket.read_exact(&mut hello).unwrap();
        // RFC 8446, 4.2.1: the extension supported_versions, with TLS 1.3 and 1.2, in whatever
        // order.
        let versions: Vec<_> = hello.windows(9).filter(|bytes| bytes[..5] == [0, 43, 0, 5, 4]).collect();
        assert_eq!(versions.len(), 1);
        let mut offered = [&versions[0][5..7], &versions[0][7..]];
        offered.sort_unstable();
        assert_eq!(offered, [[3, 3], [3, 4]]);
    });
}

#[test]
fn a_bad_certificate_is_refused_with_words_that_help() {
    for (certificate, words) in refused() {
        let server = server(certificate.clone());
        let error = error(connector(&server).connect());
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        assert_eq!(error.fault(), Fault::Caller);
        let text = with_causes(&error);
        assert!(text.starts_with(&format!("TLS to {} failed: ", server.addr())), "{text}");
        assert!(text.contains(words), "{certificate:?}: {text}");
    }
}

#[test]
fn a_certificate_of_an_unknown_ca_is_refused() {
    let (server, other) = (server(Certificate::default()), server(Certificate::default()));
    let tls = TlsConfig::with_cafile(other.cafile().unwrap()).unwrap();
    let error = error(connector_to(&server.url(), Some(tls), TIMEOUTS).connect());
    assert!(matches!(error, Error::Tls { source: TlsError::UntrustedCa, .. }), "{error:?}");
    assert!(with_causes(&error).contains("is not signed by a CA that is trusted here"), "{error:?}");
}

#[test]
fn https_to_a_plain_server_says_so() {
    let server = FakeServer::builder().start().unwrap();
    let url = server.url().replace("http:", "https:");
    let error = error(connector_to(&url, Some(TlsConfig::insecure()), TIMEOUTS).connect());
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert!(with_causes(&error).contains("should the URL be http"), "{error:?}");
}

#[test]
fn http_to_a_tls_server_makes_no_sense() {
    let server = server(Certificate::default());
    let url = server.url().replace("https:", "http:");
    let error = error(connector_to(&url, None, TIMEOUTS).connect().and_then(|mut c| c.options()));
    assert!(matches!(error, Error::Protocol { .. } | Error::Lost { .. }), "{error:?}");
}

#[test]
fn insecure_accepts_them_all() {
    let kinds = refused().into_iter().map(|(certificate, _)| certificate);
    for certificate in kinds.chain([Certificate::default()]) {
        let server = server(certificate);
        let connector = connector_to(&server.url(), Some(TlsConfig::insecure()), TIMEOUTS);
        assert_eq!(connector.connect().unwrap().size().unwrap(), Some(1 << 20));
    }
}

#[test]
fn a_cafile_may_hold_more_than_the_ca() {
    let server = server(Certificate::default());
    let other = Pki::generate(&Certificate::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle.pem");
    let text = format!("Our CAs:\n{}\n{}\n{}", other.key_pem, other.ca_pem, server.ca_pem().unwrap());
    std::fs::write(&bundle, text).unwrap();
    let tls = TlsConfig::with_cafile(&bundle).unwrap();
    connector_to(&server.url(), Some(tls), TIMEOUTS).connect().unwrap().options().unwrap();
    connect(&server).options().unwrap();
}

#[test]
fn an_unusable_cafile_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let armoured = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let cases = [
        (dir.path().join("missing"), "No such file"),
        (dir.path().to_owned(), "directory"),
        (Path::new("/dev/null").to_owned(), "no certificate in it"),
        (file("empty", ""), "no certificate in it"),
        (file("garbage", "\u{1}\u{2}garbage\n"), "no certificate in it"),
        (file("key", &Pki::generate(&Certificate::default()).unwrap().key_pem), "no certificate in it"),
        (file("base64", &armoured("!!!!")), ""),
        (file("der", &armoured("aGVsbG8gd29ybGQ=")), "no usable CA certificate"),
        (file("cut", "-----BEGIN CERTIFICATE-----\naGVs\n"), ""),
    ];
    for (path, words) in cases {
        let error = error(TlsConfig::with_cafile(&path));
        assert!(matches!(error, Error::CaFile { .. }), "{error:?}");
        assert_eq!(error.fault(), Fault::Caller);
        let text = with_causes(&error);
        assert!(text.starts_with(&format!("the CA file {} can't be used: ", path.display())), "{text}");
        assert!(text.contains(words), "{text}");
    }
}
