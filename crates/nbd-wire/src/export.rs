// SPDX-License-Identifier: MIT OR Apache-2.0
//! The description of an export that a client is given.

use bitflags::bitflags;

use crate::consts::*;
use crate::contexts::{Contexts, MAX_CONTEXTS};

/// The longest string in bytes that the protocol allows ('Values').
pub const MAX_STRING: usize = 4096;

bitflags! {
    /// The abilities of an export ('Transmission flags').
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
        /// Seeking is costly.
        const ROTATIONAL = NBD_FLAG_ROTATIONAL;
        /// TRIM may be sent.
        const SEND_TRIM = NBD_FLAG_SEND_TRIM;
        /// WRITE_ZEROES may be sent.
        const SEND_WRITE_ZEROES = NBD_FLAG_SEND_WRITE_ZEROES;
        /// DF may be set on READ. Clients with simple replies are not told.
        const SEND_DF = NBD_FLAG_SEND_DF;
        /// One client may open several connections.
        const CAN_MULTI_CONN = NBD_FLAG_CAN_MULTI_CONN;
        /// CACHE may be sent.
        const SEND_CACHE = NBD_FLAG_SEND_CACHE;
        /// FAST_ZERO may be set on WRITE_ZEROES.
        const SEND_FAST_ZERO = NBD_FLAG_SEND_FAST_ZERO;
        /// BLOCK_STATUS may name some of the selected contexts. Only clients with extended headers
        /// that have selected a context are told.
        const BLOCK_STATUS_PAYLOAD = NBD_FLAG_BLOCK_STATUS_PAYLOAD;
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
    /// The constraints that a client assumes if it is told nothing: byte access, 4 KiB preferred,
    /// 32 MiB at most.
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
    contexts: Vec<String>,
    tentative: Contexts,
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
    /// The name of the metadata context with this index is not one that the protocol allows.
    #[error(
        "metadata context {0} must be called by a namespace, a colon, and the rest, in {MAX_STRING} bytes at most"
    )]
    ContextName(usize),
    /// The metadata context with this index has the name of another one.
    #[error("metadata context {0} has the name of another one")]
    SameContext(usize),
    /// There are more than [`MAX_CONTEXTS`] metadata contexts.
    #[error("an export may offer {MAX_CONTEXTS} metadata contexts at most")]
    TooManyContexts,
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
        Ok(Self {
            name,
            description: String::new(),
            size,
            flags,
            block_size,
            contexts: Vec::new(),
            tentative: Contexts::default(),
        })
    }

    /// Gives the export a text for humans; an empty one means none.
    ///
    /// # Errors
    /// [`InvalidExport`] if the text is too long or contains NUL.
    pub fn with_description(mut self, description: impl Into<String>) -> Result<Self, InvalidExport> {
        self.description = checked(description.into())?;
        Ok(self)
    }

    /// Gives the export metadata contexts, such as `base:allocation` ('Metadata querying').
    ///
    /// # Errors
    /// [`InvalidExport`] if there are too many, or if a name is not allowed or there twice.
    pub fn with_contexts(
        mut self,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, InvalidExport> {
        self.contexts.clear();
        for (index, name) in names.into_iter().enumerate() {
            let name = name.into();
            if index == MAX_CONTEXTS {
                return Err(InvalidExport::TooManyContexts);
            }
            if !is_context_name(&name) {
                return Err(InvalidExport::ContextName(index));
            }
            if self.contexts.contains(&name) {
                return Err(InvalidExport::SameContext(index));
            }
            self.contexts.push(name);
        }
        Ok(self)
    }

    /// Makes the contexts with these indices tentative: the server has to find out whether the
    /// export has them before it answers a client that asks for them. See
    /// [`Progress::LookUp`](crate::Progress::LookUp).
    #[must_use]
    pub fn with_tentative(self, is_tentative: impl Fn(usize) -> bool) -> Self {
        let tentative = Contexts::of(&self.contexts, |_| true).filter(|context| is_tentative(context.index));
        Self { tentative, ..self }
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

    /// The abilities of the export; [`TransmissionFlags::HAS_FLAGS`] is set.
    #[must_use]
    pub fn flags(&self) -> TransmissionFlags {
        self.flags
    }

    /// The block size constraints.
    #[must_use]
    pub fn block_size(&self) -> SizeConstraints {
        self.block_size
    }

    /// The names of the metadata contexts, in the order of their indices.
    #[must_use]
    pub fn contexts(&self) -> &[String] {
        &self.contexts
    }

    /// The contexts that the export may turn out not to have.
    pub(crate) fn tentative(&self) -> Contexts {
        self.tentative
    }
}

/// Names that end in a colon are left to wildcards ('Metadata querying').
fn is_context_name(name: &str) -> bool {
    let is_visible = |c: char| !c.is_whitespace() && !c.is_control();
    let has_namespace = name
        .split_once(':')
        .is_some_and(|(namespace, _)| !namespace.is_empty() && namespace.chars().all(is_visible));
    has_namespace && !name.ends_with(':') && name.len() <= MAX_STRING && !name.contains('\0')
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

    #[test]
    fn the_names_of_contexts_are_checked() {
        let with = |names: &[&str]| {
            let export = Export::new("", 0, TransmissionFlags::empty(), SizeConstraints::default()).unwrap();
            export.with_contexts(names.iter().copied()).map(|export| export.contexts().join(" "))
        };
        assert_eq!(
            with(&["base:allocation", "qemu:dirty-bitmap:x y"]),
            Ok("base:allocation qemu:dirty-bitmap:x y".into())
        );
        let long = format!("base:{}", "x".repeat(4092));
        for name in ["", "base", ":x", "base:", "qemu:dirty-bitmap:", "a b:x", "a\n:x", "x:\0", &long] {
            assert_eq!(with(&["x:y", name]), Err(InvalidExport::ContextName(1)), "{name:?}");
        }
        assert_eq!(with(&["x:y", "x:z", "x:y"]), Err(InvalidExport::SameContext(2)));
    }

    #[test]
    fn the_number_of_contexts_is_bounded() {
        let with = |count: usize| {
            let export = Export::new("", 0, TransmissionFlags::empty(), SizeConstraints::default()).unwrap();
            export.with_contexts((0..count).map(|n| format!("x:{n}"))).map(|export| export.contexts().len())
        };
        assert_eq!(with(64), Ok(64));
        assert_eq!(with(65), Err(InvalidExport::TooManyContexts));
    }
}
