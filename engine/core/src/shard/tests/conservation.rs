//! Whatever happens, a delivery is in one place and ends once.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::gate::Gate;
use crate::registry::gate_key;

#[derive(Debug, Clone)]
enum Step {
    Offer {
        endpoint: u32,
        owner: bool,
        others_hungry: bool,
    },
    Finish {
        which: usize,
        status: u16,
    },
    Ack {
        which: usize,
    },
    Pass {
        millis: u64,
    },
    Sweep,
    Tick,
    Gate {
        endpoint: u8,
        open: bool,
    },
    Change {
        endpoint: u8,
        window: u32,
        state: u8,
    },
    Evacuate,
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![4 => Just(200_u16), 3 => Just(503), 1 => Just(410), 1 => Just(429)];
    let change = (0..4_u8, 1..5_u32, 0..8_u8);
    prop_oneof![
        30 => (0..4_u32, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(endpoint, owner, others_hungry)| Step::Offer { endpoint, owner, others_hungry }
        ),
        12 => (any::<usize>(), status).prop_map(|(which, status)| Step::Finish { which, status }),
        6 => any::<usize>().prop_map(|which| Step::Ack { which }),
        4 => prop_oneof![0..30_u64, 0..12_000_u64].prop_map(|millis| Step::Pass { millis }),
        2 => Just(Step::Sweep),
        2 => Just(Step::Tick),
        1 => (0..4_u8, any::<bool>()).prop_map(|(endpoint, open)| Step::Gate { endpoint, open }),
        1 => change.prop_map(|(endpoint, window, state)| Step::Change { endpoint, window, state }),
        1 => prop::bool::weighted(0.05).prop_map(|all| if all { Step::Evacuate } else { Step::Sweep }),
    ]
}

/// Where each delivery is, as the world outside sees it.
#[derive(Debug, Default)]
struct Books {
    offered: u64,
    given_back: u64,
    owed_by_log: Vec<Append>,
    in_flight: Vec<Delivery>,
    ended: BTreeSet<u64>,
}

impl Books {
    /// Every ticket that ends was not at an end before.
    fn end(&mut self, offset: u64) {
        assert!(self.ended.insert(offset), "{offset} ended twice");
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(delivery) => self.in_flight.push(delivery),
                Action::Append(append) => {
                    assert_eq!(append.ticket.room, Room::Ingest);
                    assert!(!self.ended.contains(&append.ticket.offset));
                    self.owed_by_log.push(append);
                }
                Action::Close(ticket) => {
                    assert_eq!(ticket.room, Room::Ingest);
                    self.end(ticket.offset);
                }
                Action::Report(report) => {
                    assert_eq!(report.ticket.room, Room::Owner);
                    self.end(report.ticket.offset);
                }
            }
        }
    }

    fn check(&self, shard: &Shard, windows: &[u32; 4]) {
        assert_eq!(shard.in_flight(), self.in_flight.len());
        let charged: usize = self.owed_by_log.iter().map(|append| append.charge).sum();
        assert_eq!(shard.unacked_bytes(), charged);
        assert!(shard.fresh <= shard.queued());
        // Every body is `{}`.
        assert_eq!(shard.queued_bytes(), shard.queued() * 2);
        let accounted = self.ended.len() + self.owed_by_log.len() + self.in_flight.len();
        let offered = usize::try_from(self.offered - self.given_back).unwrap();
        assert_eq!(
            accounted + shard.queued(),
            offered,
            "a delivery is lost or doubled"
        );
        for (endpoint, &most) in (0..).zip(windows) {
            let out = self
                .in_flight
                .iter()
                .filter(|d| d.endpoint.0 == endpoint)
                .count();
            assert!(
                out <= usize::try_from(most).unwrap(),
                "{endpoint}: {out} > {most}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_delivery_is_in_exactly_one_place(steps in prop::collection::vec(step(), 1..600)) {
        let mut table = table(4, |_, e| e.max_in_flight = 3);
        // The widest window since the endpoint last had nothing in flight.
        let mut windows = [3_u32; 4];
        let mut shard = shard(table.snapshot());
        let mut books = Books::default();
        let mut now = START;
        for step in steps {
            let mut actions = Vec::new();
            match step {
                Step::Offer { endpoint, owner, others_hungry } => {
                    let room = if owner { Room::Owner } else { Room::Ingest };
                    books.offered += 1;
                    let one = from(room, endpoint, books.offered);
                    if let Err(back) = shard.offer(one, now, others_hungry, &mut actions) {
                        prop_assert!(!owner, "an owner's delivery is never given back");
                        prop_assert_eq!(back.ticket.offset, books.offered);
                        books.given_back += 1;
                    }
                }
                Step::Finish { which, status } => {
                    if !books.in_flight.is_empty() {
                        let which = which % books.in_flight.len();
                        let sent = books.in_flight.swap_remove(which);
                        let asks = (status == 429).then_some("1");
                        let outcome = Outcome::response(status, asks, now);
                        shard.finished(sent, outcome, now, &mut actions);
                    }
                }
                Step::Ack { which } => {
                    if !books.owed_by_log.is_empty() {
                        let which = which % books.owed_by_log.len();
                        let append = books.owed_by_log.swap_remove(which);
                        books.end(append.ticket.offset);
                        shard.acknowledged(append.charge, now, &mut actions);
                    }
                }
                Step::Pass { millis } => now = now.after(Duration::from_millis(millis)),
                Step::Sweep => shard.sweep(now, &mut actions),
                Step::Tick => shard.tick(now, &mut actions),
                Step::Gate { endpoint, open } => {
                    let state = if open { GateState::Open } else { GateState::Held };
                    let id = EndpointId::from_bytes([endpoint; 16]);
                    let value = Gate { state, ..Gate::OPEN }.to_proto(id).to_value();
                    table.apply(&gate_key(id), &value).unwrap();
                    shard.set_registry(table.snapshot());
                }
                Step::Change { endpoint, window, state } => {
                    let mut record = endpoint_sample(endpoint, "acme", &[]);
                    record.max_in_flight = window;
                    record.disabled = state == 0;
                    record.owned = state == 1;
                    record.ordered = state == 3;
                    record.rate_per_second = if state == 4 { 20 } else { 0 };
                    // Every event is of 1970.
                    record.max_age_ms = if state == 5 { 60_000 } else { 0 };
                    put(&mut table, &record);
                    if state == 2 {
                        let id = EndpointId::from_bytes([endpoint; 16]);
                        table.apply(&table_key(id), &Bytes::new()).unwrap();
                    }
                    let widest = &mut windows[usize::from(endpoint)];
                    *widest = (*widest).max(window);
                    shard.set_registry(table.snapshot());
                }
                Step::Evacuate => shard.evacuate(now, &mut actions),
            }
            books.take(actions);
            books.check(&shard, &windows);
        }
        // Left alone, everything ends.
        while let Some(sent) = books.in_flight.pop() {
            let mut actions = Vec::new();
            shard.finished(sent, ok(), now, &mut actions);
            books.take(actions);
        }
        let mut actions = Vec::new();
        shard.sweep(now.after(QUEUE_WAIT_MAX), &mut actions);
        books.take(actions);
        for append in std::mem::take(&mut books.owed_by_log) {
            books.end(append.ticket.offset);
        }
        while let Some(sent) = books.in_flight.pop() {
            let mut actions = Vec::new();
            shard.finished(sent, ok(), now, &mut actions);
            books.take(actions);
        }
        prop_assert_eq!((shard.queued(), shard.fresh, shard.in_flight()), (0, 0, 0));
        prop_assert!(shard.quota.is_empty());
        let offered = usize::try_from(books.offered - books.given_back).unwrap();
        prop_assert_eq!(books.ended.len(), offered);
    }
}
