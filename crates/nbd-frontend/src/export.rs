// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device in the terms of NBD.

use block_device_traits::{Errno, QueuedDevice};
use nbd_wire::{
    Command, CommandFlags, ErrorValue, Export, InvalidExport, SizeConstraints, TransmissionFlags,
};

/// The longest payload of one READ or WRITE in bytes, if the device sets no lower maximum.
///
/// Clients are told this maximum, as newer ones of libnbd send no longer payload than the server
/// has told them, and 32 MiB to a server that has told them nothing. It is the most that libnbd
/// ever sends, and that nbdkit takes. What is told makes no client's requests longer by itself:
/// qemu stays within 32 MiB, and nbdcopy goes by the preferred size.
pub const MAX_PAYLOAD: u32 = 64 << 20;

/// The name and the description of a device's export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportInfo {
    /// The name, in 4096 bytes at most; may be empty.
    pub name: String,
    /// A text for humans, in 4096 bytes at most; empty means none.
    pub description: String,
}

impl ExportInfo {
    /// An export with this name, and no description.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), description: String::new() }
    }

    /// The export with this description instead.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Describes `device` as clients are told of it.
    pub(crate) fn describe(&self, device: &impl QueuedDevice) -> Result<Export, InvalidExport> {
        let sizes = device.capabilities().block_size;
        let block_size = SizeConstraints {
            minimum: sizes.minimum,
            preferred: sizes.preferred,
            maximum: sizes.maximum.min(MAX_PAYLOAD),
        };
        let export = Export::new(&self.name, device.size(), flags(device), block_size)?;
        let export = export.with_description(&self.description)?.with_contexts(device.contexts())?;
        Ok(export.with_tentative(|context| device.is_tentative(context)))
    }
}

fn flags(device: &impl QueuedDevice) -> TransmissionFlags {
    let caps = device.capabilities();
    let mut flags = TransmissionFlags::empty();
    flags.set(TransmissionFlags::READ_ONLY, caps.read_only);
    flags.set(TransmissionFlags::SEND_FLUSH, caps.flush);
    flags.set(TransmissionFlags::SEND_FUA, caps.fua);
    flags.set(TransmissionFlags::SEND_TRIM, !caps.read_only && caps.trim);
    flags.set(TransmissionFlags::SEND_WRITE_ZEROES, !caps.read_only);
    flags.set(TransmissionFlags::SEND_FAST_ZERO, !caps.read_only && caps.fast_zero);
    flags.set(TransmissionFlags::CAN_MULTI_CONN, caps.multi_conn);
    // Clients that have not negotiated what these need are not told of them.
    flags |= TransmissionFlags::SEND_DF | TransmissionFlags::BLOCK_STATUS_PAYLOAD;
    flags |= TransmissionFlags::SEND_CACHE;
    flags
}

/// Returns the error that the client is told when the device has failed `command` with `errno`.
pub(crate) fn error_value(errno: Errno, command: Command) -> ErrorValue {
    match errno {
        Errno::Perm => ErrorValue::Perm,
        Errno::Io => ErrorValue::Io,
        Errno::NoMem => ErrorValue::NoMem,
        Errno::NoSpc => ErrorValue::NoSpc,
        Errno::NotSup if is_fast(command) => ErrorValue::NotSup,
        Errno::Shutdown => ErrorValue::Shutdown,
        // The protocol keeps these two for features that were not negotiated.
        Errno::Inval | Errno::Overflow | Errno::NotSup => ErrorValue::Inval,
    }
}

fn is_fast(command: Command) -> bool {
    matches!(command, Command::Zero { flags, .. } if flags.contains(CommandFlags::FAST_ZERO))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use block_device_traits::{BlockDevice, Capabilities, MemoryDevice, Threaded};

    use super::*;

    fn export(change: impl FnOnce(&mut Capabilities)) -> Result<Export, InvalidExport> {
        let disk = MemoryDevice::new(4096);
        let mut capabilities = disk.capabilities();
        change(&mut capabilities);
        let disk = Threaded::start(Arc::new(disk.with_capabilities(capabilities)), 1).unwrap();
        ExportInfo::default().describe(&disk)
    }

    #[test]
    fn flags_follow_the_capabilities() {
        let bits = |change: fn(&mut Capabilities)| export(change).unwrap().flags().bits();
        // Bits 7 and 12 are for clients with chunks and extended headers alone.
        let bits = |change| bits(change) & !(1 << 7 | 1 << 12);
        assert_eq!(bits(|_| ()), 0b1101_0110_1101);
        assert_eq!(bits(|caps| caps.read_only = true), 0b0101_0000_1111);
        assert_eq!(bits(|caps| caps.fast_zero = false), 0b0101_0110_1101);
        assert_eq!(bits(|caps| caps.trim = false), 0b1101_0100_1101);
        assert_eq!(
            bits(|caps| (caps.flush, caps.fua, caps.multi_conn) = (false, false, false)),
            0b1100_0110_0001
        );
    }

    #[test]
    fn the_maximum_is_bounded_and_bad_sizes_are_refused() {
        let huge = export(|caps| caps.block_size.maximum = u32::MAX).unwrap();
        assert_eq!(huge.block_size().maximum, MAX_PAYLOAD);
        assert!(export(|caps| caps.block_size.preferred = 5000).is_err());
    }

    #[test]
    fn errors_are_limited_to_what_was_negotiated() {
        let fast = Command::Zero { offset: 0, length: 1, flags: CommandFlags::FAST_ZERO };
        assert_eq!(error_value(Errno::NotSup, fast), ErrorValue::NotSup);
        assert_eq!(error_value(Errno::NotSup, Command::Flush), ErrorValue::Inval);
        assert_eq!(error_value(Errno::Overflow, fast), ErrorValue::Inval);
        assert_eq!(error_value(Errno::Shutdown, Command::Flush), ErrorValue::Shutdown);
    }
}
