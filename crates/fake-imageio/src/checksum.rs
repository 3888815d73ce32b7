// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answers to `GET …/checksum`: a hash over the hashes of the disk's blocks.

use std::io;

use digest::DynDigest;
use serde_json::json;

use crate::answer::Refusal;
use crate::backend::Disk;
use crate::request::{choice, query};

/// In bytes; the real server takes a quarter to four times of it.
const DEFAULT_BLOCK_SIZE: u64 = 4 << 20;

const BLOCK_SIZES: std::ops::RangeInclusive<u64> = DEFAULT_BLOCK_SIZE / 4..=DEFAULT_BLOCK_SIZE * 4;

/// The first one is the default. The real server lists what its Python has, some of which it can't
/// compute.
const ALGORITHMS: [&str; 12] = [
    "blake2b", "blake2s", "md5", "sha1", "sha224", "sha256", "sha384", "sha3_224", "sha3_256", "sha3_384",
    "sha3_512", "sha512",
];

fn hasher(algorithm: &str) -> Box<dyn DynDigest> {
    match algorithm {
        "blake2s" => Box::new(blake2::Blake2s256::default()),
        "md5" => Box::new(md5::Md5::default()),
        "sha1" => Box::new(sha1::Sha1::default()),
        "sha224" => Box::new(sha2::Sha224::default()),
        "sha256" => Box::new(sha2::Sha256::default()),
        "sha384" => Box::new(sha2::Sha384::default()),
        "sha512" => Box::new(sha2::Sha512::default()),
        "sha3_224" => Box::new(sha3::Sha3_224::default()),
        "sha3_256" => Box::new(sha3::Sha3_256::default()),
        "sha3_384" => Box::new(sha3::Sha3_384::default()),
        "sha3_512" => Box::new(sha3::Sha3_512::default()),
        _ => Box::new(blake2::Blake2b256::default()),
    }
}

/// The checksum that a request asks for.
pub(crate) struct Asked<'a> {
    algorithm: &'a str,
    /// In bytes.
    block_size: u64,
}

impl<'a> Asked<'a> {
    /// From the query of a request.
    pub(crate) fn parse(text: Option<&'a str>) -> Result<Self, Refusal> {
        let refuse = |text: String| Refusal::new(400, text);
        let algorithm = choice(query(text, "algorithm"), "algorithm", &ALGORITHMS)?;
        let block_size = match query(text, "block_size") {
            None => DEFAULT_BLOCK_SIZE,
            Some(size) => size.parse().map_err(|_| refuse(format!("Invalid block size: '{size}'")))?,
        };
        if !BLOCK_SIZES.contains(&block_size) {
            let (least, most) = (BLOCK_SIZES.start(), BLOCK_SIZES.end());
            return Err(refuse(format!("Block size out of allowed range: {least}-{most}")));
        }
        if block_size % 4096 != 0 {
            return Err(refuse("Block size is not aligned to 4096".to_owned()));
        }
        Ok(Self { algorithm, block_size })
    }

    /// The JSON of the answer.
    pub(crate) fn compute(&self, disk: &Disk) -> io::Result<String> {
        let hash = |data: &[u8]| {
            let mut hasher = hasher(self.algorithm);
            hasher.update(data);
            hasher.finalize()
        };
        let mut outer = hasher(self.algorithm);
        let mut at = 0;
        while at < disk.size() {
            // No more than a block, which fits into memory.
            let mut block = vec![0; self.block_size.min(disk.size() - at) as usize];
            disk.read(at, &mut block)?;
            outer.update(&hash(&block));
            at += block.len() as u64;
        }
        let checksum: String = outer.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let answer =
            json!({ "algorithm": self.algorithm, "block_size": self.block_size, "checksum": checksum });
        Ok(answer.to_string())
    }
}

/// The JSON of the list.
pub(crate) fn algorithms() -> String {
    json!({ "algorithms": ALGORITHMS }).to_string()
}
