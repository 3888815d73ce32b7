// SPDX-License-Identifier: MIT OR Apache-2.0
//! Negotiates with one client on a TCP port, tells what was settled, and refuses all its requests:
//! `nbdinfo nbd://localhost:PORT`.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpListener;

use nbd_wire::{ErrorValue, Export, Handshake, Progress, REQUEST_HEADER_LEN, RequestHeader};
use nbd_wire::{SizeConstraints, TransmissionFlags, simple_reply};

fn main() -> Result<(), Box<dyn Error>> {
    let exports = [Export::new("disk", 1 << 20, TransmissionFlags::READ_ONLY, SizeConstraints::default())?];
    let listener = TcpListener::bind("localhost:0")?;
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    let (mut client, _) = listener.accept()?;

    client.write_all(&Handshake::greeting())?;
    let mut handshake = Handshake::new(&exports);
    let negotiated = loop {
        // Not a byte more is read, so that none of the next phase is lost.
        let (mut received, mut answers) = (vec![0; handshake.wanted()], Vec::new());
        client.read_exact(&mut received)?;
        let progress = handshake.feed(&mut &received[..], &mut answers);
        client.write_all(&answers)?;
        match progress {
            Progress::Continue => {}
            Progress::Transmission(negotiated) => break negotiated,
            Progress::Close(reason) => return Err(reason.into()),
            Progress::StartTls | Progress::LookUp { .. } => return Err("this was not offered".into()),
        }
    };
    writeln!(out, "{negotiated:?}")?;

    let mut header = [0; REQUEST_HEADER_LEN];
    while client.read_exact(&mut header).is_ok() {
        let request = RequestHeader::decode(&header)?;
        writeln!(out, "{}: {:?}", request.name(), request.check(&negotiated))?;
        client.write_all(&simple_reply(request.cookie, Some(ErrorValue::Io)))?;
    }
    Ok(())
}
