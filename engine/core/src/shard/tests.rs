use std::time::Duration;

use posthaste_proto::Record as _;

use super::*;
use crate::delivery::ReportEnd;
use crate::endpoint::sample as endpoint_sample;
use crate::event::sample as event_sample;
use crate::limits::{
    BODY_BYTES_MAX, DELIVERY_AGE_MAX, IN_FLIGHT_MAX, PACE_MIN, PACE_YOUNG_MS, QUEUE_ITEMS_MAX,
    QUEUE_WAIT_MAX,
};
use crate::outcome::Cause;
use crate::registry::{Table, table_key};
use crate::retry::Policies;
use crate::window::Window;

mod age;
mod conservation;
mod crowd;
mod isolation;
mod overload;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Endpoints 0 to `count`, each changed by `change`.
fn table(count: u8, change: impl Fn(u8, &mut proto::Endpoint)) -> Table {
    let mut table = Table::default();
    for number in 0..count {
        let mut record = endpoint_sample(number, "acme", &[]);
        change(number, &mut record);
        put(&mut table, &record);
    }
    table
}

fn put(table: &mut Table, record: &proto::Endpoint) {
    let id = EndpointId::from_bytes(record.id.as_ref().try_into().unwrap());
    table.apply(&table_key(id), &record.to_value()).unwrap();
}

/// A shard whose endpoints have shown what they can take.
fn shard(registry: Arc<Registry>) -> Shard {
    let endpoints = u32::try_from(registry.len()).unwrap();
    let mut shard = Shard::new(registry, Rng::new(7));
    shard.pace = Pace::full();
    for ix in 0..endpoints {
        shard.queue(EndpointIx(ix)).window = Window::full();
    }
    shard
}

/// A delivery from the source to an endpoint; its offset names it.
fn delivery(endpoint: u32, offset: u64) -> Delivery {
    from(Room::Ingest, endpoint, offset)
}

fn from(room: Room, endpoint: u32, offset: u64) -> Delivery {
    Delivery::new(
        Arc::new(event_sample("evt", "acme", "a")),
        EndpointIx(endpoint),
        0,
        Ticket {
            room,
            slot: 0,
            epoch: 1,
            offset,
        },
    )
}

/// When the `n`-th of many attempts may begin: those before it have grown old.
fn grown_old(n: u64) -> Timestamp {
    later(n / u64::try_from(PACE_MIN).unwrap() * PACE_YOUNG_MS)
}

/// What a shard wanted done, counted by kind, with the offsets it names.
#[derive(Debug, Default)]
struct Wanted {
    sends: Vec<Delivery>,
    appends: Vec<Append>,
    closed: Vec<u64>,
    reports: Vec<(u64, ReportEnd)>,
}

impl Wanted {
    fn take(&mut self, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            match action {
                Action::Send(delivery) => self.sends.push(delivery),
                Action::Append(append) => self.appends.push(append),
                Action::Close(ticket) => self.closed.push(ticket.offset),
                Action::Report(report) => self.reports.push((report.ticket.offset, report.end)),
            }
        }
    }

    fn sent_to(&self) -> Vec<u32> {
        self.sends
            .iter()
            .map(|delivery| delivery.endpoint.0)
            .collect()
    }
}

/// Offers and collects; `false` when the shard gives it back.
fn offer(shard: &mut Shard, delivery: Delivery, now: Timestamp, wanted: &mut Wanted) -> bool {
    let mut actions = Vec::new();
    let taken = shard.offer(delivery, now, false, &mut actions).is_ok();
    wanted.take(&mut actions);
    taken
}

fn finish(
    shard: &mut Shard,
    delivery: Delivery,
    outcome: Outcome,
    now: Timestamp,
    wanted: &mut Wanted,
) {
    let mut actions = Vec::new();
    shard.finished(delivery, outcome, now, &mut actions);
    wanted.take(&mut actions);
}

fn sweep(shard: &mut Shard, now: Timestamp) -> Wanted {
    let (mut actions, mut wanted) = (Vec::new(), Wanted::default());
    shard.sweep(now, &mut actions);
    wanted.take(&mut actions);
    wanted
}

fn ok() -> Outcome {
    Outcome::response(200, None, START)
}

fn later(millis: u64) -> Timestamp {
    START.after(Duration::from_millis(millis))
}

/// Offers endpoint 0 deliveries from `first` on until the shard gives one back.
fn fill(shard: &mut Shard, room: Room, first: u64, wanted: &mut Wanted) -> Delivery {
    for offset in first.. {
        let mut actions = Vec::new();
        let taken = shard.offer(from(room, 0, offset), START, false, &mut actions);
        wanted.take(&mut actions);
        if let Err(blocked) = taken {
            return blocked;
        }
    }
    unreachable!()
}

#[test]
fn attempts_start_within_the_window_and_the_next_when_one_ends() {
    let mut shard = shard(table(1, |_, e| e.max_in_flight = 3).snapshot());
    let mut wanted = Wanted::default();
    for offset in 0..5 {
        assert!(offer(&mut shard, delivery(0, offset), START, &mut wanted));
    }
    assert_eq!(
        (wanted.sends.len(), shard.in_flight(), shard.queued()),
        (3, 3, 2)
    );
    let first = wanted.sends.remove(0);
    finish(&mut shard, first, ok(), START, &mut wanted);
    assert_eq!(wanted.closed, [0]);
    let offsets: Vec<_> = wanted.sends.iter().map(|d| d.ticket.offset).collect();
    assert_eq!(offsets, [1, 2, 3], "in order, oldest first");
    assert_eq!((shard.in_flight(), shard.queued()), (3, 1));
}

#[test]
fn backlogged_endpoints_take_turns() {
    // Two endpoints fill every slot; five others each have three waiting.
    let full = IN_FLIGHT_MAX;
    let mut shard = shard(table(7, |_, e| e.max_in_flight = full).snapshot());
    let mut wanted = Wanted::default();
    for offset in 0..u64::from(full) * 2 {
        let endpoint = u32::from(offset % 2 == 0);
        let one = delivery(endpoint, offset);
        assert!(offer(&mut shard, one, grown_old(offset), &mut wanted));
    }
    assert_eq!(shard.in_flight(), SHARD_IN_FLIGHT_MAX);
    let mut fillers = std::mem::take(&mut wanted.sends);
    for endpoint in 2..7 {
        for offset in 0..3 {
            let one = delivery(endpoint, 1_000 + offset);
            assert!(offer(&mut shard, one, START, &mut wanted));
        }
    }
    assert!(wanted.sends.is_empty());
    for _ in 0..15 {
        let filler = fillers.pop().unwrap();
        finish(&mut shard, filler, ok(), START, &mut wanted);
    }
    let turns = wanted.sent_to();
    for round in turns.chunks(5) {
        let mut round = round.to_vec();
        round.sort_unstable();
        assert_eq!(round, [2, 3, 4, 5, 6], "{turns:?}");
    }
}

#[test]
fn a_full_queue_stops_intake_while_nobody_else_is_idle() {
    let mut shard = shard(table(2, |_, _| {}).snapshot());
    let mut wanted = Wanted::default();
    let mut blocked = fill(&mut shard, Room::Ingest, 0, &mut wanted);
    assert_eq!(shard.queued(), QUEUE_ITEMS_MAX);
    for second in 1..9 {
        let mut actions = Vec::new();
        let again = shard.offer(blocked, later(second * 1_000), false, &mut actions);
        blocked = again.expect_err("endpoint 1 has no traffic, so it is not waited for");
    }
    assert!(wanted.appends.is_empty());
    // A place is free as soon as an attempt ends.
    let first = wanted.sends.remove(0);
    finish(&mut shard, first, ok(), later(9_000), &mut wanted);
    assert!(offer(&mut shard, blocked, later(9_000), &mut wanted));
}

#[test]
fn it_overflows_to_the_lane_when_others_have_idled_long_enough() {
    let mut shard = shard(table(2, |_, _| {}).snapshot());
    let mut wanted = Wanted::default();
    let mut blocked = fill(&mut shard, Room::Ingest, 0, &mut wanted);
    assert!(offer(&mut shard, delivery(1, 1_000), START, &mut wanted));
    // Half of the endpoints idle: patience lasts twice as long.
    let mut waited = 0;
    loop {
        let mut actions = Vec::new();
        let again = shard.offer(blocked, later(waited), false, &mut actions);
        wanted.take(&mut actions);
        match again {
            Err(back) => blocked = back,
            Ok(()) => break,
        }
        waited += 1;
    }
    assert!((15..=30).contains(&waited), "{waited} ms");
    assert_eq!(wanted.appends.len(), 1);
    assert_eq!(
        wanted.appends[0].kind,
        AppendKind::Lane(proto::Reason::Overflow)
    );
    let record = proto::Deliver::from_value(&wanted.appends[0].value).unwrap();
    assert_eq!((record.attempt, record.due_ms), (0, 0));
    // From then on the slow endpoint waits for nobody.
    for offset in 2_000..2_010 {
        assert!(offer(
            &mut shard,
            delivery(0, offset),
            later(waited),
            &mut wanted
        ));
    }
    assert_eq!(wanted.appends.len(), 11);
    assert!(
        wanted.closed.is_empty(),
        "nothing settles before it is acknowledged"
    );
}

#[test]
fn nobody_is_hungry_while_every_slot_is_taken() {
    let full = IN_FLIGHT_MAX;
    let mut shard = shard(table(3, |_, e| e.max_in_flight = full).snapshot());
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(2, 1_000), START, &mut wanted));
    for offset in 1..u64::from(full) * 2 {
        let endpoint = u32::from(offset % 2 == 0);
        let one = delivery(endpoint, offset);
        assert!(offer(&mut shard, one, grown_old(offset), &mut wanted));
    }
    assert_eq!(shard.in_flight(), SHARD_IN_FLIGHT_MAX);
    assert!(!shard.somebody_is_hungry(START));
    let sent = wanted.sends.remove(0);
    finish(&mut shard, sent, ok(), later(10), &mut wanted);
    assert!(shard.somebody_is_hungry(later(10)));
    assert!(
        !shard.somebody_is_hungry(later(2_000)),
        "without recent traffic nobody is"
    );
}

#[test]
fn a_slow_endpoint_waits_while_the_log_lags() {
    let mut shard = shard(table(1, |_, _| {}).snapshot());
    let mut wanted = Wanted::default();
    let blocked = fill(&mut shard, Room::Ingest, 0, &mut wanted);
    shard.queue(EndpointIx(0)).mark_slow(START);
    shard.unacked_bytes = SHARD_UNACKED_BYTES_MAX;
    let mut actions = Vec::new();
    let blocked = shard
        .offer(blocked, START, true, &mut actions)
        .expect_err("it would be appended");
    shard.acknowledged(SHARD_UNACKED_BYTES_MAX, START, &mut actions);
    assert!(shard.offer(blocked, START, true, &mut actions).is_ok());
    assert!(matches!(actions[..], [Action::Append(_)]));
}

#[test]
fn another_shards_hunger_counts() {
    let mut shard = shard(table(1, |_, _| {}).snapshot());
    let mut wanted = Wanted::default();
    let mut blocked = fill(&mut shard, Room::Ingest, 0, &mut wanted);
    for millis in 0..100 {
        let mut actions = Vec::new();
        match shard.offer(blocked, later(millis), true, &mut actions) {
            Err(back) => blocked = back,
            Ok(()) => return assert!(matches!(actions[..], [Action::Append(_)])),
        }
    }
    panic!("blocked for 100 ms while another shard idles");
}

#[test]
fn an_owners_delivery_bounces_and_never_blocks() {
    let mut shard = shard(table(1, |_, _| {}).snapshot());
    let mut wanted = Wanted::default();
    for offset in 0..300 {
        assert!(offer(
            &mut shard,
            from(Room::Owner, 0, offset),
            START,
            &mut wanted
        ));
    }
    assert_eq!(wanted.sends.len() + shard.queued(), 10 + QUEUE_ITEMS_MAX);
    assert_eq!(wanted.reports.len(), 300 - 10 - QUEUE_ITEMS_MAX);
    assert!(
        wanted
            .reports
            .iter()
            .all(|(_, end)| matches!(end, ReportEnd::Bounced))
    );
    assert!(wanted.appends.is_empty());
    let first = wanted.sends.remove(0);
    finish(
        &mut shard,
        first,
        Outcome::failed(Cause::TlsError),
        START,
        &mut wanted,
    );
    let (offset, end) = wanted.reports.pop().unwrap();
    assert!(offset == 0 && matches!(end, ReportEnd::Attempted(_)));
    assert!(
        wanted.appends.is_empty() && wanted.closed.is_empty(),
        "the owner writes the fact"
    );
}

#[test]
fn an_owned_endpoint_gets_its_first_attempt_from_its_owner() {
    let mut shard = shard(table(1, |_, e| e.owned = true).snapshot());
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(0, 1), START, &mut wanted));
    assert!(wanted.sends.is_empty() && wanted.closed.is_empty());
    assert_eq!(
        wanted.appends[0].kind,
        AppendKind::Lane(proto::Reason::Owned)
    );
    assert!(offer(
        &mut shard,
        from(Room::Owner, 0, 2),
        START,
        &mut wanted
    ));
    assert_eq!(wanted.sends.len(), 1);
}

#[test]
fn a_failed_attempt_is_settled_by_the_log_alone() {
    let mut shard = shard(table(1, |_, _| {}).snapshot());
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(0, 5), START, &mut wanted));
    let sent = wanted.sends.remove(0);
    let failed = Outcome::response(503, None, START);
    finish(&mut shard, sent, failed, later(40), &mut wanted);
    assert!(wanted.closed.is_empty() && wanted.reports.is_empty());
    let append = wanted.appends.pop().unwrap();
    assert_eq!(append.kind, AppendKind::Lane(proto::Reason::Retry));
    assert_eq!(
        (append.ticket.room, append.ticket.offset),
        (Room::Ingest, 5)
    );
    assert_eq!(
        (append.charge, shard.unacked_bytes()),
        (append.value.len(), append.charge)
    );
    let record = proto::Deliver::from_value(&append.value).unwrap();
    assert_eq!((record.attempt, record.last_status), (1, 503));
    let due = record.due_ms - later(40).as_millis();
    assert!((5_000..=6_000).contains(&due), "{due} ms");
    assert_eq!(
        record.deadline_ms,
        later(40).after(DELIVERY_AGE_MAX).as_millis()
    );
    let mut actions = Vec::new();
    shard.acknowledged(append.charge, START, &mut actions);
    assert!(actions.is_empty() && shard.unacked_bytes() == 0);
}

#[test]
fn what_is_gone_is_for_its_owner_to_disable() {
    let mut shard = shard(table(1, |_, _| {}).snapshot());
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(0, 5), START, &mut wanted));
    let sent = wanted.sends.remove(0);
    finish(
        &mut shard,
        sent,
        Outcome::response(410, None, START),
        START,
        &mut wanted,
    );
    assert!(wanted.closed.is_empty());
    let append = wanted.appends.pop().unwrap();
    assert_eq!(append.kind, AppendKind::Lane(proto::Reason::Retry));
    let held = proto::Deliver::from_value(&append.value).unwrap();
    assert_eq!((held.attempt, held.due_ms, held.last_status), (1, 0, 410));
}

#[test]
fn the_endpoints_own_rules_decide() {
    let mut policies = Policies::default();
    policies
        .define("once", vec![Duration::from_secs(7)])
        .unwrap();
    let mut table = table(2, |number, endpoint| {
        endpoint.fail_fast_4xx = number == 1;
        endpoint.retry_policy = ["once", "of a newer configuration"][usize::from(number)].into();
    });
    table.set_policies(Arc::new(policies));
    let mut shard = Shard::new(table.snapshot(), Rng::new(7));
    let mut ends = |endpoint, outcome| {
        let mut wanted = Wanted::default();
        assert!(offer(&mut shard, delivery(endpoint, 1), START, &mut wanted));
        let sent = wanted.sends.pop().unwrap();
        finish(&mut shard, sent, outcome, START, &mut wanted);
        wanted.appends.pop().unwrap()
    };
    let due = |append: Append| {
        assert_eq!(append.kind, AppendKind::Lane(proto::Reason::Retry));
        let record = proto::Deliver::from_value(&append.value).unwrap();
        let waits = (record.due_ms - START.as_millis()) / 1_000;
        (record.attempt, waits)
    };
    let of = |status| Outcome::response(status, None, START);
    let (attempt, waits) = due(ends(0, of(404)));
    assert!(attempt == 1 && (7..=8).contains(&waits), "{waits}");
    let (attempt, waits) = due(ends(1, of(500)));
    assert!(attempt == 1 && (5..=6).contains(&waits), "{waits}");
    // Our own failure spends no attempt.
    let (attempt, waits) = due(ends(0, Outcome::failed(Cause::BlockedAddress)));
    assert!(attempt == 0 && (60..=90).contains(&waits), "{waits}");
    let rejected = ends(1, of(404));
    assert_eq!(rejected.kind, AppendKind::Dead(proto::DeadCause::Rejected));
    let dead = proto::Dead::from_value(&rejected.value).unwrap();
    let delivery = dead.delivery.unwrap();
    assert_eq!((delivery.attempt, delivery.last_status), (1, 404));
}

#[test]
fn a_changed_policy_holds_for_what_fails_from_then_on() {
    let mut table = table(1, |_, endpoint| endpoint.retry_policy = "own".into());
    let mut shard = shard(table.snapshot());
    let waits = |shard: &mut Shard| {
        let mut wanted = Wanted::default();
        assert!(offer(shard, delivery(0, 1), START, &mut wanted));
        let sent = wanted.sends.pop().unwrap();
        let failed = Outcome::response(500, None, START);
        finish(shard, sent, failed, START, &mut wanted);
        let record = proto::Deliver::from_value(&wanted.appends.pop().unwrap().value).unwrap();
        (record.due_ms - START.as_millis()) / 1_000
    };
    // Not defined yet: the standard one.
    assert!((5..=6).contains(&waits(&mut shard)));
    for gap in [100, 1_000] {
        let mut policies = Policies::default();
        policies
            .define("own", vec![Duration::from_secs(gap)])
            .unwrap();
        table.set_policies(policies.into());
        shard.set_registry(table.snapshot());
        let waited = waits(&mut shard);
        assert!((gap..=gap * 6 / 5).contains(&waited), "{waited}");
    }
}

#[test]
fn what_waits_for_an_endpoint_that_takes_nothing_is_cancelled() {
    for deleted in [false, true] {
        let mut table = table(1, |_, e| e.max_in_flight = 1);
        let mut shard = shard(table.snapshot());
        let mut wanted = Wanted::default();
        for offset in 0..3 {
            assert!(offer(&mut shard, delivery(0, offset), START, &mut wanted));
        }
        assert!(offer(
            &mut shard,
            from(Room::Owner, 0, 9),
            START,
            &mut wanted
        ));
        let mut record = endpoint_sample(0, "acme", &[]);
        record.disabled = true;
        let id = EndpointId::from_bytes([0; 16]);
        if deleted {
            table.apply(&table_key(id), &Bytes::new()).unwrap();
        } else {
            put(&mut table, &record);
        }
        shard.set_registry(table.snapshot());
        // The attempt in flight may hang; what waits does not wait for it.
        let swept = sweep(&mut shard, START);
        assert_eq!(swept.closed, [1, 2]);
        assert!(matches!(swept.reports[..], [(9, ReportEnd::Cancelled)]));
        assert_eq!(shard.queued(), 0);
        assert!(offer(&mut shard, delivery(0, 4), START, &mut wanted));
        assert_eq!(wanted.closed, [4]);
        // What was in flight is kept, for whom the endpoint comes back to.
        let sent = wanted.sends.remove(0);
        finish(
            &mut shard,
            sent,
            Outcome::failed(Cause::TlsError),
            START,
            &mut wanted,
        );
        assert_eq!(wanted.appends.len(), 1);
    }
}

#[test]
fn what_waited_too_long_moves_on() {
    let mut shard = shard(table(1, |_, e| e.max_in_flight = 1).snapshot());
    let mut wanted = Wanted::default();
    assert!(offer(&mut shard, delivery(0, 0), START, &mut wanted));
    assert!(offer(&mut shard, delivery(0, 1), START, &mut wanted));
    assert!(offer(
        &mut shard,
        from(Room::Owner, 0, 2),
        START,
        &mut wanted
    ));
    assert!(offer(&mut shard, delivery(0, 3), later(1), &mut wanted));
    let early = sweep(&mut shard, later(9_999));
    assert!(early.appends.is_empty() && early.reports.is_empty());
    let swept = sweep(&mut shard, later(10_000));
    assert_eq!(
        swept.appends[0].kind,
        AppendKind::Lane(proto::Reason::Overflow)
    );
    assert_eq!(swept.appends.len(), 1);
    assert!(matches!(swept.reports[..], [(2, ReportEnd::Bounced)]));
    assert_eq!((shard.queued(), shard.in_flight()), (1, 1));
}

#[test]
fn a_stopping_shard_sends_what_waits_to_the_lane() {
    let mut shard = shard(table(1, |_, e| e.max_in_flight = 1).snapshot());
    let (mut actions, mut wanted) = (Vec::new(), Wanted::default());
    assert!(offer(&mut shard, delivery(0, 0), START, &mut wanted));
    assert!(offer(&mut shard, delivery(0, 1), START, &mut wanted));
    assert!(offer(
        &mut shard,
        from(Room::Owner, 0, 2),
        START,
        &mut wanted
    ));
    shard.evacuate(START, &mut actions);
    shard.refuse(delivery(0, 3), START, &mut actions);
    wanted.take(&mut actions);
    let drained: Vec<_> = wanted
        .appends
        .iter()
        .map(|a| (a.kind, a.ticket.offset))
        .collect();
    let lane = AppendKind::Lane(proto::Reason::Drain);
    assert_eq!(drained, [(lane, 1), (lane, 3)]);
    assert!(matches!(wanted.reports[..], [(2, ReportEnd::Bounced)]));
    assert_eq!((shard.queued(), shard.in_flight()), (0, 1));
    let sent = wanted.sends.remove(0);
    finish(&mut shard, sent, ok(), START, &mut wanted);
    assert_eq!(wanted.closed, [0], "what is in flight still ends well");
}

#[test]
fn a_log_that_lags_stops_new_attempts_but_not_their_ends() {
    let change = |number, e: &mut proto::Endpoint| {
        e.max_in_flight = 64;
        e.owned = number == 1;
    };
    let mut shard = shard(table(2, change).snapshot());
    let mut wanted = Wanted::default();
    let body = Bytes::from(vec![b'x'; BODY_BYTES_MAX]);
    for offset in 0..64 {
        let mut one = delivery(0, offset);
        Arc::get_mut(&mut one.event).unwrap().body = body.clone();
        assert!(offer(&mut shard, one, START, &mut wanted));
    }
    assert!(offer(&mut shard, delivery(0, 64), START, &mut wanted));
    let failed = Outcome::response(429, None, START);
    let mut sends = std::mem::take(&mut wanted.sends).into_iter();
    for sent in sends.by_ref().take(40) {
        finish(&mut shard, sent, failed, START, &mut wanted);
    }
    assert!(shard.unacked_bytes() >= SHARD_UNACKED_BYTES_MAX);
    let begun = wanted.sends.len();
    assert!(begun <= 1, "the one that waited began before the bound");
    assert!(
        !offer(&mut shard, delivery(1, 100), START, &mut wanted),
        "it would be appended"
    );
    assert!(
        offer(&mut shard, delivery(0, 101), START, &mut wanted),
        "there is room to wait"
    );
    assert_eq!(wanted.sends.len(), begun);
    assert_eq!(
        sweep(&mut shard, later(60_000)).appends.len(),
        0,
        "the log has enough to do"
    );
    let sent = sends.next().unwrap();
    finish(&mut shard, sent, ok(), START, &mut wanted);
    assert_eq!(wanted.closed.len(), 1, "2xx still settle");
    let mut actions = Vec::new();
    for append in wanted.appends.drain(..) {
        shard.acknowledged(append.charge, START, &mut actions);
    }
    wanted.take(&mut actions);
    assert_eq!((shard.unacked_bytes(), shard.queued()), (0, 0));
    assert_eq!(wanted.sends.len(), begun + 1, "it goes on by itself");
}
