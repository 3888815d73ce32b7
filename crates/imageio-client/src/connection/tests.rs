// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of a request that the system has taken are counted.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use socket2::{SockRef, Socket};

use super::*;
use crate::byte_counter::ByteCounter;
use crate::extents::ExtentsContext;
use crate::operation::head_length;
use crate::stream::Stream;

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection for a transfer with this ticket, and the server's end.
fn pair(ticket: &str) -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // The system rounds it up to its least.
    SockRef::from(&ours).set_send_buffer_size(1).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    let url = Arc::new(TransferUrl::parse(&format!("http://h/images/{ticket}")).unwrap());
    let heads = Arc::new(Heads::new(&url).unwrap());
    let timeouts = Timeouts { connect: PATIENCE, data: PATIENCE, operation: PATIENCE };
    let stream =
        Stream::plain(Socket::from(std::os::fd::OwnedFd::from(ours)), ByteCounter::default()).unwrap();
    (Connection::new(stream, url, heads, timeouts).unwrap(), theirs)
}

fn answer(mut server: &UnixStream, status: &str) {
    write!(server, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
}

#[test]
fn a_body_is_not_sent_while_its_head_is_stuck() {
    let (mut connection, server) = pair(&"t".repeat(50_000));
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            // Something of the head has come; it stays where it is, so that there is no room for
            // the rest.
            rustix::net::recv(&server, &mut [0; 1], rustix::net::RecvFlags::PEEK).unwrap();
            answer(&server, "400 Bad Request");
        });
        connection.write(0, [Bytes::from_static(b"data")], Flush::No).unwrap_err()
    });
    assert!(matches!(error, Error::Status { body_sent: false, .. }), "{error:?}");
    assert!(!connection.is_open());
}

#[test]
fn the_length_of_a_head_is_what_is_sent_of_it() {
    let (mut connection, mut server) = pair("t");
    let body = |text: &'static str| RequestBody::chunks([Bytes::from_static(text.as_bytes())].into());
    let requests = [
        (Operation::Write { offset: 0, len: 4, flush: Flush::No }, body("data")),
        (Operation::Write { offset: 1 << 40, len: 7, flush: Flush::Yes }, RequestBody::zeroes(7)),
        (Operation::Flush { is_prompt: false }, body("a flush")),
        (Operation::Read { offset: 99, len: 1 }, RequestBody::empty()),
        (Operation::Options, RequestBody::empty()),
        (Operation::Extents(ExtentsContext::Dirty), RequestBody::empty()),
    ];
    for (operation, body) in requests {
        let length = body.len();
        let expected = head_length(&connection.heads.request(operation, body)) + length;
        let body = RequestBody::zeroes(length);
        let sent = thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let n = server.read(&mut [0; 4096]).unwrap();
                answer(&server, "500 Internal Server Error");
                n
            });
            assert!(connection.run(operation, body, accepted).is_err());
            assert!(connection.is_open());
            sent.join().unwrap()
        });
        assert_eq!(sent as u64, expected, "{operation}");
    }
}
