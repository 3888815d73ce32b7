// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading content and extents.

use blkhash::{Algorithm, Blkhash};
use serde_json::json as to_json;

use super::{assert_done, assert_open, assert_refused, data, json};
use crate::setup::{CaseResult, SIZE, Setup};

pub(super) fn get_a_range(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", 4096, &data(10_000))?);
    for (offset, len) in [(4096, 10_000), (4097, 1), (5000, 5000), (SIZE - 1, 1)] {
        let answer = connection.read(offset, len)?;
        assert_eq!(answer.status, 206);
        let range = format!("bytes {offset}-{}/{SIZE}", offset + len - 1);
        assert_eq!(answer.header("content-range"), Some(range.as_str()));
        assert_eq!(answer.header("content-length"), Some(len.to_string().as_str()));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let expected = if offset < SIZE - 1 {
            data(10_000)[offset as usize - 4096..][..len as usize].to_vec()
        } else {
            vec![0]
        };
        assert_eq!(answer.body, expected);
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

pub(super) fn get_an_open_range(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let answer = connection.get("", Some(&format!("bytes={}-", SIZE - 100)))?;
    assert_eq!((answer.status, answer.body.len()), (206, 100));
    // Nothing is left at the very end; further on it is an error of another kind than a closed
    // range's.
    let at_end = connection.get("", Some(&format!("bytes={SIZE}-")))?;
    assert_eq!((at_end.status, at_end.body.len()), (206, 0));
    let past_end = connection.get("", Some(&format!("bytes={}-", SIZE + 5)))?;
    assert_refused(&past_end, 400, "Requested -5 bytes, available 0 bytes");
    assert_open(&mut connection, &past_end);
    Ok(())
}

pub(super) fn get_the_whole(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", SIZE - 100, &data(100))?);
    let answer = connection.get("", None)?;
    assert_eq!((answer.status, answer.header("content-range")), (200, None));
    let (zeroes, written) = answer.body.split_at(SIZE as usize - 100);
    assert!(zeroes.iter().all(|byte| *byte == 0));
    assert_eq!(written, data(100));
    Ok(())
}

pub(super) fn get_past_the_end(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for (offset, len) in [(0, SIZE + 1), (SIZE - 1, 2), (SIZE, 1), (SIZE + 4096, 512)] {
        let answer = connection.read(offset, len)?;
        assert_refused(&answer, 416, "out of allowed range");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{SIZE}").as_str()));
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

pub(super) fn get_odd_ranges(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let odd = [
        ("bytes=-100", "not supported"),
        ("bytes=0-9,20-29", "multiple ranges"),
        ("bytes=9-0", "first > last"),
        ("bytes=-", "no first or last"),
        ("blocks=0-1", "invalid range"),
    ];
    for (range, says) in odd {
        let answer = connection.get("", Some(range))?;
        assert_refused(&answer, 416, says);
        // No size here: it is refused before the ticket is looked at.
        assert_eq!(answer.header("content-range"), None);
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

pub(super) fn extents_cover_the_disk(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", 1 << 20, &data(1 << 20))?);
    for query in ["/extents", "/extents?context=zero"] {
        let answer = connection.get(query, None)?;
        let mut end = 0;
        for extent in json(&answer).as_array().expect("an array") {
            let (start, length) = (extent["start"].as_u64(), extent["length"].as_u64().expect("a number"));
            assert_eq!(start, Some(end), "a gap or an overlap");
            assert!(length > 0 && extent["hole"].is_boolean());
            let has_data = end < 2 << 20 && end + length > 1 << 20;
            assert!(
                !(has_data && extent["zero"].as_bool().expect("a boolean")),
                "data called zero: {extent}"
            );
            end += length;
        }
        assert_eq!(end, SIZE);
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

pub(super) fn dirty_extents_are_not_there(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let answer = connection.get("/extents?context=dirty", None)?;
    assert_refused(&answer, 404, "does not support dirty extents");
    assert_open(&mut connection, &answer);
    let answer = connection.get("/extents?context=hole", None)?;
    assert_refused(&answer, 400, "context");
    assert_open(&mut connection, &answer);
    Ok(())
}

pub(super) fn dirty_extents_are_those_of_the_bitmap(setup: &mut Setup<'_>) -> CaseResult {
    const BLOCK: u64 = 64 << 10;
    let mut connection = setup.connect()?;
    // Whole blocks, as the servers tell of zeroes by different ones.
    assert_done(&connection.put("", 2 * BLOCK, &data(BLOCK as usize))?);
    assert_done(&connection.put("", 3 * BLOCK, &data(BLOCK as usize))?);
    assert_done(&connection.patch(&format!(r#"{{"op":"zero","offset":{},"size":{BLOCK}}}"#, 4 * BLOCK))?);
    let answer = connection.get("/extents?context=dirty", None)?;
    if !setup.server.knows_what_is_dirty() {
        assert_refused(&answer, 404, "does not support dirty extents");
        assert_open(&mut connection, &answer);
        return Ok(());
    }
    let extent = |start, length, dirty, zero| serde_json::json!({"start": start, "length": length, "dirty": dirty, "zero": zero});
    let expected = [
        extent(0, 2 * BLOCK, false, true),
        extent(2 * BLOCK, 2 * BLOCK, true, false),
        extent(4 * BLOCK, BLOCK, true, true),
        extent(5 * BLOCK, SIZE - 5 * BLOCK, false, true),
    ];
    assert_eq!(json(&answer), serde_json::json!(expected));
    assert_open(&mut connection, &answer);
    Ok(())
}

pub(super) fn checksum_of_each_algorithm(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", 1 << 20, &data(100_000))?);
    let mut disk = vec![0; SIZE as usize];
    disk[1 << 20..(1 << 20) + 100_000].copy_from_slice(&data(100_000));
    let listed = json(&connection.get("/checksum/algorithms", None)?);
    for algorithm in Algorithm::all() {
        let name = algorithm.name();
        assert!(listed["algorithms"].as_array().expect("an array").contains(&name.into()), "{name}");
        for block_size in [1 << 20, (1 << 20) + 4096, 16 << 20] {
            let query = format!("/checksum?algorithm={name}&block_size={block_size}");
            let answer = connection.get(&query, None)?;
            let checksum = Blkhash::new(algorithm, block_size).of_stream(&disk[..], SIZE, &|_| {})?;
            let expected = to_json!({ "algorithm": name, "block_size": block_size, "checksum": checksum });
            assert_eq!(json(&answer), expected);
            assert_open(&mut connection, &answer);
        }
    }
    let defaults = json(&connection.get("/checksum", None)?);
    assert_eq!((&defaults["algorithm"], &defaults["block_size"]), (&"blake2b".into(), &(4 << 20).into()));
    Ok(())
}

pub(super) fn checksums_that_cannot_be(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for (query, says) in [
        ("algorithm=crc32", "Unsupported value 'crc32' for 'algorithm'"),
        ("block_size=big", "Invalid block size: 'big'"),
        ("block_size=4096", "Block size out of allowed range: 1048576-16777216"),
        ("block_size=16781312", "Block size out of allowed range: 1048576-16777216"),
        ("block_size=1048577", "Block size is not aligned to 4096"),
    ] {
        let answer = connection.get(&format!("/checksum?{query}"), None)?;
        assert_refused(&answer, 400, says);
        assert_open(&mut connection, &answer);
    }
    Ok(())
}
