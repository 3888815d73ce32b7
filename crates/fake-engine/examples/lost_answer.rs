// SPDX-License-Identifier: MIT OR Apache-2.0
//! An engine that carries out the first transfer that it is asked for, and loses the answer. It
//! runs until its standard input ends, and then tells what it was asked.

use std::error::Error;
use std::io::{self, Write};

use fake_engine::{FakeEngine, FakeImageio, Fault, What};

fn main() -> Result<(), Box<dyn Error>> {
    let engine = FakeEngine::builder(FakeImageio::new(None)).storage_domain("data").vm("guest").start()?;
    engine.fault(Fault::on("POST", "api/imagetransfers").then(What::LoseReply));
    let mut out = io::stdout();
    writeln!(out, "{} (Ctrl-D ends it)", engine.url())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    for request in engine.journal() {
        writeln!(out, "{request:?}")?;
    }
    Ok(())
}
