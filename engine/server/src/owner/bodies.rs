//! Records of deliveries an owner will soon hand out, as far as the budget
//! goes: one that is not here is read from the log when it is due.

use std::collections::BTreeMap;

use posthaste_core::id::EndpointId;
use posthaste_core::lane::fold::{Fact, Fold};
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use crate::log::{Offset, Record};

/// Bytes of records all partitions may keep.
pub(super) struct Budget {
    left: usize,
}

/// Those of one partition.
#[derive(Default)]
pub(super) struct Bodies {
    kept: BTreeMap<Offset, proto::Deliver>,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: bytes }
    }
}

impl Bodies {
    /// Keeps a record. Where there is no room, those furthest behind it make
    /// way: their turn comes later.
    pub(super) fn keep(&mut self, record: &Record, budget: &mut Budget) {
        let Ok(deliver) = proto::Deliver::from_value(&record.value) else {
            return;
        };
        self.remove(record.offset, budget);
        let bytes = charge(&deliver);
        while bytes > budget.left {
            match self.kept.last_key_value() {
                Some((&last, _)) if last > record.offset => self.remove(last, budget),
                _ => return,
            }
        }
        budget.left -= bytes;
        self.kept.insert(record.offset, deliver);
    }

    /// A delivery's record, if it is here.
    pub(super) fn get(&self, offset: Offset) -> Option<&proto::Deliver> {
        self.kept.get(&offset)
    }

    /// Lets go of what a fact has settled.
    pub(super) fn follow(&mut self, fact: &Fact, fold: &Fold, budget: &mut Budget) {
        match *fact {
            Fact::Settled(offset, _) => self.remove(offset, budget),
            Fact::Passed(to, endpoint, 1..) => {
                self.pass(
                    to,
                    endpoint,
                    |offset| fold.is_owed(endpoint, offset),
                    budget,
                );
            }
            _ => {}
        }
    }

    fn remove(&mut self, offset: Offset, budget: &mut Budget) {
        if let Some(deliver) = self.kept.remove(&offset) {
            budget.left += charge(&deliver);
        }
    }

    /// Of this endpoint, everything below `to` that is no longer owed.
    fn pass(
        &mut self,
        to: Offset,
        endpoint: EndpointId,
        is_owed: impl Fn(Offset) -> bool,
        budget: &mut Budget,
    ) {
        let below = self.kept.range(..to);
        let passed: Vec<_> = below
            .filter(|(_, deliver)| deliver.endpoint_id[..] == endpoint.as_bytes()[..])
            .map(|(&offset, _)| offset)
            .filter(|&offset| !is_owed(offset))
            .collect();
        for offset in passed {
            self.remove(offset, budget);
        }
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self, budget: &mut Budget) {
        budget.left += self.kept.values().map(charge).sum::<usize>();
        self.kept.clear();
    }
}

fn charge(record: &proto::Deliver) -> usize {
    record.body.len() + 512
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EndpointId = EndpointId::from_bytes([1; 16]);
    const B: EndpointId = EndpointId::from_bytes([2; 16]);

    fn record(offset: Offset, endpoint: EndpointId) -> Record {
        let deliver = proto::Deliver {
            endpoint_id: endpoint.as_bytes().to_vec().into(),
            body: vec![0; 488].into(),
            ..proto::Deliver::default()
        };
        Record {
            offset,
            timestamp: posthaste_core::time::Timestamp::default(),
            key: bytes::Bytes::new(),
            value: deliver.to_value(),
            headers: Vec::new(),
        }
    }

    fn offsets(bodies: &Bodies) -> Vec<Offset> {
        bodies.kept.keys().copied().collect()
    }

    #[test]
    fn without_room_the_furthest_behind_makes_way() {
        let (mut bodies, mut budget) = (Bodies::default(), Budget::new(3_500));
        for offset in [10, 20, 30, 40] {
            bodies.keep(&record(offset, A), &mut budget);
        }
        assert_eq!(offsets(&bodies), [10, 20, 30]);
        bodies.keep(&record(15, A), &mut budget);
        assert_eq!((offsets(&bodies), budget.left), (vec![10, 15, 20], 500));
        bodies.keep(&record(15, A), &mut budget);
        assert_eq!((offsets(&bodies), budget.left), (vec![10, 15, 20], 500));
        bodies.remove(15, &mut budget);
        bodies.clear(&mut budget);
        assert_eq!(budget.left, 3_500);
    }

    #[test]
    fn what_is_passed_goes_unless_it_is_owed() {
        let (mut bodies, mut budget) = (Bodies::default(), Budget::new(10_000));
        for (offset, endpoint) in [(1, A), (2, B), (3, A), (4, A)] {
            bodies.keep(&record(offset, endpoint), &mut budget);
        }
        bodies.pass(4, A, |offset| offset == 3, &mut budget);
        assert_eq!((offsets(&bodies), budget.left), (vec![2, 3, 4], 7_000));
    }
}
