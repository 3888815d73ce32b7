// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exports of a server, and the device behind each.

use std::sync::Arc;

use block_device_traits::QueuedDevice;
use nbd_wire::Export;

use crate::stats::ExportCounters;
use crate::{Error, ExportInfo};

/// The longest answer to LIST in bytes. Each client may have one in memory, and nothing keeps it
/// from asking for all.
const MAX_LIST: usize = 1 << 20;

/// The bytes of an export in a list, besides its strings: the head of a reply, and the length of
/// the name ('Option reply types').
const LIST_ENTRY: usize = 20 + 4;

/// Exports of different names. The first is the default one.
#[derive(Debug)]
pub(crate) struct Exports<D> {
    exports: Vec<Export>,
    /// In the same order.
    devices: Vec<Arc<D>>,
    /// In the same order.
    counters: Vec<Arc<ExportCounters>>,
}

impl<D: QueuedDevice> Exports<D> {
    pub(crate) fn new() -> Self {
        Self { exports: Vec::new(), devices: Vec::new(), counters: Vec::new() }
    }

    pub(crate) fn add(&mut self, device: Arc<D>, info: &ExportInfo) -> Result<(), Error> {
        let export = info.describe(&*device)?;
        if self.exports.iter().any(|other| other.name() == export.name()) {
            return Err(Error::NameTaken(info.name.clone()));
        }
        if self.exports.iter().chain([&export]).map(list_entry).sum::<usize>() > MAX_LIST {
            return Err(Error::ListTooLong);
        }
        self.exports.push(export);
        self.devices.push(device);
        self.counters.push(Arc::default());
        Ok(())
    }

    /// Returns the exports that clients are told of.
    pub(crate) fn as_slice(&self) -> &[Export] {
        &self.exports
    }

    /// The device behind one of [these](Self::as_slice).
    pub(crate) fn device(&self, export: &Export) -> &D {
        &self.devices[self.index(export)]
    }

    /// Returns the counters of the export's clients.
    pub(crate) fn counters(&self, export: &Export) -> &Arc<ExportCounters> {
        &self.counters[self.index(export)]
    }

    /// Returns the counters of all exports.
    pub(crate) fn all_counters(&self) -> &[Arc<ExportCounters>] {
        &self.counters
    }

    fn index(&self, export: &Export) -> usize {
        let index = self.exports.iter().position(|known| std::ptr::eq(known, export));
        index.expect("clients choose among these")
    }

    /// Tells all devices that the server stops.
    pub(crate) fn stopping(&self) {
        self.devices.iter().for_each(|device| device.stopping());
    }
}

fn list_entry(export: &Export) -> usize {
    LIST_ENTRY + export.name().len() + export.description().len()
}

#[cfg(test)]
mod tests {
    use block_device_traits::{MemoryDevice, Threaded};

    use super::*;

    fn disk() -> Arc<Threaded<MemoryDevice>> {
        Arc::new(Threaded::start(Arc::new(MemoryDevice::new(512)), 1).unwrap())
    }

    fn named(name: &str) -> ExportInfo {
        ExportInfo::new(name)
    }

    #[test]
    fn a_name_is_taken_once() {
        let (mut exports, disk) = (Exports::new(), disk());
        for name in ["", "a", "A"] {
            exports.add(Arc::clone(&disk), &named(name)).unwrap();
        }
        for name in ["", "a"] {
            let error = exports.add(Arc::clone(&disk), &named(name)).unwrap_err();
            assert!(matches!(error, Error::NameTaken(taken) if taken == name));
        }
        let error = exports.add(disk, &named("a\0b")).unwrap_err();
        assert!(matches!(error, Error::Export(_)));
        let names: Vec<_> = exports.as_slice().iter().map(Export::name).collect();
        assert_eq!(names, ["", "a", "A"], "what was refused is not there");
    }

    #[test]
    fn each_export_has_the_device_that_was_given_with_it() {
        let (mut exports, disks) = (Exports::new(), [disk(), disk(), disk()]);
        for (disk, name) in disks.iter().zip(["a", "b", "c"]) {
            exports.add(Arc::clone(disk), &named(name)).unwrap();
        }
        for (export, disk) in exports.as_slice().iter().zip(&disks) {
            assert!(std::ptr::eq(exports.device(export), &**disk), "{}", export.name());
        }
    }

    #[test]
    fn the_answer_to_list_is_bounded() {
        let (mut exports, disk) = (Exports::new(), disk());
        let long = |n: usize| named(&format!("{n:04076}"));
        for n in 0..MAX_LIST / 4100 {
            exports.add(Arc::clone(&disk), &long(n)).unwrap();
        }
        let error = exports.add(Arc::clone(&disk), &long(9999)).unwrap_err();
        assert!(matches!(error, Error::ListTooLong), "{error}");
        exports.add(disk, &named("short")).unwrap();
    }
}
