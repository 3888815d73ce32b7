// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts that the targets share: a server that answers with what it was given, and an NBD
//! server of two small disks.

mod replies;
mod serve;
mod tls;

pub use replies::check_chunks;
pub use serve::{Chosen, SIZES, serve_client};
pub use tls::{serve_garbage_for_tls, serve_tls_client};

use std::io::Write;
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use imageio_client::{
    Capabilities, Connection, Connector, ExtentsContext, Flush, Result, Timeouts, TransferUrl, TrustedUsers,
    UnixAddress,
};

/// Longer than anything here takes. libFuzzer ends what takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The requests to an imageio server.
const REQUESTS: &[fn(&mut Connection) -> Result<()>] = &[
    |connection| connection.options().map(check_capabilities),
    |connection| connection.size().map(drop),
    |connection| connection.read(7, &mut [0; 100]),
    |connection| connection.read_vectored(7, &mut [&mut [0; 10], &mut [0; 20_000]]),
    |connection| connection.write(7, [Bytes::from_static(&[1; 100])], Flush::No),
    |connection| connection.write_zeroes(7, 100, Flush::Yes),
    |connection| connection.zero(7, 100, Flush::No),
    Connection::flush,
    |connection| connection.extents(ExtentsContext::Zero).map(|extents| check_extents(&extents)),
    |connection| connection.extents(ExtentsContext::Dirty).map(|extents| check_extents(&extents)),
];

fn check_capabilities(capabilities: Capabilities) {
    assert!(capabilities.max_readers > 0 && capabilities.max_writers > 0, "{capabilities:?}");
}

/// They begin at 0, and each where the last one ends.
fn check_extents(extents: &[imageio_client::Extent]) {
    extents.iter().fold(0, |end, extent| {
        assert_eq!(extent.start, end, "{extents:?}");
        end + extent.length
    });
}

/// Asks two things of a server that says `answer`, whatever it is asked, and closes.
pub fn ask_server(which: u8, answer: &[u8]) {
    static CONNECTOR: LazyLock<(Connector, UnixListener)> = LazyLock::new(|| {
        let name = format!("imageio-fuzz-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let listener = UnixListener::bind_addr(&address).expect("no other process has it");
        let url = TransferUrl::parse("http://localhost/images/ticket").expect("it is one");
        let timeouts = Timeouts::new(PATIENCE, PATIENCE, PATIENCE);
        let connector = Connector::new(url, None, timeouts).expect("no TLS");
        (connector.through(UnixAddress::new(format!("\0{name}")), TrustedUsers::new(None)), listener)
    });
    let (connector, listener) = &*CONNECTOR;
    let mut connection = connector.connect().expect("it listens");
    let socket = listener.accept().expect("it has connected").0;
    thread::scope(|scope| {
        scope.spawn(|| say(&socket, answer));
        for which in [which, which / 16] {
            let request = REQUESTS[usize::from(which) % REQUESTS.len()];
            if let Err(error) = request(&mut connection) {
                check_error(&error);
            }
        }
        drop(connection);
    });
}

fn say(mut socket: &UnixStream, answer: &[u8]) {
    // The client may be gone already.
    let _ = socket.write_all(answer).and_then(|()| socket.shutdown(Shutdown::Write));
    let _ = std::io::copy(&mut socket, &mut std::io::sink());
}

fn check_error(error: &imageio_client::Error) {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |&error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
    assert!(text.len() < 4096, "{} bytes", text.len());
}
