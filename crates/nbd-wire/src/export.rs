// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client is told about an export.

use bitflags::bitflags;

use crate::consts::*;

/// The longest string in bytes that the protocol allows ('Values').
pub const MAX_STRING: usize = 4096;

bitflags! {
    /// What an export can do ('Transmission flags').
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct TransmissionFlags: u16 {
        /// Always set: the field is valid.
        const HAS_FLAGS = NBD_FLAG_HAS_FLAGS;
        /// Writing is refused.
        const READ_ONLY = NBD_FLAG_READ_ONLY;
        /// FLUSH may be sent.
        const SEND_FLUSH = NBD_FLAG_SEND_FLUSH;
        /// FUA may be set on any command.
        const SEND_FUA = NBD_FLAG_SEND_FUA;
        /// WRITE_ZEROES may be sent.
        const SEND_WRITE_ZEROES = NBD_FLAG_SEND_WRITE_ZEROES;
        /// One client may open several connections.
        const CAN_MULTI_CONN = NBD_FLAG_CAN_MULTI_CONN;
        /// FAST_ZERO may be set on WRITE_ZEROES.
        const SEND_FAST_ZERO = NBD_FLAG_SEND_FAST_ZERO;
    }
}

/// Block size constraints in bytes ('Size constraints').
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeConstraints {
    /// Alignment of every request: a power of two up to 64 KiB.
    pub minimum: u32,
    /// Size that performs best: a power of two, at least 512 and at least `minimum`.
    pub preferred: u32,
    /// Longest payload, at least `preferred`.
    pub maximum: u32,
}

impl SizeConstraints {
    fn is_valid(self) -> bool {
        self.minimum.is_power_of_two()
            && self.minimum <= 1 << 16
            && self.preferred.is_power_of_two()
            && self.preferred >= self.minimum.max(512)
            && self.maximum >= self.preferred
    }
}

impl Default for SizeConstraints {
    /// What a client assumes if it is told nothing: byte access, 4 KiB preferred, 32 MiB at most.
    fn default() -> Self {
        Self { minimum: 1, preferred: 1 << 12, maximum: 1 << 25 }
    }
}

/// An export as the client sees it: constant while it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    name: String,
    description: String,
    size: u64,
    flags: TransmissionFlags,
    block_size: SizeConstraints,
}

/// Why an [`Export`] cannot be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidExport {
    /// The name or the description is longer than [`MAX_STRING`] bytes.
    #[error("the export's name and description may have {MAX_STRING} bytes each at most")]
    TooLong,
    /// The name or the description contains a NUL character.
    #[error("the export's name and description must not contain a NUL character")]
    Nul,
    /// The block sizes break the protocol's rules.
    #[error("{0:?} breaks the protocol's rules for block sizes")]
    SizeConstraints(SizeConstraints),
}

impl Export {
    /// An export of `size` bytes with the canonical name `name`.
    ///
    /// # Errors
    /// [`InvalidExport`] if a string or the block size is not allowed on the wire.
    pub fn new(
        name: impl Into<String>,
        size: u64,
        flags: TransmissionFlags,
        block_size: SizeConstraints,
    ) -> Result<Self, InvalidExport> {
        if !block_size.is_valid() {
            return Err(InvalidExport::SizeConstraints(block_size));
        }
        let name = checked(name.into())?;
        let flags = flags | TransmissionFlags::HAS_FLAGS;
        Ok(Self { name, description: String::new(), size, flags, block_size })
    }

    /// The same export with a text for humans; empty means none.
    ///
    /// # Errors
    /// [`InvalidExport`] if the text is too long or contains NUL.
    pub fn with_description(mut self, description: impl Into<String>) -> Result<Self, InvalidExport> {
        self.description = checked(description.into())?;
        Ok(self)
    }

    /// The canonical name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text for humans, empty if there is none.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the export can do; [`TransmissionFlags::HAS_FLAGS`] is set.
    #[must_use]
    pub fn flags(&self) -> TransmissionFlags {
        self.flags
    }

    /// The block size constraints.
    #[must_use]
    pub fn block_size(&self) -> SizeConstraints {
        self.block_size
    }
}

fn checked(text: String) -> Result<String, InvalidExport> {
    match text {
        text if text.len() > MAX_STRING => Err(InvalidExport::TooLong),
        text if text.contains('\0') => Err(InvalidExport::Nul),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_follow_the_rules() {
        let ok = |minimum, preferred, maximum| SizeConstraints { minimum, preferred, maximum }.is_valid();
        assert!(ok(1, 512, 512) && ok(65536, 65536, u32::MAX) && SizeConstraints::default().is_valid());
        assert!(!ok(0, 512, 512) && !ok(3, 512, 512) && !ok(1 << 17, 1 << 17, 1 << 20));
        assert!(!ok(1, 256, 512) && !ok(1, 513, 1024) && !ok(4096, 512, 4096) && !ok(1, 4096, 512));
    }

    #[test]
    fn strings_are_bounded() {
        let named =
            |name: String| Export::new(name, 0, TransmissionFlags::empty(), SizeConstraints::default());
        assert!(named("x".repeat(4096)).is_ok());
        assert_eq!(named("x".repeat(4097)), Err(InvalidExport::TooLong));
        assert_eq!(named("a\0b".into()), Err(InvalidExport::Nul));
        assert_eq!(named(String::new()).unwrap().with_description("\0"), Err(InvalidExport::Nul));
    }
}
