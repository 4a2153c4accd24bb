//! What is given up at once, brought again: each delivery ends exactly once, and
//! a redrive brings those back that were not delivered, and no other.

use std::collections::BTreeSet;

use super::*;
use crate::id::OperationId;
use crate::operation::{Kind as Asked, Operation, Wanted};
use crate::replay::{Buried, Place, held_again};

const RECORDS: u64 = 200;
const ENDPOINT: u8 = 1;
const EXPIRY: u64 = 60_000;

/// How the deliveries of the endpoint ended.
#[derive(Default)]
struct Ends {
    delivered: BTreeSet<u64>,
    buried: BTreeSet<u64>,
    /// Letters for many.
    ranges: Vec<proto::DeadRange>,
}

/// Deliveries of two endpoints, held or due at a time.
fn records(rng: &mut Rng) -> Vec<Bytes> {
    let one = |number| {
        let endpoint = if rng.below(4) == 0 { 2 } else { ENDPOINT };
        let due = match rng.below(5) {
            0 => START.as_millis() + rng.below(EXPIRY),
            _ => 0,
        };
        deliver(number, endpoint, due, later(EXPIRY))
    };
    (0..RECORDS).map(one).collect()
}

impl Ends {
    /// Does what the owner wants, and reports some of what is out.
    fn take(&mut self, lane: &mut Lane, actions: Vec<Action>, rng: &mut Rng, now: Timestamp) {
        let mut actions = actions;
        while let Some(action) = actions.pop() {
            let next = match action {
                Action::Dispatch { offset, .. } => match rng.below(4) {
                    0 => lane.attempted(offset, 500, now),
                    1 => lane.report(offset, ReportEnd::Bounced, now),
                    _ => {
                        let first = self.delivered.insert(offset);
                        assert!(first, "{offset} is delivered twice");
                        lane.attempted(offset, 200, now)
                    }
                },
                Action::Bury { offset, .. } => {
                    assert!(self.buried.insert(offset), "{offset} is buried twice");
                    lane.owner.buried(offset);
                    Vec::new()
                }
                other => panic!("{other:?}"),
            };
            actions.extend(next);
        }
        for action in std::mem::take(&mut lane.wanted) {
            let Action::BuryRange(range) = action else {
                continue;
            };
            lane.owner.range_buried(range.endpoint);
            if range.endpoint == id(ENDPOINT) {
                self.ranges.push(proto::DeadRange {
                    from: range.from,
                    to: range.to,
                    count: range.count,
                    except: range.except,
                    ..Default::default()
                });
            }
        }
    }
}

fn redrive(letters: &[proto::DeadRange]) -> Operation {
    let mut buried = Buried::default();
    letters.iter().for_each(|letter| buried.add(letter));
    Operation {
        id: OperationId::from_bytes([7; 16]),
        tenant: "acme".to_owned(),
        endpoint: id(ENDPOINT),
        kind: Asked::Redrive,
        wanted: Wanted::Unspecified,
        actor: "local".to_owned(),
        created_at: START,
        ranges: buried.ranges("lane"),
        span: Default::default(),
        event_types: Vec::new(),
        filter: None,
        any: false,
        rate_per_second: 0,
        dead_cause: String::new(),
        offsets: Vec::new(),
        before: 0,
        version: 1,
    }
}

/// The offsets of the records it brings again.
fn brought(log: &[Bytes], operation: &Operation) -> Vec<u64> {
    let mut brought = Vec::new();
    for (number, range) in (0..).zip(&operation.ranges) {
        for offset in range.from..range.to {
            let place = Place {
                range: number,
                offset,
            };
            let record = proto::Deliver::from_value(&log[offset.to_usize()]);
            let again = record.ok();
            let again = again.and_then(|record| held_again(operation, record, place, START));
            brought.extend(again.map(|_| offset));
        }
    }
    brought
}

fn is_held(value: &Bytes) -> bool {
    let record = proto::Deliver::from_value(value);
    record.is_ok_and(|it| it.due_ms == 0 && it.endpoint_id == [ENDPOINT; 16][..])
}

/// Answers how many a redrive brings, and how many it leaves out of the ranges.
fn a_redrive_brings_what_was_given_up(seed: u64) -> (usize, usize) {
    let mut rng = Rng::new(seed);
    let mut lane = Lane::ready(records(&mut rng));
    let mut ends = Ends::default();
    // Each round is some time; in the end all is over its age.
    let rounds = rng.below(8);
    for round in 0..rounds {
        let now = later(round * 3_000);
        let actions = lane.tick(now);
        ends.take(&mut lane, actions, &mut rng, now);
        if rng.below(2) == 0 {
            lane.flush();
        }
    }
    for round in 0..500 {
        let now = later(EXPIRY + round * 1_000);
        let actions = lane.tick(now);
        ends.take(&mut lane, actions, &mut rng, now);
        lane.flush();
    }
    assert!(lane.owner.fold().is_empty(), "seed {seed}");
    for one in &ends.ranges {
        let alone = brought(&lane.log, &redrive(std::slice::from_ref(one)));
        assert_eq!(
            u64::try_from(alone.len()).unwrap(),
            one.count,
            "seed {seed}"
        );
    }
    let again = brought(&lane.log, &redrive(&ends.ranges));
    for offset in 0..RECORDS {
        let redriven = again.iter().filter(|&&it| it == offset).count();
        let ended = usize::from(ends.delivered.contains(&offset))
            + usize::from(ends.buried.contains(&offset));
        let wanted = match is_held(&lane.log[offset.to_usize()]) {
            true => 1 - ended,
            false => 0,
        };
        assert_eq!(redriven, wanted, "seed {seed}: {offset}");
    }
    let except = ends.ranges.iter().map(|one| one.except.len());
    (again.len(), except.sum())
}

#[test]
fn each_delivery_of_a_buried_range_comes_again_and_no_other() {
    let ends: Vec<_> = (0..200).map(a_redrive_brings_what_was_given_up).collect();
    let (again, except): (usize, usize) = ends
        .iter()
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(again > 2_000, "{again}");
    assert!(except > 100, "{except} were settled before");
}
