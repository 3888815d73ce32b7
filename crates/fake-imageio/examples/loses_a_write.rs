// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that resets the connection in the middle of the second write. It runs until its
//! standard input ends, and then tells what was lost.

use std::error::Error;
use std::io::{self, Write};

use fake_imageio::{FakeServer, Fault, Op, What};

fn main() -> Result<(), Box<dyn Error>> {
    let server = FakeServer::builder().size(1 << 30).start()?;
    server.fault(Fault::on(Op::Put).nth(2).then(What::Reset { after: 1000 }));
    let mut out = io::stdout();
    writeln!(out, "{} (Ctrl-D ends it)", server.url())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let lost = server.log().lost_unflushed();
    writeln!(out, "{} connections; {lost} bytes were not flushed when theirs was closed", server.accepted())?;
    Ok(())
}
