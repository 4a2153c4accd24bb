//! What a shard refuses to do to an endpoint, and to itself.

use super::*;
use crate::gate::Gate;
use crate::limits::{
    FRESH_PER_OWED, PANIC_IN_FLIGHT_MAX, PANIC_MAX, SHARD_QUEUED_BYTES_MAX, SHARD_RETRIES_MAX,
    SHARD_SLOW_MAX,
};
use crate::registry::gate_key;

fn refused() -> Outcome {
    Outcome::failed(Cause::ConnectionRefused)
}

/// Offers one and ends it at once.
fn attempt(shard: &mut Shard, one: Delivery, outcome: Outcome, now: Timestamp) -> Wanted {
    let mut wanted = Wanted::default();
    assert!(offer(shard, one, now, &mut wanted));
    let sent = wanted.sends.pop().expect("it starts at once");
    finish(shard, sent, outcome, now, &mut wanted);
    wanted
}

/// What the lane says of a first attempt that was not made.
fn laned(wanted: &mut Wanted) -> proto::Reason {
    assert!(wanted.sends.is_empty() && wanted.closed.is_empty());
    let append = wanted.appends.pop().expect("it goes to the lane");
    let record = proto::Deliver::from_value(&append.value).unwrap();
    assert_eq!((record.attempt, record.due_ms), (0, 0), "nothing is spent");
    record.reason()
}

#[test]
fn first_attempts_take_the_lane_while_the_gate_is_not_open() {
    for state in [GateState::Held, GateState::Paused] {
        let mut table = table(1, |_, e| e.max_in_flight = 1);
        let mut shard = shard(table.snapshot());
        let mut wanted = Wanted::default();
        assert!(offer(&mut shard, delivery(0, 0), START, &mut wanted));
        assert!(offer(&mut shard, delivery(0, 1), START, &mut wanted));
        let sent = wanted.sends.pop().unwrap();
        let gate = Gate {
            state,
            ..Gate::OPEN
        };
        let id = EndpointId::from_bytes([0; 16]);
        let value = gate.to_proto(id).to_value();
        table.apply(&gate_key(id), &value).unwrap();
        shard.set_registry(table.snapshot());
        assert!(offer(&mut shard, delivery(0, 2), START, &mut wanted));
        assert_eq!(laned(&mut wanted), proto::Reason::Gate);
        let mut swept = sweep(&mut shard, START);
        assert_eq!(laned(&mut swept), proto::Reason::Gate, "what waited, too");
        assert_eq!(shard.queued(), 0);
        finish(&mut shard, sent, ok(), START, &mut wanted);
        let owed = from(Room::Owner, 0, 3);
        assert!(offer(&mut shard, owed, START, &mut wanted));
        match state {
            GateState::Paused => assert!(bounced(&wanted, 3) && wanted.sends.is_empty()),
            _ => assert_eq!(wanted.sends.len(), 1, "its owner knows better"),
        }
    }
}

fn bounced(wanted: &Wanted, offset: u64) -> bool {
    matches!(wanted.reports[..], [(at, ReportEnd::Bounced)] if at == offset)
}

#[test]
fn a_pause_stops_what_waits_and_lets_what_is_under_way_finish() {
    let mut table = table(1, |_, e| e.max_in_flight = 1);
    let mut shard = shard(table.snapshot());
    let mut wanted = Wanted::default();
    for (room, offset) in [(Room::Ingest, 0), (Room::Owner, 1), (Room::Ingest, 2)] {
        assert!(offer(&mut shard, from(room, 0, offset), START, &mut wanted));
    }
    let sent = wanted.sends.pop().unwrap();
    let mut record = endpoint_sample(0, "acme", &[]);
    (record.max_in_flight, record.paused) = (1, true);
    put(&mut table, &record);
    shard.set_registry(table.snapshot());
    // Its end is the first the shard does after it heard of the pause.
    finish(&mut shard, sent, ok(), START, &mut wanted);
    assert_eq!(wanted.closed, [0]);
    assert!(bounced(&wanted, 1), "{:?}", wanted.reports);
    wanted.closed.clear();
    assert_eq!(laned(&mut wanted), proto::Reason::Gate);
    assert_eq!((shard.queued(), shard.in_flight()), (0, 0));
    record.paused = false;
    put(&mut table, &record);
    shard.set_registry(table.snapshot());
    assert!(offer(&mut shard, delivery(0, 3), START, &mut wanted));
    assert_eq!(wanted.sends.len(), 1);
}

/// Five failures over a second, the last at `later(1_000)`.
fn trip(shard: &mut Shard) {
    for n in 0..5 {
        let wanted = attempt(shard, delivery(0, n), refused(), later(n * 250));
        assert_eq!(
            wanted.appends[0].kind,
            AppendKind::Lane(proto::Reason::Retry)
        );
    }
}

#[test]
fn an_endpoint_that_is_down_gets_one_probe_at_a_time() {
    let mut shard = shard(table(1, |_, _| {}).snapshot());
    trip(&mut shard);
    let mut wanted = Wanted::default();
    assert!(offer(
        &mut shard,
        delivery(0, 10),
        later(1_001),
        &mut wanted
    ));
    assert_eq!(laned(&mut wanted), proto::Reason::Gate);
    // The cooldown is 5 s at most: the next is the probe, those behind it are not.
    let due = later(6_000);
    assert!(offer(&mut shard, delivery(0, 11), due, &mut wanted));
    let probe = wanted.sends.pop().unwrap();
    assert!(offer(&mut shard, delivery(0, 12), due, &mut wanted));
    assert_eq!(laned(&mut wanted), proto::Reason::Gate);
    finish(&mut shard, probe, ok(), due, &mut wanted);
    for offset in 13..16 {
        assert!(offer(&mut shard, delivery(0, offset), due, &mut wanted));
    }
    assert_eq!(wanted.sent_to(), [0, 0], "it comes back with two");
}

#[test]
fn what_waits_when_an_endpoint_goes_down_takes_the_lane() {
    let mut shard = shard(table(1, |_, e| e.max_in_flight = 5).snapshot());
    let mut wanted = Wanted::default();
    for offset in 0..20 {
        assert!(offer(&mut shard, delivery(0, offset), START, &mut wanted));
    }
    for (n, sent) in (0..).zip(std::mem::take(&mut wanted.sends)) {
        finish(&mut shard, sent, refused(), later(n * 250), &mut wanted);
    }
    assert_eq!(shard.queued(), 0);
    let gate = AppendKind::Lane(proto::Reason::Gate);
    assert!(wanted.appends.iter().any(|append| append.kind == gate));
}

#[test]
fn its_owners_success_shows_that_it_is_back() {
    let mut shard = shard(table(1, |_, _| {}).snapshot());
    trip(&mut shard);
    let now = later(1_500);
    attempt(&mut shard, from(Room::Owner, 0, 7), refused(), now);
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(0, 8), now, &mut wanted));
    assert_eq!(laned(&mut wanted), proto::Reason::Gate);
    attempt(&mut shard, from(Room::Owner, 0, 9), ok(), now);
    assert!(offer(&mut shard, delivery(0, 10), now, &mut wanted));
    assert_eq!(wanted.sends.len(), 1);
}

#[test]
fn an_endpoint_that_asks_to_be_left_alone_is() {
    let mut shard = shard(table(1, |_, _| {}).snapshot());
    let asks = Outcome::response(429, Some("10"), START);
    attempt(&mut shard, delivery(0, 0), asks, START);
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(0, 1), later(9_999), &mut wanted));
    assert_eq!(laned(&mut wanted), proto::Reason::Gate);
    attempt(&mut shard, from(Room::Owner, 0, 2), ok(), later(9_999));
    assert!(offer(
        &mut shard,
        delivery(0, 3),
        later(11_001),
        &mut wanted
    ));
    assert_eq!(wanted.sends.len(), 1);
}

#[test]
fn an_ordered_endpoint_is_its_owners() {
    let mut shard = shard(table(1, |_, e| e.ordered = true).snapshot());
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(0, 1), START, &mut wanted));
    assert_eq!(laned(&mut wanted), proto::Reason::Owned);
}

#[test]
fn retries_get_one_turn_in_five_while_first_attempts_wait() {
    let mut shard = shard(table(1, |_, e| e.max_in_flight = 1).snapshot());
    let mut wanted = Wanted::default();
    for offset in 0..40 {
        assert!(offer(&mut shard, delivery(0, offset), START, &mut wanted));
        let retry = from(Room::Owner, 0, 100 + offset);
        assert!(offer(&mut shard, retry, START, &mut wanted));
    }
    let mut rooms = Vec::new();
    while let Some(sent) = wanted.sends.pop() {
        rooms.push(sent.ticket.room);
        finish(&mut shard, sent, ok(), START, &mut wanted);
    }
    assert_eq!(rooms.len(), 80, "nothing stays behind");
    let both_wait = &rooms[..50];
    let period = usize::try_from(FRESH_PER_OWED).unwrap() + 1;
    for window in both_wait.windows(period) {
        let owed = window.iter().filter(|room| **room == Room::Owner).count();
        assert_eq!(owed, 1, "{rooms:?}");
    }
    assert!(rooms[50..].iter().all(|room| *room == Room::Owner));
}

#[test]
fn retries_get_half_of_the_slots_while_first_attempts_wait() {
    let change = |number, e: &mut proto::Endpoint| {
        e.max_in_flight = if number == 0 { 1 } else { 10 };
    };
    let mut shard = shard(table(61, change).snapshot());
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(0, 0), START, &mut wanted));
    assert!(offer(&mut shard, delivery(0, 1), START, &mut wanted));
    let mut first = wanted.sends.pop().unwrap();
    for offset in 0..600 {
        let endpoint = u32::try_from(offset % 60 + 1).unwrap();
        let retry = from(Room::Owner, endpoint, offset);
        let now = grown_old(offset);
        assert!(offer(&mut shard, retry, now, &mut wanted));
    }
    assert_eq!(wanted.sends.len(), SHARD_RETRIES_MAX);
    let now = grown_old(600);
    // A first attempt does not stand in their line.
    assert!(offer(&mut shard, delivery(1, 2), now, &mut wanted));
    let fresh = wanted.sends.pop().unwrap();
    assert_eq!(fresh.ticket.offset, 2);
    finish(&mut shard, fresh, ok(), now, &mut wanted);
    // One ends, one begins, without a sweep.
    let retry = wanted.sends.pop().unwrap();
    finish(&mut shard, retry, ok(), now, &mut wanted);
    assert_eq!(wanted.sends.len(), SHARD_RETRIES_MAX);
    // No first attempt waits any more: retries may have the rest.
    finish(&mut shard, first, ok(), now, &mut wanted);
    first = wanted.sends.remove(SHARD_RETRIES_MAX);
    assert_eq!(first.ticket.room, Room::Ingest);
    let mut actions = Vec::new();
    for step in 1..20 {
        shard.tick(
            later(now.since(START).as_secs() * 1_000 + step * 1_000),
            &mut actions,
        );
    }
    wanted.take(&mut actions);
    assert_eq!(shard.in_flight(), SHARD_IN_FLIGHT_MAX);
    drop(first);
}

#[test]
fn slow_endpoints_share_half_of_the_slots() {
    let mut shard = shard(table(62, |_, _| {}).snapshot());
    let slow = 60;
    let mut now = START;
    for endpoint in 0..slow {
        let mut wanted = Wanted::default();
        assert!(offer(&mut shard, delivery(endpoint, 0), now, &mut wanted));
        now = now.after(Duration::from_secs(2));
        let sent = wanted.sends.pop().unwrap();
        finish(&mut shard, sent, ok(), now, &mut wanted);
    }
    let mut wanted = Wanted::default();
    for offset in 0..u64::from(slow) * 10 {
        let endpoint = u32::try_from(offset).unwrap() % slow;
        now = now.after(Duration::from_millis(5));
        assert!(offer(
            &mut shard,
            delivery(endpoint, offset),
            now,
            &mut wanted
        ));
    }
    assert_eq!(wanted.sends.len(), SHARD_SLOW_MAX);
    for offset in 0..10 {
        assert!(offer(&mut shard, delivery(61, offset), now, &mut wanted));
    }
    assert_eq!(
        shard.in_flight(),
        SHARD_SLOW_MAX + 10,
        "the quick one's slots"
    );
    // A place that comes free goes to the next of them at once, also when the
    // endpoint is quick by then: its attempt began as a slow one.
    let sent = wanted.sends.swap_remove(0);
    finish(&mut shard, sent, ok(), now, &mut wanted);
    assert_eq!(shard.in_flight(), SHARD_SLOW_MAX + 10);
    // In the end every slot is back.
    while let Some(sent) = wanted.sends.pop() {
        now = now.after(Duration::from_millis(5));
        finish(&mut shard, sent, ok(), now, &mut wanted);
    }
    assert_eq!((shard.in_flight(), shard.queued()), (0, 0));
    assert!(shard.quota.is_empty());
}

#[test]
fn a_share_of_the_source_is_a_share_of_window_and_rate() {
    let change = |number, e: &mut proto::Endpoint| {
        e.max_in_flight = 10;
        e.rate_per_second = if number == 1 { 100 } else { 0 };
    };
    let mut shard = shard(table(2, change).snapshot());
    shard.set_share(1, 4);
    let mut wanted = Wanted::default();
    for offset in 0..20 {
        assert!(offer(&mut shard, delivery(0, offset), START, &mut wanted));
    }
    assert_eq!(wanted.sends.len(), 2, "a quarter of ten, rounded down");
    for offset in 0..20 {
        let retry = from(Room::Owner, 0, 100 + offset);
        assert!(offer(&mut shard, retry, START, &mut wanted));
    }
    assert_eq!(wanted.sends.len(), 10, "its owner is exact");
    shard.set_share(0, 4);
    assert_eq!(shard.limits(EndpointIx(1)).unwrap().direct_in_flight, 1);
    assert_eq!(shard.limits(EndpointIx(1)).unwrap().direct_rate, 1);
    assert_eq!(shard.limits(EndpointIx(0)).unwrap().direct_rate, 0);
    shard.set_share(4, 4);
    assert_eq!(shard.limits(EndpointIx(0)).unwrap().direct_in_flight, 10);
}

#[test]
fn a_rate_is_kept_and_used() {
    let change = |_, e: &mut proto::Endpoint| {
        e.rate_per_second = 50;
        e.max_in_flight = 256;
    };
    let mut shard = shard(table(1, change).snapshot());
    let mut wanted = Wanted::default();
    for offset in 0..200 {
        let room = if offset % 2 == 0 {
            Room::Ingest
        } else {
            Room::Owner
        };
        assert!(offer(&mut shard, from(room, 0, offset), START, &mut wanted));
    }
    let mut began = 0;
    for step in 0..=400 {
        let mut actions = Vec::new();
        shard.tick(later(step * 5), &mut actions);
        wanted.take(&mut actions);
        for sent in std::mem::take(&mut wanted.sends) {
            began += 1;
            finish(&mut shard, sent, ok(), later(step * 5), &mut wanted);
        }
    }
    // Two seconds, and what was saved up.
    assert!((100..=106).contains(&began), "{began}");
}

#[test]
fn bodies_that_wait_have_a_bound() {
    let mut shard = shard(table(100, |_, e| e.max_in_flight = 1).snapshot());
    let body = Bytes::from(vec![b'x'; BODY_BYTES_MAX]);
    let big = |room, endpoint, offset| {
        let mut one = from(room, endpoint, offset);
        Arc::get_mut(&mut one.event).unwrap().body = body.clone();
        one
    };
    let mut wanted = Wanted::default();
    for endpoint in 0..100 {
        assert!(offer(&mut shard, delivery(endpoint, 0), START, &mut wanted));
    }
    let taken = (0..100).take_while(|&endpoint| {
        offer(
            &mut shard,
            big(Room::Ingest, endpoint, 1),
            START,
            &mut wanted,
        )
    });
    let taken = taken.count();
    assert_eq!(taken, SHARD_QUEUED_BYTES_MAX / BODY_BYTES_MAX);
    assert_eq!(shard.queued_bytes(), SHARD_QUEUED_BYTES_MAX);
    assert!(offer(
        &mut shard,
        big(Room::Owner, 99, 2),
        START,
        &mut wanted
    ));
    assert!(matches!(wanted.reports[..], [(2, ReportEnd::Bounced)]));
    assert!(wanted.appends.is_empty());
    let sent = wanted.sends.remove(0);
    finish(&mut shard, sent, ok(), START, &mut wanted);
    let again = big(Room::Ingest, 99, 3);
    assert!(offer(&mut shard, again, START, &mut wanted));
}

/// Sends one to each endpoint, of which those below `dead` cannot be reached.
fn round(shard: &mut Shard, dead: u32, all: u32, now: Timestamp) -> Wanted {
    let mut wanted = Wanted::default();
    for endpoint in 0..all {
        assert!(offer(shard, delivery(endpoint, 0), now, &mut wanted));
        while let Some(sent) = wanted.sends.pop() {
            let outcome = if sent.endpoint.0 < dead {
                refused()
            } else {
                ok()
            };
            finish(shard, sent, outcome, now, &mut wanted);
        }
    }
    wanted
}

#[test]
fn when_nobody_can_be_reached_it_suspects_itself() {
    let mut shard = shard(table(40, |_, _| {}).snapshot());
    round(&mut shard, 0, 40, START);
    sweep(&mut shard, START);
    assert!(!shard.suspects_itself());
    round(&mut shard, 40, 40, later(100));
    sweep(&mut shard, later(100));
    assert!(shard.suspects_itself());
    // Nothing is spent, nobody trips, for however long.
    for second in 1..60 {
        let now = later(second * 1_000);
        let mut wanted = round(&mut shard, 40, 40, now);
        assert_eq!(wanted.appends.len(), 40);
        while !wanted.appends.is_empty() {
            assert_eq!(laned(&mut wanted), proto::Reason::Gate);
        }
        let retry = from(Room::Owner, 0, 1);
        let wanted = attempt(&mut shard, retry, refused(), now);
        let fault = Outcome::failed(Cause::EgressError);
        assert!(!fault.counts());
        assert!(matches!(wanted.reports[..], [(1, ReportEnd::Attempted(o))] if o == fault));
        let answered = Outcome::response(500, None, now);
        // Nor by what hung on a connection made before; an answer is the
        // receiver's own.
        for (outcome, told) in [
            (Outcome::failed(Cause::TimeoutHeaders), fault),
            (Outcome::failed(Cause::ConnectionReset), fault),
            (answered, answered),
        ] {
            let retry = from(Room::Owner, 0, 1);
            let wanted = attempt(&mut shard, retry, outcome, now);
            assert!(matches!(wanted.reports[..], [(1, ReportEnd::Attempted(o))] if o == told));
        }
        let wanted = &mut attempt(
            &mut shard,
            delivery(0, 2),
            Outcome::failed(Cause::TimeoutHeaders),
            now,
        );
        assert_eq!(laned(wanted), proto::Reason::Gate);
        sweep(&mut shard, now);
        assert!(shard.suspects_itself());
        assert!((0..40).all(|ix| shard.queue(EndpointIx(ix)).breaker.is_closed()));
    }
    // A tenth of the slots goes on.
    let mut wanted = Wanted::default();
    for offset in 0..200 {
        let endpoint = u32::try_from(offset).unwrap() % 40;
        let one = delivery(endpoint, offset);
        assert!(offer(&mut shard, one, later(60_000), &mut wanted));
    }
    assert_eq!(shard.in_flight(), PANIC_IN_FLIGHT_MAX);
    while let Some(sent) = wanted.sends.pop() {
        finish(&mut shard, sent, ok(), later(60_000), &mut wanted);
    }
    // The way is open again: three seconds later all is as before.
    for tenth in 600..630 {
        round(&mut shard, 0, 40, later(tenth * 100));
        sweep(&mut shard, later(tenth * 100));
        assert!(shard.suspects_itself());
    }
    sweep(&mut shard, later(63_000));
    assert!(!shard.suspects_itself());
}

#[test]
fn a_suspicion_has_an_end_and_does_not_come_back_of_the_same() {
    let mut shard = shard(table(40, |_, _| {}).snapshot());
    round(&mut shard, 0, 40, START);
    let end = PANIC_MAX.as_secs();
    for second in 1..end + 300 {
        let now = later(second * 1_000);
        round(&mut shard, 40, 40, now);
        sweep(&mut shard, now);
        assert_eq!(shard.suspects_itself(), second <= end, "{second}");
    }
    assert!((0..40).all(|ix| !shard.queue(EndpointIx(ix)).breaker.is_closed()));
}

#[test]
fn a_few_that_cannot_be_reached_are_at_fault_themselves() {
    let mut shard = shard(table(40, |_, _| {}).snapshot());
    for tenth in 0..40 {
        round(&mut shard, 12, 40, later(tenth * 100));
        sweep(&mut shard, later(tenth * 100));
        assert!(!shard.suspects_itself());
    }
    assert!((0..12).all(|ix| !shard.queue(EndpointIx(ix)).breaker.is_closed()));
    // Those long gone do not keep it from seeing that its own trouble is over.
    for second in 20..40 {
        round(&mut shard, 12, 40, later(second * 1_000));
        sweep(&mut shard, later(second * 1_000));
    }
    round(&mut shard, 40, 40, later(40_000));
    sweep(&mut shard, later(40_000));
    assert!(shard.suspects_itself());
    for tenth in 401..=432 {
        round(&mut shard, 12, 40, later(tenth * 100));
        sweep(&mut shard, later(tenth * 100));
    }
    assert!(!shard.suspects_itself());
}
