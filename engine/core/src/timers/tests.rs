use std::collections::BTreeMap;

use proptest::prelude::{ProptestConfig, prop};
use proptest::proptest;

use super::*;
use crate::limits::{TIMERS_MAX, TIMERS_PER_ENDPOINT_MAX};
use crate::rng::Rng;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn owed(number: u64, endpoint: u8, due: u64) -> Owed {
    Owed {
        delivery: DeliveryId::from_bytes(u128::from(number).to_be_bytes()),
        endpoint: EndpointId::from_bytes([endpoint; 16]),
        attempts: 3,
        due: at(due),
        deadline: at(1_800_000_000_000),
    }
}

fn all(timers: &Timers) -> BTreeMap<u64, Owed> {
    timers.iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a plain map: what is owed, what waits, and the order it comes in.
    #[test]
    fn it_is_the_map(steps in prop::collection::vec((0..8_u8, 0..60_u64, 0..50_u64), 1..600)) {
        let mut timers = Timers::default();
        let mut owed_at = BTreeMap::new();
        let mut out = BTreeMap::new();
        for (number, (step, offset, due)) in (0_u64..).zip(steps) {
            let endpoint = u8::try_from(offset % 3).unwrap();
            let id = EndpointId::from_bytes([endpoint; 16]);
            match step {
                0..3 => {
                    let new = owed(number % 80, endpoint, due);
                    let taken = owed_at.contains_key(&offset)
                        || owed_at.values().any(|old: &Owed| old.delivery == new.delivery);
                    assert_eq!(timers.insert(offset, new), !taken);
                    if !taken {
                        owed_at.insert(offset, new);
                    }
                }
                3 => {
                    assert_eq!(timers.remove(offset), owed_at.remove(&offset));
                    out.remove(&offset);
                }
                4 => {
                    timers.retry(offset, 9, at(due));
                    if let Some(owed) = owed_at.get_mut(&offset) {
                        (owed.attempts, owed.due) = (9, at(due));
                        out.remove(&offset);
                    }
                }
                5 => {
                    timers.wait(offset);
                    out.remove(&offset);
                }
                6 => {
                    timers.hasten(offset, at(0));
                    owed_at.entry(offset).and_modify(|owed| owed.due = at(0));
                }
                _ => {
                    let first = owed_at
                        .iter()
                        .filter(|(offset, owed)| owed.endpoint == id && !out.contains_key(*offset))
                        .map(|(&offset, owed)| (owed.due, offset))
                        .min();
                    assert_eq!(timers.next_due(id), first.map(|(due, _)| due));
                    let due_now = first.filter(|(first, _)| *first <= at(due));
                    let taken = timers.take_due(id, at(due));
                    assert_eq!(taken, due_now.map(|(_, offset)| offset));
                    out.extend(taken.map(|offset| (offset, ())));
                }
            }
            assert_eq!((timers.len(), timers.get(offset)), (owed_at.len(), owed_at.get(&offset).copied()));
        }
        assert_eq!(all(&timers), owed_at);
        for (offset, owed) in owed_at {
            assert_eq!(timers.offset_of(owed.delivery), Some(offset));
            timers.remove(offset);
        }
        assert_eq!(timers.bytes(), 0, "nothing owed costs nothing");
    }
}

#[test]
fn a_pending_retry_costs_64_bytes_all_included() {
    let mut rng = Rng::new(1);
    let (mut bytes, mut most) = (0, 0);
    // A million, as twenty partitions hold them.
    for partition in 0..20_u64 {
        let mut timers = Timers::default();
        for number in 0..u64::try_from(TIMERS_MAX).unwrap() {
            let endpoint = u8::try_from(number % 100).unwrap();
            let id = number * 20 + partition;
            assert!(timers.insert(id, owed(id, endpoint, rng.below(3_600_000))));
            if number % 1_000 == 999 && number > 10_000 {
                most = most.max(timers.bytes() * 100 / timers.len());
            }
        }
        assert_eq!(timers.len(), TIMERS_MAX);
        bytes += timers.bytes();
    }
    assert!(bytes <= 64 * 1_000_000, "{bytes}");
    assert!(most <= 6_400, "{most} hundredths of a byte, while it grew");
    const { assert!(TIMERS_PER_ENDPOINT_MAX * 5 <= TIMERS_MAX) };
}
