// SPDX-License-Identifier: MIT OR Apache-2.0
//! A link to a server whose round trip takes so many milliseconds:
//! `slow_link ADDRESS:PORT MILLISECONDS`, until its standard input ends.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::time::Duration;

use fault_proxy::{Link, Relay};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [server, round_trip] = &arguments[..] else {
        return Err("usage: slow_link ADDRESS:PORT MILLISECONDS".into());
    };
    let server = server.to_socket_addrs()?.next().ok_or("the host has no address")?;
    let relay = Relay::start(server, Link::new(Duration::from_millis(round_trip.parse()?) / 2, None))?;
    writeln!(io::stdout(), "{} (Ctrl-D ends it)", relay.addr())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
