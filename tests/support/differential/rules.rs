// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing what two doors sent. Ours must send the very same as the reference, but where a rule
//! here says that it does better. A rule also checks the reference, so none outlives its reason.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;

use fake_imageio::{ClosedBy, Op, RequestRecord, Transport};
use support::TestResult;
use support::door::Door;
use support::target::Via;

use crate::observe::{Observation, Setup, Step};
use crate::script::{Command, Request};

/// Ours sends no longer request than this, in bytes.
const MAX_REQUEST: u64 = 2 << 20;

/// So many bytes of whole blocks are written apart from parts of blocks.
const LONG: u64 = 256 << 10;

/// In bytes.
const BLOCK: u64 = 4096;

/// The number of connections that either plugin opens at most, whatever the server wants.
const CONNECTIONS: u32 = 4;

/// The properties of a request to the server, apart from the connection that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fact {
    op: Op,
    offset: u64,
    size: u64,
    flush: bool,
    status: Option<u16>,
    transport: Transport,
}

impl From<&RequestRecord> for Fact {
    fn from(record: &RequestRecord) -> Self {
        let &RequestRecord { op, offset, size, flush, status, transport, .. } = record;
        Self { op, offset, size, flush, status, transport }
    }
}

fn facts(records: &[RequestRecord]) -> Vec<Fact> {
    records.iter().map(Fact::from).collect()
}

/// The connections with writes that no flush has covered.
#[derive(Debug, Default)]
struct Unflushed(BTreeSet<u64>);

impl Unflushed {
    fn note(&mut self, records: &[RequestRecord]) {
        for record in records.iter().filter(|record| record.status == Some(200)) {
            if record.flush {
                // The server flushes all of the connection, not only this write.
                self.0.remove(&record.connection);
            } else if matches!(record.op, Op::Put | Op::Zero) {
                self.0.insert(record.connection);
            }
        }
    }
}

/// Compares two observations of the same script, in which nothing failed.
pub(crate) fn compare(setup: &Setup, reference: &Observation, ours: &Observation) -> TestResult {
    equal("what clients are offered", &ours.offered, &reference.offered)?;
    compare_start(setup, reference, ours)?;
    compare_steps(setup, reference, ours)?;
    compare_connections(setup, reference, ours)?;
    equal("bytes left unflushed", &ours.log.lost_unflushed(), &0)?;
    equal("the status at exit", &ours.status, &reference.status)
}

fn compare_start(setup: &Setup, reference: &Observation, ours: &Observation) -> TestResult {
    let mut expected = facts(&reference.start);
    if setup.via == Via::Unix {
        the_unix_socket_is_tried(&mut expected);
    }
    equal("sent before the first request", &facts(&ours.start), &expected)
}

/// Compares what was sent for each request and at the end.
pub(crate) fn compare_steps(setup: &Setup, reference: &Observation, ours: &Observation) -> TestResult {
    let mut unflushed = Unflushed::default();
    let door = ours.door;
    for (reference, ours) in reference.steps.iter().zip(&ours.steps) {
        let expected = expected(setup, reference, door, &unflushed)?;
        let what = format!("sent for {:?}", ours.request);
        let mut sent = facts(&ours.sent);
        if steps(reference, door) > 1 {
            // They may go over several connections.
            sent.sort_by_key(|fact| fact.offset);
        }
        equal(&what, &sent, &expected)?;
        unflushed.note(&ours.sent);
    }
    equal("sent at the end by the reference", &facts(&reference.end), &vec![])?;
    equal("sent at the end", &facts(&ours.end), &the_end_is_flushed(setup, &unflushed))?;
    unflushed.note(&ours.end);
    equal("connections with unflushed writes in the end", &unflushed.0, &BTreeSet::new())
}

/// Returns the requests that ours must send where the reference sent its own.
fn expected(setup: &Setup, reference: &Step, door: Door, unflushed: &Unflushed) -> TestResult<Vec<Fact>> {
    let request = &reference.request;
    let mut expected = facts(&reference.sent);
    if request.fua {
        fua_is_native(setup, reference, &mut expected)?;
    }
    if steps(reference, door) > 1 {
        long_requests_go_out_in_steps(request, door, &mut expected)?;
    }
    if !setup.features.flush && request.changes_the_disk() {
        without_flush_each_write_is_durable(&mut expected)?;
    }
    if request.command == Command::Flush {
        only_unflushed_writes_are_flushed(setup, reference, unflushed, &mut expected)?;
    }
    Ok(expected)
}

/// The reference finds out at the first request that there is no server behind the socket. Ours
/// asks there once, and can still go by the URL.
fn the_unix_socket_is_tried(expected: &mut Vec<Fact>) {
    let (status, transport) = (Some(200), Transport::Unix);
    expected.push(Fact { op: Op::Options, offset: 0, size: 0, flush: false, status, transport });
}

/// Returns the number of requests that ours makes of one.
fn steps(step: &Step, door: Door) -> usize {
    pieces(&step.request, door).len()
}

/// Returns the ranges of the requests that ours makes of one. In nbdkit a READ stays whole, as
/// nbdkit wants all of it at once.
fn pieces(request: &Request, door: Door) -> Vec<Range<u64>> {
    let range = request.offset..request.offset + request.len;
    match request.command {
        Command::Write if !request.fua => between_blocks(range).into_iter().flat_map(parts).collect(),
        Command::Write => between_blocks(range),
        Command::Read if door == Door::ImageioNbd => between_blocks(range),
        _ => vec![range],
    }
}

/// Returns the whole blocks of a piece and the parts of blocks at its ends, if there are many.
fn parts(piece: Range<u64>) -> Vec<Range<u64>> {
    let blocks = piece.start.next_multiple_of(BLOCK)..piece.end - piece.end % BLOCK;
    if blocks.end < blocks.start + LONG {
        return vec![piece];
    }
    let parts = [piece.start..blocks.start, blocks.clone(), blocks.end..piece.end];
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// Returns the pieces of a long range. They end between blocks, so that no two write to the same
/// one.
fn between_blocks(range: Range<u64>) -> Vec<Range<u64>> {
    let next = |at: &u64| {
        Some(*at).filter(|at| at + MAX_REQUEST < range.end).map(|at| (at + MAX_REQUEST) & !(BLOCK - 1))
    };
    let starts: Vec<_> = std::iter::successors(Some(range.start), next).collect();
    let ends = starts.iter().copied().skip(1).chain([range.end]);
    starts.iter().zip(ends).map(|(start, end)| *start..end).collect()
}

/// The reference sends what it is given. More than some MiB at once costs the server's storage
/// more; a flush with the last step covers all. What is read goes to the client while the rest
/// still comes. A part of a block is written apart, so that whole blocks neither wait for what else
/// is written there, nor fail with it.
fn long_requests_go_out_in_steps(request: &Request, door: Door, expected: &mut Vec<Fact>) -> TestResult {
    let Some(whole) = expected.iter().position(|fact| matches!(fact.op, Op::Put | Op::Get)) else {
        return Err(format!("the reference sent no read or write: {expected:?}").into());
    };
    let Fact { offset, size, flush, .. } = expected[whole];
    let end = offset + size;
    let whole_fact = expected[whole];
    equal("the reference's one request", &(offset, size), &(request.offset, request.len))?;
    let step = |piece: Range<u64>| {
        let (offset, size) = (piece.start, piece.end - piece.start);
        Fact { offset, size, flush: flush && piece.end == end, ..whole_fact }
    };
    let steps: Vec<_> = pieces(request, door).into_iter().map(step).collect();
    expected.splice(whole..=whole, steps);
    Ok(())
}

/// The reference means to have it native, but its `True` is nbdkit's "emulate": each such write is
/// followed by a flush of each connection. Ours lets the server flush with the write.
fn fua_is_native(setup: &Setup, reference: &Step, expected: &mut Vec<Fact>) -> TestResult {
    flushes_all_connections(setup, reference.sent.get(1..).unwrap_or_default())?;
    expected.truncate(1);
    now_with_flush(expected)
}

/// The reference never says `flush=y`, so to a server that knows no `PATCH` flush nothing is ever
/// durable before the end of the transfer. Ours says it with each write.
fn without_flush_each_write_is_durable(expected: &mut [Fact]) -> TestResult {
    now_with_flush(expected)
}

/// The reference waits for all connections and flushes each, used or not. Ours flushes those that
/// have something to flush, and no other.
fn only_unflushed_writes_are_flushed(
    setup: &Setup,
    reference: &Step,
    unflushed: &Unflushed,
    expected: &mut Vec<Fact>,
) -> TestResult {
    flushes_all_connections(setup, &reference.sent)?;
    expected.truncate(unflushed.0.len());
    Ok(())
}

/// The reference leaves it to the client to flush before it goes. Ours flushes what is unflushed
/// before it closes.
fn the_end_is_flushed(setup: &Setup, unflushed: &Unflushed) -> Vec<Fact> {
    let (op, status) = (Op::Flush, Some(200));
    let flush = Fact { op, offset: 0, size: 0, flush: true, status, transport: transport(setup) };
    vec![flush; unflushed.0.len()]
}

/// The reference takes connections in turn, so a client that does one request at a time opens all
/// of them. Ours takes the one used last, and spares the server the rest.
fn the_connection_used_last_is_taken_first(requests: usize) -> usize {
    requests.min(1)
}

fn compare_connections(setup: &Setup, reference: &Observation, ours: &Observation) -> TestResult {
    for observation in [reference, ours] {
        let closed = observation.log.connections.iter().map(|connection| connection.closed_by);
        equal(
            "closed by the client",
            &closed.clone().flatten().collect(),
            &vec![ClosedBy::Client; closed.len()],
        )?;
        let all_go_there = requests(observation).all(|record| record.transport == transport(setup));
        equal("requests take the wanted way", &all_go_there, &true)?;
    }
    let opened = requests(reference).count().min(pool(setup));
    equal("connections of the reference", &connections(reference), &opened)?;
    let opened = the_connection_used_last_is_taken_first(requests(ours).count());
    let most = reference.steps.iter().map(|step| steps(step, ours.door)).max().unwrap_or(1).min(pool(setup));
    let is_right = (opened..=opened * most).contains(&connections(ours));
    equal("connections are as many as needed", &is_right, &true)
}

/// The requests to the server after the start.
fn requests(observation: &Observation) -> impl Iterator<Item = &RequestRecord> {
    observation.log.requests.iter().skip(observation.start.len())
}

/// Returns the number of connections that these requests took.
fn connections(observation: &Observation) -> usize {
    requests(observation).map(|record| record.connection).collect::<BTreeSet<_>>().len()
}

fn pool(setup: &Setup) -> usize {
    setup.writers.min(CONNECTIONS) as usize
}

fn transport(setup: &Setup) -> Transport {
    if setup.via == Via::Unix { Transport::Unix } else { Transport::Tcp }
}

fn now_with_flush(expected: &mut [Fact]) -> TestResult {
    for fact in expected {
        equal("the reference's own flush", &fact.flush, &false)?;
        fact.flush = true;
    }
    Ok(())
}

fn flushes_all_connections(setup: &Setup, records: &[RequestRecord]) -> TestResult {
    let flushed = records.iter().filter(|record| record.op == Op::Flush).map(|record| record.connection);
    let flushed: BTreeSet<u64> = flushed.collect();
    let found = (records.len(), flushed.len());
    equal("requests and connections in a flush by the reference", &found, &(pool(setup), pool(setup)))
}

pub(crate) fn equal<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) -> TestResult {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}:\n    found {found:?}\n    instead of {expected:?}").into())
}
