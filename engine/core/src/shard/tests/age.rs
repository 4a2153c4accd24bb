//! Events that are too old for their endpoint.

use super::*;

const MAX_AGE_MS: u64 = 60_000;

/// A delivery of an event of START.
fn of_now(room: Room, offset: u64) -> Delivery {
    let mut event = event_sample("evt", "acme", "a");
    event.origin.timestamp = START;
    Delivery {
        event: Arc::new(event),
        ..from(room, 0, offset)
    }
}

fn aged(change: impl Fn(&mut proto::Endpoint)) -> Shard {
    let set = |_, record: &mut proto::Endpoint| {
        record.max_age_ms = MAX_AGE_MS;
        change(record);
    };
    shard(table(1, set).snapshot())
}

/// The dead letter of what expired.
fn expired(append: &Append) -> proto::Dead {
    assert_eq!(append.kind, AppendKind::Dead(proto::DeadCause::Expired));
    let dead = proto::Dead::from_value(&append.value).unwrap();
    assert_eq!(dead.cause(), proto::DeadCause::Expired);
    dead
}

#[test]
fn what_is_too_old_dies_without_an_attempt_and_what_is_not_is_sent() {
    let (mut shard, mut wanted) = (aged(|_| {}), Wanted::default());
    let before = later(MAX_AGE_MS - 1);
    assert!(offer(
        &mut shard,
        of_now(Room::Ingest, 1),
        before,
        &mut wanted
    ));
    assert_eq!((wanted.sends.len(), wanted.appends.len()), (1, 0));
    let end = later(MAX_AGE_MS);
    assert!(offer(&mut shard, of_now(Room::Ingest, 2), end, &mut wanted));
    assert_eq!((wanted.sends.len(), wanted.appends.len()), (1, 1));
    assert_eq!(wanted.appends[0].ticket.offset, 2);
    assert!(wanted.closed.is_empty(), "not before the log has it");
    let dead = expired(&wanted.appends[0]);
    let delivery = dead.delivery.unwrap();
    assert_eq!((delivery.attempt, &*delivery.last_cause), (0, ""));
    assert_eq!(delivery.deadline_ms, end.as_millis());
    assert_eq!((shard.queued(), shard.in_flight()), (0, 1));
    // Its owner knows the deadline of what it hands over; of a replay that is
    // another one.
    assert!(offer(&mut shard, of_now(Room::Owner, 3), end, &mut wanted));
    assert_eq!(wanted.sends.len(), 2);
}

#[test]
fn what_grows_too_old_while_it_waits_is_not_sent_and_keeps_to_the_logs_pace() {
    let (mut shard, mut wanted) = (aged(|e| e.max_in_flight = 1), Wanted::default());
    for offset in 0..4 {
        assert!(offer(
            &mut shard,
            of_now(Room::Ingest, offset),
            START,
            &mut wanted
        ));
    }
    shard.unacked_bytes = SHARD_UNACKED_BYTES_MAX;
    let first = wanted.sends.remove(0);
    let end = later(MAX_AGE_MS);
    finish(&mut shard, first, ok(), end, &mut wanted);
    assert!(wanted.sends.is_empty() && wanted.appends.is_empty());
    let mut actions = Vec::new();
    shard.acknowledged(SHARD_UNACKED_BYTES_MAX, end, &mut actions);
    wanted.take(&mut actions);
    assert!(wanted.sends.is_empty());
    let letters: Vec<_> = wanted.appends.iter().map(|a| a.ticket.offset).collect();
    assert_eq!(letters, [1, 2, 3]);
    assert!(
        wanted
            .appends
            .iter()
            .all(|one| expired(one).delivery.is_some())
    );
    assert_eq!((shard.queued(), shard.fresh, shard.in_flight()), (0, 0, 0));
}

#[test]
fn what_goes_to_the_lane_takes_the_deadline_along() {
    for owned in [true, false] {
        let (mut shard, mut wanted) = (aged(|e| e.owned = owned), Wanted::default());
        assert!(offer(
            &mut shard,
            of_now(Room::Ingest, 1),
            later(10_000),
            &mut wanted
        ));
        if let Some(sent) = wanted.sends.pop() {
            let failed = Outcome::response(500, None, later(10_000));
            finish(&mut shard, sent, failed, later(10_000), &mut wanted);
        }
        let record = proto::Deliver::from_value(&wanted.appends[0].value).unwrap();
        assert_eq!(record.deadline_ms, later(MAX_AGE_MS).as_millis());
        assert_eq!(record.attempt, u32::from(!owned));
        assert!(owned || record.due_ms < record.deadline_ms);
    }
}

#[test]
fn a_first_attempt_that_fails_too_late_for_another_is_the_last() {
    let (mut shard, mut wanted) = (aged(|_| {}), Wanted::default());
    assert!(offer(
        &mut shard,
        of_now(Room::Ingest, 1),
        START,
        &mut wanted
    ));
    let sent = wanted.sends.remove(0);
    let end = later(MAX_AGE_MS - 1_000);
    let failed = Outcome::response(500, None, end);
    finish(&mut shard, sent, failed, end, &mut wanted);
    let delivery = expired(&wanted.appends[0]).delivery.unwrap();
    assert_eq!((delivery.attempt, delivery.last_status), (1, 500));
}
