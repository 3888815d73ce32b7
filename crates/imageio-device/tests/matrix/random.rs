// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults at random, while some threads write, zero, read and flush their parts of the disk.

use std::env;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use block_device_traits::{BlockDevice, Errno};
use fastrand::Rng;
use fault_proxy::{Drip, Fault, Point, Proxy, Way};
use imageio_client::Timeouts;
use imageio_device::{Device, Transfer};
use libtest_mimic::Trial;

use crate::cell;
use crate::common::NO_FUA;

const THREADS: usize = 3;
/// The part of the disk that a thread has for itself.
const PART: usize = 256 << 10;
const REQUESTS: usize = 60;
/// The size of the blocks within which the device keeps changes apart, in bytes.
const BLOCK: usize = 4096;
/// The number of seeds that are tried, unless it is told.
const SEEDS: u64 = 16;

/// The time that a black hole costs.
const TIMEOUT: Duration = Duration::from_millis(250);

pub(crate) fn trials() -> Vec<Trial> {
    let number = |name| env::var(name).ok().map(|value: String| value.parse::<u64>().unwrap());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SEEDS").unwrap_or(SEEDS),
    };
    let trial = |seed| {
        Trial::test(format!("random/seed_{seed}"), move || {
            faults_at_random(seed);
            Ok(())
        })
    };
    seeds.map(trial).collect()
}

fn faults_at_random(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let block_size = [None, Some(512), Some(4096)][rng.usize(..3)];
    let way = cell::Way::with_blocks(rng.bool(), vec![0xee; THREADS * PART], block_size);
    let timeouts = Timeouts::new(TIMEOUT, TIMEOUT, TIMEOUT);
    let replay_buffer = [64 << 10, 32 << 20][rng.usize(..2)];
    let settings = way.settings().with(|settings| {
        settings.connections = Some(2);
        settings.timeouts = timeouts;
        settings.replay_buffer = Some(replay_buffer);
    });
    let device = Transfer::open(settings).unwrap().start().unwrap();
    let parts: Vec<_> = (0..THREADS).map(|part| Part::new(part, rng.fork())).collect();
    let parts: Vec<Part> = thread::scope(|scope| {
        let use_part = |part: Part| {
            let (device, proxy) = (&device, &way.proxy);
            scope.spawn(move || part.use_it(device, proxy))
        };
        let threads: Vec<_> = parts.into_iter().map(use_part).collect();
        threads.into_iter().map(join).collect()
    });
    assert!(way.proxy.faults() > 3, "{} faults", way.proxy.faults());
    way.proxy.no_fault();
    let disk = way.close(&device, parts.iter().any(|part| !part.unknown.is_empty()));
    for part in parts {
        part.check(&(0..PART), &disk[part.start..part.start + PART]);
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A part of the disk, and what it should have.
struct Part {
    start: usize,
    contents: Vec<u8>,
    /// The ranges where a change failed, which may have been carried out in part.
    unknown: Vec<Range<usize>>,
    rng: Rng,
}

impl Part {
    fn new(part: usize, rng: Rng) -> Self {
        Self { start: part * PART, contents: vec![0xee; PART], unknown: Vec::new(), rng }
    }

    fn use_it(mut self, device: &Device, proxy: &Proxy) -> Self {
        for _ in 0..REQUESTS {
            if self.rng.usize(..8) == 0 {
                let (point, fault) = self.misfortune();
                proxy.fault(point, fault);
            }
            let range = self.range();
            match self.rng.usize(..10) {
                0 => device.flush().unwrap(),
                1..3 => self.read(device, &range),
                3..5 => self.change(device, range, 0),
                byte => self.change(device, range, byte as u8),
            }
        }
        self.read(device, &(0..PART));
        self
    }

    fn misfortune(&mut self) -> (Point, Fault) {
        let pause = TIMEOUT / 25;
        let drip = Drip::new(1 + self.rng.usize(..64), pause, self.rng.u32(1..20));
        let any_way = |rng: &mut Rng| if rng.bool() { Way::ToServer } else { Way::ToClient };
        let fault = match self.rng.usize(..12) {
            0..4 => Fault::Kill,
            4..7 => Fault::Reset,
            // The other half would have the server complain of a body that is too short: that is
            // told, and the end.
            7..9 => Fault::HalfClose(Way::ToClient),
            9 => Fault::BlackHole,
            10 => Fault::Delay(4 * pause),
            _ => Fault::Drip(drip),
        };
        let point = match self.rng.usize(..8) {
            0 => Point::Connect,
            1 => Point::Byte(any_way(&mut self.rng), self.rng.u64(1..2000)),
            2..4 => Point::Byte(any_way(&mut self.rng), self.rng.u64(1..200)),
            _ => Point::Byte(any_way(&mut self.rng), self.rng.u64(1..60_000)),
        };
        (point, fault)
    }

    /// Whole blocks: a part of a block that is in doubt keeps the rest of it from being changed, or
    /// from being written again.
    fn range(&mut self) -> Range<usize> {
        let len = if self.rng.bool() { 1 } else { self.rng.usize(1..=PART / BLOCK / 4) };
        let start = self.rng.usize(..=PART / BLOCK - len);
        start * BLOCK..(start + len) * BLOCK
    }

    fn read(&self, device: &Device, range: &Range<usize>) {
        let mut found = vec![0; range.len()];
        device.read((self.start + range.start) as u64, &mut found).unwrap();
        self.check(range, &found);
    }

    fn check(&self, range: &Range<usize>, found: &[u8]) {
        let is_known = |at: &usize| !self.unknown.iter().any(|unknown| unknown.contains(at));
        let differs = range.clone().find(|at| is_known(at) && found[at - range.start] != self.contents[*at]);
        assert_eq!(differs, None, "{range:?} differs");
    }

    /// Writes a byte all over the range, or zeroes it.
    fn change(&mut self, device: &Device, range: Range<usize>, byte: u8) {
        let (offset, len) = ((self.start + range.start) as u64, range.len());
        let fua = self.rng.usize(..8) == 0;
        let result = match byte {
            0 => device.zero(offset, len as u64, NO_FUA),
            _ => device.write(offset, vec![byte; len].into(), fua),
        };
        match result {
            Ok(()) => self.contents[range].fill(byte),
            // Something else may still be written there. If that was written again, this may have
            // been sent before.
            Err(error) => {
                let is_told = error.errno() == Errno::Io && error.to_string().contains("can't be changed");
                assert!(is_told, "{error}");
                self.unknown.push(range);
            }
        }
    }
}
