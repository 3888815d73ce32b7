// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that a million extents take, and as many that are dirty besides. This is a test by
//! itself, as it looks at all of the process.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]
#![allow(clippy::print_stdout, reason = "the figure")]

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use block_device_traits::{BlockDevice, ZERO};
use imageio_device::{Settings, Transfer, UrlSource};

const MIB: u64 = 1 << 20;
/// Each of 1 MiB.
const EXTENTS: u64 = 1 << 20;

/// Answers a request, and closes. No text is held in memory whole.
fn answer(socket: &TcpStream) -> std::io::Result<()> {
    let mut head = BufReader::new(socket).lines();
    let first = head.next().unwrap()?;
    head.find(|line| line.as_ref().is_ok_and(String::is_empty));
    let mut answer = BufWriter::new(socket);
    write!(answer, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
    if first.starts_with("OPTIONS") {
        return write!(
            answer,
            r#"{{"features":["extents","flush","zero"],"max_readers":8,"max_writers":8}}"#
        );
    }
    for i in 0..EXTENTS {
        let (start, is_zero, before) = (i * MIB, i % 2 == 0, if i == 0 { "[" } else { ", " });
        let other = if first.contains("dirty") { "dirty" } else { "hole" };
        let extent =
            format!(r#"{{"start": {start}, "length": {MIB}, "zero": {is_zero}, "{other}": {is_zero}}}"#);
        write!(answer, "{before}{extent}")?;
    }
    write!(answer, "]")
}

/// A line of `/proc/self/status`, in bytes.
fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_million_extents_take_less_than_64_mib_also_while_they_come() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/images/ticket", listener.local_addr().unwrap());
    // It ends with the process.
    let serve = move || listener.incoming().for_each(|socket| answer(&socket.unwrap()).unwrap());
    thread::Builder::new().name("server".to_owned()).spawn(serve).unwrap();
    let settings = Settings::new(UrlSource::Inline(url)).with(|settings| {
        settings.size = Some(EXTENTS * MIB);
        settings.keep_alive = None;
    });
    let device = Transfer::open(settings).unwrap().start().unwrap();
    let before = memory("VmRSS:");
    let first = device.extents(0, 0, 4 * MIB, 9).unwrap();
    let (peak, after) = (memory("VmHWM:") - before, memory("VmRSS:") - before);
    println!("{EXTENTS} extents: {} KiB at most, {} KiB in the end", peak >> 10, after >> 10);
    assert_eq!(first.len(), 4);
    assert_eq!(first[0].status, ZERO);
    assert!(peak < 64 * MIB, "{peak}");
    let dirty = device.extents(2, 0, 4 * MIB, 9).unwrap();
    let peak = memory("VmHWM:") - before;
    println!("{EXTENTS} dirty ones besides: {} KiB at most", peak >> 10);
    assert_eq!((dirty.len(), dirty[0].status), (4, 1));
    assert!(peak < 64 * MIB, "{peak}");
    for context in [0, 2] {
        let all = device.extents(context, 0, EXTENTS * MIB, usize::MAX).unwrap();
        assert_eq!(all.len() as u64, EXTENTS);
    }
    device.close().unwrap();
}
