// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use crate::clients::Requests;

const SECOND: Duration = Duration::from_secs(1);

/// A transfer, and a clock that stands still between two looks.
struct Scene {
    stall: Stall,
    now: Instant,
    figures: Figures,
    waits: Vec<Wait>,
}

impl Scene {
    /// A client that has written something.
    fn begin() -> Self {
        let now = Instant::now();
        let mut figures = Figures::default();
        figures.clients.connected = 1;
        figures.clients.writes = Requests { requests: 1, bytes: 512, errors: 0 };
        let mut scene = Self { stall: Stall::new(now), now, figures, waits: Vec::new() };
        assert_eq!(scene.look(), []);
        scene
    }

    fn look(&mut self) -> Vec<Event> {
        self.stall.look(Look::new(&self.figures, self.waits.clone()), self.now).collect()
    }

    /// Looks once a second.
    fn pass(&mut self, seconds: u32) -> Vec<String> {
        let looks = (0..seconds).flat_map(|_| {
            self.now += SECOND;
            self.look()
        });
        looks.map(|event| event.to_string()).collect()
    }

    fn waits(&mut self, of: &[(usize, Awaited)]) {
        let wait = |&(connection, awaited)| Wait::new(connection, awaited, self.now);
        self.waits = of.iter().map(wait).collect();
    }

    fn answers(&mut self) {
        self.figures.server.for_clients.writes.answered.requests += 1;
    }
}

#[test]
fn a_client_that_stalls_is_told_once_and_when_it_goes_on() {
    let mut scene = Scene::begin();
    assert_eq!(scene.pass(9), [""; 0]);
    assert_eq!(scene.pass(50), ["waiting for the client, since 10 s"]);
    scene.figures.clients.writes.requests += 1;
    assert_eq!(scene.pass(1), ["the client goes on, after 60 s"]);
    assert_eq!(scene.pass(60), ["waiting for the client, since 20 s"], "another stall");
    scene.waits(&[(1, Awaited::Read)]);
    assert_eq!(scene.pass(1), ["the client goes on, after 61 s"], "it has asked for something");
}

#[test]
fn a_server_that_stalls_is_told_with_what_it_is_to_answer() {
    let mut scene = Scene::begin();
    scene.waits(&[(2, Awaited::Flush), (3, Awaited::Write), (1, Awaited::Write)]);
    assert_eq!(
        scene.pass(70),
        ["waiting for the server's answer to write (connections 3, 1), flush (connection 2), since 60 s"]
    );
    scene.waits(&[(2, Awaited::Write)]);
    scene.answers();
    assert_eq!(scene.pass(1), ["the server goes on, after 70 s"]);
    assert_eq!(scene.look(), []);
    assert_eq!(scene.pass(21), ["waiting for the server's answer to write (connection 2), since 20 s"]);
}

#[test]
fn connections_that_are_opened_are_told_apart() {
    let mut scene = Scene::begin();
    for (waits, told) in [
        (
            &[(1, Awaited::Connection), (2, Awaited::Connection)][..],
            "waiting for the server to be reached (connections 1, 2), since 10 s",
        ),
        (
            &[(3, Awaited::Connection), (1, Awaited::Read), (2, Awaited::Read)],
            "waiting for the server's answer to read (connections 1, 2), and to be reached (connection 3), \
             since 10 s",
        ),
    ] {
        scene.waits(waits);
        assert_eq!(Event::ServerStalls(10 * SECOND, scene.waits.clone()).to_string(), told);
    }
}

#[test]
fn what_moves_doesn_t_stall() {
    let mut scene = Scene::begin();
    scene.waits(&[(1, Awaited::Write)]);
    for _ in 0..10 {
        assert_eq!(scene.pass(9), [""; 0]);
        scene.answers();
        assert_eq!(scene.pass(9), [""; 0]);
        scene.figures.server.written_again.flushes.answered.requests += 1;
    }
}

#[test]
fn while_the_server_hangs_nothing_that_clients_do_is_progress() {
    let mut scene = Scene::begin();
    scene.waits(&[(1, Awaited::Write)]);
    let mut told = Vec::new();
    for second in 0..40 {
        scene.figures.clients.connected = 1 + second % 2;
        scene.figures.clients.reads.requests += second % 3;
        told.extend(scene.pass(1));
    }
    assert_eq!(told, ["waiting for the server's answer to write (connection 1), since 10 s"]);
    scene.answers();
    assert_eq!(scene.pass(1), ["the server goes on, after 40 s"]);
}

#[test]
fn to_give_up_is_not_to_go_on() {
    let mut scene = Scene::begin();
    scene.waits(&[(1, Awaited::Write), (2, Awaited::Connection)]);
    assert_eq!(scene.pass(20).len(), 1);
    scene.figures.clients.writes.errors += 1;
    scene.figures.clients.writes.requests += 1;
    scene.waits(&[(2, Awaited::Connection)]);
    assert_eq!(scene.pass(60), [""; 0], "the other is still tried");
    scene.waits(&[]);
    assert_eq!(scene.pass(1), ["the wait for the server has ended without success, after 80 s"]);
}

#[test]
fn a_request_whose_bytes_move_doesn_t_stall() {
    let mut scene = Scene::begin();
    scene.waits(&[(1, Awaited::Write), (2, Awaited::Read)]);
    for _ in 0..10 {
        assert_eq!(scene.pass(9), [""; 0], "a narrow link");
        scene.waits[1].moved += 1;
    }
    assert_eq!(scene.pass(12).len(), 1);
    scene.waits[1].moved += 1;
    assert_eq!(scene.pass(60), [""; 0], "what was told ends with an answer");
}

#[test]
fn bytes_of_another_attempt_are_no_progress() {
    let mut scene = Scene::begin();
    let mut told = Vec::new();
    for second in 0..20 {
        scene.waits(&[(1, Awaited::Write)]);
        scene.waits[0].moved = second * 1000;
        told.extend(scene.pass(1));
    }
    assert_eq!(told, ["waiting for the server's answer to write (connection 1), since 10 s"]);
}

#[test]
fn what_may_take_long_has_more_time() {
    for awaited in [Awaited::Zero, Awaited::Flush, Awaited::Extents] {
        let mut scene = Scene::begin();
        scene.waits(&[(1, awaited)]);
        assert_eq!(scene.pass(60), [""; 0], "{awaited:?}");
        assert_eq!(scene.pass(1).len(), 1, "{awaited:?}");
    }
}

#[test]
fn a_long_and_slow_transfer_has_few_messages() {
    let mut scene = Scene::begin();
    let mut told = 0;
    for _ in 0..10_000 {
        scene.waits(&[(1, Awaited::Write)]);
        told += scene.pass(13).len();
        scene.answers();
        told += scene.pass(1).len();
    }
    assert!((1..5).contains(&told), "{told}");
    let mut silence = Silence::new(scene.now);
    silence.told = u32::MAX;
    assert_eq!(silence.exceeds(LIMIT, scene.now + SECOND), None);
}

#[test]
fn a_flush_in_the_background_tells_nothing_of_the_client() {
    let mut scene = Scene::begin();
    assert_eq!(scene.pass(12).len(), 1);
    scene.waits(&[(1, Awaited::Flush)]);
    scene.waits[0].initiator = Initiator::Background;
    assert_eq!(scene.pass(30), [""; 0], "the client has done nothing");
    scene.figures.server.in_background.flushes.answered.requests += 1;
    scene.waits(&[]);
    assert_eq!(scene.pass(30), [""; 0], "nor has it now");
    scene.figures.clients.writes.requests += 1;
    assert_eq!(scene.pass(1), ["the client goes on, after 73 s"]);
    scene.waits(&[(1, Awaited::Flush)]);
    scene.waits[0].initiator = Initiator::Background;
    let told = scene.pass(62);
    assert_eq!(told, ["waiting for the server's answer to flush (connection 1), since 60 s"]);
    scene.waits(&[]);
    scene.figures.server.in_background.flushes.answered.requests += 1;
    assert_eq!(scene.pass(19).len(), 1, "the server goes on; the client may have waited for it");
}

#[test]
fn attempts_that_fail_are_no_progress() {
    let mut scene = Scene::begin();
    for _ in 0..9 {
        scene.waits(&[(1, Awaited::Connection)]);
        scene.figures.server.retries += 1;
        scene.figures.server.for_clients.writes.sent.requests += 1;
        assert_eq!(scene.pass(1), [""; 0]);
    }
    assert_eq!(
        scene.pass(2),
        ["waiting for the server to be reached (connection 1), since 10 s"],
        "the look before this was the first that saw the wait"
    );
}

#[test]
fn keep_alives_are_nobody_s_progress_and_nobody_waits_for_them() {
    let mut scene = Scene::begin();
    scene.waits(&[(1, Awaited::Flush)]);
    scene.waits[0].initiator = Initiator::KeepAlive;
    for _ in 0..5 {
        scene.figures.server.keep_alives.flushes.answered.requests += 1;
        scene.pass(1);
    }
    assert_eq!(scene.pass(5), ["waiting for the client, since 10 s"]);
}

#[test]
fn who_is_not_there_or_has_not_begun_is_not_waited_for() {
    let mut scene = Scene::begin();
    scene.figures.clients.connected = 0;
    assert_eq!(scene.pass(60), [""; 0], "nobody is there");
    scene.figures.clients.connected = 1;
    assert_eq!(scene.pass(10), [""; 0], "it has come a moment ago");
    assert_eq!(scene.pass(1), ["waiting for the client, since 10 s"]);
    scene.figures.clients.connected = 0;
    assert_eq!(scene.pass(60), [""; 0], "it has gone, which is no progress");
    scene.figures.clients = Default::default();
    scene.figures.clients.connected = 1;
    assert_eq!(scene.pass(60), [""; 0], "it has moved nothing");
}

#[test]
fn only_the_server_is_a_matter_for_a_warning() {
    assert!(Event::ServerStalls(LIMIT, Vec::new()).is_warning());
    assert!(!Event::ClientStalls(LIMIT).is_warning());
}
