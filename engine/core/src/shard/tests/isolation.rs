//! What one endpoint's trouble costs the others, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::limits::QUEUE_ITEMS_FAIR;
use crate::outcome::Outcome;

/// Deliveries one loop can take in within a millisecond: a few times what a
/// core can send.
const INTAKE_A_MILLISECOND: usize = 1_000;

/// A shard, a source that never runs dry and receivers that answer in time.
struct World {
    shard: Shard,
    now: Timestamp,
    held: Option<Delivery>,
    next: u64,
    /// By the time they end and the order they began.
    in_flight: BTreeMap<(Timestamp, u64), Delivery>,
    unacked: usize,
    began: u64,
    served: Vec<u64>,
    laned: Vec<u64>,
}

impl World {
    fn new(endpoints: u8) -> Self {
        Self {
            shard: shard(table(endpoints, |_, _| {}).snapshot()),
            now: START,
            held: None,
            next: 0,
            in_flight: BTreeMap::new(),
            unacked: 0,
            began: 0,
            served: vec![0; usize::from(endpoints)],
            laned: vec![0; usize::from(endpoints)],
        }
    }

    /// Runs for a time. `pick` names the endpoint of the n-th delivery, `takes`
    /// how long it needs for an answer.
    fn run(
        &mut self,
        span: Duration,
        mut pick: impl FnMut(u64) -> u32,
        mut takes: impl FnMut(u32) -> Duration,
    ) {
        let end = self.now.after(span);
        let mut actions = Vec::new();
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(1));
            while let Some(entry) = self
                .in_flight
                .first_entry()
                .filter(|e| e.key().0 <= self.now)
            {
                let delivery = entry.remove();
                let outcome = Outcome::response(200, None, self.now);
                self.served[usize::try_from(delivery.endpoint.0).unwrap()] += 1;
                self.shard
                    .finished(delivery, outcome, self.now, &mut actions);
                self.act(&mut actions, &mut takes);
            }
            let bytes = std::mem::take(&mut self.unacked);
            self.shard.acknowledged(bytes, self.now, &mut actions);
            if self.now.as_millis().is_multiple_of(100) {
                self.shard.sweep(self.now, &mut actions);
            }
            for _ in 0..INTAKE_A_MILLISECOND {
                let offered = self.held.take().unwrap_or_else(|| {
                    self.next += 1;
                    delivery(pick(self.next), self.next)
                });
                let taken = self.shard.offer(offered, self.now, false, &mut actions);
                self.act(&mut actions, &mut takes);
                if let Err(blocked) = taken {
                    self.held = Some(blocked);
                    break;
                }
            }
        }
    }

    fn act(&mut self, actions: &mut Vec<Action>, takes: &mut impl FnMut(u32) -> Duration) {
        for action in actions.drain(..) {
            match action {
                Action::Send(delivery) => {
                    self.began += 1;
                    let ends = self.now.after(takes(delivery.endpoint.0));
                    self.in_flight.insert((ends, self.began), delivery);
                }
                Action::Append(append) => {
                    let ix = self.shard.registry().index(append.endpoint).unwrap();
                    self.laned[usize::try_from(ix.0).unwrap()] += 1;
                    self.unacked += append.charge;
                }
                Action::Close(_) => {}
                Action::Report(_) => unreachable!("nothing came from an owner"),
            }
        }
    }
}

impl World {
    fn served_from(&self, from: usize) -> u64 {
        self.served[from..].iter().sum()
    }

    fn laned_from(&self, from: usize) -> u64 {
        self.laned[from..].iter().sum()
    }
}

const HANGS: Duration = Duration::from_secs(15);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Six tenths of a second of 100 endpoints in turn, of which the first `sick` take `long`,
/// the others 1 ms.
fn in_turn(sick: u32, long: Duration) -> World {
    let mut world = World::new(100);
    let takes = |endpoint| if endpoint < sick { long } else { ms(1) };
    world.run(ms(600), |n| u32::try_from(n % 100).unwrap(), takes);
    world
}

#[test]
fn one_dead_endpoint_of_a_hundred_costs_the_others_less_than_a_tenth() {
    let healthy = in_turn(0, ms(1));
    assert_eq!(
        healthy.laned_from(0),
        0,
        "nothing is paid for while all is well"
    );
    let full = healthy.served_from(1);
    for long in [HANGS, ms(100), ms(20)] {
        let world = in_turn(1, long);
        let served = world.served_from(1);
        assert!(served * 10 >= full * 9, "{long:?}: {served} of {full}");
        assert_eq!(
            world.laned_from(1),
            0,
            "{long:?}: the others keep the short way"
        );
        let waiting = world.shard.queues[0].as_ref().unwrap().len();
        let own = world.served[0] + world.laned[0] + u64::try_from(waiting).unwrap();
        assert!(
            own * 110 >= served,
            "{long:?}: its own go to the lane, {own} of {served}"
        );
    }
}

#[test]
fn what_a_dead_endpoint_had_waiting_goes_to_the_lane_after_ten_seconds() {
    let mut world = World::new(20);
    let takes = |endpoint| if endpoint == 0 { HANGS } else { ms(100) };
    world.run(ms(14_000), |n| u32::try_from(n % 20).unwrap(), takes);
    let own = world.shard.queues[0].as_ref().unwrap();
    assert!(own.is_slow(world.now) && own.len() <= QUEUE_ITEMS_FAIR);
    assert_eq!(world.served[0], 0);
    // Nineteen windows of ten, ten answers a second each.
    let full = 19 * 10 * 10 * 14;
    let served = world.served_from(1);
    assert!(served * 10 >= full * 9, "{served} of {full}");
}

/// The tempting rule, to send to the lane whenever anybody is idle, sends two
/// thirds of this there.
#[test]
fn a_healthy_backlog_in_random_order_waits_instead_of_taking_the_lane() {
    for endpoints in [2_u8, 40, 100] {
        let mut order = Rng::new(3);
        let mut delay = Rng::new(4);
        let mut world = World::new(endpoints);
        let mut run = |world: &mut World, span| {
            world.run(
                span,
                |_| u32::try_from(order.below(endpoints.into())).unwrap(),
                |_| ms(10 + delay.below(81)),
            );
            (world.served_from(0), world.laned_from(0))
        };
        // The pace is found within a second.
        let before = run(&mut world, ms(1_000));
        let after = run(&mut world, ms(1_500));
        let (served, laned) = (after.0 - before.0, after.1 - before.1);
        assert!(
            laned * 200 <= served,
            "{endpoints}: {laned} laned, {served} served"
        );
        // What windows or the shard's slots allow at 50 ms an answer.
        let slots = u64::from(endpoints) * 10;
        let full = slots.min(512) * 30;
        assert!(served * 10 >= full * 9, "{endpoints}: {served} of {full}");
    }
}

#[test]
fn many_dead_endpoints_cost_a_moment_each_and_no_more() {
    let mut world = World::new(100);
    let dead = 30;
    let takes = |endpoint| if endpoint < dead { HANGS } else { ms(10) };
    let pick = |n| u32::try_from(n % 100).unwrap();
    world.run(ms(1_000), pick, takes);
    let before = world.served_from(30);
    world.run(ms(1_000), pick, takes);
    let served = world.served_from(30) - before;
    // 512 slots less 300 that hang, 100 answers a second each.
    let full = (512 - 300) * 100;
    assert!(served * 10 >= full * 9, "{served} of {full}");
}

#[test]
fn an_endpoint_that_recovers_is_slow_no_longer() {
    let mut world = World::new(10);
    let pick = |n| u32::try_from(n % 10).unwrap();
    let takes = |endpoint| if endpoint == 0 { ms(400) } else { ms(10) };
    world.run(ms(2_000), pick, takes);
    assert!(world.shard.queues[0].as_ref().unwrap().is_slow(world.now));
    world.run(ms(1_000), pick, |_| ms(10));
    let laned = world.laned[0];
    world.run(ms(1_000), pick, |_| ms(10));
    assert_eq!(world.laned[0], laned);
    assert!(!world.shard.queues[0].as_ref().unwrap().is_slow(world.now));
}
