// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads to servers that lose, close and refuse. In the end, the image is the same and the exit
//! status 0, or one line says what is missing, and the exit status isn't 0.

#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stderr, reason = "what can't be tested is said aloud")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use fake_imageio::{Builder, Done, FakeServer, Fault, Op, What};
use libtest_mimic::{Arguments, Trial};
use nbd::client::{NbdClient, handshake};
use support::daemon::{RealDaemon, Ticket};
use support::door::{Door, Served};
use support::image::{noise, same};
use support::loop_device::{LoopDevice, has_loop_devices};
use support::process::PATIENCE;
use support::tools::{FIO, IMAGEIO, LOSETUP, NBDCOPY, QEMU_IMG, Tool, trial};

const SIZE: usize = 16 << 20;

/// The end that an upload has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With the same image.
    Well,
    /// With the same image, or somebody is told.
    WellOrTold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Nbdcopy,
    QemuImg,
    /// In pieces of 128 bytes.
    Fio,
}

#[derive(Debug, Clone)]
enum Cruelty {
    BlockDevice(u64),
    Closes { answers: u64, announced: bool },
    LosesTheWay { op: Op, status: u16 },
    Answers { op: Op, status: u16 },
}

const STATUSES: &[u16] = &[202, 204, 302, 400, 401, 403, 404, 408, 411, 413, 416, 429, 500, 502, 503, 504];

fn cruelties() -> Vec<Cruelty> {
    let mut all = vec![Cruelty::BlockDevice(512), Cruelty::BlockDevice(4096)];
    for (answers, announced) in [(1, true), (1, false), (7, true), (7, false)] {
        all.push(Cruelty::Closes { answers, announced });
    }
    for op in [Op::Put, Op::Flush, Op::Zero] {
        all.extend([500, 502].map(|status| Cruelty::LosesTheWay { op, status }));
        all.extend(STATUSES.iter().map(|&status| Cruelty::Answers { op, status }));
    }
    all
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for cruelty in cruelties() {
        let clients =
            [Client::Nbdcopy, Client::QemuImg, Client::Fio].map(|client| (Door::ImageioNbd, client));
        for (door, client) in clients.into_iter().chain([(Door::Nbdkit, Client::Nbdcopy)]) {
            if !client.meets(&cruelty) {
                continue;
            }
            let name = format!("{}/{client:?}/{}", door.name(), cruelty.name());
            let cruelty = cruelty.clone();
            trials.push(trial(name, &[door.tools(), client.tools()].concat(), move || {
                upload(door, client, &cruelty);
                Ok(())
            }));
        }
    }
    trials.extend(loop_device_trials());
    let mut arguments = Arguments::from_args();
    // They mostly wait.
    arguments.test_threads.get_or_insert(4);
    libtest_mimic::run(&arguments, trials).exit_code()
}

impl Cruelty {
    fn name(&self) -> String {
        match self {
            Self::BlockDevice(size) => format!("block_device_{size}"),
            Self::Closes { answers, announced } => {
                format!("closes_after_{answers}_{}", if *announced { "and_says_so" } else { "silently" })
            }
            Self::LosesTheWay { op, status } => format!("loses_the_way_at_a_{op:?}_{status}").to_lowercase(),
            Self::Answers { op, status } => format!("answers_a_{op:?}_by_{status}").to_lowercase(),
        }
    }

    fn builder(&self) -> Builder {
        // By then, what comes before the fault is on several connections.
        let at = |op| Fault::on(op).nth(if op == Op::Put { 4 } else { 1 });
        let builder = FakeServer::builder().size(SIZE as u64).volatile(true);
        match self {
            Self::BlockDevice(size) => {
                // Long enough for others to come in between.
                let delay = What::DelayBlock(Duration::from_millis(1));
                builder.block_device(*size).fault(Fault::on(Op::Put).every().then(delay))
            }
            Self::Closes { answers, announced } => builder.close_after(*answers, *announced),
            Self::LosesTheWay { op, status } => {
                builder.fault(at(*op).then(What::LoseWay { status: *status, all: true, done: Done::Not }))
            }
            Self::Answers { op, status } => builder.fault(at(*op).then(What::answer(*status, Done::Not))),
        }
    }

    fn end(&self) -> End {
        match self {
            Self::BlockDevice(_) | Self::Closes { announced: true, .. } => End::Well,
            _ => End::WellOrTold,
        }
    }

    fn has_fault(&self) -> bool {
        matches!(self, Self::LosesTheWay { .. } | Self::Answers { .. })
    }
}

impl Client {
    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Nbdcopy => &[NBDCOPY],
            Self::QemuImg => &[QEMU_IMG],
            Self::Fio => &[FIO],
        }
    }

    /// fio zeroes nothing.
    fn meets(self, cruelty: &Cruelty) -> bool {
        let is_zero = matches!(
            cruelty,
            Cruelty::LosesTheWay { op: Op::Zero, .. } | Cruelty::Answers { op: Op::Zero, .. }
        );
        self != Self::Fio || !is_zero
    }

    /// Uploads an image, and returns what the disk has to hold in the end, if the client is told
    /// that it does.
    fn upload(self, dir: &Path, uri: &str) -> Option<Vec<u8>> {
        let (image, disk) = (dir.join("image"), image());
        fs::write(&image, &disk).unwrap();
        let mut command = Command::new("timeout");
        command.arg("60").arg(self.tools()[0].path()).current_dir(dir);
        match self {
            Self::Nbdcopy => command.args(["--request-size=262144", "--flush"]).arg(image).arg(uri),
            Self::QemuImg => {
                command.args(["convert", "-n", "-W", "-f", "raw", "-O", "raw"]).arg(image).arg(uri)
            }
            Self::Fio => command.args(FIO_SETTINGS).arg(format!("--uri={uri}")),
        };
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_ne!(status.code(), Some(124), "{self:?} hangs");
        // The content that fio has written is what it has verified, and can be read.
        let expected = if self == Self::Fio { read_all(uri) } else { Some(disk) };
        expected.filter(|_| status.success())
    }
}

const FIO_SETTINGS: &[&str] = &[
    "--ioengine=nbd",
    "--name=test",
    "--rw=randwrite",
    "--bs=128",
    "--size=128k",
    "--iodepth=16",
    "--verify=crc32c",
    "--end_fsync=1",
    "--randrepeat=1",
];

/// Data, long zeroes, and small pieces of either in the other.
fn image() -> Vec<u8> {
    let mut disk = noise(SIZE, 3);
    // nbdcopy looks for zeroes in steps of the preferred block size.
    disk[4 << 20..8 << 20].fill(0);
    for block in 0..16 {
        let start = (9 << 20) + block * (64 << 10);
        disk[start..start + 4096 + block * 512].fill(0);
    }
    disk[15 << 20..].fill(0);
    disk[SIZE - 512..].fill(1);
    disk
}

fn read_all(uri: &str) -> Option<Vec<u8>> {
    let (_, socket) = uri.split_once("socket=")?;
    let mut disk = Vec::new();
    connect(Path::new(socket)).read_to_end(&mut disk).ok()?;
    Some(disk)
}

fn connect(socket: &Path) -> NbdClient<UnixStream> {
    let mut stream = UnixStream::connect(socket).unwrap();
    let export = handshake(&mut stream, b"").unwrap();
    NbdClient::new(stream, &export)
}

fn upload(door: Door, client: Client, cruelty: &Cruelty) {
    let dir = tempfile::tempdir().unwrap();
    let server = cruelty.builder().start().unwrap();
    let served = door.serve(dir.path(), &parameters(&server)).unwrap();
    let uploaded = client.upload(dir.path(), &served.uri());
    let (is_well, said) = finish(served);
    if cruelty.has_fault() {
        assert!(server.log().requests.iter().any(|request| request.fault.is_some()), "no fault: {said}");
    }
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    // The content that survives a power cut is what counts.
    server.cut_power().unwrap();
    if is_well {
        let expected =
            uploaded.unwrap_or_else(|| panic!("the client failed, and the exit status is 0: {said}"));
        same("the disk", &server.contents().unwrap(), &expected).unwrap();
    } else {
        assert_eq!(cruelty.end(), End::WellOrTold, "{said}");
        if has_nbdkit_aborted(&said) {
            return;
        }
        let lines: BTreeSet<_> =
            said.lines().filter(|line| line.contains("the disk may be incomplete: ")).collect();
        assert_eq!(lines.len(), 1, "{said}");
    }
}

/// nbdkit 1.32 ends by an assertion of its own if its client leaves while another reply is about to
/// be sent. Its exit status tells that, and the plugin isn't asked any more.
fn has_nbdkit_aborted(said: &str) -> bool {
    said.contains("raw_send_socket: Assertion")
}

fn parameters(server: &FakeServer) -> Vec<String> {
    // A client that gets nowhere needs no minute to find out.
    vec![format!("url={}", server.url()), "reconnect-timeout=5".into()]
}

/// Returns whether the program ended well, and what it said.
fn finish(served: Served) -> (bool, String) {
    let (status, said) = served.finish().unwrap();
    (status.success(), said)
}

fn loop_device_trials() -> impl Iterator<Item = Trial> {
    let is_possible = has_loop_devices();
    if !is_possible {
        eprintln!("no loop devices here: what the real server does on a block device isn't tested");
    }
    Door::ALL.into_iter().map(move |door| {
        let name = format!("{}/the_real_server_on_a_block_device_keeps_all_neighbours", door.name());
        let trial = trial(name, &[door.tools(), &[IMAGEIO, LOSETUP]].concat(), move || {
            neighbours_on_a_loop_device(door);
            Ok(())
        });
        if is_possible { trial } else { trial.with_ignored_flag(true) }
    })
}

const WRITERS: usize = 4;
const PIECE: usize = 128;
const BLOCKS: usize = 300;

/// Four clients write a quarter of a block each at the same time, block after block, and flush.
fn neighbours_on_a_loop_device(door: Door) {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let device = LoopDevice::attach(&disk, 1 << 20).unwrap();
    let daemon = RealDaemon::start(None).unwrap();
    let ticket = Ticket {
        uuid: "00000000-1111-4222-8333-555555555555".to_owned(),
        size: 1 << 20,
        url: format!("file://{}", device.path().display()),
        writable: true,
        dirty: false,
        inactivity_timeout: None,
    };
    daemon.add_ticket(&ticket).unwrap();
    let served = door.serve(dir.path(), &[format!("url={}", daemon.url(&ticket.uuid))]).unwrap();
    let data = noise(WRITERS * PIECE * BLOCKS, 5);
    let block_begins = Barrier::new(WRITERS);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (data, block_begins, socket) = (&data, &block_begins, served.socket());
            scope.spawn(move || {
                let mut client = connect(socket);
                for block in 0..BLOCKS {
                    let start = (block * WRITERS + writer) * PIECE;
                    client.seek(SeekFrom::Start(start as u64)).unwrap();
                    block_begins.wait();
                    client.write_all(&data[start..start + PIECE]).unwrap();
                }
                client.flush().unwrap();
            });
        }
    });
    let (is_well, said) = finish(served);
    assert!(is_well, "{said}");
    drop((daemon, device));
    let found = fs::read(disk).unwrap();
    let missing = data.chunks(PIECE).zip(found.chunks(PIECE)).filter(|(data, found)| data != found).count();
    assert_eq!(missing, 0, "of {} acknowledged writes", WRITERS * BLOCKS);
}
