use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Bits, Tracker, metadata};

/// The plain model: every offset read, and the deliveries it still owes.
#[derive(Debug, Default)]
struct Model {
    start: u64,
    next: u64,
    owed: BTreeMap<u64, u32>,
}

impl Model {
    fn committable(&self) -> u64 {
        let open = self.owed.iter().find(|(_, owed)| **owed > 0);
        open.map_or(self.next, |(&offset, _)| offset)
    }

    fn open(&self) -> Vec<u64> {
        let open = self.owed.iter().filter(|(_, owed)| **owed > 0);
        open.map(|(&offset, _)| offset).collect()
    }

    fn is_done(&self, offset: u64) -> bool {
        offset < self.next && self.owed.get(&offset).is_none_or(|owed| *owed == 0)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Seen { gap: u64, deliveries: u32 },
    Skip { by: u64 },
    Done { which: usize },
    Resume { budget: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop_oneof![9 => Just(0_u64), 1 => 1..200_u64], 0..4_u32)
            .prop_map(|(gap, deliveries)| Step::Seen { gap, deliveries }),
        1 => (0..100_u64).prop_map(|by| Step::Skip { by }),
        8 => any::<usize>().prop_map(|which| Step::Done { which }),
        1 => prop_oneof![Just(4_000_usize), 0..80_usize].prop_map(|budget| Step::Resume { budget }),
    ]
}

fn agree(tracker: &Tracker, model: &Model) {
    assert_eq!(tracker.committable(), model.committable());
    assert_eq!(tracker.incomplete(), model.open().len());
    assert_eq!(tracker.next(), model.next);
    assert_eq!(tracker.span(), model.next - model.committable());
}

/// Kills the tracker and reads on from what was committed. Everything open is
/// owed again; of the rest the metadata may remember all or less, never more.
fn resume(tracker: &Tracker, model: &mut Model, budget: usize) -> Tracker {
    let committed = tracker.committable();
    let text = tracker.metadata(budget);
    assert!(text.len() <= budget, "{} > {budget}", text.len());
    let mut again = Tracker::resume(committed, &text, 7);
    let mut remembered = 0;
    for offset in committed..model.next {
        let done = again.is_done(offset);
        assert!(
            !done || model.is_done(offset),
            "{offset} is open and was forgotten"
        );
        remembered += u64::from(done);
        let owed = if done {
            0
        } else {
            model.owed.get(&offset).copied().unwrap_or(0).max(1)
        };
        again.seen(offset, owed);
        model.owed.insert(offset, owed);
    }
    let span = model.next - committed;
    if budget == 4_000 && span < 20_000 {
        let open = u64::try_from(model.open().len()).unwrap();
        assert_eq!(remembered, span - open, "all of it fits");
    }
    model.start = committed;
    again
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tracker_agrees_with_the_model(
        start in prop_oneof![Just(0_u64), 0..1_000_000_u64],
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut tracker = Tracker::new(start, 3);
        let mut model = Model { start, next: start, ..Model::default() };
        for step in steps {
            match step {
                Step::Seen { gap, deliveries } => {
                    let offset = model.next + gap;
                    tracker.seen(offset, deliveries);
                    model.owed.insert(offset, deliveries);
                    model.next = offset + 1;
                }
                Step::Skip { by } => {
                    model.next += by;
                    tracker.skip_to(model.next);
                }
                Step::Done { which } => {
                    let open = model.open();
                    if !open.is_empty() {
                        let offset = open[which % open.len()];
                        let owed = model.owed.get_mut(&offset).unwrap();
                        *owed -= 1;
                        prop_assert_eq!(tracker.done(offset), *owed == 0);
                    }
                }
                Step::Resume { budget } => tracker = resume(&tracker, &mut model, budget),
            }
            agree(&tracker, &model);
        }
    }

    #[test]
    fn what_is_settled_reads_back(
        committed in 0..u64::MAX / 2,
        done in prop::collection::vec(any::<bool>(), 0..2_000),
        budget in 0..4_000_usize,
    ) {
        let mut bits = Bits::new(committed);
        for (offset, _) in (committed..).zip(&done).filter(|(_, done)| **done) {
            bits.set(offset);
        }
        let end = committed + u64::try_from(done.len()).unwrap();
        let text = metadata::encode(&bits, committed, end, 9, budget);
        prop_assert!(text.is_empty() || text.len() <= budget);
        let (known, horizon) = metadata::decode(committed, &text)
            .unwrap_or_else(|| (Bits::new(committed), committed));
        prop_assert!(horizon <= end);
        for offset in committed..horizon {
            prop_assert_eq!(known.get(offset), bits.get(offset));
        }
        // Another offset, another text: it must not be believed.
        prop_assert!(text.is_empty() || metadata::decode(committed + 1, &text).is_none());
    }

    #[test]
    fn damage_is_noticed_and_never_panics(text in "\\PC{0,60}", at in any::<usize>(), to in any::<u8>()) {
        drop(Tracker::resume(5, &text, 0));
        drop(Tracker::resume(5, &format!("1g{text}"), 0));
        let mut bits = Bits::new(100);
        (100..400).filter(|offset| offset % 3 != 0).for_each(|offset| bits.set(offset));
        let good = metadata::encode(&bits, 100, 400, 1, 4_000);
        let mut bad = good.clone().into_bytes();
        let place = at % bad.len();
        bad[place] = to & 0x7f;
        let bad = String::from_utf8(bad).unwrap();
        prop_assert!(bad == good || metadata::decode(100, &bad).is_none());
    }
}

#[test]
fn a_log_that_begins_later_makes_the_metadata_void() {
    let mut tracker = Tracker::new(10, 0);
    (10..20).for_each(|offset| tracker.seen(offset, 1));
    (11..20).for_each(|offset| assert!(tracker.done(offset)));
    let text = tracker.metadata(4_000);
    let mut again = Tracker::resume(10, &text, 0);
    assert!(again.is_done(15));
    again.seen(15, 1);
    assert_eq!((again.committable(), again.incomplete()), (15, 1));
    assert!(!again.is_done(16), "it may be another record by now");
}

#[test]
fn a_delivery_settled_twice_counts_once() {
    let mut tracker = Tracker::new(0, 0);
    tracker.seen(0, 2);
    tracker.seen(1, 1);
    assert!(tracker.done(1) && !tracker.done(1));
    assert!(!tracker.done(0) && tracker.done(0) && !tracker.done(0));
    assert_eq!((tracker.committable(), tracker.incomplete()), (2, 0));
    assert!(!tracker.done(7), "never read");
}

#[test]
fn sizes_stay_within_those_the_format_promises() {
    // 1,000 open of 100,000: at most 1,712 characters by gaps.
    let mut bits = Bits::new(0);
    (0..100_000)
        .filter(|offset| offset % 100 != 0)
        .for_each(|offset| bits.set(offset));
    let text = metadata::encode(&bits, 0, 100_000, 0, 4_000);
    assert!(
        text.starts_with("1g") && text.len() <= 1_712,
        "{}",
        text.len()
    );
    // Every other one of 16,000: at most 2,700 by bits.
    let mut bits = Bits::new(0);
    (0..16_000)
        .filter(|offset| offset % 2 != 0)
        .for_each(|offset| bits.set(offset));
    let text = metadata::encode(&bits, 0, 16_000, 0, 4_000);
    assert!(
        text.starts_with("1b") && text.len() <= 2_700,
        "{}",
        text.len()
    );
}
