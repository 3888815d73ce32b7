// SPDX-License-Identifier: MIT OR Apache-2.0
//! All of it in one line.

use std::fmt::Write;

use bytesize::ByteSize;
use imageio_device::Statistics;
use imageio_device::statistics::{Operations, Traffic};

use crate::clients::{ClientStatistics, Requests};
use crate::report::Figures;

/// A number of bytes as people read it, in powers of 1024.
#[must_use]
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// Such as
/// `from clients: 40 writes of 10.0 MiB, 1 flush; to the server: 5 writes of 10.0 MiB, 2 flushes (1
/// in the background), 8.0 requests in one, waited 1.3 s`. What there was none of is left out.
pub(crate) fn summary(figures: &Figures) -> String {
    format!("from clients: {}; to the server: {}", clients(&figures.clients), server(figures))
}

fn clients(clients: &ClientStatistics) -> String {
    let of = |name, Requests { requests, bytes, .. }: Requests| moved(name, requests, bytes);
    let errors: u64 = clients.kinds().map(|kind| kind.errors).iter().sum();
    list([
        of("read", clients.reads),
        of("write", clients.writes),
        of("zero", clients.zeroes),
        counted(clients.flushes.requests, "flush", "flushes"),
        counted(errors, "error", "errors"),
    ])
}

fn server(figures: &Figures) -> String {
    let server = &figures.server;
    let Operations { reads, writes, zeroes, flushes, .. } = server.for_clients;
    let of = |name, Traffic { answered, .. }: Traffic| moved(name, answered.requests, answered.bytes);
    list([
        of("read", reads),
        of("write", writes),
        of("zero", zeroes),
        flushed(flushes, server.in_background.flushes),
        merged(figures),
        counted(keep_alives(server), "keep-alive", "keep-alives"),
        counted(server.connections.lost, "connection lost", "connections lost"),
        written_again(server),
        Some(format!("waited {:.1} s", server.waited.as_secs_f64())),
    ])
}

fn flushed(for_clients: Traffic, in_background: Traffic) -> Option<String> {
    let background = in_background.answered.requests;
    let all = for_clients.answered.requests + background;
    let flushes = counted(all, "flush", "flushes")?;
    Some(if background > 0 { format!("{flushes} ({background} in the background)") } else { flushes })
}

/// Tells how many requests of clients one request to the server has carried out on average; or how
/// many requests one of a client's has become.
fn merged(Figures { clients, server }: &Figures) -> Option<String> {
    let asked = clients.reads.requests + clients.writes.requests + clients.zeroes.requests;
    let Operations { reads, writes, zeroes, .. } = server.for_clients;
    let sent = reads.answered.requests + writes.answered.requests + zeroes.answered.requests;
    let ratio = |more: u64, less: u64| more as f64 / less as f64;
    (asked > 0 && sent > 0).then(|| match asked < sent {
        true => format!("each in {:.1} requests", ratio(sent, asked)),
        false => format!("{:.1} requests in one", ratio(asked, sent)),
    })
}

fn keep_alives(server: &Statistics) -> u64 {
    let Operations { reads, flushes, .. } = server.keep_alives;
    reads.answered.requests + flushes.answered.requests
}

fn written_again(server: &Statistics) -> Option<String> {
    let Operations { writes, zeroes, .. } = server.written_again;
    let bytes = writes.answered.bytes + zeroes.answered.bytes;
    (bytes > 0).then(|| format!("{} written again", size(bytes)))
}

fn moved(name: &str, requests: u64, bytes: u64) -> Option<String> {
    let plural = if name.ends_with('o') { format!("{name}es") } else { format!("{name}s") };
    counted(requests, name, &plural).map(|counted| format!("{counted} of {}", size(bytes)))
}

fn counted(number: u64, one: &str, several: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {several}")),
    }
}

fn list<const N: usize>(parts: [Option<String>; N]) -> String {
    let mut list = String::new();
    for part in parts.into_iter().flatten() {
        let separator = if list.is_empty() { "" } else { ", " };
        // A string takes all.
        let _ = write!(list, "{separator}{part}");
    }
    if list.is_empty() { "nothing".to_owned() } else { list }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use imageio_device::statistics::Amount;

    use super::*;

    fn answered(requests: u64, bytes: u64) -> Traffic {
        let (mut traffic, mut amount) = (Traffic::default(), Amount::default());
        (amount.requests, amount.bytes) = (requests, bytes);
        (traffic.sent, traffic.answered) = (amount, amount);
        traffic
    }

    #[test]
    fn nothing_is_told_in_few_words() {
        let told = summary(&Figures::default());
        assert_eq!(told, "from clients: nothing; to the server: waited 0.0 s");
    }

    #[test]
    fn requests_that_were_split_are_told_as_such() {
        let mut figures = Figures::default();
        for (asked, sent, told) in [
            (110, 214, "each in 1.9 requests"),
            (19, 20, "each in 1.1 requests"),
            (1, 1, "1.0 requests in one"),
        ] {
            figures.clients.writes.requests = asked;
            figures.server.for_clients.writes = answered(sent, 1);
            assert_eq!(merged(&figures).as_deref(), Some(told));
        }
    }

    #[test]
    fn all_is_told_in_one_line() {
        let mut figures = Figures::default();
        let Figures { clients, server } = &mut figures;
        clients.writes = Requests { requests: 40, bytes: 10 << 20, errors: 1 };
        clients.zeroes = Requests { requests: 1, bytes: 3 << 30, errors: 0 };
        clients.flushes = Requests { requests: 1, bytes: 0, errors: 0 };
        server.for_clients.writes = answered(4, 10 << 20);
        server.for_clients.zeroes = answered(1, 3 << 30);
        server.for_clients.flushes = answered(2, 0);
        server.in_background.flushes = answered(3, 0);
        server.keep_alives.flushes = answered(1, 0);
        server.keep_alives.reads = answered(1, 1);
        server.connections.lost = 1;
        server.written_again.writes = answered(2, 4096);
        server.written_again.zeroes = answered(1, 4096);
        server.waited = Duration::from_millis(1260);
        assert_eq!(
            summary(&figures),
            "from clients: 40 writes of 10.0 MiB, 1 zero of 3.0 GiB, 1 flush, 1 error; to the server: 4 writes of \
             10.0 MiB, 1 zero of 3.0 GiB, 5 flushes (3 in the background), 8.2 requests in one, 2 keep-alives, \
             1 connection lost, 8.0 KiB written again, waited 1.3 s"
        );
    }
}
