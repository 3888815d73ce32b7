// SPDX-License-Identifier: MIT OR Apache-2.0
//! On what was measured, and with what.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde::Serialize;
use support::tools::{FIO, IMAGEIO, NBDCOPY, NBDKIT, QEMU_IMG};

/// The machine and the versions.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    pub(crate) versions: BTreeMap<&'static str, String>,
}

impl Facts {
    pub(crate) fn collect() -> Self {
        let mut versions = BTreeMap::from([("imageio-nbd", env!("CARGO_PKG_VERSION").to_owned())]);
        for tool in [NBDCOPY, NBDKIT, QEMU_IMG, FIO] {
            let output = tool.find().and_then(|program| Command::new(program).arg("--version").output().ok());
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            versions.insert(tool.name, text.as_deref().map_or("not found", version).to_owned());
        }
        versions.insert(IMAGEIO.name, imageio_version().unwrap_or_else(|| "not found".into()));
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor().unwrap_or_else(|| std::env::consts::ARCH.into()),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            versions,
        }
    }

    /// In two sentences.
    pub(crate) fn text(&self) -> String {
        let versions: Vec<_> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        format!("{} cores of {}, Linux {}. {}.", self.cores, self.processor, self.kernel, versions.join(", "))
    }
}

/// The word with digits and dots in the first line that a program prints of itself.
fn version(text: &str) -> &str {
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let word = words.find(|word| word.contains('.') && word.contains(|c: char| c.is_ascii_digit()));
    // fio's has its name in front.
    word.unwrap_or(text).trim().trim_start_matches("fio-")
}

fn imageio_version() -> Option<String> {
    let python = IMAGEIO.find()?.with_file_name("python");
    let script = "from importlib.metadata import version; print(version('ovirt-imageio'))";
    let output = Command::new(python).args(["-c", script]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn processor() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches(['\t', ' ', ':']).to_owned())
}
