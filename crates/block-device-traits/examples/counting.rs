// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that counts what is written to another one, and threads that make a queue of it.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};

use block_device_traits::{
    Batch, BlockDevice, Capabilities, Completion, MemoryDevice, QueuedDevice, Request,
    Result as DeviceResult, Threaded, ZeroFlags,
};
use bytes::Bytes;

/// Passes everything on, and counts the bytes that are written.
struct Counting {
    device: MemoryDevice,
    written: AtomicU64,
}

impl BlockDevice for Counting {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> DeviceResult<()> {
        self.device.read(offset, buf)
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> DeviceResult<()> {
        self.written.fetch_add(data.len() as u64, Relaxed);
        self.device.write(offset, data, fua)
    }

    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> DeviceResult<()> {
        self.device.zero(offset, len, flags)
    }

    fn flush(&self) -> DeviceResult<()> {
        self.device.flush()
    }
}

/// Passes the end of a request on.
struct Told(Sender<DeviceResult<()>>);

impl Completion for Told {
    fn complete(self: Box<Self>, result: DeviceResult<()>, _batch: &mut Batch) {
        // Nobody may wait for it any more.
        let _ = self.0.send(result);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Arc::new(Counting { device: MemoryDevice::new(1 << 20), written: AtomicU64::new(0) });
    let queue = Threaded::start(Arc::clone(&device), 2)?;
    let (tell, told) = channel();
    for offset in [0, 4096, 8192] {
        let data = Bytes::from_static(b"data");
        queue.submit(Request::Write { offset, data, fua: false }, Box::new(Told(tell.clone())));
    }
    drop(tell);
    told.iter().collect::<DeviceResult<()>>()?;
    writeln!(io::stdout(), "{} bytes were written", device.written.load(Relaxed))?;
    Ok(())
}
