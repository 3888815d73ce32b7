// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each row of the table.

use imageio_client::TlsError;

use super::*;

const CLEAN: Stake = Stake { unflushed: false, is_kept: true };
const KEPT: Stake = Stake { unflushed: true, is_kept: true };
const LOST: Stake = Stake { unflushed: true, is_kept: false };
const CLEAN_AND_NOTHING_IS_KEPT: Stake = Stake { unflushed: false, is_kept: false };

const ASKED: [Asked; 4] = [Asked::Read, Asked::Change, Asked::Flush, Asked::Replay];

const UNTIL_TIMEOUT: Option<Again> = Some(Again::UntilTimeout);
const ONCE: Option<Again> = Some(Again::Once);
const IF_TICKET: Option<Again> = Some(Again::IfTicketComesBack);
const NEVER: Option<Again> = None;

/// A row of the table: the end of an attempt; true if the request may be done; the next attempt;
/// the extent of the failure if there is none, where nothing is unflushed; true if the connection
/// goes on then.
type Row = (Ended, bool, Option<Again>, Failing, bool);

const ROWS: [Row; 10] = [
    (Ended::NotSent, false, UNTIL_TIMEOUT, Failing::Request, false),
    (Ended::CannotBeSent, false, NEVER, Failing::Request, false),
    (Ended::NoAnswer, true, UNTIL_TIMEOUT, Failing::Request, false),
    (Ended::Nonsense, true, ONCE, Failing::Request, false),
    (Ended::Refused, false, NEVER, Failing::Part, true),
    (Ended::Forbidden { maybe_done: false }, false, IF_TICKET, Failing::Request, true),
    (Ended::Forbidden { maybe_done: true }, true, IF_TICKET, Failing::Request, true),
    (Ended::Unavailable, true, UNTIL_TIMEOUT, Failing::Request, false),
    (Ended::Failed, true, ONCE, Failing::Part, false),
    (Ended::Unclear, true, NEVER, Failing::Part, false),
];

fn next(again: Option<Again>, failing: Failing) -> Next {
    match again {
        Some(again) => Next::Again(again, failing),
        None => Next::Fail(failing),
    }
}

#[test]
fn where_nothing_is_unflushed_a_request_is_sent_again_or_fails_alone() {
    for (ended, may_be_done, again, failing, goes_on) in ROWS {
        for asked in [Asked::Read, Asked::Change] {
            let expected = Decision {
                gives_up_connection: !goes_on,
                is_in_doubt: may_be_done && asked == Asked::Change,
                next: next(again, failing),
            };
            assert_eq!(decide(asked, CLEAN, ended), expected, "{asked:?} {ended:?}");
        }
    }
}

#[test]
fn an_error_on_a_connection_with_unflushed_writes_gives_it_up() {
    for (ended, ..) in ROWS {
        for asked in ASKED {
            for stake in [KEPT, LOST] {
                assert!(decide(asked, stake, ended).gives_up_connection, "{asked:?} {stake:?} {ended:?}");
            }
        }
    }
}

#[test]
fn an_error_on_a_connection_whose_unflushed_writes_are_not_kept_ends_the_transfer() {
    for (ended, ..) in ROWS {
        for asked in [Asked::Read, Asked::Change, Asked::Flush] {
            let decision = decide(asked, LOST, ended);
            assert_eq!(decision.next, Next::Fail(Failing::Transfer), "{asked:?} {ended:?}");
        }
    }
}

#[test]
fn kept_writes_wait_while_other_requests_fail_and_end_the_transfer_where_they_can_not_be_written_again() {
    for (ended, may_be_done, again, failing, _) in ROWS {
        for asked in ASKED {
            let is_other = matches!(asked, Asked::Read | Asked::Change);
            let failing = if is_other && again.is_none() { failing } else { Failing::Transfer };
            let expected = Decision {
                gives_up_connection: true,
                is_in_doubt: may_be_done && matches!(asked, Asked::Change | Asked::Replay),
                next: next(again, failing),
            };
            assert_eq!(decide(asked, KEPT, ended), expected, "{asked:?} {ended:?}");
        }
    }
}

#[test]
fn where_nothing_is_kept_a_change_without_an_answer_ends_the_transfer_and_nothing_else_does() {
    for (ended, ..) in ROWS {
        for asked in [Asked::Read, Asked::Change] {
            let is_unanswered = matches!(ended, Ended::NoAnswer | Ended::Nonsense);
            let decision = decide(asked, CLEAN_AND_NOTHING_IS_KEPT, ended);
            if asked == Asked::Change && is_unanswered {
                assert_eq!(decision.next, Next::Fail(Failing::Transfer), "{ended:?}");
            } else {
                assert_eq!(decision, decide(asked, CLEAN, ended), "{asked:?} {ended:?}");
            }
        }
    }
}

#[test]
fn an_answer_is_an_answer_unless_it_takes_along_what_is_not_kept() {
    for asked in ASKED {
        for stake in [CLEAN, KEPT, LOST, CLEAN_AND_NOTHING_IS_KEPT] {
            let answered = Decision { gives_up_connection: false, is_in_doubt: false, next: Next::Answer };
            assert_eq!(decide(asked, stake, Ended::Answered), answered);
            let next = if stake == LOST { Next::Fail(Failing::Transfer) } else { Next::Answer };
            let closed = Decision { gives_up_connection: true, is_in_doubt: false, next };
            assert_eq!(decide(asked, stake, Ended::AnsweredAndClosed), closed);
        }
    }
}

#[test]
fn each_error_has_its_row() {
    let status = |status: u16, body_sent| {
        let status = StatusCode::from_u16(status).unwrap();
        Ended::with(&Error::Status { operation: "x".into(), status, explanation: String::new(), body_sent })
    };
    for code in [401, 404, 405, 411, 416] {
        assert_eq!((status(code, true), status(code, false)), (Ended::Refused, Ended::Refused), "{code}");
    }
    for code in [202, 204, 206, 302, 402, 409, 413, 418] {
        assert_eq!(status(code, false), Ended::Unclear, "{code}");
    }
    for code in [408, 429, 502, 503, 504] {
        assert_eq!(status(code, false), Ended::Unavailable, "{code}");
    }
    for code in [500, 501, 505, 507, 599] {
        assert_eq!(status(code, false), Ended::Failed, "{code}");
    }
    assert_eq!((status(400, false), status(400, true)), (Ended::Refused, Ended::Unclear));
    assert_eq!(status(403, false), Ended::Forbidden { maybe_done: false });
    assert_eq!(status(403, true), Ended::Forbidden { maybe_done: true });
    let lost = |unsent| Error::Lost { operation: "x".into(), reason: "y".into(), unsent };
    assert_eq!((Ended::with(&lost(true)), Ended::with(&lost(false))), (Ended::NotSent, Ended::NoAnswer));
    let timeout = Error::Timeout { operation: "x".into(), after: Duration::ZERO };
    assert_eq!(Ended::with(&timeout), Ended::NoAnswer);
    let nonsense = Error::Protocol { operation: "x".into(), reason: "y".into() };
    assert_eq!(Ended::with(&nonsense), Ended::Nonsense);
    let tls = |source| Ended::with(&Error::Tls { peer: "x".into(), source });
    assert_eq!(tls(TlsError::Broken("y".into())), Ended::NotSent);
    assert_eq!(tls(TlsError::Refused("y".into())), Ended::CannotBeSent);
    assert_eq!(tls(TlsError::UntrustedCa), Ended::CannotBeSent);
}

#[test]
fn another_attempt_comes_at_once_then_later_and_later_until_the_timeout() {
    let (outage, start) = (Outage::default(), Instant::now());
    let mut attempts = Attempts::new(Duration::from_secs(5), start);
    let mut now = start;
    let mut pauses = Vec::new();
    while let Some(pause) = attempts.next(Again::UntilTimeout, &outage, now) {
        now += pause;
        pauses.push(pause.as_millis());
    }
    assert_eq!(pauses, [0, 100, 200, 400, 800, 1600]);
    assert!(outage.was_within(Duration::from_secs(1), now));
    // There is one other attempt also where no time is given.
    outage.answered();
    let mut attempts = Attempts::new(Duration::ZERO, start);
    assert_eq!(attempts.next(Again::UntilTimeout, &outage, start), Some(Duration::ZERO));
    assert_eq!(attempts.next(Again::UntilTimeout, &outage, start), None);
}

#[test]
fn what_failed_by_itself_is_sent_again_once_and_a_ticket_is_waited_for_after_a_loss() {
    let (outage, now) = (Outage::default(), Instant::now());
    let mut attempts = Attempts::new(Duration::from_secs(5), now);
    assert_eq!(attempts.next(Again::Once, &outage, now), Some(Duration::ZERO));
    assert_eq!(attempts.next(Again::Once, &outage, now), None);
    let mut attempts = Attempts::new(Duration::from_secs(60), now);
    assert_eq!(attempts.next(Again::IfTicketComesBack, &outage, now), None);
    outage.connection_lost(now);
    assert!(attempts.next(Again::IfTicketComesBack, &outage, now).is_some());
    assert_eq!(attempts.next(Again::IfTicketComesBack, &outage, now + TICKET_COMES_BACK), None);
}

#[test]
fn all_requests_together_wait_for_the_timeout_once() {
    let (outage, start, timeout) = (Outage::default(), Instant::now(), Duration::from_secs(5));
    let next = |attempts: &mut Attempts, now| attempts.next(Again::UntilTimeout, &outage, now);
    assert!(next(&mut Attempts::new(timeout, start), start).is_some());
    let later = start + timeout;
    assert_eq!(next(&mut Attempts::new(timeout, later), later), Some(Duration::ZERO));
    let too_late = later + Duration::from_millis(1);
    assert_eq!(next(&mut Attempts::new(timeout, too_late), too_late), None);
    outage.answered();
    assert!(next(&mut Attempts::new(timeout, too_late), too_late).is_some());
}

#[test]
fn the_time_begins_anew_for_whoever_gets_further() {
    let (outage, start) = (Outage::default(), Instant::now());
    let mut attempts = Attempts::new(Duration::from_secs(5), start);
    let later = start + Duration::from_secs(5);
    for now in [start, start, later] {
        attempts.next(Again::UntilTimeout, &outage, now);
    }
    assert_eq!(attempts.next(Again::UntilTimeout, &outage, later), None);
    outage.answered();
    attempts.got_further();
    assert_eq!(attempts.next(Again::UntilTimeout, &outage, later), Some(Duration::ZERO));
}

#[test]
fn a_failure_that_took_long_is_no_matter_of_one_part() {
    let start = Instant::now();
    let attempts = Attempts::new(Duration::from_secs(60), start);
    let (soon, late) = (start + LONG_FOR_A_PART, start + 2 * LONG_FOR_A_PART);
    assert_eq!(attempts.failing(Failing::Part, soon), Failing::Part);
    assert_eq!(attempts.failing(Failing::Part, late), Failing::Request);
    assert_eq!(attempts.failing(Failing::Transfer, late), Failing::Transfer);
}
