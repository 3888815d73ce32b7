// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients of a backup.

use std::path::Path;
use std::process::Command;

use support::TestResult;
use support::tools::{NBDINFO, NBDSH, QEMU_IMG, Tool};

/// A range: first byte, length, and what is said of it.
pub(crate) type Extent = (u64, u64, bool);

/// Runs a client to its end, within a minute; a hang is a failure. Returns what it printed.
pub(crate) fn run(dir: &Path, tool: Tool, arguments: &[&str]) -> TestResult<String> {
    let mut command = Command::new("timeout");
    // Debian's nbdsh needs Debian's Python.
    command.env("PATH", "/usr/bin:/bin").arg("60").arg(tool.path()).args(arguments);
    let output = command.current_dir(dir).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} {arguments:?}: {}: {printed}{said}", tool.name, output.status).into())
}

/// For Python: where the device says something other than 0 in a context.
const MAP: &str = r#"
def extents(context):
    size, offset, found = h.get_size(), 0, []
    def told(name, _, entries, error):
        nonlocal offset
        if name == context:
            for length, flags in zip(entries[::2], entries[1::2]):
                if flags:
                    found.append((offset, length))
                offset += length
    while offset < size:
        h.block_status(min(size - offset, 1 << 31), offset, told)
    return found
"#;

/// Copies what is dirty over a copy of the disk, and reads nothing of it that is zero.
const COPY_DIRTY: &str = r#"
import bisect, os
h.add_meta_context("imageio:dirty")
h.add_meta_context("base:allocation")
h.connect_uri(uri)
dirty, zeroes = extents("imageio:dirty"), extents("base:allocation")
starts = [start for start, _ in zeroes] + [h.get_size()]
copy = os.open(target, os.O_RDWR)
def is_hole(start, end):
    try:
        return os.lseek(copy, start, os.SEEK_DATA) >= end
    except OSError:
        return True
for start, length in dirty:
    end = start + length
    while start < end:
        next = bisect.bisect(starts, start)
        zero_end = sum(zeroes[next - 1]) if next > 0 else 0
        if start < zero_end:
            part = min(end, zero_end) - start
            if not is_hole(start, start + part):
                os.pwrite(copy, bytes(part), start)
        else:
            part = min(end, starts[next], start + (1 << 20)) - start
            os.pwrite(copy, h.pread(part, start), start)
        start += part
print(len(dirty), len(zeroes))
h.shutdown()
"#;

/// An incremental backup. How many extents are dirty, and how many are zero.
pub(crate) fn copy_dirty(dir: &Path, uri: &str, target: &str) -> TestResult<(usize, usize)> {
    let script = format!("uri, target = {uri:?}, {target:?}\n{MAP}{COPY_DIRTY}");
    let printed = run(dir, NBDSH, &["-c", &script])?;
    let mut numbers = printed.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(dirty)), Some(Ok(zero))) => Ok((dirty, zero)),
        _ => Err(printed.into()),
    }
}

/// Returns the extents that nbdinfo tells of a context whose only status beside 0 is 1.
pub(crate) fn nbdinfo_map(dir: &Path, uri: &str, context: &str) -> TestResult<Vec<Extent>> {
    let printed = run(dir, NBDINFO, &[&format!("--map={context}"), "--json", uri])?;
    let extents: Vec<serde_json::Value> = serde_json::from_str(&printed)?;
    let number = |extent: &serde_json::Value, name: &str| extent[name].as_u64().ok_or("no number");
    let read =
        |extent| Ok((number(extent, "offset")?, number(extent, "length")?, number(extent, "type")? == 1));
    extents.iter().map(read).collect()
}

/// The names of the contexts that nbdinfo lists.
pub(crate) fn nbdinfo_contexts(dir: &Path, uri: &str) -> TestResult<Vec<String>> {
    let info: serde_json::Value = serde_json::from_str(&run(dir, NBDINFO, &["--list", "--json", uri])?)?;
    let contexts = info["exports"][0]["contexts"].as_array().ok_or("no contexts")?;
    Ok(contexts.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// Returns the extents that qemu tells of a bitmap: it takes the bit that tells of dirty blocks for
/// that of holes.
pub(crate) fn qemu_map(dir: &Path, socket: &Path, bitmap: &str) -> TestResult<Vec<Extent>> {
    let image = format!(
        "driver=nbd,server.type=unix,server.path={},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}",
        socket.display()
    );
    let printed = run(dir, QEMU_IMG, &["map", "--output=json", "--image-opts", &image])?;
    let extents: Vec<serde_json::Value> = serde_json::from_str(&printed)?;
    let number = |extent: &serde_json::Value, name: &str| extent[name].as_u64().ok_or("no number");
    let read = |extent: &serde_json::Value| {
        Ok((number(extent, "start")?, number(extent, "length")?, extent["data"] == false))
    };
    extents.iter().map(read).collect()
}
