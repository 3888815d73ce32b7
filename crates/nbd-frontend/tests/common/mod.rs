// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running server, a client that speaks in numbers, and a device that can be held up.
#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot tell")]

#[cfg(feature = "rustls")]
pub mod tls;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use block_device_traits::{
    BlockDevice, Capabilities, MemoryDevice, QueuedDevice, Result, Threaded, ZeroFlags,
};
use bytes::Bytes;
use nbd_frontend::{Config, ExportInfo, Listener, Outcome, Server, ShutdownHandle, bind_unix};
use socket2::Socket;
use tempfile::TempDir;

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const MIB: usize = 1 << 20;
pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const ZERO: u16 = 6;
pub const EPERM: u32 = 1;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;
pub const ENOTSUP: u32 = 95;

/// A device that is called for as many requests at a time as a test needs.
pub fn threaded<D: BlockDevice + 'static>(device: &Arc<D>) -> Arc<Threaded<D>> {
    Arc::new(Threaded::start(Arc::clone(device), 64).unwrap())
}

/// A server on a unix socket, in a thread of its own.
pub struct Running {
    pub handle: ShutdownHandle,
    thread: JoinHandle<Outcome>,
    dir: TempDir,
}

impl Running {
    pub fn start<D: BlockDevice + 'static>(device: &Arc<D>) -> Self {
        Self::with(device, &ExportInfo::default(), Config::default())
    }

    pub fn with<D: BlockDevice + 'static>(device: &Arc<D>, info: &ExportInfo, config: Config) -> Self {
        Self::queued(threaded(device), info, config)
    }

    pub fn queued<D: QueuedDevice + 'static>(device: Arc<D>, info: &ExportInfo, config: Config) -> Self {
        Self::listening(device, info, config, Vec::new())
    }

    /// A server that listens elsewhere, too.
    pub fn listening<D: QueuedDevice + 'static>(
        device: Arc<D>,
        info: &ExportInfo,
        config: Config,
        elsewhere: Vec<Listener>,
    ) -> Self {
        let mut server = Server::new(device, info, config).unwrap();
        elsewhere.into_iter().for_each(|listener| server.listen(listener));
        Self::serving(server)
    }

    /// Runs this server on a unix socket.
    pub fn serving<D: QueuedDevice + 'static>(mut server: Server<D>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        server.listen(bind_unix(dir.path().join("sock")).unwrap());
        let handle = server.handle();
        let run = || server.run().unwrap();
        let thread = std::thread::Builder::new().name("server".into()).spawn(run).unwrap();
        Self { handle, thread, dir }
    }

    /// A client that has not said anything yet.
    pub fn connect(&self) -> Client {
        Client::new(UnixStream::connect(self.dir.path().join("sock")).unwrap())
    }

    /// A client in the transmission phase.
    pub fn client(&self) -> Client {
        let mut client = self.connect();
        client.go();
        client
    }

    pub fn stop(self) -> Outcome {
        self.handle.shutdown();
        self.thread.join().unwrap()
    }

    /// Waits for a server that somebody else stops.
    pub fn join(self) -> Outcome {
        self.thread.join().unwrap()
    }
}

/// A client that sends what it is told.
pub struct Client<S = Socket>(pub S);

impl Client {
    pub fn new(stream: impl Into<Socket>) -> Self {
        let stream = stream.into();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub fn half_close(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, parts: &[&[u8]]) {
        self.0.write_all(&parts.concat()).unwrap();
    }

    pub fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Nothing more comes.
    pub fn assert_closed(&mut self) {
        match self.0.read(&mut [0]) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("expected the end of the connection, not {other:?}"),
        }
    }

    /// Reads the greeting and answers it.
    pub fn greet(&mut self, flags: u32) {
        assert_eq!(self.receive(18), b"NBDMAGICIHAVEOPT\x00\x03");
        self.send(&[&flags.to_be_bytes()]);
    }

    pub fn option(&mut self, number: u32, data: &[u8]) {
        let length = data.len() as u32;
        self.send(&[b"IHAVEOPT", &number.to_be_bytes(), &length.to_be_bytes(), data]);
    }

    /// The type and data of a reply to option `number`.
    pub fn option_reply(&mut self, number: u32) -> (u32, Vec<u8>) {
        let header = self.receive(20);
        assert_eq!(header[..8], [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9]);
        assert_eq!(header[8..12], number.to_be_bytes());
        let number_at = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        (number_at(12), self.receive(number_at(16) as usize))
    }

    /// Opens the default export.
    pub fn go(&mut self) {
        self.greet(3);
        assert_eq!(self.choose(b""), 1);
    }

    /// Chooses the export of this name. The type of the last reply: 1 if it is open then.
    pub fn choose(&mut self, name: &[u8]) -> u32 {
        self.option(7, &[&(name.len() as u32).to_be_bytes(), name, &[0; 2]].concat());
        match self.option_reply(7) {
            (3, info) => {
                assert_eq!(info.len(), 12);
                self.option_reply(7).0
            }
            (refused, _) => refused,
        }
    }

    /// Sends a header: command, flags, cookie, offset, length.
    pub fn request(&mut self, kind: u16, flags: u16, cookie: u64, offset: u64, length: usize) {
        self.send(&[&header(kind, flags, cookie, offset, length)]);
    }

    pub fn write(&mut self, cookie: u64, offset: u64, data: &[u8]) {
        self.request(WRITE, 0, cookie, offset, data.len());
        self.0.write_all(data).unwrap();
    }

    /// The error and the cookie of a reply.
    pub fn reply(&mut self) -> (u32, u64) {
        let reply = self.receive(16);
        assert_eq!(reply[..4], [0x67, 0x44, 0x66, 0x98]);
        let error = u32::from_be_bytes(reply[4..8].try_into().unwrap());
        (error, u64::from_be_bytes(reply[8..].try_into().unwrap()))
    }

    /// Sends a request without a payload and returns the error of its reply.
    pub fn ask(&mut self, kind: u16, flags: u16, offset: u64, length: usize) -> u32 {
        self.request(kind, flags, 0xc00c1e, offset, length);
        let (error, cookie) = self.reply();
        assert_eq!(cookie, 0xc00c1e);
        error
    }

    /// A READ that must succeed.
    pub fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        assert_eq!(self.ask(READ, 0, offset, length), 0);
        self.receive(length)
    }

    /// Sends DISC and sees the connection close.
    pub fn disconnect(mut self) {
        self.request(DISC, 0, 0, 0, 0);
        self.assert_closed();
    }
}

pub fn header(kind: u16, flags: u16, cookie: u64, offset: u64, length: usize) -> Vec<u8> {
    let length = length as u32;
    [
        &[0x25, 0x60, 0x95, 0x13][..],
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &length.to_be_bytes(),
    ]
    .concat()
}

/// A door that is shut until somebody opens it, and counts who came.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits for the gate to be opened.
    pub fn pass(&self) {
        self.state.lock().unwrap().0 += 1;
        self.changed.notify_all();
        self.wait_for(|(_, open)| open);
    }

    /// Waits until so many have come.
    pub fn wait_entered(&self, count: usize) {
        self.wait_for(|(entered, _)| entered >= count);
    }

    pub fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn wait_for(&self, arrived: impl Fn((usize, bool)) -> bool) {
        let state = self.state.lock().unwrap();
        let (state, timeout) =
            self.changed.wait_timeout_while(state, PATIENCE, |state| !arrived(*state)).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "the gate was waited for in vain");
    }
}

/// A call of the device: command, offset, length, and whether it must be durable.
pub type Call = (u16, u64, u64, bool);
type Hook = Box<dyn Fn(Call) -> Result<()> + Send + Sync>;

/// A disk in memory with something to do before each call.
pub struct Hooked {
    pub disk: MemoryDevice,
    hook: Hook,
}

impl Hooked {
    pub fn new(size: usize, hook: impl Fn(Call) -> Result<()> + Send + Sync + 'static) -> Arc<Self> {
        Self::over(MemoryDevice::new(size), hook)
    }

    pub fn over(disk: MemoryDevice, hook: impl Fn(Call) -> Result<()> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { disk, hook: Box::new(hook) })
    }

    /// Holds calls at `offset` up until the gate opens.
    pub fn gated(size: usize, gate: &Arc<Gate>, offset: u64) -> Arc<Self> {
        let gate = Arc::clone(gate);
        Self::new(size, move |call| {
            if call.1 == offset {
                gate.pass();
            }
            Ok(())
        })
    }
}

impl BlockDevice for Hooked {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn capabilities(&self) -> Capabilities {
        self.disk.capabilities()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        (self.hook)((READ, offset, buf.len() as u64, false))?;
        self.disk.read(offset, buf)
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<()> {
        (self.hook)((WRITE, offset, data.len() as u64, fua))?;
        self.disk.write(offset, data, fua)
    }

    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        (self.hook)((ZERO, offset, len, flags.fua))?;
        self.disk.zero(offset, len, flags)
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<()> {
        (self.hook)((TRIM, offset, len, fua))?;
        self.disk.trim(offset, len, fua)
    }

    fn flush(&self) -> Result<()> {
        (self.hook)((FLUSH, 0, 0, false))?;
        self.disk.flush()
    }
}
