// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checksums of small images, against the definition.

use std::cell::Cell;
use std::io::Write;

use super::*;

const BLOCK: u64 = 4096;

fn blkhash() -> Blkhash {
    Blkhash::new(Algorithm::default(), BLOCK)
}

/// The definition.
fn expected(algorithm: Algorithm, image: &[u8]) -> String {
    let hashes: Vec<u8> = image.chunks(BLOCK as usize).flat_map(|block| algorithm.hash(block)).collect();
    algorithm.hash(&hashes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file_with(image: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    file
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i % 251 + i / 4096) as u8).collect()
}

#[test]
fn images_of_any_length_by_every_algorithm() {
    let images = [0, 1, 4095, 4096, 4097, 3 * 4096, 100_000].map(noise);
    for algorithm in Algorithm::all() {
        let blkhash = Blkhash::new(algorithm, BLOCK);
        for image in &images {
            let expected = expected(algorithm, image);
            assert_eq!(blkhash.of_file(&file_with(image), &|_| {}).unwrap(), expected, "{algorithm:?}");
            let size = image.len() as u64;
            assert_eq!(blkhash.of_stream(&image[..], size, &|_| {}).unwrap(), expected, "{algorithm:?}");
        }
    }
}

/// The expected checksum is that of imageio's own module for 10 MiB, the first of which is of the
/// letter a.
#[test]
fn what_imageio_says() {
    let mut image = vec![0; 10 << 20];
    image[..1 << 20].fill(b'a');
    let blkhash = Blkhash::new(Algorithm::default(), DEFAULT_BLOCK_SIZE);
    let checksum = blkhash.of_file(&file_with(&image), &|_| {}).unwrap();
    assert_eq!(checksum, "c177cbc2c22978f0b0a3f6d39cfa5e386eb033a036ae93542bfd05e64c633d46");
}

#[test]
fn zeroes_are_zeroes_however_they_are_stored() {
    let mut image = vec![0; 64 * BLOCK as usize + 10];
    image[20 * BLOCK as usize..21 * BLOCK as usize + 5].fill(7);
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(image.len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &sparse,
        &image[20 * BLOCK as usize..22 * BLOCK as usize],
        20 * BLOCK,
    )
    .unwrap();
    let expected = expected(Algorithm::default(), &image);
    for file in [file_with(&image), sparse] {
        assert_eq!(blkhash().of_file(&file, &|_| {}).unwrap(), expected);
    }
    assert_eq!(blkhash().of_stream(&image[..], image.len() as u64, &|_| {}).unwrap(), expected);
}

#[test]
fn holes_are_not_read() {
    let sparse = tempfile::tempfile().unwrap();
    // Reading all of it would take minutes.
    sparse.set_len(1 << 40).unwrap();
    let blocks = FileBlocks::new(&sparse, 4 << 20).unwrap();
    assert!(blocks.take(1000).all(|block| matches!(block, Ok(image::Block::Zeroes(_)))));
    let done = Cell::new(0);
    let blkhash = Blkhash::new(Algorithm::default(), 16 << 20);
    blkhash.of_file(&sparse, &|bytes| done.set(bytes)).unwrap();
    assert_eq!(done.get(), 1 << 40);
}

#[test]
fn progress_goes_up_to_the_size() {
    let (last, image) = (Cell::new(0), noise(50_000));
    let progress = |done| {
        assert!(done > last.get());
        last.set(done);
    };
    blkhash().of_file(&file_with(&image), &progress).unwrap();
    assert_eq!(last.get(), 50_000);
}

#[test]
fn a_stream_of_another_size_is_an_error() {
    let image = noise(10_000);
    let of = |size| blkhash().of_stream(&image[..], size, &|_| {});
    assert!(matches!(of(9_999), Err(Error::Longer(9_999))));
    assert!(matches!(of(8_192), Err(Error::Longer(8_192))));
    assert!(matches!(of(10_001), Err(Error::Shorter(10_001))));
    assert!(matches!(of(1 << 40), Err(Error::Shorter(_))));
}

#[test]
fn what_cannot_be_read_is_an_error_and_ends_all_threads() {
    struct Broken(u64);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 > 10 { Err(io::Error::other("worn out")) } else { Ok(buffer.len()) }
        }
    }
    let error = blkhash().of_stream(Broken(0), 1 << 40, &|_| {}).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the image");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "worn out");
}

#[test]
fn a_file_that_has_another_length_in_the_end_is_an_error() {
    let of_blocks = |before: &[u8], after: u64| {
        let file = file_with(before);
        file.set_len(8 * BLOCK).unwrap();
        let mut blocks = image::FileBlocks::new(&file, BLOCK as usize).unwrap();
        assert!(blocks.next().unwrap().is_ok());
        file.set_len(after).unwrap();
        let last = blocks.find_map(Result::err);
        assert!(blocks.next().is_none() || after < 8 * BLOCK);
        last
    };
    let data = noise(2 * BLOCK as usize);
    for image in [&data[..0], &data[..]] {
        assert!(matches!(of_blocks(image, 4 * BLOCK), Some(Error::Shorter(_))), "zeroes behind its end");
        assert!(matches!(of_blocks(image, 9 * BLOCK), Some(Error::Longer(_))));
        assert!(of_blocks(image, 8 * BLOCK).is_none());
    }
}
