// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of `imageio-nbd`, and what it needs to know to connect.

use std::ffi::OsStr;
use std::fs;
use std::ops::Range;

use fake_imageio::FakeServer;
use support::TestResult;
use support::door::Door;
use support::image::guest_disk;
use support::listening::{Server, Via};
use support::pki::Pki;
use support::tools::{NBDSH, Tool};

/// The way in which the client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Unix,
    Tcp,
    /// TCP and TLS, where both sides show a certificate.
    Tls,
}

impl Way {
    /// For the names of tests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// The ranges that differ from the last backup, in bytes.
pub(crate) const DIRTY: [Range<u64>; 2] = [1 << 20..3 << 20, 20 << 20..21 << 20];

/// The server's options; a directory follows.
const TLS: [&str; 3] = ["--tls=require", "--tls-verify-peer", "--tls-certificates"];

/// A client whose server has a guest's disk.
pub(crate) struct Client {
    pub(crate) server: Server,
    pki: Option<Pki>,
}

impl Client {
    pub(crate) fn new(way: Way, options: &[&str]) -> TestResult<Self> {
        let pki = (way == Way::Tls).then(Pki::new).transpose()?;
        let certificates = pki.as_ref().map(Pki::server);
        let mut all: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        all.push("dirty-bitmap=sda".as_ref());
        if let Some(dir) = &certificates {
            all.extend(TLS.iter().map(OsStr::new).chain([dir.as_os_str()]));
        }
        let via = if way == Way::Unix { Via::Unix } else { Via::Tcp };
        let fake = FakeServer::builder().contents(disk()).dirty(DIRTY.to_vec()).start()?;
        let server = Server::start_with(Door::ImageioNbd, via, &all, fake)?;
        Ok(Self { server, pki })
    }

    /// Returns the server's URI.
    pub(crate) fn uri(&self) -> String {
        self.pki.as_ref().map_or_else(|| self.server.plain_uri(), |pki| self.server.uri(&pki.client()))
    }

    /// The directory with the client's certificates.
    pub(crate) fn certificates(&self) -> Option<String> {
        self.pki.as_ref().map(|pki| pki.client().display().to_string())
    }

    /// Returns the object of qemu that `image_options` speak of.
    pub(crate) fn object(&self) -> Vec<String> {
        let credentials = self.pki.iter().map(|pki| self.server.credentials(&pki.client()));
        credentials.flat_map(|credentials| ["--object".to_owned(), credentials]).collect()
    }

    /// For qemu.
    pub(crate) fn image_options(&self) -> String {
        match &self.pki {
            Some(_) => self.server.image_options(),
            None => self.server.plain_image_options(),
        }
    }

    /// Runs a client to its end, within a minute; a hang is a failure. Returns what it printed.
    pub(crate) fn run(&self, tool: Tool, arguments: &[&str]) -> TestResult<String> {
        self.server.client(tool, arguments)
    }

    /// Runs a script of Python with libnbd, for which `uri` is where the server is.
    pub(crate) fn nbdsh(&self, script: &str) -> TestResult<String> {
        let uri = format!("uri = {:?}\nh.set_uri_allow_local_file(True)\n", self.uri());
        self.run(NBDSH, &["-c", &(uri + script)])
    }

    /// A file with the guest's disk.
    pub(crate) fn image(&self) -> TestResult<String> {
        let path = self.server.path("guest.img");
        fs::write(&path, disk())?;
        Ok(path)
    }

    /// Ends the server in good order; the disk, and what it has said.
    pub(crate) fn finish(self) -> TestResult<(Vec<u8>, String)> {
        self.server.finish()
    }
}

/// Returns the content of the disk in the beginning.
pub(crate) fn disk() -> Vec<u8> {
    guest_disk(11)
}

/// An extent: its first byte, its length, and whether it reads as zeroes.
pub(crate) type Extent = (u64, u64, bool);

/// Checks that all of the disk is told of in turn, that what is told to be zero is, and that a long
/// zero is told.
pub(crate) fn check_map(extents: &[Extent], disk: &[u8]) -> TestResult {
    let mut is_told_zero = vec![false; disk.len()];
    let mut end = 0;
    for &(start, length, is_zero) in extents {
        if start != end || start + length > disk.len() as u64 {
            return Err(format!("{start}+{length} follows {end}: {extents:?}").into());
        }
        end = start + length;
        is_told_zero[start as usize..end as usize].fill(is_zero);
    }
    if end != disk.len() as u64 {
        return Err(format!("it ends at {end}: {extents:?}").into());
    }
    let lie = is_told_zero.iter().zip(disk).position(|(&is_told, &byte)| is_told && byte != 0);
    let is_missed = |(told, block): (&[bool], &[u8])| told.contains(&false) && block.iter().all(|&b| b == 0);
    let missed = is_told_zero.chunks(1 << 18).zip(disk.chunks(1 << 18)).position(is_missed);
    match (lie, missed) {
        (None, None) => Ok(()),
        _ => Err(format!("not zero at {lie:?}, or zero in block {missed:?}: {extents:?}").into()),
    }
}
