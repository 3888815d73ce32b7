// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serves a disk in memory, which knows its holes: `memory SOCKET [SIZE-IN-MIB]`, until its
//! standard input ends.

use std::error::Error;
use std::sync::Arc;
use std::{env, io, thread};

use block_device_traits::{MemoryDevice, Threaded};
use nbd_frontend::{Config, ExportInfo, Server, bind_unix};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let socket = arguments.next().ok_or("usage: memory SOCKET [SIZE-IN-MIB]")?;
    let mebibytes: usize = arguments.next().map_or(Ok(64), |size| size.parse())?;

    let disk = Threaded::start(Arc::new(MemoryDevice::new(mebibytes << 20)), 4)?;
    let mut server = Server::new(Arc::new(disk), &ExportInfo::default(), Config::default())?;
    server.listen(bind_unix(socket)?);
    let handle = server.handle();
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        handle.shutdown();
    })?;
    server.run()?;
    Ok(())
}
