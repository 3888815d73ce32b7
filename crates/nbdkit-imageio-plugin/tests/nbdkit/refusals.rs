// SPDX-License-Identifier: MIT OR Apache-2.0
//! Refusals of what can't work: they come before anything is served, with the reason, and without
//! the ticket.

use fake_imageio::{Certificate, DEFAULT_TICKET, FakeServer};

use crate::support::{assert_all_closed, has, nbdkit};

/// nbdkit must end with a failure before it runs anything, and say all of `reasons`.
fn refuses(parameters: &[&str], reasons: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    // Not `-U -`, whose directory in /tmp nbdkit leaves behind when it gives up.
    let ended = nbdkit(dir.path(), &["-U", "sock"], &[parameters, &["--run", "echo served"]].concat());
    assert!(ended.code.is_some_and(|code| code != 0 && code != 124), "{parameters:?}: {ended:?}");
    assert_eq!(ended.out, "", "{parameters:?}");
    for reason in reasons {
        assert!(ended.err.contains(reason), "{parameters:?}: '{reason}' is not in {}", ended.err);
    }
    assert!(!ended.err.contains(DEFAULT_TICKET), "{}", ended.err);
    assert_eq!(ended.err.trim_end().lines().count(), 1, "{}", ended.err);
}

#[test]
fn bad_parameters() {
    if !has(&["nbdkit"]) {
        return;
    }
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    let url = server.url();
    refuses(&[&url, "colour=red"], &["unknown parameter 'colour'", "--help"]);
    refuses(&[&url, "size=ten"], &["size: 'ten' is not a size"]);
    refuses(&["size=1M"], &["url is missing"]);
    refuses(&["url="], &["url: a URL is expected"]);
    refuses(&[&url, &format!("size={url}")], &["size: what is given (it isn't shown"]);
    refuses(&[&url, &format!("cafile={url}")], &["cafile: a file name is expected, not a URL"]);
    refuses(&["ftp://h/images/x"], &["bad transfer URL"]);
    refuses(&["url=+/nonexistent/%s/url"], &["/nonexistent/%s/url", "No such file"]);
    assert_all_closed(&server);
}

#[test]
fn a_canceled_ticket() {
    if !has(&["nbdkit"]) {
        return;
    }
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    server.cancel_ticket();
    refuses(&[&server.url()], &["403"]);
}

#[test]
fn no_server() {
    if !has(&["nbdkit"]) {
        return;
    }
    let mut server = FakeServer::builder().start().unwrap();
    let url = server.url();
    server.shutdown();
    refuses(&[&url], &["cannot connect", "refused"]);
}

#[test]
fn certificates() {
    if !has(&["nbdkit"]) {
        return;
    }
    let server = FakeServer::builder().tls(Certificate::default()).start().unwrap();
    let other = FakeServer::builder().tls(Certificate::default()).start().unwrap();
    let url = server.url();
    let wrong = format!("cafile={}", other.cafile().unwrap().display());
    refuses(
        &[&url, "cafile=/nonexistent/ca.pem"],
        &["the CA file /nonexistent/ca.pem can't be used", "No such file"],
    );
    refuses(&[&url, "cafile=/dev/null"], &["the CA file /dev/null can't be used"]);
    refuses(&[&url, &wrong], &["TLS"]);
}
