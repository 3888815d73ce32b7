// SPDX-License-Identifier: MIT OR Apache-2.0
//! Incremental backups: clients learn what is dirty, read that and nothing else, and restore the
//! disk from it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

#[path = "support/backup/chain.rs"]
mod chain;
#[path = "support/backup/clients.rs"]
mod clients;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use fake_imageio::{FakeServer, Op};
use libtest_mimic::Arguments;
use support::TestResult;
use support::door::{Door, Served};
use support::image::{SIZE, noise, same};
use support::process::PATIENCE;
use support::run::imageio_nbd;
use support::tools::{IMAGEIO, NBDCOPY, NBDINFO, NBDKIT, NBDSH, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool, trial};

use chain::{Access, Chain};
use clients::{Extent, copy_dirty, nbdinfo_contexts, nbdinfo_map, qemu_map, run};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

/// The real daemon with an image.
const REAL: &[Tool] = &[IMAGEIO, QEMU_NBD, QEMU_IMG, QEMU_IO];

type Test = (&'static str, &'static [Tool], fn() -> TestResult);

const TESTS: &[Test] = &[
    ("generations_of_increments_restore_the_disk", &[NBDCOPY, NBDINFO, NBDSH], generations),
    ("qemu_img_copies_what_is_dirty_onto_the_last_backup", &[NBDINFO], increments_by_qemu_img),
    ("a_write_during_the_backup_is_in_it", &[NBDCOPY, NBDSH], write_during_the_backup),
    ("clients_see_the_bitmap_of_a_real_image", &[NBDINFO], real_bitmap),
    ("a_fine_bitmap_of_a_real_image", &[NBDINFO], fine_bitmap),
];

const FAKE_TESTS: &[Test] = &[
    ("clients_see_what_is_dirty", &[NBDINFO, QEMU_IMG], maps),
    ("a_ticket_without_dirty_extents_offers_none", &[NBDINFO], no_dirty_extents),
    ("a_million_extents_restore_the_disk", &[NBDSH], million_extents),
    ("nbdkit_carries_no_dirty_extents_and_asks_for_none", &[NBDINFO, NBDKIT], nbdkit_has_none),
];

fn main() -> ExitCode {
    let test = |(name, tools, run): &Test, more: &[Tool]| {
        let run = *run;
        trial(*name, &[more, *tools].concat(), move || run().map_err(|error| error.to_string().into()))
    };
    let mut trials: Vec<_> = TESTS.iter().map(|spec| test(spec, REAL)).collect();
    trials.extend(FAKE_TESTS.iter().map(|spec| test(spec, &[])));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Checks that only dirty ranges were read, and each byte of them once, unless it is zero.
fn assert_read(reads: &[(u64, u64)], dirty: &[Extent]) -> TestResult {
    let mut read: Vec<_> = reads.iter().map(|(start, length)| (*start, start + length)).collect();
    read.sort_unstable();
    if read.windows(2).any(|two| two[0].1 > two[1].0) {
        return Err(format!("something was read twice: {read:?}").into());
    }
    let is_dirty = |(start, end): &(u64, u64)| {
        dirty.iter().any(|(at, length, is_dirty)| *is_dirty && at <= start && *end <= at + length)
    };
    match read.iter().find(|range| !is_dirty(range)) {
        Some(range) => Err(format!("{range:?} was read, and is not dirty: {dirty:?}").into()),
        None => Ok(()),
    }
}

fn sum(extents: &[Extent]) -> u64 {
    extents.iter().filter(|extent| extent.2).map(|extent| extent.1).sum()
}

/// Copies the whole disk, as the first backup of a chain.
fn full_backup(chain: &mut Chain) -> TestResult<String> {
    let copy = chain.path("copy.img").display().to_string();
    let transfer = chain.open(Access::Read, None)?;
    chain.run(NBDCOPY, &[&transfer.served.uri(), &copy])?;
    chain.close(transfer)?;
    chain.assert_restored("copy.img")?;
    Ok(copy)
}

fn write(offset: u64, length: u64, pattern: u8) -> String {
    format!("write -P {pattern} {offset} {length}")
}

fn zero(offset: u64, length: u64) -> String {
    format!("write -z {offset} {length}")
}

fn generations() -> TestResult {
    let mut chain = Chain::new()?;
    chain.add_bitmap("gen0", "64K")?;
    let copy = full_backup(&mut chain)?;
    for generation in 1..=3_u8 {
        let place = u64::from(generation) * 5 * MIB;
        chain.guest_does([
            write(place, 3 * 64 * KIB, generation),
            zero(place + MIB, MIB),
            write(place - 7, 9, 9),
        ])?;
        // The client, through us: an upload into the same image.
        let upload = chain.open(Access::Write, None)?;
        let script = format!(
            "h.connect_uri({:?})\nh.pwrite(b'{generation}' * 100000, {})\nh.zero(65536, {})\nh.flush()\nh.shutdown()",
            upload.served.uri(),
            place + 3 * MIB,
            place + 2 * MIB
        );
        chain.run(NBDSH, &["-c", &script])?;
        chain.close(upload)?;

        let (last, this) = (format!("gen{}", generation - 1), format!("gen{generation}"));
        // The next generation begins at this bitmap.
        chain.add_bitmap(&this, "64K")?;
        let backup = chain.open(Access::Read, Some(&last))?;
        let dirty = nbdinfo_map(&chain.path(""), &backup.served.uri(), "imageio:dirty")?;
        copy_dirty(&chain.path(""), &backup.served.uri(), &copy)?;
        let reads = chain.close(backup)?;
        assert_read(&reads, &dirty)?;
        let (read, dirty) = (reads.iter().map(|read| read.1).sum::<u64>(), sum(&dirty));
        if read == 0 || read >= dirty || dirty > 3 * MIB {
            return Err(format!("{read} bytes were read, and {dirty} are dirty").into());
        }
        chain.assert_restored("copy.img")?;
    }
    Ok(())
}

/// Clean ranges are told as holes, so that one call of qemu-img makes an increment. What was data
/// and is zero now hides the data of the backup below.
fn increments_by_qemu_img() -> TestResult {
    let mut chain = Chain::new()?;
    chain.add_bitmap("gen0", "64K")?;
    let full = chain.open(Access::Read, None)?;
    chain.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &full.served.uri(), "gen0.qcow2"])?;
    chain.close(full)?;
    for generation in 1..=3_u8 {
        let (last, this) = (format!("gen{}", generation - 1), format!("gen{generation}"));
        let place = u64::from(generation) * 4 * MIB;
        let changes =
            [write(place + MIB, 200 * KIB, generation), zero(place - 2 * MIB, MIB), write(place - 7, 9, 9)];
        chain.guest_does(changes)?;
        chain.add_bitmap(&this, "64K")?;
        let backup = chain.open_with(Access::Read, Some(&last), &["clean-as-holes=true"])?;
        let uri = backup.served.uri();
        let (below, increment) = (format!("{last}.qcow2"), format!("{this}.qcow2"));
        let options = ["-W", "-m", "8", "-f", "raw", "-O", "qcow2", "-F", "qcow2", "-B", &below];
        chain.qemu_img(&[&["convert"], &options[..], &[&uri, &increment]].concat())?;
        let dirty = nbdinfo_map(&chain.path(""), &uri, "imageio:dirty")?;
        let reads = chain.close(backup)?;
        assert_read(&reads, &dirty)?;
        let read = reads.iter().map(|read| read.1).sum::<u64>();
        if read == 0 || read > 600 * KIB {
            return Err(format!("{read} bytes were read of {dirty:?}").into());
        }
        chain.qemu_img(&["convert", "-f", "qcow2", "-O", "raw", &increment, "copy.img"])?;
        chain.assert_restored("copy.img")?;
    }
    Ok(())
}

/// The client changes the disk of the very transfer that it saves, after it has asked what is
/// dirty.
fn write_during_the_backup() -> TestResult {
    let mut chain = Chain::new()?;
    chain.add_bitmap("base", "64K")?;
    let copy = full_backup(&mut chain)?;
    chain.guest_does([write(4 * MIB, 64 * KIB, 3)])?;
    let backup = chain.open(Access::Write, Some("base"))?;
    let script = format!(
        "h.add_meta_context('imageio:dirty')\nh.connect_uri({:?})\nh.block_status(4096, 0, lambda *_: 0)\n\
         h.pwrite(b'x' * 5000, {})\nh.zero(200000, {})\nh.shutdown()",
        backup.served.uri(),
        17 * MIB + 5,
        2 * MIB + 3,
    );
    chain.run(NBDSH, &["-c", &script])?;
    let dir = chain.path("");
    let (dirty, _) = copy_dirty(&dir, &backup.served.uri(), &copy)?;
    if dirty != 3 {
        return Err(format!("{dirty} extents are dirty").into());
    }
    chain.close(backup)?;
    chain.assert_restored("copy.img")
}

fn real_bitmap() -> TestResult {
    let mut chain = Chain::new()?;
    chain.add_bitmap("a bitmap", "64K")?;
    chain.guest_does([write(MIB, 64 * KIB, 1), zero(3 * MIB, 128 * KIB)])?;
    let backup = chain.open(Access::Read, Some("a bitmap"))?;
    let (dir, uri) = (chain.path(""), backup.served.uri());
    let expected = [
        (0, MIB, false),
        (MIB, 64 * KIB, true),
        (MIB + 64 * KIB, 2 * MIB - 64 * KIB, false),
        (3 * MIB, 128 * KIB, true),
        (3 * MIB + 128 * KIB, SIZE - 3 * MIB - 128 * KIB, false),
    ];
    for context in ["imageio:dirty", "qemu:dirty-bitmap:a bitmap"] {
        assert_eq!(nbdinfo_map(&dir, &uri, context)?, expected, "{context}");
    }
    assert_eq!(qemu_map(&dir, backup.served.socket(), "a bitmap")?, expected);
    assert!(nbdinfo_contexts(&dir, &uri)?.contains(&"qemu:dirty-bitmap:a bitmap".to_owned()));
    let ended = imageio_nbd(&dir, &["info", "--json", &format!("url={}", chain.url(&backup))])?;
    let info: serde_json::Value = serde_json::from_str(&ended.out)?;
    assert_eq!((&info["size"], &info["read_only"]), (&SIZE.into(), &true.into()), "{info}");
    assert_eq!(info["dirty"]["dirty"], 192 * KIB);
    assert_eq!(info["dirty"]["zero"], 128 * KIB);
    let extents = &info["extents"];
    assert_eq!(extents["data"].as_u64().unwrap() + extents["zero"].as_u64().unwrap(), SIZE);
    assert_eq!(chain.close(backup)?, [], "nothing of it was read");
    Ok(())
}

/// A bitmap of as many extents as are quickly made.
fn fine_bitmap() -> TestResult {
    const STEP: u64 = 2048;
    let mut chain = Chain::new()?;
    chain.add_bitmap("fine", "512")?;
    chain.guest_does((0..SIZE / STEP).map(|n| write(n * STEP, 1, 1)))?;
    let backup = chain.open(Access::Read, Some("fine"))?;
    let dirty = nbdinfo_map(&chain.path(""), &backup.served.uri(), "imageio:dirty")?;
    let expected: Vec<_> =
        (0..SIZE / STEP).flat_map(|n| [(n * STEP, 512, true), (n * STEP + 512, STEP - 512, false)]).collect();
    assert!(dirty == expected, "{} extents, and others than {}", dirty.len(), expected.len());
    chain.close(backup)?;
    Ok(())
}

fn serve(server: &FakeServer, parameters: &[&str]) -> TestResult<(tempfile::TempDir, Served)> {
    let dir = tempfile::tempdir()?;
    let url = format!("url={}", server.url());
    let parameters: Vec<_> =
        ["-r", &url].iter().chain(parameters).map(|&parameter| parameter.to_owned()).collect();
    let served = Door::ImageioNbd.serve(dir.path(), &parameters)?;
    Ok((dir, served))
}

fn finish(server: &FakeServer, served: Served) -> TestResult {
    let (status, said) = served.finish()?;
    assert!(status.success(), "{status}: {said}");
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    Ok(())
}

fn maps() -> TestResult {
    let server = FakeServer::builder()
        .size(8 * MIB)
        .read_only(true)
        .dirty(vec![MIB..2 * MIB, 7 * MIB..8 * MIB])
        .start()?;
    let (dir, served) = serve(&server, &["dirty-bitmap=sda"])?;
    let uri = served.uri();
    run(dir.path(), NBDINFO, &["--map", &uri])?;
    assert_eq!(server.log().of(Op::DirtyExtents).count(), 0, "no client has asked for them");
    let expected = [(0, MIB, false), (MIB, MIB, true), (2 * MIB, 5 * MIB, false), (7 * MIB, MIB, true)];
    for context in ["imageio:dirty", "qemu:dirty-bitmap:sda"] {
        assert_eq!(nbdinfo_map(dir.path(), &uri, context)?, expected, "{context}");
    }
    assert_eq!(qemu_map(dir.path(), served.socket(), "sda")?, expected);
    let error = qemu_map(dir.path(), served.socket(), "sdb").unwrap_err().to_string();
    assert!(error.contains("x-dirty-bitmap"), "another bitmap is not this one: {error}");
    let all = ["base:allocation", "qemu:allocation-depth", "imageio:dirty", "qemu:dirty-bitmap:sda"];
    assert_eq!(nbdinfo_contexts(dir.path(), &uri)?, all);
    finish(&server, served)?;
    let log = server.log();
    assert_eq!((log.of(Op::DirtyExtents).count(), log.of(Op::Extents).count()), (1, 1));
    assert_eq!(log.of(Op::Get).filter(|get| get.size > 1).count(), 0);
    Ok(())
}

fn no_dirty_extents() -> TestResult {
    let server = FakeServer::builder().size(8 * MIB).read_only(true).start()?;
    let (dir, served) = serve(&server, &[])?;
    let uri = served.uri();
    for _ in 0..2 {
        assert_eq!(nbdinfo_contexts(dir.path(), &uri)?, ["base:allocation", "qemu:allocation-depth"]);
    }
    for context in ["imageio:dirty", "qemu:dirty-bitmap:dirty"] {
        let error = nbdinfo_map(dir.path(), &uri, context).unwrap_err().to_string();
        assert!(error.contains(context), "{error}");
    }
    finish(&server, served)?;
    assert_eq!(server.log().of(Op::DirtyExtents).count(), 1);
    Ok(())
}

/// Every other block is dirty. In some places, two blocks have come to have data since the copy was
/// made, and two have lost theirs: one of each pair is dirty.
fn million_extents() -> TestResult {
    const BLOCK: u64 = 64 << 10;
    const BLOCKS: u64 = 1 << 20;
    const PLACES: u64 = 100;
    let dirty = (0..BLOCKS).step_by(2).map(|block| block * BLOCK..(block + 1) * BLOCK).collect();
    let server = FakeServer::builder().size(BLOCKS * BLOCK).read_only(true).dirty(dirty).start()?;
    let dir = tempfile::tempdir()?;
    let target = dir.path().join("copy.img");
    let copy = File::create_new(&target)?;
    copy.set_len(BLOCKS * BLOCK)?;
    let places: Vec<_> = (0..PLACES).map(|n| n * (BLOCKS / PLACES / 2) * 2 * BLOCK).collect();
    let [new, new_but_clean, gone, gone_but_clean] = [0, 1, 2, 3].map(|block| block * BLOCK);
    for &place in &places {
        let data = noise(BLOCK as usize, place);
        server.write(place + new, &data)?;
        server.write(place + new_but_clean, &data)?;
        copy.write_all_at(&data, place + gone)?;
        copy.write_all_at(&data, place + gone_but_clean)?;
    }
    let (_dir, served) = serve(&server, &[])?;
    let (dirty, _) = copy_dirty(dir.path(), &served.uri(), &target.display().to_string())?;
    finish(&server, served)?;
    assert_eq!(dirty as u64, BLOCKS / 2);
    for &place in &places {
        let (data, zeroes) = (noise(BLOCK as usize, place), vec![0; BLOCK as usize]);
        for (block, expected) in
            [(new, &data), (new_but_clean, &zeroes), (gone, &zeroes), (gone_but_clean, &data)]
        {
            let mut found = vec![1; BLOCK as usize];
            copy.read_exact_at(&mut found, place + block)?;
            same(&format!("block {block} of {place}"), &found, expected)?;
        }
    }
    let log = server.log();
    let read: Vec<_> = log.of(Op::Get).filter(|get| get.size > 1).map(|get| (get.offset, get.size)).collect();
    let expected: Vec<_> = places.iter().map(|place| (place + new, BLOCK)).collect();
    assert_eq!(read, expected, "what is dirty and not zero is read, and nothing else");
    Ok(())
}

fn nbdkit_has_none() -> TestResult {
    let server = FakeServer::builder()
        .size(8 * MIB)
        .read_only(true)
        .dirty(vec![MIB..2 * MIB, 3 * MIB..4 * MIB])
        .start()?;
    let dir = tempfile::tempdir()?;
    let served = Door::Nbdkit.serve(dir.path(), &[format!("url={}", server.url())])?;
    assert_eq!(nbdinfo_contexts(dir.path(), &served.uri())?, ["base:allocation"]);
    finish(&server, served)?;
    assert_eq!(server.log().of(Op::DirtyExtents).count(), 0);
    Ok(())
}
