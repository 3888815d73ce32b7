// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults on the way or at the server, and what is said of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    MIB, PATIENCE, TIMEOUTS, connect, connector, connector_to, connector_with, each_way, error, with_causes,
};
use fake_imageio::{FakeServer, Fault as Broken, Op, What};
use imageio_client::{
    Connection, Error, Fault, Flush, Result, StatusCode, Timeouts, TrustedUsers, UnixAddress,
};

/// A request, whatever it is.
type Request = fn(&mut Connection) -> Result<()>;

const LARGE: u64 = 64 * MIB as u64;

fn server(fault: Broken) -> FakeServer {
    FakeServer::builder().fault(fault).start().unwrap()
}

fn write(connection: &mut Connection, data: &'static [u8]) -> Result<()> {
    connection.write(0, [Bytes::from_static(data)], Flush::No)
}

/// A write that fills every buffer on the way.
fn write_much(connection: &mut Connection) -> Result<()> {
    connection.write(0, [Bytes::from(vec![7; LARGE as usize])], Flush::No)
}

fn is_lost_midway(error: &Error) -> bool {
    error.is_lost() && !error.is_unsent() && error.fault() == Fault::Network
}

#[track_caller]
fn assert_status(error: &Error, status: u16, explanation: &str) {
    assert_eq!(error.status().map(|s| s.as_u16()), Some(status), "{error}");
    assert!(error.to_string().contains(explanation), "{error}");
}

#[test]
fn an_unknown_ticket_is_a_403_without_the_ticket() {
    each_way(&FakeServer::builder().ticket("another"), |way, server, connector| {
        let ticket = fake_imageio::DEFAULT_TICKET;
        let url = server.url().replace("another", ticket);
        let tls = server.cafile().map(|file| imageio_client::TlsConfig::with_cafile(file).unwrap());
        let mut wrong = connector_to(&url, tls, TIMEOUTS);
        if let Some(socket) = server.unix_socket() {
            wrong = wrong.through(UnixAddress::new(socket), TrustedUsers::new(None));
        }
        let requests: [Request; 4] = [
            |c| c.options().map(|_| ()),
            |c| c.read(0, &mut [0; 4]),
            |c| write(c, b"data"),
            Connection::flush,
        ];
        for request in requests {
            let mut connection = wrong.connect().unwrap();
            let error = error(request(&mut connection));
            assert_status(&error, 403, "403 Forbidden: No such ticket TICKET");
            assert_eq!(error.fault(), Fault::Caller);
            assert!(!connection.is_open(), "{way}");
            let debug = format!("{connection:?} {wrong:?}");
            assert!(!debug.contains(ticket), "{debug}");
        }
        connector.connect().unwrap().options().unwrap();
    });
}

#[test]
fn a_cancelled_ticket_is_a_403_that_says_so() {
    let server = FakeServer::builder().start().unwrap();
    let mut connection = connect(&server);
    write(&mut connection, b"data").unwrap();
    server.cancel_ticket();
    assert_status(&error(connection.flush()), 403, "was canceled");
    assert!(!connection.is_open());
    assert!(error(connection.flush()).is_unsent());
}

#[test]
fn past_the_end_is_a_416() {
    let server = FakeServer::builder().size(1000).start().unwrap();
    let mut connection = connect(&server);
    assert_status(&error(connection.read(999, &mut [0; 2])), 416, "out of allowed range");
    assert_status(&error(connection.zero(999, 2, Flush::No)), 416, "out of allowed range");
    assert!(connection.is_open());
    // With an unread body, the server closes.
    let refused = error(connection.write(999, [Bytes::from_static(b"ab")], Flush::No));
    assert_status(&refused, 416, "write 2 bytes at 999: 416 Range Not Satisfiable: Requested range out of");
    assert!(!connection.is_open());
}

#[test]
fn a_500_leaves_the_connection_open_if_the_server_does() {
    let server = server(Broken::any().then(What::Status { status: 500, text: "storage is gone".to_owned() }));
    let mut connection = connect(&server);
    let error = error(write(&mut connection, b"data"));
    assert_status(&error, 500, "500 Internal Server Error: storage is gone");
    assert_eq!(error.fault(), Fault::Server);
    write(&mut connection, b"data").unwrap();
    assert_eq!(server.accepted(), 1);
}

#[test]
fn an_answer_before_the_body_is_sent_is_what_is_reported() {
    let early = What::AnswerEarly { status: 403, text: "not that way".to_owned() };
    let builder = FakeServer::builder().size(LARGE).fault(Broken::on(Op::Put).every().then(early));
    each_way(&builder, |way, server, connector| {
        let requests: [Request; 3] =
            [write_much, |c| c.write_zeroes(0, LARGE, Flush::Yes), |c| write(c, b"data")];
        for request in requests {
            let mut connection = connector.connect().unwrap();
            let start = Instant::now();
            let error = error(request(&mut connection));
            assert_status(&error, 403, "not that way");
            assert!(!connection.is_open(), "{way}");
            assert!(start.elapsed() < PATIENCE, "{way}: the rest of the body was waited for");
        }
        assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0), "{way}");
    });
}

#[test]
fn a_refusal_tells_whether_the_server_may_have_got_something_of_the_body() {
    let refused = |what| FakeServer::builder().size(LARGE).fault(Broken::any().every().then(what));
    let late = refused(What::Status { status: 400, text: "no".to_owned() });
    let early = refused(What::AnswerEarly { status: 400, text: "no".to_owned() });
    let requests: [(Request, bool); 5] = [
        (write_much, true),
        (|c| write(c, b"data"), true),
        (Connection::flush, true),
        (|c| c.read(0, &mut [0; 4]), false),
        (|c| c.size().map(drop), false),
    ];
    for builder in [late, early] {
        each_way(&builder, |way, _server, connector| {
            for (request, expected) in requests {
                let error = error(request(&mut connector.connect().unwrap()));
                assert!(
                    matches!(error, Error::Status { body_sent, .. } if body_sent == expected),
                    "{way}: {error:?}"
                );
            }
        });
    }
}

#[test]
fn a_ticket_that_an_answer_is_cut_off_in_is_not_shown_in_part() {
    let ticket = fake_imageio::DEFAULT_TICKET;
    for shown in 1..=ticket.len() {
        // The first line that isn't empty is the one that is shown; no more than 4 KiB are read.
        let text = "\n".repeat(4096 - shown) + ticket + " is unknown";
        let server = server(Broken::any().then(What::Status { status: 403, text }));
        let error = error(connect(&server).options());
        let Error::Status { explanation, .. } = error else { panic!("{error:?}") };
        assert_eq!(explanation, if shown < ticket.len() { "…" } else { "TICKET" });
    }
}

#[test]
fn an_early_success_is_not_believed() {
    let early = What::AnswerEarly { status: 200, text: String::new() };
    let builder = FakeServer::builder().size(LARGE).fault(Broken::on(Op::Put).every().then(early));
    let server = builder.start().unwrap();
    let requests: [Request; 2] = [write_much, |c| c.write_zeroes(0, LARGE, Flush::Yes)];
    for request in requests {
        let error = error(request(&mut connect(&server)));
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }
}

#[test]
fn a_connection_that_breaks_in_a_written_body_is_lost() {
    for what in [What::Reset { after: 70_000 }, What::Close { after: 70_000 }, What::Reset { after: 0 }] {
        let builder = FakeServer::builder().size(LARGE).fault(Broken::on(Op::Put).then(what.clone()));
        each_way(&builder, |way, server, connector| {
            let mut connection = connector.connect().unwrap();
            let error = error(write_much(&mut connection));
            assert!(is_lost_midway(&error), "{way} {what:?}: {error:?}");
            assert!(!connection.is_open());
            assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0), "{way}");
        });
    }
}

#[test]
fn a_connection_that_breaks_in_a_read_body_is_lost() {
    for what in [What::Reset { after: 5000 }, What::Close { after: 5000 }, What::Close { after: 0 }] {
        let builder = FakeServer::builder().fault(Broken::on(Op::Get).then(what.clone()));
        each_way(&builder, |way, _server, connector| {
            let mut connection = connector.connect().unwrap();
            let error = error(connection.read(0, &mut vec![0; MIB]));
            assert!(is_lost_midway(&error), "{way} {what:?}: {error:?}");
            assert!(!connection.is_open());
        });
    }
}

#[test]
fn a_lost_answer_leaves_it_open_whether_the_request_was_done() {
    let builder = FakeServer::builder().fault(Broken::any().then(What::LoseAnswer));
    each_way(&builder, |way, server, connector| {
        let mut connection = connector.connect().unwrap();
        let error = error(write(&mut connection, b"data"));
        assert!(is_lost_midway(&error), "{way}: {error:?}");
        assert_eq!(server.read(0, 4).unwrap(), b"data");
    });
}

#[test]
fn an_answer_of_another_length_makes_no_sense() {
    for wrong in [0, 9, 11] {
        let server = server(Broken::on(Op::Get).then(What::WrongLength(wrong)));
        let mut connection = connect(&server);
        let error = error(connection.read(0, &mut [0; 10]));
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert!(error.to_string().contains(&format!("it announces {wrong} bytes instead of 10")), "{error}");
        assert!(!connection.is_open());
    }
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let short = Duration::from_millis(50);
    let requests: [(Timeouts, Request); 5] = [
        (TIMEOUTS.with(|timeouts| timeouts.data = short), |c| c.options().map(|_| ())),
        (TIMEOUTS.with(|timeouts| timeouts.data = short), |c| c.read(0, &mut [0; 10])),
        (TIMEOUTS.with(|timeouts| timeouts.data = short), |c| write(c, b"data")),
        (TIMEOUTS.with(|timeouts| timeouts.operation = short), Connection::flush),
        (TIMEOUTS.with(|timeouts| timeouts.operation = short), |c| {
            c.write(0, [Bytes::from_static(b"data")], Flush::Yes)
        }),
    ];
    for (timeouts, request) in requests {
        let server = server(Broken::any().then(What::NoAnswer));
        let mut connection = connector_with(&server, timeouts).connect().unwrap();
        let error = error(request(&mut connection));
        assert!(matches!(error, Error::Timeout { after, .. } if after == short), "{error:?}");
        assert!(error.to_string().ends_with("no progress for 0.05 s"), "{error}");
        assert!(!connection.is_open());
        assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    }
}

#[test]
fn slow_storage_has_the_longer_time_for_a_flush() {
    let server = server(Broken::any().every().then(What::Delay(Duration::from_millis(100))));
    let timeouts = TIMEOUTS.with(|timeouts| timeouts.data = Duration::from_millis(30));
    let mut connection = connector_with(&server, timeouts).connect().unwrap();
    connection.write(0, [Bytes::from_static(b"data")], Flush::Yes).unwrap();
    connection.zero(0, 4, Flush::No).unwrap();
    connection.flush().unwrap();
}

#[test]
fn a_connection_closed_while_idle_is_found_before_anything_is_sent() {
    each_way(&FakeServer::builder(), |way, mut server, connector| {
        let requests: [Request; 4] = [
            |c| c.options().map(|_| ()),
            |c| c.read(0, &mut [0; 4]),
            |c| write(c, b"data"),
            Connection::flush,
        ];
        let mut connections: Vec<_> = requests.iter().map(|_| connector.connect().unwrap()).collect();
        connections.iter_mut().for_each(|connection| write(connection, b"data").unwrap());
        // Only this waits until the sockets are closed.
        server.shutdown();
        for (connection, request) in connections.iter_mut().zip(requests) {
            assert!(connection.is_open());
            let error = error(request(connection));
            assert!(error.is_lost() && error.is_unsent(), "{way}: {error:?}");
            assert!(!connection.is_open());
        }
    });
}

#[test]
fn nobody_listening_is_an_error_that_names_the_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{peer}/images/{}", fake_imageio::DEFAULT_TICKET);
    let error = error(connector_to(&url, None, TIMEOUTS).connect());
    assert!(matches!(error, Error::Connect { .. }) && error.is_unsent(), "{error:?}");
    assert!(with_causes(&error).starts_with(&format!("cannot connect to {peer}: ")), "{error:?}");
}

#[test]
fn a_missing_unix_socket_is_an_error_that_names_it() {
    let server = FakeServer::builder().start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").to_str().unwrap().to_owned();
    for (name, shown) in [(path.clone(), path.as_str()), ("\0faults-missing".into(), "@faults-missing")] {
        let error =
            error(connector(&server).through(UnixAddress::new(name), TrustedUsers::new(None)).connect());
        assert!(matches!(error, Error::Connect { .. }) && error.is_unsent(), "{error:?}");
        let text = with_causes(&error);
        assert!(text.starts_with(&format!("cannot connect to unix socket {shown}: ")), "{text}");
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_server_that_goes_in_a_tls_handshake_can_not_have_acted() {
    let builder = FakeServer::builder().tls(fake_imageio::Certificate::default());
    let server = builder.fault(Broken::on(Op::Accept).then(What::Close { after: 0 })).start().unwrap();
    let error = error(connector(&server).connect());
    assert!(matches!(error, Error::Tls { .. }) && error.is_unsent(), "{error:?}");
}

/// Says when the last handle to its bytes is gone.
struct Owner(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.store(true, SeqCst);
    }
}

#[test]
fn no_clone_of_the_data_outlives_a_write() {
    let status = |status| What::Status { status, text: "no".to_owned() };
    let early = What::AnswerEarly { status: 500, text: "no".to_owned() };
    let cases = [
        (None, None),
        (Some(status(500)), Some(500)),
        (Some(status(403)), Some(403)),
        (Some(early), Some(500)),
        (Some(What::Reset { after: 1000 }), None),
        (Some(What::Close { after: 0 }), None),
        (Some(What::LoseAnswer), None),
        (Some(What::NoAnswer), None),
    ];
    for len in [1, 8 * MIB] {
        for (what, status) in &cases {
            let faults = what.clone().map(|what| Broken::on(Op::Put).then(what));
            let builder = faults.into_iter().fold(FakeServer::builder().size(LARGE), |b, f| b.fault(f));
            each_way(&builder, |way, server, connector| {
                let patient = !matches!(what, Some(What::NoAnswer));
                let timeouts = if patient {
                    TIMEOUTS
                } else {
                    TIMEOUTS.with(|timeouts| timeouts.data = Duration::from_millis(50))
                };
                let mut hurried = connector_with(&server, timeouts);
                if let Some(socket) = server.unix_socket() {
                    hurried = hurried.through(UnixAddress::new(socket), TrustedUsers::new(None));
                }
                drop(connector);
                let mut connection = hurried.connect().unwrap();
                let dropped = Arc::new(AtomicBool::new(false));
                let data = Bytes::from_owner(Owner(vec![7; len], Arc::clone(&dropped)));
                let result = connection.write(0, [data.clone()], Flush::No);
                assert_eq!(result.is_ok(), what.is_none(), "{way} {what:?}");
                let expected = status.map(|status| StatusCode::from_u16(status).unwrap());
                assert_eq!(result.err().and_then(|error| error.status()), expected, "{way} {what:?}");
                assert!(!dropped.load(SeqCst));
                drop(data);
                assert!(dropped.load(SeqCst), "{way} {what:?}");
            });
        }
    }
}

#[test]
fn no_clone_of_the_data_outlives_a_write_that_is_not_sent() {
    each_way(&FakeServer::builder(), |way, mut server, connector| {
        let mut connection = connector.connect().unwrap();
        server.shutdown();
        for _closed_then_known_to_be in 0..2 {
            let dropped = Arc::new(AtomicBool::new(false));
            let data = Bytes::from_owner(Owner(vec![7; MIB], Arc::clone(&dropped)));
            assert!(error(connection.write(0, [data.clone()], Flush::No)).is_unsent());
            drop(data);
            assert!(dropped.load(SeqCst), "{way}");
        }
    });
}
