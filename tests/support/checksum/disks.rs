// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks in each kind of server, and images to compare them with.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use fake_imageio::FakeServer;
use support::TestResult;
use support::daemon::{Daemons, Ticket};
use support::image::{guest_disk, noise};
use support::qemu::QemuNbd;
use support::run::{Ended, imageio_nbd};
use support::target::{Kind, Target, Via};
use support::tools::{IMAGEIO, NBDCOPY, NBDINFO, QEMU_IMG, QEMU_NBD, Tool};

use crate::{Run, checksum, sums};

pub(crate) fn tests() -> Vec<(String, Vec<Tool>, Run)> {
    let mut tests: Vec<(String, Vec<Tool>, Run)> = Vec::new();
    for (kind, via) in
        Kind::ALL.map(|kind| (kind, Via::Http)).into_iter().chain([(Kind::RealFile, Via::Https)])
    {
        let name = |what| format!("{}/{}/{what}", kind.name(), via.name());
        let tools = [kind.tools(), &[NBDCOPY]].concat();
        tests.push((
            name("an_upload_is_proven"),
            tools,
            Box::new(move |daemons| uploaded(daemons, kind, via)),
        ));
    }
    let with_daemon = |tools: &[Tool]| [&[IMAGEIO, NBDCOPY], tools].concat();
    tests.push(("every_algorithm_is_that_of_imageio".into(), with_daemon(&[]), Box::new(algorithms)));
    tests.push(("disks_of_any_size".into(), with_daemon(&[]), Box::new(sizes)));
    let nbd = with_daemon(&[NBDINFO, QEMU_NBD, QEMU_IMG]);
    tests.push(("what_an_image_of_another_format_holds_is_compared_by_nbd".into(), nbd, Box::new(by_nbd)));
    tests
}

/// Uploads a guest's disk. Returns its file.
fn upload(target: &Target) -> TestResult<String> {
    let image = target.dir().join("guest.img").display().to_string();
    fs::write(&image, guest_disk(9))?;
    let run = format!("nbdcopy --flush '{image}' \"$uri\"");
    let arguments = [&target.parameters()[..], &["--run".into(), run]].concat();
    succeeded(&imageio_nbd(target.dir(), &arguments)?)?;
    Ok(image)
}

fn succeeded(ended: &Ended) -> TestResult {
    if ended.code == 0 { Ok(()) } else { Err(format!("{ended:?}").into()) }
}

fn uploaded(daemons: &Daemons, kind: Kind, via: Via) -> TestResult {
    let target = Target::new(daemons, kind, via)?;
    let image = upload(&target)?;
    let (dir, parameters) = (target.dir(), target.parameters());
    let alone = checksum(dir, &parameters, &[]);
    succeeded(&alone)?;
    assert!(alone.out.ends_with("  the server's disk (blake2b, blocks of 4194304 bytes)\n"), "{alone:?}");
    // The last block is shorter than others.
    for options in [&[][..], &["--block-size=5M"], &["--block-size=1M"], &["--algorithm=sha256"]] {
        let same = checksum(dir, &parameters, &[options, &["--compare", &image]].concat());
        succeeded(&same)?;
        assert_eq!((sums(&same).len(), sums(&same)[0]), (2, sums(&same)[1]), "{same:?}");
        assert_eq!((sums(&same)[0] == sums(&alone)[0], same.err.as_str()), (options.is_empty(), ""));
    }
    for offset in [0, 9 << 20, guest_disk(9).len() as u64 - 1] {
        let file = File::options().read(true).write(true).open(&image)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ 1], offset)?;
        let differs = checksum(dir, &parameters, &["--compare", &image]);
        file.write_all_at(&byte, offset)?;
        assert_eq!(differs.code, 1, "{differs:?}");
        assert_eq!(sums(&differs)[0], sums(&alone)[0]);
        assert_ne!(sums(&differs)[0], sums(&differs)[1]);
        assert_eq!(differs.err, format!("imageio-nbd: error: the server's disk and {image} differ\n"));
    }
    Ok(())
}

/// Returns the checksum that imageio's own module computes of a file.
fn of_imageio(file: &str, algorithm: &str, block_size: u64) -> TestResult<String> {
    const SCRIPT: &str = "
import sys
from ovirt_imageio._internal import blkhash
path, algorithm, block_size = sys.argv[1:]
size = blkhash.DIGEST_SIZE if algorithm.startswith('blake2') else None
print(blkhash.checksum(path, int(block_size), algorithm, size)['checksum'])
";
    let python = IMAGEIO.path().with_file_name("python");
    let output =
        Command::new(python).args(["-c", SCRIPT, file, algorithm, &block_size.to_string()]).output()?;
    let ended = Ended::from(output);
    succeeded(&ended)?;
    Ok(ended.out.trim().to_owned())
}

fn algorithms(daemons: &Daemons) -> TestResult {
    let target = Target::new(daemons, Kind::RealFile, Via::Http)?;
    let image = upload(&target)?;
    for algorithm in blkhash::Algorithm::all().map(blkhash::Algorithm::name) {
        let options = ["--algorithm", algorithm, "--block-size=3M", "--compare", &image];
        let same = checksum(target.dir(), &target.parameters(), &options);
        succeeded(&same)?;
        let expected = of_imageio(&image, algorithm, 3 << 20)?;
        assert_eq!(sums(&same), [&*expected, &*expected], "{algorithm}");
    }
    Ok(())
}

fn sizes(daemons: &Daemons) -> TestResult {
    let dir = tempfile::tempdir()?;
    // The real daemon reads files by whole blocks of their storage.
    for size in [4096, (1 << 20) - 4096, (4 << 20) + 4096, (9 << 20) + 8192] {
        let disk = file(dir.path(), "disk", size)?;
        size_is_right(dir.path(), &add_ticket(daemons, &disk, size as u64)?, &disk, size)?;
    }
    for size in [1, 511, (4 << 20) - 1, (4 << 20) + 513] {
        let disk = file(dir.path(), "disk", size)?;
        let server = FakeServer::builder().contents(fs::read(&disk)?).start()?;
        size_is_right(dir.path(), &format!("url={}", server.url()), &disk, size)?;
    }
    Ok(())
}

/// Makes a file of noise.
fn file(dir: &Path, name: &str, size: usize) -> TestResult<String> {
    let path = dir.join(name);
    fs::write(&path, noise(size, 3))?;
    Ok(path.display().to_string())
}

/// An equal disk has the same checksum, and one that has a byte more is not asked for its checksum.
fn size_is_right(dir: &Path, url: &str, disk: &str, size: usize) -> TestResult {
    let parameters = [url.to_owned()];
    let same = checksum(dir, &parameters, &["--compare", disk]);
    succeeded(&same)?;
    assert_eq!(sums(&same), [of_imageio(disk, "blake2b", 4 << 20)?.as_str(); 2]);
    let other = file(dir, "other", size + 1)?;
    let differs = checksum(dir, &parameters, &["--compare", &other]);
    assert_eq!((differs.code, differs.out.as_str()), (1, ""));
    let expected =
        format!("imageio-nbd: error: the server's disk has {size} bytes, and {other} has {}\n", size + 1);
    assert_eq!(differs.err, expected);
    Ok(())
}

/// The parameter that leads to a disk in the daemon.
fn add_ticket(daemons: &Daemons, disk: &str, size: u64) -> TestResult<String> {
    let uuid = daemons.new_uuid();
    let url = format!("file://{disk}");
    let ticket =
        Ticket { uuid: uuid.clone(), size, url, writable: false, dirty: false, inactivity_timeout: None };
    let url = daemons.with_daemon(false, |daemon| {
        daemon.add_ticket(&ticket)?;
        Ok(daemon.url(&uuid))
    })?;
    Ok(format!("url={url}"))
}

fn convert(from: &str, to: &Path, format: &str) -> TestResult {
    let mut convert = Command::new(QEMU_IMG.path());
    convert.args(["convert", "-f", "raw", "-O", format, from]).arg(to);
    succeeded(&convert.output()?.into())
}

fn by_nbd(daemons: &Daemons) -> TestResult {
    let target = Target::new(daemons, Kind::RealNbd("qcow2"), Via::Http)?;
    let (image, parameters) = (upload(&target)?, target.parameters());
    let (qcow2, socket) = (target.dir().join("local.qcow2"), target.dir().join("local.sock"));
    convert(&image, &qcow2, "qcow2")?;
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let served = QemuNbd::start(&qcow2, "qcow2", socket)?;
    let same = checksum(target.dir(), &parameters, &["--compare", &uri]);
    succeeded(&same)?;
    assert_eq!((sums(&same).len(), sums(&same)[0]), (2, sums(&same)[1]), "{same:?}");
    assert!(same.out.ends_with(&format!("  {uri}\n")), "{same:?}");
    served.stop()?;
    // The file's own bytes are another disk.
    let qcow2 = qcow2.display().to_string();
    let differs = checksum(target.dir(), &parameters, &["--compare", &qcow2]);
    assert_eq!(differs.code, 1, "{differs:?}");
    assert!(differs.err.contains("looks like a qcow2 image, and its own bytes are compared"), "{differs:?}");
    assert_eq!(differs.err.lines().count(), 1, "{differs:?}");
    Ok(())
}
