// SPDX-License-Identifier: MIT OR Apache-2.0
//! The main job on whatever machine this is: an image through NBD into an imageio server, and back.

mod engine;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use nbd::client::{NbdClient, handshake};
use xshell::{Shell, cmd};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Upload this image instead of one that the demo makes
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Talk to the server with https
    #[arg(long)]
    tls: bool,
    /// Upload, back up, restore and download a disk of a fake engine by imageio-nbd's commands,
    /// always with https. Needs qemu-img, qemu-io, qemu-nbd and nbdcopy
    #[arg(long, conflicts_with = "tls")]
    engine: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ClientArguments {
    image: PathBuf,
    #[arg(env = "unixsocket")]
    socket: PathBuf,
}

/// The size of the image that the demo makes, in bytes.
const SIZE: u64 = 256 << 20;
/// One request.
const CHUNK: usize = 1 << 20;

/// Starts the fake server and imageio-nbd, which runs [`client`].
pub(crate) fn run(sh: &Shell, arguments: &Arguments) -> Result<()> {
    if arguments.engine {
        return engine::run(sh, arguments.image.as_deref());
    }
    cmd!(sh, "cargo build --package imageio-nbd --package fake-imageio").quiet().run()?;
    let bin = crate::target_dir(sh)?.join("debug");
    let dir = tempfile::Builder::new().prefix("imageio-nbd-demo-").tempdir()?;
    let image = match &arguments.image {
        Some(image) => std::path::absolute(image)?,
        None => make_image(dir.path(), SIZE)?,
    };
    let size = image.metadata().with_context(|| format!("cannot read {}", image.display()))?.len();
    let server = FakeServer::start(&bin, dir.path(), size, arguments.tls)?;
    eprintln!("fake imageio server: {}", server.url.rsplit_once('/').map_or("", |(url, _ticket)| url));

    let url_file = dir.path().join("url");
    let xtask = std::env::current_exe()?;
    let client = format!("{} demo-client {}", quoted(&xtask)?, quoted(&image)?);
    let mut command = Command::new(bin.join("imageio-nbd"));
    command.args(["-U", "-", "--run", &client]).arg(format!("url=+{}", url_file.display()));
    if arguments.tls {
        command.arg(format!("cafile={}", dir.path().join("ca.pem").display()));
    }
    let status = command.status().context("cannot start imageio-nbd")?;
    ensure!(status.success(), "imageio-nbd failed: {status}");
    eprintln!("imageio-nbd has flushed and closed all connections.");
    Ok(())
}

/// An image of this size in bytes with something to see: data that doesn't compress, and holes.
fn make_image(dir: &Path, size: u64) -> Result<PathBuf> {
    let path = dir.join("disk.img");
    let mut file = File::create(&path)?;
    file.set_len(size)?;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut chunk = vec![0; CHUNK];
    for offset in (0..size).step_by(CHUNK).filter(|offset| (offset / CHUNK as u64) % 4 < 2) {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&chunk)?;
    }
    Ok(path)
}

struct FakeServer {
    child: Child,
    url: String,
}

impl FakeServer {
    fn start(bin: &Path, dir: &Path, size: u64, tls: bool) -> Result<Self> {
        let mut command = Command::new(bin.join("fake-imageio"));
        command.args(["--backend", "file", "--file"]).arg(dir.join("server.img"));
        command.arg("--size").arg(size.to_string());
        command.arg("--url-file").arg(dir.join("url")).arg("--exit-with-parent");
        if tls {
            command.arg("--tls").arg("--cafile-out").arg(dir.join("ca.pem"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut url = String::new();
        let stdout = child.stdout.take().context("its output is a pipe")?;
        BufReader::new(stdout).read_line(&mut url)?;
        ensure!(!url.is_empty(), "the fake server did not start");
        Ok(Self { child, url: url.trim().to_owned() })
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        // The end of its standard input tells it to go.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn quoted(path: &Path) -> Result<String> {
    let path = path.to_str().context("the file name is not UTF-8")?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

/// Uploads, reads back, compares. The client is the crate `nbd`, which is not ours.
pub(crate) fn client(arguments: &ClientArguments) -> Result<()> {
    let mut image = File::open(&arguments.image)?;
    let size = image.metadata()?.len();
    let mut socket = UnixStream::connect(&arguments.socket)?;
    let export = handshake(&mut socket, b"")?;
    ensure!(export.size == size, "the export has {} bytes, the image {size}", export.size);
    let mut disk = NbdClient::new(socket, &export);

    let upload = copy(&mut image, size, "upload", |data| Ok(disk.write_all(data)?))?;
    disk.flush()?;
    disk.seek(SeekFrom::Start(0))?;
    image.rewind()?;
    let mut back = vec![0; CHUNK];
    let mut offset = 0_u64;
    let read_back = copy(&mut image, size, "compare", |data| {
        let back = &mut back[..data.len()];
        disk.read_exact(back)?;
        if let Some(at) = (0..data.len()).find(|&at| data[at] != back[at]) {
            bail!("the disk differs from the image at byte {}", offset + at as u64);
        }
        offset += data.len() as u64;
        Ok(())
    })?;
    eprintln!(
        "uploaded {} at {}/s, read back at {}/s: identical",
        HumanBytes(size),
        HumanBytes(rate(size, upload)),
        HumanBytes(rate(size, read_back))
    );
    Ok(())
}

fn rate(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(1e-9)) as u64
}

/// Hands the image to `take` piece by piece, with a progress bar on a terminal.
fn copy(
    image: &mut File,
    size: u64,
    what: &'static str,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Duration> {
    let style = "{msg:8} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = ProgressBar::new(size).with_style(ProgressStyle::with_template(style)?).with_message(what);
    let started = Instant::now();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < size {
        let piece = (size - done).min(CHUNK as u64) as usize;
        image.read_exact(&mut buffer[..piece])?;
        take(&buffer[..piece])?;
        done += piece as u64;
        bar.set_position(done);
    }
    bar.finish();
    Ok(started.elapsed())
}
