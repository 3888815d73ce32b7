// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clients, each with what it does to the disk.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use support::TestResult;
use support::image::{SIZE, guest_disk, noise, same};
use support::tools::{FIO, NBDCOPY, NBDINFO, NBDSH, QEMU_IMG, QEMU_IO, Tool};

/// A client and what it does.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) tools: &'static [Tool],
    /// Returns what the disk must hold in the end.
    pub(crate) run: fn(&Session) -> TestResult<Vec<u8>>,
}

/// An NBD server with an empty disk.
pub(crate) struct Session {
    pub(crate) uri: String,
    pub(crate) socket: PathBuf,
    pub(crate) dir: PathBuf,
}

pub(crate) const CASES: &[Case] = &[
    Case { name: "nbdcopy", tools: &[NBDCOPY], run: nbdcopy },
    Case { name: "nbdcopy_as_virt_v2v_runs_it", tools: &[NBDCOPY], run: nbdcopy_as_virt_v2v },
    Case { name: "nbdcopy_that_allocates", tools: &[NBDCOPY], run: nbdcopy_allocated },
    Case { name: "qemu_img_convert", tools: &[QEMU_IMG], run: qemu_img },
    Case { name: "qemu_img_convert_from_qcow2", tools: &[QEMU_IMG], run: qemu_img_from_qcow2 },
    Case { name: "qemu_img_writethrough", tools: &[QEMU_IMG], run: qemu_img_writethrough },
    Case { name: "nbdinfo", tools: &[NBDINFO], run: nbdinfo },
    Case { name: "nbdsh", tools: &[NBDSH], run: nbdsh },
    Case { name: "nbdsh_parallel_fua_and_flush", tools: &[NBDSH], run: nbdsh_parallel },
    Case { name: "qemu_io", tools: &[QEMU_IO], run: qemu_io },
    Case { name: "fio_verify", tools: &[FIO], run: fio_verify },
    Case { name: "fio_with_fsync", tools: &[FIO], run: fio_fsync },
    Case { name: "crate_nbd", tools: &[], run: crate_nbd },
];

impl Session {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A guest's disk in a file, which is in the session's directory.
    fn image(&self) -> TestResult<(String, Vec<u8>)> {
        let (path, disk) = (self.path("guest.img"), guest_disk(7));
        fs::write(&path, &disk)?;
        Ok((path, disk))
    }

    /// Runs a client to its end, within a minute; a hang is a failure. Returns what it printed.
    fn client(&self, tool: Tool, arguments: &[&str]) -> TestResult<String> {
        let mut command = Command::new("timeout");
        // Debian's nbdsh needs Debian's Python.
        command.env("PATH", "/usr/bin:/bin").arg("60").arg(tool.path()).args(arguments);
        let output = command.current_dir(&self.dir).output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {arguments:?}: {}: {printed}{said}", tool.name, output.status).into())
    }

    /// The whole disk, read through NBD.
    fn read_back(&self) -> TestResult<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let export = nbd::client::handshake(&mut stream, b"")?;
        let mut disk = Vec::new();
        nbd::client::NbdClient::new(stream, &export).read_to_end(&mut disk)?;
        Ok(disk)
    }
}

fn nbdcopy(session: &Session) -> TestResult<Vec<u8>> {
    let (image, disk) = session.image()?;
    session.client(NBDCOPY, &["--flush", &image, &session.uri])?;
    let back = session.path("back.img");
    session.client(NBDCOPY, &[&session.uri, &back])?;
    same("what nbdcopy reads back", &fs::read(back)?, &disk)?;
    Ok(disk)
}

fn nbdcopy_as_virt_v2v(session: &Session) -> TestResult<Vec<u8>> {
    let (image, disk) = session.image()?;
    let settings = ["--request-size=4194304", "--requests=16", "--flush"];
    session.client(NBDCOPY, &[&settings[..], &[&image, &session.uri]].concat())?;
    Ok(disk)
}

fn nbdcopy_allocated(session: &Session) -> TestResult<Vec<u8>> {
    let (image, disk) = session.image()?;
    session.client(NBDCOPY, &["--allocated", "--flush", &image, &session.uri])?;
    Ok(disk)
}

fn qemu_img(session: &Session) -> TestResult<Vec<u8>> {
    let (image, disk) = session.image()?;
    session.client(QEMU_IMG, &["convert", "-n", "-f", "raw", "-O", "raw", &image, &session.uri])?;
    session.client(QEMU_IMG, &["compare", "-f", "raw", "-F", "raw", &image, &session.uri])?;
    Ok(disk)
}

fn qemu_img_from_qcow2(session: &Session) -> TestResult<Vec<u8>> {
    let (image, disk) = session.image()?;
    let qcow2 = session.path("guest.qcow2");
    session.client(QEMU_IMG, &["convert", "-f", "raw", "-O", "qcow2", &image, &qcow2])?;
    session.client(QEMU_IMG, &["convert", "-n", "-f", "qcow2", "-O", "raw", &qcow2, &session.uri])?;
    Ok(disk)
}

fn qemu_img_writethrough(session: &Session) -> TestResult<Vec<u8>> {
    let (image, disk) = session.image()?;
    let settings = ["convert", "-n", "-W", "-m", "8", "-t", "writethrough", "-f", "raw", "-O", "raw"];
    session.client(QEMU_IMG, &[&settings[..], &[&image, &session.uri]].concat())?;
    Ok(disk)
}

fn nbdinfo(session: &Session) -> TestResult<Vec<u8>> {
    let json = session.client(NBDINFO, &["--json", &session.uri])?;
    let info: serde_json::Value = serde_json::from_str(&json)?;
    let export = &info["exports"][0];
    let expected: [(&str, serde_json::Value); 7] = [
        ("export-size", SIZE.into()),
        ("is_read_only", false.into()),
        ("can_flush", true.into()),
        ("can_fua", true.into()),
        ("can_multi_conn", true.into()),
        ("can_zero", true.into()),
        ("can_trim", false.into()),
    ];
    for (key, expected) in expected {
        if export[key] != expected {
            return Err(format!("{key} is {}, expected {expected}", export[key]).into());
        }
    }
    let list = session.client(NBDINFO, &["--list", &session.uri])?;
    if !list.contains("export=\"\"") {
        return Err(format!("nbdinfo --list: {list}").into());
    }
    Ok(vec![0; SIZE as usize])
}

fn nbdsh(session: &Session) -> TestResult<Vec<u8>> {
    let script = "
assert h.can_fua() and h.can_flush() and h.can_zero() and h.can_multi_conn()
h.pwrite(b'a' * 100000, 1000)
h.pwrite(b'b' * 512, 1048576, nbd.CMD_FLAG_FUA)
h.zero(65536, 30000)
h.zero(4096, 1048576 + 4096, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
h.flush()
assert h.pread(29000, 1000) == b'a' * 29000
assert h.pread(65536, 30000) == bytes(65536)
for call, offset in ((h.pread, 4096), (h.pwrite, b'x' * 4096)):
    try:
        call(offset, h.get_size())
        raise SystemExit('beyond the end: no error')
    except (nbd.Error, ValueError):
        pass
h.shutdown()
";
    session.client(NBDSH, &["-u", &session.uri, "-c", script])?;
    let mut disk = vec![0; SIZE as usize];
    disk[1000..101_000].fill(b'a');
    disk[30_000..95_536].fill(0);
    disk[1_048_576..1_049_088].fill(b'b');
    Ok(disk)
}

/// Requests that hang the Python plugin: eight writes with FUA at a time, and flushes among writes.
fn nbdsh_parallel(session: &Session) -> TestResult<Vec<u8>> {
    let script = "
def finish(cookies):
    while h.aio_in_flight():
        h.poll(-1)
    for cookie in cookies:
        assert h.aio_command_completed(cookie)
for round in range(8):
    cookies = []
    for n in range(8):
        data = nbd.Buffer.from_bytearray(bytearray([1 + round * 8 + n]) * 65536)
        cookies.append(h.aio_pwrite(data, (round * 8 + n) * 65536, flags=nbd.CMD_FLAG_FUA))
    finish(cookies)
    cookies = [h.aio_flush() for n in range(16)]
    data = nbd.Buffer.from_bytearray(bytearray([200 + round]) * 65536)
    cookies += [h.aio_pwrite(data, (128 + round * 8 + n) * 65536) for n in range(8)]
    cookies += [h.aio_flush() for n in range(16)]
    finish(cookies)
h.flush()
h.shutdown()
";
    session.client(NBDSH, &["-u", &session.uri, "-c", script])?;
    let mut disk = vec![0; SIZE as usize];
    for (n, block) in disk.chunks_exact_mut(65536).enumerate() {
        block.fill(match n {
            0..64 => 1 + n as u8,
            128..192 => 200 + (n as u8 - 128) / 8,
            _ => 0,
        });
    }
    Ok(disk)
}

fn qemu_io(session: &Session) -> TestResult<Vec<u8>> {
    let commands = [
        "write -P 0x5a 1M 3M",
        "write -f -P 0x11 512 1024",
        "write -z 2M 64k",
        "write -z -u 3M 1M",
        "flush",
        "read -P 0x5a 1M 1M",
        "read -P 0 2M 64k",
        "aio_write -P 0x77 8M 1M",
        "aio_write -P 0x78 9M 1M",
        "aio_flush",
        "read -P 0x77 8M 1M",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
    arguments.push(&session.uri);
    let printed = session.client(QEMU_IO, &arguments)?;
    if printed.contains("Pattern verification failed") {
        return Err(printed.into());
    }
    let mut disk = vec![0; SIZE as usize];
    disk[1 << 20..4 << 20].fill(0x5a);
    disk[512..1536].fill(0x11);
    disk[2 << 20..(2 << 20) + (64 << 10)].fill(0);
    disk[3 << 20..4 << 20].fill(0);
    disk[8 << 20..9 << 20].fill(0x77);
    disk[9 << 20..10 << 20].fill(0x78);
    Ok(disk)
}

fn fio(session: &Session, settings: &[&str]) -> TestResult<Vec<u8>> {
    let uri = format!("--uri={}", session.uri);
    let common = ["--name=test", "--ioengine=nbd", "--size=8M", "--iodepth=8", "--verify=crc32c", &uri];
    session.client(FIO, &[&common[..], settings].concat())?;
    // fio has read back and verified what it wrote; that is what has to be there.
    session.read_back()
}

fn fio_verify(session: &Session) -> TestResult<Vec<u8>> {
    fio(session, &["--rw=randwrite", "--bssplit=4k/50:64k/30:1M/20", "--randrepeat=1"])
}

fn fio_fsync(session: &Session) -> TestResult<Vec<u8>> {
    fio(session, &["--rw=randwrite", "--bs=64k", "--fsync=4"])
}

/// A client that isn't ours, in Rust.
fn crate_nbd(session: &Session) -> TestResult<Vec<u8>> {
    let mut stream = UnixStream::connect(&session.socket)?;
    let export = nbd::client::handshake(&mut stream, b"")?;
    let mut client = nbd::client::NbdClient::new(stream, &export);
    let data = noise(3_000_001, 3);
    client.seek(SeekFrom::Start(12_345))?;
    client.write_all(&data)?;
    client.flush()?;
    let mut disk = vec![0; SIZE as usize];
    disk[12_345..12_345 + data.len()].copy_from_slice(&data);
    same("what the crate nbd reads back", &session.read_back()?, &disk)?;
    Ok(disk)
}
