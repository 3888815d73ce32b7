// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serves a disk in memory: `memory SOCKET [SIZE-IN-MIB]`, until its standard input ends.

use std::io::Read;
use std::sync::Arc;

use block_device::{MemoryDevice, Threaded};
use nbd_frontend::{Config, ExportInfo, Server, bind_unix};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: memory SOCKET [SIZE-IN-MIB]")?;
    let mebibytes: usize = args.next().map_or(Ok(1024), |size| size.parse())?;
    let info = ExportInfo { description: "a disk in memory".into(), ..ExportInfo::default() };
    let disk = Threaded::start(Arc::new(MemoryDevice::new(mebibytes << 20)), 4)?;
    let mut server = Server::new(Arc::new(disk), &info, Config::default())?;
    server.listen(bind_unix(path)?);
    let handle = server.handle();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        handle.shutdown();
    })?;
    let outcome = server.run()?;
    log::info!("{outcome:?}");
    Ok(())
}
