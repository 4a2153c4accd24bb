//! What is held, what is ordered, what is over a cap, and snapshots of it all.

use super::*;
use crate::lane::snapshot::{Assembly, SnapshotRef};
use crate::limits::{
    DEAD_RANGE_MIN, EXPIRE_EVERY, PAGE_MAX, SNAPSHOT_EVERY, TIMERS_PER_ENDPOINT_MAX,
};

/// A held delivery of an ordering key.
fn keyed(number: u64, endpoint: u8, key: &'static str) -> Bytes {
    let value = deliver(number, endpoint, 0, NEVER);
    let mut record = proto::Deliver::from_value(&value).unwrap();
    record.ordering_key = Bytes::from_static(key.as_bytes());
    record.to_value()
}

fn many(count: usize, endpoint: u8) -> Vec<Bytes> {
    let count = u64::try_from(count).unwrap();
    (0..count).map(|n| deliver(n, endpoint, 0, NEVER)).collect()
}

#[test]
fn a_backlog_is_read_and_handed_out_bit_by_bit() {
    let mut lane = Lane::ready(many(3_000, 1));
    let mut out = dispatched(&lane.tick(START));
    assert_eq!(out.len(), OWNER_OUTSTANDING);
    let mut done = Vec::new();
    while done.len() < 3_000 {
        if let Some(offset) = out.pop() {
            done.push(offset);
            out.extend(dispatched(&lane.attempted(offset, 200, START)));
        }
        if out.is_empty() || done.len().is_multiple_of(100) {
            lane.flush();
            out.extend(dispatched(&lane.tick(START)));
            let line = &lane.owner.lines[&id(1)];
            assert!(line.out <= OWNER_OUTSTANDING && line.page.open.len() <= PAGE_MAX);
            let taken = lane
                .owner
                .fold()
                .hold_of(id(1))
                .map_or(0, |hold| hold.taken.len());
            assert!(taken <= 2 * PAGE_MAX, "{taken} taken");
        }
    }
    done.sort_unstable();
    assert!(done.into_iter().eq(0..3_000));
    lane.flush();
    lane.tick(START);
    lane.flush();
    assert!(lane.owner.fold().is_empty(), "the cursor passed all of it");
    lane.tick(later(1));
    assert!(lane.owner.lines.is_empty() && lane.owner.overlay.is_empty());
}

#[test]
fn a_held_delivery_that_fails_waits_as_a_timer() {
    let mut lane = Lane::ready(many(2, 1));
    assert_eq!(dispatched(&lane.tick(START)), [0, 1]);
    lane.attempted(0, 500, START);
    lane.attempted(1, 200, START);
    let entries = told(lane.flush());
    assert_eq!(
        (entries[0].kind(), entries[1].kind()),
        (Kind::Retry, Kind::Done)
    );
    lane.tick(START);
    assert_eq!(lane.flush()[0].kind(), Kind::Passed);
    let owed = lane.owner.fold().owed(0).unwrap();
    assert_eq!(
        (owed.attempts, owed.deadline.as_millis()),
        (1, (1 << 48) - 1)
    );
    assert!(lane.owner.fold().hold_of(id(1)).is_none());
    assert_eq!(dispatched(&lane.tick(owed.due)), [0]);
    lane.attempted(0, 200, owed.due);
    lane.flush();
    assert!(lane.owner.fold().is_empty());
}

#[test]
fn what_arrives_while_all_is_read_needs_no_reading() {
    let mut lane = Lane::ready(vec![]);
    lane.append(deliver(1, 1, 0, NEVER));
    lane.append(deliver(2, 1, 0, NEVER));
    let mut actions = Vec::new();
    lane.owner.tick(START, &mut actions);
    assert_eq!(dispatched(&actions), [1, 2]);
}

#[test]
fn a_failed_read_is_made_again() {
    let mut lane = Lane::ready(many(1, 1));
    let mut actions = Vec::new();
    lane.owner.tick(START, &mut actions);
    assert!(matches!(actions[..], [Action::Read { from: 0, .. }]));
    actions.clear();
    let wanted = lane.owner.page(id(1), 0, [], START, &mut actions);
    assert!(wanted.is_empty() && matches!(actions[..], [Action::Read { from: 0, .. }]));
    assert_eq!(dispatched(&lane.settle(actions)), [0]);
}

#[test]
fn what_expired_in_a_row_becomes_one_dead_letter() {
    let count = u64::try_from(DEAD_RANGE_MIN).unwrap() + 5;
    let mut records: Vec<_> = (0..count).map(|n| deliver(n, 1, 0, later(1_000))).collect();
    records.push(deliver(count, 1, 0, NEVER));
    let mut lane = Lane::ready(records);
    let standing = Standing::Disabled;
    lane.settings(1, Settings { standing, ..ACTIVE });
    assert!(lane.tick(START).is_empty() && lane.wanted.is_empty());
    assert!(
        lane.owner.lines[&id(1)].page.items.is_empty(),
        "nothing is kept of it"
    );
    assert!(lane.tick(later(1_000)).is_empty());
    let range = Action::BuryRange(Expired {
        endpoint: id(1),
        from: 0,
        to: count,
        count,
        except: Vec::new(),
    });
    assert_eq!(lane.wanted, [range]);
    lane.tick(later(30_000));
    assert_eq!(lane.wanted.len(), 1, "it is being written");
    assert_eq!(lane.flush(), []);
    lane.owner.range_buried(id(1));
    let entries = lane.flush();
    assert_eq!(
        (entries[0].kind(), entries[0].offset, entries[0].count),
        (Kind::Passed, count, count)
    );
    let left = lane
        .owner
        .fold()
        .hold_of(id(1))
        .map(|hold| (hold.cursor(), hold.count()));
    assert_eq!(
        left,
        Some((count, 1)),
        "the endpoint is disabled: the rest is kept"
    );
    lane.settings(1, ACTIVE);
    assert_eq!(dispatched(&lane.tick(later(30_001))), [count]);
}

#[test]
fn a_few_that_expired_become_one_each_timers_too() {
    let mut lane = Lane::ready(vec![
        deliver(1, 1, 0, later(1_000)),
        deliver(2, 1, 50, later(1_000)),
        deliver(3, 1, 0, NEVER),
    ]);
    let gate = (GateState::Paused, START);
    lane.settings(1, Settings { gate, ..ACTIVE });
    assert!(lane.tick(START).is_empty());
    let mut gone = buried(&lane.tick(later(1_000)));
    gone.extend(buried(&lane.tick(START.after(EXPIRE_EVERY))));
    gone.sort_unstable_by_key(|(offset, _)| *offset);
    assert_eq!(gone, [(0, GiveUpCause::Expired), (1, GiveUpCause::Expired)]);
    assert!(lane.owner.fold().is_owed(id(1), 2));
}

#[test]
fn a_deleted_endpoint_is_owed_nothing() {
    let mut records = many(30, 1);
    records.extend([deliver(90, 1, 5, NEVER), deliver(91, 2, 5, NEVER)]);
    let mut lane = Lane::ready(records);
    let standing = Standing::Deleted;
    lane.settings(1, Settings { standing, ..ACTIVE });
    assert_eq!(dispatched(&lane.tick(START)), [31]);
    let entries = lane.flush();
    assert_eq!(
        (entries[0].kind(), entries[0].offset),
        (Kind::Cancelled, 30)
    );
    assert_eq!((entries[1].kind(), entries[1].count), (Kind::Passed, 30));
    assert_eq!(lane.owner.fold().len(), 1);
}

#[test]
fn smaller_caps_move_timers_sooner_and_split_a_snapshot() {
    let far = later(3_600_000).as_millis();
    let mut lane = Lane::ready((0..5).map(|n| deliver(n, 1, far + n, NEVER)).collect());
    assert_eq!(lane.owner.snapshot().len(), 1);
    lane.owner.set_caps(Caps {
        timers_per_endpoint: 3,
        part_bytes: 200,
        ..Caps::default()
    });
    let parts = lane.owner.snapshot();
    assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= 200 + 32));
    lane.tick(START);
    let moves = |action: &&Action| matches!(action, Action::Move { .. });
    assert_eq!(lane.wanted.iter().filter(moves).count(), 2);
}

#[test]
fn timers_over_the_cap_are_moved() {
    let count = u64::try_from(TIMERS_PER_ENDPOINT_MAX).unwrap() + 2;
    let far = later(3_600_000).as_millis();
    let records = (0..count).map(|n| deliver(n, 1, far + n, NEVER));
    let mut lane = Lane::ready(records.collect());
    assert!(lane.tick(START).is_empty());
    let moved = |lane: &mut Lane| -> Vec<u64> {
        let offset = |action| match action {
            Action::Move { offset, .. } => offset,
            other => panic!("{other:?}"),
        };
        lane.wanted.drain(..).map(offset).collect()
    };
    let first = moved(&mut lane);
    assert_eq!(first.len(), 2);
    for offset in first {
        let mut record = deliver(offset, 1, 0, NEVER);
        std::mem::swap(&mut record, &mut lane.log[offset.to_usize()]);
        let again = lane.log[offset.to_usize()].clone();
        lane.log[offset.to_usize()] = record;
        lane.append(again);
        let to = u64::try_from(lane.log.len() - 1).unwrap();
        lane.owner.moved(offset, to);
    }
    lane.tick(START);
    assert!(moved(&mut lane).is_empty(), "the fact is not read back");
    let kinds: Vec<_> = lane.flush().iter().map(Entry::kind).collect();
    assert_eq!(kinds, [Kind::Moved; 2]);
    lane.tick(START);
    assert!(moved(&mut lane).is_empty());
    let fold = lane.owner.fold();
    assert_eq!(fold.timers().len(), TIMERS_PER_ENDPOINT_MAX);
    assert_eq!(fold.hold_of(id(1)).map(|hold| hold.count()), Some(2));
}

fn ordered(records: Vec<Bytes>) -> Lane {
    let mut lane = Lane::ready(records);
    let settings = Settings {
        ordered: true,
        fifo: true,
        ..ACTIVE
    };
    lane.settings(1, settings);
    lane
}

#[test]
fn an_ordered_endpoint_has_one_out_per_key_and_a_failing_head_bars_its_key_alone() {
    let mut lane = ordered(vec![
        keyed(0, 1, "a"),
        keyed(1, 1, "a"),
        keyed(2, 1, "b"),
        keyed(3, 1, "b"),
        keyed(4, 1, "a"),
    ]);
    assert_eq!(dispatched(&lane.tick(START)), [0, 2]);
    assert!(
        lane.attempted(0, 500, START).is_empty(),
        "the head is tried again first"
    );
    assert_eq!(dispatched(&lane.attempted(2, 200, START)), [3]);
    assert!(lane.attempted(3, 200, START).is_empty());
    let due = Timestamp::from_millis(told(lane.flush())[0].due_ms);
    assert!(
        lane.tick(START).is_empty(),
        "it bars its key until it is due"
    );
    assert_eq!(dispatched(&lane.tick(due)), [0]);
    assert!(lane.attempted(0, 200, due).is_empty());
    lane.flush();
    assert_eq!(dispatched(&lane.tick(due)), [1], "once the fact is read");
    assert_eq!(dispatched(&lane.attempted(1, 200, due)), [4]);
    lane.attempted(4, 200, due);
    lane.flush();
    lane.tick(due);
    lane.flush();
    assert!(lane.owner.fold().is_empty());
}

#[test]
fn without_keys_an_ordered_endpoint_is_one_line() {
    let mut lane = ordered(many(3, 1));
    for offset in 0..3 {
        assert_eq!(
            dispatched(&lane.tick(START)),
            if offset == 0 { vec![0] } else { vec![] }
        );
        let next = lane.attempted(offset, 200, START);
        assert_eq!(
            dispatched(&next),
            if offset < 2 { vec![offset + 1] } else { vec![] }
        );
    }
}

#[test]
fn other_keys_pass_a_failing_one_however_long_its_line() {
    let mut records = vec![keyed(0, 1, "bad")];
    records.extend((1..3_000).map(|n| keyed(n, 1, "bad")));
    records.push(keyed(3_000, 1, "good"));
    let mut lane = ordered(records);
    assert_eq!(dispatched(&lane.tick(START)), [0]);
    lane.attempted(0, 500, START);
    let mut out = Vec::new();
    for _ in 0..20 {
        lane.flush();
        out.extend(dispatched(&lane.tick(later(1))));
    }
    assert_eq!(out, [3_000]);
    let taken = lane
        .owner
        .fold()
        .hold_of(id(1))
        .map_or(0, |hold| hold.taken.len());
    assert!(taken <= 2 * PAGE_MAX, "{taken}");
    // And then the others come, in order.
    lane.attempted(3_000, 200, later(1));
    let due = lane.owner.fold().owed(0).unwrap().due;
    let mut next = dispatched(&lane.tick(due));
    for offset in 0..3_000 {
        assert_eq!(next, [offset]);
        next = dispatched(&lane.attempted(offset, 200, due));
        lane.flush();
        next.extend(dispatched(&lane.tick(due)));
    }
    lane.flush();
    assert!(lane.owner.fold().is_empty());
}

/// Writes the snapshot that is wanted, and reads it as a successor would.
fn snapshot(lane: &mut Lane) -> (u64, Fold) {
    let Some(Action::Snapshot { parts }) = lane.wanted.pop() else {
        panic!("no snapshot: {:?}", lane.wanted);
    };
    let part0 = u64::try_from(lane.log.len()).unwrap() + 1;
    // Somebody appends in between.
    lane.append(deliver(900, 3, 7, NEVER));
    for part in &parts {
        lane.append(part.clone());
        lane.append(deliver(part0, 4, 0, NEVER));
    }
    let mut actions = Vec::new();
    lane.owner.snapshot_written(part0, &mut actions);
    let [Action::Commit { upto, metadata }] = &actions[..] else {
        panic!("{actions:?}");
    };
    let at: SnapshotRef = metadata.parse().unwrap();
    assert_eq!(
        (at.part0, at.parts.to_string()),
        (part0, parts.len().to_string())
    );
    let mut assembly = Assembly::new(at);
    for (offset, value) in (0..).zip(&lane.log).skip(part0.to_usize()) {
        assembly.push(offset, value);
    }
    (*upto, assembly.load().unwrap().fold)
}

#[test]
fn a_snapshot_is_written_while_there_is_news_and_names_where_to_go_on() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 5, NEVER), deliver(2, 2, 0, NEVER)]);
    lane.tick(START);
    assert!(lane.wanted.is_empty());
    lane.tick(START.after(SNAPSHOT_EVERY));
    assert!(!lane.owner.is_saved());
    let (upto, mut fold) = snapshot(&mut lane);
    assert_eq!((upto, fold.next()), (3, 3));
    for (offset, value) in (0..).zip(&lane.log).skip(3) {
        fold.apply(offset, value).unwrap();
    }
    assert!(fold == *lane.owner.fold(), "{fold:?}");
    let mut later = START;
    for news in [true, false, false] {
        later = later.after(SNAPSHOT_EVERY * 2);
        lane.tick(later);
        assert_eq!(
            lane.wanted.pop().is_some(),
            news,
            "what stood behind the snapshot is news"
        );
        lane.owner.snapshot_written(5, &mut Vec::new());
    }
}

#[test]
fn a_drained_owner_saves_what_it_knows() {
    let mut lane = Lane::ready(vec![deliver(1, 1, 5, NEVER), deliver(2, 2, 0, NEVER)]);
    assert_eq!(dispatched(&lane.tick(START)), [0, 1]);
    lane.owner.drain();
    lane.attempted(0, 200, START);
    lane.report(1, ReportEnd::Bounced, START);
    lane.tick(START);
    assert!(lane.wanted.is_empty(), "a fact is not read back");
    lane.flush();
    lane.tick(START);
    let (_, fold) = snapshot(&mut lane);
    assert_eq!((fold.len(), fold.is_owed(id(2), 1)), (1, true));
}
