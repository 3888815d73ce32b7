// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdinfo, nbdsh and fio; and requests that no client sends, from nbdsh's Python.

use std::thread;

use fake_imageio::{Fault, Gate, Op, What};
use serde_json::Value;
use support::TestResult;
use support::image::SIZE;
use support::process::PATIENCE;
use support::tools::{FIO, NBDCOPY, NBDINFO, NBDSH};

use crate::Case;
use crate::client::{Client, DIRTY, Extent, Way, check_map, disk};

pub(crate) const CASES: &[Case] = &[
    Case::new("nbdinfo_lists_the_export", &[NBDINFO], list),
    Case::new("nbdinfo_maps_what_is_zero_and_what_is_dirty", &[NBDINFO], map),
    Case::new("nbdsh_is_told_which_error_the_document_names", &[NBDSH], errors),
    Case { options: &["-r"], ..Case::new("nbdsh_may_not_write_to_a_disk_for_reading", &[NBDSH], read_only) },
    Case::new("requests_that_no_client_sends_are_refused", &[NBDSH], malformed),
    Case::new("nbdsh_writes_and_reads_as_it_likes", &[NBDSH], good_order),
    Case::new("nbdsh_reads_in_chunks_or_in_one", &[NBDSH], chunks),
    Case::new("nbdsh_gets_replies_out_of_order", &[NBDSH], out_of_order),
    // It gives libnbd no certificates.
    Case { ways: &[Way::Unix, Way::Tcp], ..Case::new("fio_verifies", &[FIO, NBDCOPY], fio) },
];

fn list(client: &Client) -> TestResult<Vec<u8>> {
    let info: Value = serde_json::from_str(&client.run(NBDINFO, &["--list", "--json", &client.uri()])?)?;
    let export = &info["exports"][0];
    let contexts = ["base:allocation", "qemu:allocation-depth", "imageio:dirty", "qemu:dirty-bitmap:sda"];
    let expected: [(&str, Value); 6] = [
        ("export-name", "".into()),
        ("export-size", SIZE.into()),
        ("contexts", contexts.as_slice().into()),
        ("can_df", true.into()),
        ("can_cache", true.into()),
        ("can_fast_zero", true.into()),
    ];
    for (key, expected) in expected {
        if export[key] != expected {
            return Err(format!("{key} is not {expected}: {info}").into());
        }
    }
    if info["protocol"] != "newstyle-fixed" || info["structured"] != true {
        return Err(format!("another protocol: {info}").into());
    }
    Ok(disk())
}

fn map(client: &Client) -> TestResult<Vec<u8>> {
    let map = |context: &str, of: fn(u64) -> bool| -> TestResult<Vec<Extent>> {
        let printed = client.run(NBDINFO, &[&format!("--map={context}"), "--json", &client.uri()])?;
        let extents: Vec<Value> = serde_json::from_str(&printed)?;
        let number = |extent: &Value, name| extent[name].as_u64().ok_or("no number");
        let read = |extent: &Value| -> TestResult<Extent> {
            Ok((number(extent, "offset")?, number(extent, "length")?, of(number(extent, "type")?)))
        };
        extents.iter().map(read).collect()
    };
    check_map(&map("base:allocation", |flags| flags & 2 != 0)?, &disk())?;
    let dirty = map("imageio:dirty", |flags| flags == 1)?;
    let dirty: Vec<_> =
        dirty.iter().filter(|extent| extent.2).map(|extent| extent.0..extent.0 + extent.1).collect();
    if dirty != DIRTY {
        return Err(format!("dirty is {dirty:?}, not {DIRTY:?}").into());
    }
    Ok(disk())
}

/// For Python: that a call is refused with this error, and the next one is not.
const REFUSED: &str = "
h.set_strict_mode(0)
h.add_meta_context('base:allocation')
h.connect_uri(uri)
size = h.get_size()
beginning = h.pread(512, 0)
def refused(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except nbd.Error as refusal:
        assert refusal.errno == error, (call, arguments, refusal)
    else:
        raise SystemExit(f'not refused: {call} {arguments} {named}')
    assert h.pread(512, 0) == beginning
def ignore(*_):
    return 0
";

fn errors(client: &Client) -> TestResult<Vec<u8>> {
    let script = "
# Past the end: there is no room for more, and nothing to be read or told.
for start, length in ((size, 512), (size - 1, 2), (1 << 62, 1)):
    refused('EINVAL', h.pread, length, start)
    refused('ENOSPC', h.pwrite, bytes(length), start)
    refused('ENOSPC', h.zero, length, start)
    refused('EINVAL', h.cache, length, start)
    refused('EINVAL', h.block_status, length, start, ignore)
# A good reply would have to tell of at least one byte.
refused('EINVAL', h.block_status, 0, 0, ignore)
# Commands that are not offered, flags that nobody knows, and flags of other commands.
assert not h.can_trim()
refused('EINVAL', h.trim, 512, 0)
for call, arguments in (
    (h.pread, (512, 0)), (h.pwrite, (b'x', 0)), (h.zero, (512, 0)), (h.flush, ()), (h.cache, (512, 0)),
    (h.block_status, (512, 0, ignore)),
):
    refused('EINVAL', call, *arguments, flags=1 << 15)
    if call != h.zero:
        refused('EINVAL', call, *arguments, flags=nbd.CMD_FLAG_FAST_ZERO)
# What has data is not zeroed fast.
refused('ENOTSUP', h.zero, 512, 0, flags=nbd.CMD_FLAG_FAST_ZERO)
h.shutdown()
";
    client.nbdsh(&format!("{REFUSED}{script}"))?;
    Ok(disk())
}

fn read_only(client: &Client) -> TestResult<Vec<u8>> {
    let script = "
assert h.is_read_only()
refused('EPERM', h.pwrite, b'x', 0)
refused('EPERM', h.zero, 512, 0)
refused('EPERM', h.trim, 512, 0)
h.shutdown()
";
    client.nbdsh(&format!("{REFUSED}{script}"))?;
    Ok(disk())
}

/// By a client of twenty lines, which takes simple replies.
fn malformed(client: &Client) -> TestResult<Vec<u8>> {
    let script = "
import socket, ssl, struct, urllib.parse
at = urllib.parse.urlparse(uri)
query = urllib.parse.parse_qs(at.query)
if at.hostname:
    s = socket.create_connection((at.hostname, at.port))
else:
    s = socket.socket(socket.AF_UNIX)
    s.connect(query['socket'][0])
def take(length):
    data = b''
    while len(data) < length:
        more = s.recv(length - len(data))
        assert more, 'the connection is closed'
        data += more
    return data
EXPORT_NAME, STARTTLS = 1, 5
def option(number):
    s.sendall(struct.pack('>8sII', b'IHAVEOPT', number, 0))
take(18)
s.sendall(struct.pack('>I', 3))
if at.scheme == 'nbds':
    option(STARTTLS)
    take(20)
    files = query['tls-certificates'][0]
    tls = ssl.create_default_context(cafile=files + '/ca-cert.pem')
    tls.load_cert_chain(files + '/client-cert.pem', files + '/client-key.pem')
    s = tls.wrap_socket(s, server_hostname=at.hostname)
option(EXPORT_NAME)
size, flags = struct.unpack('>QH', take(10))
def ask(kind, offset, length, flags=0, payload=b''):
    s.sendall(struct.pack('>IHHQQI', 0x25609513, flags, kind, 7, offset, length) + payload)
    magic, error, cookie = struct.unpack('>IIQ', take(16))
    assert (magic, cookie) == (0x67446698, 7), (hex(magic), cookie)
    return error
READ, WRITE, FLUSH, TRIM, CACHE, ZERO, STATUS, RESIZE = 0, 1, 3, 4, 5, 6, 7, 8
INVAL, NOSPC = 22, 28
def refused(error, *request, **more):
    found = ask(*request, **more)
    assert found == error, (request, found)
    assert ask(READ, 0, 512) == 0
    take(512)
for kind in (RESIZE, 99, 0xffff):
    refused(INVAL, kind, 0, 512)
# Without a context.
refused(INVAL, STATUS, 0, 512)
refused(INVAL, TRIM, 0, 512)
refused(INVAL, FLUSH, 512, 0)
refused(INVAL, FLUSH, 0, 512)
# One chunk can't be asked for where there are none.
refused(INVAL, READ, 0, 512, flags=4)
refused(INVAL, WRITE, 0, 3, flags=2, payload=b'abc')
# Longer than the longest payload, and than the disk.
most = 64 << 20
refused(INVAL, READ, 0, most + 1)
refused(INVAL, READ, 0, 0xffffffff)
refused(NOSPC, WRITE, 0, most + 1, payload=bytes(most + 1))
refused(NOSPC, ZERO, 0, 0xffffffff)
# Past the last byte that can be named.
for kind, error in ((READ, INVAL), (CACHE, INVAL), (ZERO, NOSPC)):
    refused(error, kind, (1 << 64) - 1, 2)
";
    client.nbdsh(script)?;
    Ok(disk())
}

fn good_order(client: &Client) -> TestResult<Vec<u8>> {
    let script = "
h.set_strict_mode(0)
h.connect_uri(uri)
size = h.get_size()
# Of no length.
assert h.pread(0, 0) == b'' and h.pread(0, size) == b''
h.pwrite(b'', size)
h.zero(0, size)
h.cache(0, 0)
# Of no block.
h.pwrite(b'unaligned', 4093)
h.zero(4095, 12289, nbd.CMD_FLAG_FUA)
assert h.pread(11, 4092)[1:-1] == b'unaligned'
assert h.pread(4097, 12288)[1:-1] == bytes(4095)
# All that there is.
whole = h.pread(size, 0)
h.pwrite(whole, 0, nbd.CMD_FLAG_FUA)
h.cache(size, 0)
h.flush()
h.shutdown()
";
    client.nbdsh(script)?;
    let mut disk = disk();
    disk[4093..4102].copy_from_slice(b"unaligned");
    disk[12_289..16_384].fill(0);
    Ok(disk)
}

fn chunks(client: &Client) -> TestResult<Vec<u8>> {
    let script = "
h.add_meta_context('base:allocation')
h.connect_uri(uri)
found = []
def chunk(data, offset, status, error):
    found.append((offset, len(data), status))
def extents(context, offset, entries, error):
    found.append(entries)
h.block_status(8 << 20, 0, extents)
[all] = found
assert len(all) > 2 and sum(all[::2]) >= 8 << 20, all
found = []
h.block_status(8 << 20, 0, extents, nbd.CMD_FLAG_REQ_ONE)
assert found == [all[:2]], (found, all)
found = []
h.block_status(100, 50, extents, nbd.CMD_FLAG_REQ_ONE)
assert found == [[100, all[1]]], found
whole = h.pread_structured(8 << 20, 0, chunk)
assert {nbd.READ_DATA, nbd.READ_HOLE} <= {status for _, _, status in found[1:]}, found
found = []
assert h.pread_structured(8 << 20, 0, chunk, nbd.CMD_FLAG_DF) == whole
assert found == [(0, 8 << 20, nbd.READ_DATA)], found
h.shutdown()
";
    client.nbdsh(script)?;
    Ok(disk())
}

/// One answer is held back until a client's write, which it sends when it has the other one.
fn out_of_order(client: &Client) -> TestResult<Vec<u8>> {
    let (fake, gate) = (client.server.fake(), Gate::new());
    fake.fault(Fault::on(Op::Get).offset(1 << 20).then(What::Block(gate.clone())));
    let script = "
h.connect_uri(uri)
first, second = nbd.Buffer(65536), nbd.Buffer(65536)
slow = h.aio_pread(first, 1 << 20)
fast = h.aio_pread(second, 4 << 20)
while not h.aio_command_completed(fast):
    h.poll(-1)
assert not h.aio_command_completed(slow)
h.pwrite(b'go on', 23 << 20)
while not h.aio_command_completed(slow):
    h.poll(-1)
assert first.to_bytearray() == h.pread(65536, 1 << 20) and second.to_bytearray() == h.pread(65536, 4 << 20)
h.flush()
h.shutdown()
";
    thread::scope(|scope| {
        let opener = thread::Builder::new().name("gate".into()).spawn_scoped(scope, || {
            let is_told = fake.wait_for(PATIENCE, |log| log.of(Op::Put).next().is_some());
            // Whatever has happened, the client must get an answer.
            gate.open();
            is_told
        })?;
        client.nbdsh(script)?;
        let is_told = opener.join().is_ok_and(|is_told| is_told);
        if is_told { TestResult::Ok(()) } else { Err("the second answer never came".into()) }
    })?;
    let mut disk = disk();
    disk[23 << 20..(23 << 20) + 5].copy_from_slice(b"go on");
    Ok(disk)
}

fn fio(client: &Client) -> TestResult<Vec<u8>> {
    let uri = format!("--uri={}", client.uri());
    let job = ["--name=test", "--ioengine=nbd", "--size=8M", "--iodepth=16", "--verify=crc32c"];
    let kind = ["--rw=randrw", "--bssplit=512/20:4k/40:64k/40", "--fsync=16", &uri];
    client.run(FIO, &[&job[..], &kind].concat())?;
    // fio has read and verified what it wrote; that is what has to be there.
    let back = client.server.path("back.img");
    client.run(NBDCOPY, &[&client.uri(), &back])?;
    Ok(std::fs::read(back)?)
}
