// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hash functions, by the names that Python's `hashlib` has for them and imageio takes over.

use std::fmt;

use blake2::{Blake2b256, Blake2s256};
use digest::DynDigest;
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};

/// A hash function.
#[derive(Clone, Copy)]
pub struct Algorithm {
    name: &'static str,
    hasher: fn() -> Box<dyn DynDigest>,
}

/// All that imageio's daemon can compute. It lists more, and answers for those with an error.
const ALGORITHMS: &[Algorithm] = &[
    // imageio uses the first 256 bits of BLAKE2, whichever it is.
    of::<Blake2b256>("blake2b"),
    of::<Blake2s256>("blake2s"),
    of::<Md5>("md5"),
    of::<Sha1>("sha1"),
    of::<Sha224>("sha224"),
    of::<Sha256>("sha256"),
    of::<Sha384>("sha384"),
    of::<Sha512>("sha512"),
    of::<Sha3_224>("sha3_224"),
    of::<Sha3_256>("sha3_256"),
    of::<Sha3_384>("sha3_384"),
    of::<Sha3_512>("sha3_512"),
];

const fn of<D: DynDigest + Default + 'static>(name: &'static str) -> Algorithm {
    Algorithm { name, hasher: || Box::new(D::default()) }
}

impl Algorithm {
    /// Lists all algorithms.
    pub fn all() -> impl Iterator<Item = Self> {
        ALGORITHMS.iter().copied()
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|algorithm| algorithm.name == name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    pub(crate) fn hasher(self) -> Box<dyn DynDigest> {
        (self.hasher)()
    }

    pub(crate) fn hash(self, data: &[u8]) -> Box<[u8]> {
        let mut hasher = self.hasher();
        hasher.update(data);
        hasher.finalize()
    }
}

impl Default for Algorithm {
    /// imageio's: blake2b.
    fn default() -> Self {
        ALGORITHMS[0]
    }
}

impl fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
