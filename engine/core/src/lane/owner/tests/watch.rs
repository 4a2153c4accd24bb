//! Breaker, gate, pauses, disabling and commands.

use super::*;
use crate::limits::{EXPIRE_EVERY, GATE_DWELL};

fn failed(number: u64, endpoint: u8, cause: Cause) -> Bytes {
    let value = deliver(number, endpoint, NEVER.as_millis() >> 20, NEVER);
    let mut record = proto::Deliver::from_value(&value).unwrap();
    record.reason = proto::Reason::Retry.into();
    record.last_cause = cause.code().to_owned();
    record.to_value()
}

/// An endpoint that holds so many, and is down from the start.
fn down(count: u64, settings: Settings) -> Lane {
    let mut lane = Lane::ready((0..count).map(|n| deliver(n, 1, 0, NEVER)).collect());
    lane.settings(1, settings);
    let mut out = VecDeque::from(dispatched(&lane.tick(START)));
    let times = [0, 300, 600, 900, 1_200].into_iter().chain(1_201..);
    for passed in times {
        let Some(offset) = out.pop_front() else {
            break;
        };
        out.extend(dispatched(&lane.attempted(offset, 500, later(passed))));
    }
    assert!(!lane.owner.lines[&id(1)].breaker.is_closed());
    lane.flush();
    lane
}

/// Ticks until something goes out.
fn next_out(lane: &mut Lane) -> Vec<u64> {
    for _ in 0..1_000 {
        let due = lane.owner.next_due().unwrap().max(lane.now);
        let out = dispatched(&lane.tick(due));
        if !out.is_empty() {
            return out;
        }
    }
    panic!("nothing goes out");
}

#[test]
fn an_endpoint_that_is_down_gets_one_probe_and_its_gate_is_held() {
    let mut lane = down(100, ACTIVE);
    assert_eq!(lane.gates(), [GateState::Held]);
    let probe = next_out(&mut lane);
    assert_eq!(probe.len(), 1, "exactly one");
    let now = lane.now;
    assert!(now > later(2_000) && lane.tick(now.after(Duration::from_secs(9))).is_empty());
    assert!(lane.attempted(probe[0], 500, now).is_empty());
    lane.flush();
    let probe = next_out(&mut lane);
    let now = lane.now;
    let out = lane.attempted(probe[0], 200, now);
    assert!(dispatched(&out).len() > 30, "the backlog drains");
    assert!(lane.wanted.iter().any(|action| matches!(
        action,
        Action::Notify(Notice {
            kind: NoticeKind::Recovered { .. },
            ..
        })
    )));
    assert_eq!(
        lane.gates(),
        [GateState::Open],
        "first attempts go on at once"
    );
}

#[test]
fn a_fifo_endpoints_gate_opens_behind_its_backlog() {
    let mut lane = down(
        70,
        Settings {
            fifo: true,
            ..ACTIVE
        },
    );
    assert_eq!(lane.gates(), [GateState::Held]);
    let mut open = Vec::new();
    let mut delivered = 0;
    while delivered < 70 {
        assert_eq!(open, [], "{delivered} delivered");
        for offset in next_out(&mut lane) {
            let mut more = vec![offset];
            while let Some(offset) = more.pop() {
                let now = lane.now;
                more.extend(dispatched(&lane.attempted(offset, 200, now)));
                delivered += 1;
            }
        }
        lane.flush();
        open = lane.gates();
    }
    for _ in 0..3 {
        let now = lane.now.after(GATE_DWELL);
        lane.tick(now);
        lane.flush();
    }
    assert_eq!(lane.gates(), [GateState::Open]);
    assert!(lane.owner.fold().is_empty());
}

#[test]
fn a_gate_dwells_and_an_operators_is_left_alone() {
    let gate = (GateState::Held, START);
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    lane.settings(1, Settings { gate, ..ACTIVE });
    assert_eq!(
        dispatched(&lane.tick(later(10))),
        [0],
        "a predecessor's gate"
    );
    assert_eq!(lane.gates(), []);
    lane.tick(START.after(GATE_DWELL));
    assert_eq!(lane.gates(), [GateState::Open]);
    let gate = (GateState::Paused, later(5_000));
    let mut lane = Lane::ready(vec![deliver(1, 1, 1, NEVER)]);
    lane.settings(1, Settings { gate, ..ACTIVE });
    assert!(lane.tick(later(60_000)).is_empty() && lane.gates().is_empty());
}

#[test]
fn attempts_that_failed_elsewhere_count_unless_they_say_nothing() {
    for (cause, trips) in [
        (Cause::ConnectionRefused, true),
        (Cause::RateLimited, false),
        (Cause::BlockedAddress, false),
    ] {
        let mut lane = Lane::ready(vec![]);
        for number in 0..6 {
            lane.now = later(number * 400);
            lane.append(failed(number, 1, cause));
        }
        let now = lane.now;
        lane.tick(now);
        let held = lane.gates() == [GateState::Held];
        assert_eq!(held, trips, "{cause:?}");
    }
    let old: Vec<_> = (0..30).map(|n| failed(n, 1, Cause::TlsError)).collect();
    let mut lane = Lane::ready(old);
    lane.tick(START);
    assert!(lane.gates().is_empty(), "nobody knows when those were");
}

#[test]
fn retry_after_pauses_the_endpoint() {
    let mut lane = Lane::ready((0..70).map(|n| deliver(n, 1, 0, NEVER)).collect());
    assert_eq!(dispatched(&lane.tick(START)).len(), OWNER_OUTSTANDING);
    let asked = Outcome::response(503, Some("100"), START);
    assert!(
        lane.report(0, ReportEnd::Attempted(asked), START)
            .is_empty()
    );
    assert!(lane.attempted(1, 200, START).is_empty());
    assert!(lane.tick(later(99_999)).is_empty());
    assert!(!lane.tick(later(110_000)).is_empty());
}

fn disabled(lane: &mut Lane) -> Vec<DisableReason> {
    let reason = |action| match action {
        Action::Disable { reason, .. } => Some(reason),
        _ => None,
    };
    lane.wanted.drain(..).filter_map(reason).collect()
}

#[test]
fn gone_disables_at_once_and_keeps_the_backlog() {
    let mut lane = Lane::ready((0..99).map(|n| deliver(n, 1, 0, NEVER)).collect());
    lane.tick(START);
    assert_eq!(
        buried(&lane.attempted(0, 410, START)),
        [(0, GiveUpCause::Gone)]
    );
    assert_eq!(disabled(&mut lane), [DisableReason::Gone]);
    assert!(
        lane.attempted(1, 200, START).is_empty(),
        "nothing goes out any more"
    );
    lane.attempted(2, 410, START);
    assert_eq!(disabled(&mut lane), [], "said once");
    for offset in 3..40 {
        assert!(lane.attempted(offset, 200, START).is_empty());
    }
    lane.settings(
        1,
        Settings {
            standing: Standing::Disabled,
            ..ACTIVE
        },
    );
    assert!(lane.tick(later(600_000)).is_empty());
    lane.settings(1, ACTIVE);
    let again = dispatched(&lane.tick(later(600_001)));
    assert!(again.len() > 10 && again.iter().all(|offset| *offset > 63));
}

#[test]
fn days_of_failures_disable_and_one_success_begins_anew() {
    for interrupted in [false, true] {
        let mut lane = Lane::ready((0..99).map(|n| deliver(n, 1, 0, NEVER)).collect());
        let mut seen = Vec::new();
        let out = dispatched(&lane.tick(START));
        for (hour, offset) in (0_u64..).zip(out.into_iter().take(31)) {
            let now = later(hour * 4 * 3_600_000);
            let status = if interrupted && hour == 3 { 200 } else { 500 };
            lane.attempted(offset, status, now);
            seen.extend(disabled(&mut lane).into_iter().map(|_| now));
        }
        let expected = if interrupted {
            vec![]
        } else {
            vec![START.after(DISABLE_AFTER)]
        };
        assert_eq!(seen, expected);
    }
}

#[test]
fn an_endpoint_says_after_how_long_it_is_disabled_and_may_say_never() {
    for (hours, seen) in [(Some(12), Some(12)), (Some(20), Some(20)), (None, None)] {
        let mut lane = Lane::ready((0..99).map(|n| deliver(n, 1, 0, NEVER)).collect());
        let hour = Duration::from_secs(3_600);
        let disable_after = hours.map(|hours| hour * hours);
        lane.settings(
            1,
            Settings {
                disable_after,
                ..ACTIVE
            },
        );
        let out = dispatched(&lane.tick(START));
        // Failures enough, at once …
        for &offset in &out[..20] {
            lane.attempted(offset, 500, START);
        }
        // … and for long enough.
        let mut told = None;
        for (passed, &offset) in (1..=30).zip(&out[20..]) {
            lane.attempted(offset, 500, START.after(hour * passed));
            if !disabled(&mut lane).is_empty() {
                told = told.or(Some(passed));
            }
        }
        assert_eq!(told, seen, "{hours:?}");
    }
}

fn command(number: u8, kind: proto::command::Kind, offsets: &[u64]) -> Bytes {
    proto::Command {
        id: vec![number; 16].into(),
        endpoint_id: vec![1; 16].into(),
        kind: kind.into(),
        offsets: offsets.to_vec(),
        at_ms: START.as_millis(),
        ..Default::default()
    }
    .to_value()
}

#[test]
fn a_cancelled_delivery_does_not_go_out_and_what_is_out_comes_to_nothing() {
    let mut lane = Lane::ready((0..70).map(|n| deliver(n, 1, 0, NEVER)).collect());
    lane.append(deliver(70, 1, later(9_000).as_millis(), NEVER));
    assert_eq!(dispatched(&lane.tick(START)).len(), OWNER_OUTSTANDING);
    lane.append(command(1, proto::command::Kind::Cancel, &[]));
    assert!(lane.owner.fold().is_empty());
    assert!(lane.attempted(0, 500, START).is_empty());
    assert!(lane.tick(later(60_000)).is_empty());
    assert_eq!(lane.flush(), [], "there is nothing to tell");
}

#[test]
fn retry_now_and_probe_do_not_wait() {
    let mut lane = Lane::ready(vec![deliver(1, 1, later(90_000).as_millis(), NEVER)]);
    assert!(lane.tick(START).is_empty());
    lane.append(command(1, proto::command::Kind::RetryNow, &[]));
    assert_eq!(dispatched(&lane.tick(later(1))), [0]);
    let mut lane = down(80, ACTIVE);
    let now = lane.now;
    assert!(lane.tick(now).is_empty());
    lane.append(command(1, proto::command::Kind::Probe, &[]));
    let probe = dispatched(&lane.tick(now));
    assert_eq!(probe.len(), 1, "one, though the breaker is open");
    assert!(!dispatched(&lane.attempted(probe[0], 200, now)).is_empty());
}

/// What was said about 401 and 403 since this was asked last.
fn refused(lane: &mut Lane) -> Vec<u16> {
    let status = |action| match action {
        Action::Notify(Notice {
            kind: NoticeKind::AuthFailing { status },
            ..
        }) => Some(status),
        _ => None,
    };
    lane.wanted.drain(..).filter_map(status).collect()
}

#[test]
fn failing_authentication_is_told_once_until_something_was_taken() {
    let mut lane = Lane::ready((0..60).map(|n| deliver(n, 1, 0, NEVER)).collect());
    assert_eq!(dispatched(&lane.tick(START)).len(), 60);
    let mut seen = Vec::new();
    for (offset, status) in (0..).zip([500, 401, 403, 401, 429, 500, 403, 200, 500, 403, 401]) {
        lane.attempted(offset, status, START);
        seen.extend(
            refused(&mut lane)
                .into_iter()
                .map(|status| (offset, status)),
        );
    }
    assert_eq!(seen, [(1, 401), (9, 403)]);
    // Its successor knows.
    let parts = lane.owner.snapshot();
    let records = parts
        .iter()
        .map(|part| proto::Snapshot::from_value(part).unwrap());
    let standings = records.flat_map(|part| part.standings);
    let failing: Vec<_> = standings.map(|standing| standing.auth_failing).collect();
    assert_eq!(failing, [true]);
    let standing = proto::snapshot::Standing {
        auth_failing: true,
        ..Default::default()
    };
    let line = Line::restore(&standing);
    assert!(line.auth_failing && !line.is_idle());
    assert_eq!(line.save(), Some(standing));
}

#[test]
fn our_own_way_out_being_broken_blames_nobody_and_is_tried_by_one() {
    let mut lane = Lane::ready((0..300).map(|n| deliver(n, 1, 0, NEVER)).collect());
    let fault = || ReportEnd::Attempted(Outcome::failed(Cause::EgressError));
    let mut out = dispatched(&lane.tick(START));
    assert_eq!(out.len(), OWNER_OUTSTANDING);
    let mut attempts = 0;
    for second in 0..600 {
        let now = later(second * 1_000);
        for offset in std::mem::take(&mut out) {
            attempts += 1;
            assert_eq!(lane.report(offset, fault(), now), []);
        }
        out = dispatched(&lane.tick(now));
        assert!(out.len() <= 1, "{second}");
        assert_eq!(lane.flush(), [], "nothing is spent");
    }
    assert!(
        (6..=10).contains(&(attempts - OWNER_OUTSTANDING)),
        "{attempts}"
    );
    assert!(lane.owner.lines[&id(1)].breaker.is_closed());
    assert!(lane.owner.lines[&id(1)].health.is_well());
    assert_eq!(lane.gates(), []);
    // The way is open again.
    if out.is_empty() {
        out = next_out(&mut lane);
    }
    let now = lane.now;
    assert!(dispatched(&lane.attempted(out[0], 200, now)).len() > 30);
}

#[test]
fn a_probe_that_our_own_way_out_failed_leaves_the_question_and_waits() {
    let mut lane = down(100, ACTIVE);
    for _ in 0..3 {
        let probe = next_out(&mut lane);
        assert_eq!(probe.len(), 1);
        let (now, fault) = (lane.now, Outcome::failed(Cause::EgressError));
        assert_eq!(lane.report(probe[0], ReportEnd::Attempted(fault), now), []);
        assert_eq!(told(lane.flush()), []);
        assert_eq!(lane.tick(now.after(Duration::from_secs(59))), []);
        assert!(!lane.owner.lines[&id(1)].breaker.is_closed());
    }
}

#[test]
fn our_own_failure_does_not_disable_what_failed_long_ago() {
    let mut lane = Lane::ready((0..99).map(|n| deliver(n, 1, 0, NEVER)).collect());
    let out = dispatched(&lane.tick(START));
    for (hour, &offset) in (0..25).zip(&out) {
        lane.attempted(offset, 500, later(hour * 3_600_000));
    }
    let after = START.after(DISABLE_AFTER);
    let fault = ReportEnd::Attempted(Outcome::failed(Cause::EgressError));
    lane.report(out[25], fault, after);
    assert_eq!(disabled(&mut lane), []);
    lane.attempted(out[26], 500, after);
    assert_eq!(disabled(&mut lane), [DisableReason::Failing]);
}

#[test]
fn a_paused_endpoint_gets_nothing_and_the_time_does_not_count_against_it() {
    let mut lane = Lane::ready((0..99).map(|n| deliver(n, 1, 0, NEVER)).collect());
    let out = dispatched(&lane.tick(START));
    for (hour, &offset) in (0..25).zip(&out) {
        lane.attempted(offset, 500, later(hour * 3_600_000));
    }
    let standing = Standing::Paused;
    lane.settings(1, Settings { standing, ..ACTIVE });
    let paused = START.after(DISABLE_AFTER - Duration::from_secs(1));
    assert!(lane.tick(paused).is_empty());
    lane.report(out[25], ReportEnd::Bounced, paused);
    assert!(lane.tick(paused.after(Duration::from_secs(60))).is_empty());
    assert!(lane.owner.fold().is_owed(id(1), out[25]));
    let resumed = START.after(DISABLE_AFTER * 2);
    lane.settings(1, ACTIVE);
    // One that had been under way the whole time.
    lane.attempted(out[26], 500, resumed);
    assert_eq!(disabled(&mut lane), []);

    let mut lane = Lane::ready((0..3).map(|n| deliver(n, 1, 0, NEVER)).collect());
    lane.settings(1, Settings { standing, ..ACTIVE });
    assert!(lane.tick(START).is_empty());
    lane.settings(1, ACTIVE);
    assert_eq!(dispatched(&lane.tick(START)), [0, 1, 2]);
}

#[test]
fn a_disabled_endpoint_that_is_owed_nothing_is_left_alone() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 0, NEVER), deliver(2, 1, 0, NEVER)]);
    assert_eq!(dispatched(&lane.tick(START)), [0, 1]);
    lane.attempted(0, 410, START);
    lane.attempted(1, 500, START);
    let standing = Standing::Disabled;
    lane.settings(1, Settings { standing, ..ACTIVE });
    lane.owner.buried(0);
    lane.flush();
    assert!(lane.tick(later(1)).is_empty());
    let wake = lane.owner.next_due().unwrap();
    assert!(wake <= START.after(EXPIRE_EVERY), "what it is owed expires");
    lane.append(command(1, proto::command::Kind::Cancel, &[]));
    assert!(lane.tick(later(2)).is_empty());
    assert!(lane.owner.lines.contains_key(&id(1)), "its failure counts");
    assert_eq!(lane.owner.next_due(), None);
    lane.append(deliver(3, 1, 0, NEVER));
    assert!(lane.owner.next_due().is_some());
}

#[test]
fn a_change_touches_only_whose_settings_changed() {
    let records = (0..2).map(|n| deliver(n, 1 + u8::from(n == 1), u64::MAX >> 20, NEVER));
    let mut lane = Lane::ready(records.collect());
    lane.tick(START);
    let due = |lane: &Lane| lane.owner.next_due().unwrap();
    assert!(due(&lane) > START);
    lane.settings(1, ACTIVE);
    assert!(due(&lane) > START, "nothing changed");
    let gate = (GateState::Paused, START);
    lane.settings(1, Settings { gate, ..ACTIVE });
    assert_eq!(due(&lane), Timestamp::default());
    let looked_at = lane.owner.wakes.iter();
    let looked_at: Vec<_> = looked_at
        .filter(|(at, _)| *at == Timestamp::default())
        .collect();
    assert_eq!(looked_at, [&(Timestamp::default(), id(1))]);
}

#[test]
fn of_a_deleted_endpoint_nothing_is_kept_however_it_fared() {
    let mut lane = down(20, ACTIVE);
    let standing = Standing::Deleted;
    lane.settings(1, Settings { standing, ..ACTIVE });
    for _ in 0..2 {
        let now = lane.now;
        assert!(lane.tick(now).is_empty());
        lane.flush();
    }
    assert!(lane.owner.fold().is_empty() && lane.owner.lines.is_empty());
    assert_eq!(lane.owner.next_due(), None);
}
