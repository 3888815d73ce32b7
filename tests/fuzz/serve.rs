// SPDX-License-Identifier: MIT OR Apache-2.0
//! An NBD server of two disks in memory, with metadata contexts of which some have to be looked up.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::thread;

use block_device_traits::{
    BlockDevice, Capabilities, Completion, Extent, MemoryDevice, QueuedDevice, Request, Threaded,
};
use nbd_frontend::{Config, ExportInfo, Server, Tls};

/// Sizes of the disks in bytes: of `disk`, which can be written, and of `other`, which can't.
pub const SIZES: [usize; 2] = [64 << 10, 20_000];

/// The contexts of both, of which [`Disk::has_context`] denies one.
const CONTEXTS: [&str; 3] = ["base:allocation", "x:absent", "x:odd"];

/// Extents of the context that is made up, in bytes.
const ODD: u64 = 1000;

/// A disk in memory that wants writes in small pieces.
struct Disk {
    memory: Threaded<MemoryDevice>,
    contexts: [String; 3],
}

impl Disk {
    fn new(memory: MemoryDevice) -> Self {
        let memory = Threaded::start(Arc::new(memory), 2).expect("threads are to be had");
        Self { memory, contexts: CONTEXTS.map(str::to_owned) }
    }
}

impl QueuedDevice for Disk {
    fn size(&self) -> u64 {
        self.memory.size()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn contexts(&self) -> &[String] {
        &self.contexts
    }

    fn is_tentative(&self, context: usize) -> bool {
        context > 0
    }

    fn has_context(&self, context: usize) -> bool {
        context != 1
    }

    fn submit(&self, request: Request, mut completion: Box<dyn Completion>) {
        match request {
            Request::Extents { context: 2, offset, limit, .. } => {
                let rest = self.size().div_ceil(ODD) - offset / ODD;
                let odd = (0..rest).map(|n| Extent { length: ODD, status: n % 2 }).take(limit);
                completion.extents(odd.collect());
                completion.complete(Ok(()), &mut block_device_traits::Batch::default());
            }
            request => self.memory.submit(request, completion),
        }
    }

    fn longest_write(&self) -> u64 {
        1000
    }
}

/// A server of both, which has not begun.
fn server(tls: Tls) -> Server<Disk> {
    static DISKS: LazyLock<[Arc<Disk>; 2]> = LazyLock::new(|| {
        let [size, other] = SIZES;
        let data = (0..other).map(|n| if n % 9000 < 5000 { 0 } else { n as u8 }).collect();
        let other = MemoryDevice::from_bytes(data);
        let capabilities = other.capabilities().with(|can| can.read_only = true);
        [MemoryDevice::new(size), other.with_capabilities(capabilities)].map(|disk| Arc::new(Disk::new(disk)))
    });
    let info = |name: &str| ExportInfo::new(name).with_description(format!("called {name}"));
    let config = Config::default().with(|config| config.tls = tls);
    let [disk, other] = DISKS.each_ref().map(Arc::clone);
    let mut server = Server::new(disk, &info("disk"), config).expect("the disk is one");
    server.add_export(other, &info("other")).expect("it is another one");
    server
}

/// Has `server` read what a client says, which then listens until the server hangs up. Gives what
/// the server said.
pub(crate) fn converse(mut client: UnixStream, said: &[u8]) -> Vec<u8> {
    let mut for_saying = client.try_clone().expect("file descriptors are left");
    thread::scope(|scope| {
        scope.spawn(move || {
            // The server may have hung up already.
            let _ = for_saying.write_all(said).and_then(|()| for_saying.shutdown(Shutdown::Write));
        });
        let mut answers = Vec::new();
        // Unread bytes reset the connection.
        let _ = client.read_to_end(&mut answers);
        answers
    })
}

/// Runs a server with a single client, which is `talk`.
pub(crate) fn with_client<T>(tls: Tls, talk: impl FnOnce(UnixStream) -> T) -> T {
    let (server_end, client) = UnixStream::pair().expect("file descriptors are left");
    let mut server = server(tls);
    server.adopt(server_end);
    thread::scope(|scope| {
        scope.spawn(move || server.run().expect("the system works"));
        talk(client)
    })
}

/// Has the server read what a client says. Gives what the server said.
pub fn serve_client(said: &[u8]) -> Vec<u8> {
    with_client(Tls::Off, |client| converse(client, said))
}

/// The negotiation of a client that asks for chunks.
#[derive(Debug, Clone, Copy)]
pub struct Chosen {
    /// Extended headers, or else structured replies.
    pub extended: bool,
    /// The second export, or else the first.
    pub other: bool,
}

impl Chosen {
    /// Returns what the client sends for that, up to its first request. All contexts are selected.
    pub fn said(self) -> Vec<u8> {
        let name: &[u8] = if self.other { b"other" } else { b"disk" };
        let string = |text: &[u8]| [&(text.len() as u32).to_be_bytes(), text].concat();
        let contexts = CONTEXTS.map(|context| string(context.as_bytes())).concat();
        let selection = [string(name), (CONTEXTS.len() as u32).to_be_bytes().to_vec(), contexts].concat();
        [
            3u32.to_be_bytes().to_vec(),
            option(if self.extended { 11 } else { 8 }, &[]),
            option(10, &selection),
            option(7, &[string(name), vec![0; 2]].concat()),
        ]
        .concat()
    }

    /// Size of the export in bytes.
    pub fn size(self) -> u64 {
        SIZES[usize::from(self.other)] as u64
    }
}

/// An option as a client sends it.
pub(crate) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    [b"IHAVEOPT", &number.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
}
