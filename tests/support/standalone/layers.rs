// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers whose disk is ours.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use support::TestResult;
use support::image::same;
use support::process::Daemon;
use support::qemu::QemuNbd;
use support::tools::{NBDCOPY, NBDKIT, QEMU_NBD, QEMU_STORAGE_DAEMON};

use crate::Case;
use crate::client::{Client, disk};

pub(crate) const CASES: &[Case] = &[
    Case::new("qemu_nbd_on_top", &[QEMU_NBD, NBDCOPY], qemu_nbd),
    Case::new("qemu_storage_daemon_on_top", &[QEMU_STORAGE_DAEMON, NBDCOPY], storage_daemon),
    Case::new("nbdkit_on_top", &[NBDKIT, NBDCOPY], nbdkit),
];

fn socket(client: &Client) -> PathBuf {
    client.server.path("top").into()
}

/// Reads the disk through the server on top, and writes another.
fn copy_there_and_back(client: &Client, export: &str) -> TestResult<Vec<u8>> {
    let uri = format!("nbd+unix:///{export}?socket={}", socket(client).display());
    let (back, other) = (client.server.path("back.img"), client.server.path("other.img"));
    client.run(NBDCOPY, &[&uri, &back])?;
    same("what nbdcopy reads", &fs::read(back)?, &disk())?;
    let mut disk = disk();
    disk.rotate_right(3 << 20);
    fs::write(&other, &disk)?;
    client.run(NBDCOPY, &["--flush", &other, &uri])?;
    Ok(disk)
}

fn qemu_nbd(client: &Client) -> TestResult<Vec<u8>> {
    let options = [client.object(), vec!["--image-opts".into(), client.image_options()]].concat();
    let top = QemuNbd::start_as(&options, socket(client))?;
    let disk = copy_there_and_back(client, "")?;
    top.stop()?;
    Ok(disk)
}

fn storage_daemon(client: &Client) -> TestResult<Vec<u8>> {
    let mut command = Command::new(QEMU_STORAGE_DAEMON.path());
    command.args(client.object());
    command.arg("--blockdev").arg(format!("{},node-name=disk", client.image_options()));
    command.arg("--nbd-server").arg(format!("addr.type=unix,addr.path={}", socket(client).display()));
    command.args(["--export", "type=nbd,id=export,node-name=disk,name=sda,writable=on"]);
    serve(client, &mut command, "sda")
}

fn nbdkit(client: &Client) -> TestResult<Vec<u8>> {
    let (uri, certificates) = (client.uri(), client.certificates());
    let mut command = Command::new(NBDKIT.path());
    command.args(["-f", "-U"]).arg(socket(client)).arg("nbd");
    match (uri.split_once('?'), certificates) {
        // It takes no URI that names files.
        (Some((uri, _)), Some(dir)) => {
            command.args([format!("uri={uri}"), "tls=require".into(), format!("tls-certificates={dir}")])
        }
        _ => command.arg(format!("uri={uri}")),
    };
    serve(client, &mut command, "")
}

fn serve(client: &Client, command: &mut Command, export: &str) -> TestResult<Vec<u8>> {
    let mut top = Daemon::spawn(command)?;
    top.retry(|| UnixStream::connect(socket(client)))?;
    let disk = copy_there_and_back(client, export)?;
    top.terminate()?;
    Ok(disk)
}
