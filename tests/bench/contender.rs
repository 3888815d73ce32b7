// SPDX-License-Identifier: MIT OR Apache-2.0
//! The contenders that are compared, and one run of one of them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use support::door::Door;
use support::process::Daemon;
use support::report::{self, Run, Unit};
use support::target::Via;
use support::tools::{IMAGEIO, NBDKIT, QEMU_IMG, QEMU_NBD, Tool};

use crate::client::{self, Stop};
use crate::limit::Load;
use crate::measure::{cpu, cpu_of_all, peak_memory};
use crate::rows::{RowKind, Server};
use crate::server::{Target, same};
use crate::work::{LARGE, Reader, Work, fio_iops};

/// Someone who does a row's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// NBD clients write through it.
    Door(Door),
    /// ovirt-imageio's own client, in Python.
    Client,
    /// Plain sockets.
    Limit,
    /// NBD clients write into nbdkit, which forgets it.
    Null,
    /// Our program, with nothing that follows what is measured.
    Fixed,
}

/// The parameters that are best on one host, whatever the link is.
const FIXED: [&str; 3] = ["connections=4", "max-request=2M", "replay-buffer=32M"];

/// In the order in which they take turns.
pub(crate) const CONTENDERS: [Contender; 7] = [
    Contender::Door(Door::Reference),
    Contender::Door(Door::Nbdkit),
    Contender::Door(Door::ImageioNbd),
    Contender::Client,
    Contender::Limit,
    Contender::Null,
    Contender::Fixed,
];

/// The state that all runs need.
pub(crate) struct Bench<'a> {
    pub(crate) stop: &'a Stop,
    /// For images that several rows use.
    pub(crate) dir: &'a Path,
    /// The image that is uploaded.
    pub(crate) image: PathBuf,
    /// The image's bytes.
    pub(crate) source: &'a [u8],
    pub(crate) quick: bool,
    /// For our doors only.
    pub(crate) parameters: &'a [String],
}

impl Bench<'_> {
    /// Makes the bench smaller: its disk has a part of the contents, of whole requests though.
    pub(crate) fn part(&self, part: u64) -> Result<Self> {
        let requests = (self.source.len() / LARGE / usize::try_from(part)?).max(1);
        let source = &self.source[..requests * LARGE];
        let image = match part {
            1 => self.image.clone(),
            part => self.dir.join(format!("source-{part}.img")),
        };
        if !image.exists() {
            fs::write(&image, source)?;
        }
        Ok(Self { image, source, ..*self })
    }
}

/// The resources that a run has used, before it is put in relation to what was done.
struct Used {
    seconds: f64,
    plugin_cpu: f64,
    all_cpu: f64,
    memory: Option<u64>,
    /// Set where the client knows the throughput better than the clock.
    throughput: Option<f64>,
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Door(Door::Reference) => report::PYTHON,
            Self::Door(Door::Nbdkit) => report::PLUGIN,
            Self::Door(Door::ImageioNbd) => report::IMAGEIO_NBD,
            Self::Client => report::CLIENT,
            Self::Limit => report::LIMIT,
            Self::Null => report::NULL,
            Self::Fixed => report::FIXED,
        }
    }

    /// Returns true if it takes part without being asked for. All others do in each row.
    pub(crate) fn is_regular(self) -> bool {
        self != Self::Fixed
    }

    pub(crate) fn tools(self) -> &'static [Tool] {
        match self {
            Self::Door(door) => door.tools(),
            Self::Client => &[IMAGEIO, QEMU_NBD, QEMU_IMG],
            Self::Limit => &[],
            Self::Null => &[NBDKIT],
            Self::Fixed => Door::ImageioNbd.tools(),
        }
    }

    pub(crate) fn can(self, row: RowKind) -> bool {
        match self {
            // The doors alone, as each of them takes its time there.
            Self::Client | Self::Limit | Self::Null if row.link.is_some() => false,
            // It reads all of the disk, which takes long enough once.
            Self::Door(Door::Reference) => {
                !matches!(row.work, Work::SparseRead { client: Reader::QemuImg, .. })
            }
            Self::Door(_) | Self::Fixed => true,
            // It chooses the size of requests itself, or is told; another client's preferences are
            // nothing to it.
            Self::Client => {
                row.server == Server::Real
                    && matches!(row.work, Work::Upload { .. } | Work::SparseRead { .. })
            }
            Self::Limit => row.via != Via::Https && !matches!(row.work, Work::SparseRead { .. }),
            Self::Null => row.server == Server::FakeNull && row.via == Via::Http,
        }
    }

    /// Does the row's work once. The run that warms up proves that the work is done.
    pub(crate) fn run(self, bench: &Bench<'_>, row: RowKind, target: &Target, warm_up: bool) -> Result<Run> {
        bench.stop.check()?;
        let verified = warm_up && row.work.is_upload();
        if verified {
            target.clear()?;
        }
        let back = target.dir.path().join("back.img");
        if back.exists() {
            fs::remove_file(&back)?;
        }
        let reads_back = target.sparse.is_some() || warm_up && row.server == Server::Real;
        let back = reads_back.then_some(back.as_path());
        let used = match self {
            Self::Door(_) | Self::Null | Self::Fixed => serve(self, bench, row, target, back)?,
            Self::Client => transfer(bench, row, target, back)?,
            Self::Limit => send(bench, row, target)?,
        };
        if let (Some(sparse), Some(back), true) = (&target.sparse, back, warm_up) {
            sparse.verify(back).context("other data was read than the server has")?;
        }
        if verified && self != Self::Null {
            target.verify(bench.source).context("the server has other data than was uploaded")?;
        }
        Ok(used.per_unit(row.work.unit(), row.work.amount(bench.source.len() as u64, bench.quick)))
    }
}

impl Used {
    fn per_unit(&self, unit: Unit, amount: u64) -> Run {
        let cpu_base = amount as f64 / unit.cpu_base();
        let throughput = amount as f64 / unit.throughput_base() / self.seconds;
        Run {
            throughput: self.throughput.unwrap_or(throughput),
            plugin_cpu: Some(self.plugin_cpu / cpu_base),
            all_cpu: self.all_cpu / cpu_base,
            memory: self.memory,
        }
    }
}

fn socket(target: &Target) -> PathBuf {
    target.dir.path().join("door.sock")
}

/// The command line of an NBD server: as virt-v2v has it, where it is nbdkit.
fn server(
    contender: Contender,
    bench: &Bench<'_>,
    row: RowKind,
    target: &Target,
    pidfile: &Path,
) -> Result<Command> {
    let socket = socket(target);
    let mut options: Vec<&OsStr> = ["--exit-with-parent", "-f"].map(OsStr::new).to_vec();
    options.extend([OsStr::new("-P"), pidfile.as_os_str(), OsStr::new("-U"), socket.as_os_str()]);
    let is_called_by_virt_v2v = row.work == Work::VirtV2v;
    let door = match contender {
        Contender::Door(door) => Some(door),
        Contender::Fixed => Some(Door::ImageioNbd),
        Contender::Null | Contender::Client | Contender::Limit => None,
    };
    if is_called_by_virt_v2v || door != Some(Door::ImageioNbd) {
        options.extend(["--threads", "8"].map(OsStr::new));
    }
    let Some(door) = door else {
        let mut command = Command::new(NBDKIT.path());
        command.args(options).arg("null").arg(format!("size={}", bench.source.len()));
        return Ok(command);
    };
    let fixed = FIXED.iter().filter(|_| contender == Contender::Fixed).map(ToString::to_string);
    let own = bench.parameters.iter().filter(|_| door != Door::Reference).cloned().chain(fixed);
    let dir = target.dir.path();
    if is_called_by_virt_v2v {
        let mut parameters = target.parameters(Door::Reference);
        parameters.extend(own);
        return Ok(door.call_of_virt_v2v(dir, &options, &parameters)?);
    }
    let mut parameters = target.parameters(door);
    if door != Door::Reference {
        // Merging alone has to earn what it does: clients would prefer larger requests.
        parameters.extend(row.work.has_own_request_size().then(|| "preferred-block-size=4096".to_owned()));
    }
    parameters.extend(own);
    Ok(door.command(dir, &options, &parameters)?)
}

/// An NBD server for one run, with the row's client.
fn serve(
    contender: Contender,
    bench: &Bench<'_>,
    row: RowKind,
    target: &Target,
    back: Option<&Path>,
) -> Result<Used> {
    let pidfile = target.dir.path().join("pid");
    // nbdkit leaves both.
    for left in [&pidfile, &socket(target)] {
        if left.exists() {
            fs::remove_file(left)?;
        }
    }
    let mut door = Daemon::spawn(&mut server(contender, bench, row, target, &pidfile)?)?;
    // It is written once clients can connect.
    door.retry(|| fs::metadata(&pidfile))?;
    let uri = format!("nbd+unix:///?socket={}", socket(target).display());
    let amount = row.work.amount(bench.source.len() as u64, bench.quick);
    let mut client = row.work.command(&bench.image, &uri, amount, back);
    let (door_before, server_before) = (cpu(door.id())?, cpu_of_all(&target.pids)?);
    let ended = match client::run(client.current_dir(target.dir.path()), bench.stop) {
        Ok(ended) => ended,
        Err(error) => {
            // The reason is what the door says, all of which is there once it has ended, however it
            // does.
            let ended = door.terminate().map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(error.context(format!("the server, {ended}: {}", door.said().join("\n"))));
        }
    };
    let plugin_cpu = cpu(door.id())?.own - door_before.own;
    let server_cpu = cpu_of_all(&target.pids)? - server_before;
    let memory = peak_memory(door.id());
    let status = door.terminate()?;
    ensure!(status.success(), "{status}: {}", door.said().join("\n"));
    if let (true, Some(back)) = (row.work.is_read(), back) {
        same(back, bench.source).context("other data was read than the server has")?;
        fs::remove_file(back)?;
    }
    let throughput = match row.work.unit() {
        Unit::Gib => None,
        Unit::Iops => Some(fio_iops(&ended.printed)?),
    };
    let all_cpu = plugin_cpu + server_cpu + ended.cpu.own + ended.cpu.children;
    Ok(Used { seconds: ended.time.as_secs_f64(), plugin_cpu, all_cpu, memory, throughput })
}

/// ovirt-imageio's own client. Left alone it would take the unix socket of a server on this host.
const TRANSFER: &str = "
import sys
from ovirt_imageio import client
from ovirt_imageio._internal.backends import http
what, image, url, cafile, size, unix = sys.argv[1:]
if unix == 'no':
    http.Backend._optimize_connection = lambda *args: None
if what == 'upload':
    client.upload(image, url, cafile or None, buffer_size=int(size))
else:
    client.download(url, image, cafile or None, fmt='raw', buffer_size=int(size))
";

fn transfer(bench: &Bench<'_>, row: RowKind, target: &Target, back: Option<&Path>) -> Result<Used> {
    let daemon = IMAGEIO.path();
    let python = daemon.parent().context("the daemon is in a directory")?.join("python");
    let mut command = Command::new(python);
    command.args(["-c", TRANSFER]);
    match back {
        Some(back) if target.sparse.is_some() => command.arg("download").arg(back),
        _ => command.arg("upload").arg(&bench.image),
    };
    command.arg(&target.url);
    command.arg(target.cafile.as_deref().unwrap_or("".as_ref())).arg(row.work.request().to_string());
    command.arg(if row.via == Via::Unix { "yes" } else { "no" });
    let before = cpu_of_all(&target.pids)?;
    let ended = client::run(&mut command, bench.stop)?;
    let server_cpu = cpu_of_all(&target.pids)? - before;
    Ok(Used {
        seconds: ended.time.as_secs_f64(),
        plugin_cpu: ended.cpu.own,
        all_cpu: server_cpu + ended.cpu.own + ended.cpu.children,
        memory: ended.memory,
        throughput: None,
    })
}

/// The limit, in threads of this process.
fn send(bench: &Bench<'_>, row: RowKind, target: &Target) -> Result<Used> {
    let request = row.work.request();
    let amount = row.work.amount(bench.source.len() as u64, bench.quick);
    let (random, depth) = match row.work {
        Work::RandomWrites { depth } => (true, depth),
        Work::ReadInOrder { .. } => (false, 1),
        _ => (false, u32::MAX),
    };
    let load = Load {
        address: target.address()?,
        path: target.path(),
        source: bench.source,
        read: row.work.is_read(),
        random,
        request,
        requests: if random { amount } else { amount / request as u64 },
        // The doors open as many.
        connections: depth.min(4) as usize,
    };
    let me = std::process::id();
    let (before, server_before) = (cpu(me)?, cpu_of_all(&target.pids)?);
    let started = Instant::now();
    load.run()?;
    let seconds = started.elapsed().as_secs_f64();
    let plugin_cpu = cpu(me)?.own - before.own;
    let all_cpu = plugin_cpu + cpu_of_all(&target.pids)? - server_before;
    if seconds == 0.0 {
        bail!("nothing was done");
    }
    Ok(Used { seconds, plugin_cpu, all_cpu, memory: None, throughput: None })
}
