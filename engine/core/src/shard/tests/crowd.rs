//! A crowd of endpoints at a steady load: what the sick cost the healthy, and
//! what an outage costs in attempts. The loads are those for which the rules
//! were chosen, at one shard's slots.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;

/// Endpoints, each with [`EVENTS_A_SECOND`]: with 50 ms an answer the healthy
/// need 225 of 512 slots.
const ENDPOINTS: u32 = 500;
const EVENTS_A_SECOND: u32 = 10;
const TIMEOUT: Duration = Duration::from_secs(15);

/// What a receiver does with an attempt: how long it takes, and its end.
type Receiver<'a> = &'a dyn Fn(u32, Timestamp) -> (Duration, Outcome);

struct Crowd {
    shard: Shard,
    now: Timestamp,
    /// When each arrived at the source, and for whom.
    source: VecDeque<(Timestamp, u32)>,
    /// When each that was taken in arrived, by offset.
    arrived: BTreeMap<u64, Timestamp>,
    next: u64,
    began: u64,
    in_flight: BTreeMap<(Timestamp, u64), (Delivery, Outcome)>,
    unacked: usize,
    /// Milliseconds from arrival to attempt, of healthy endpoints.
    waits: Vec<u64>,
    served: u64,
    laned: u64,
    healthy_laned: u64,
    healthy_from: u32,
}

impl Crowd {
    fn new(endpoints: u32, healthy_from: u32, max_in_flight: u32) -> Self {
        let mut table = Table::default();
        for number in 0..endpoints {
            let mut record = endpoint_sample(0, "acme", &[]);
            record.id = u128::from(number).to_be_bytes().to_vec().into();
            record.tenant = format!("tenant-{}", number % 10);
            record.max_in_flight = max_in_flight;
            put(&mut table, &record);
        }
        Self {
            shard: Shard::new(table.snapshot(), Rng::new(11)),
            now: START,
            source: VecDeque::new(),
            arrived: BTreeMap::new(),
            next: 0,
            began: 0,
            in_flight: BTreeMap::new(),
            unacked: 0,
            waits: Vec::new(),
            served: 0,
            laned: 0,
            healthy_laned: 0,
            healthy_from,
        }
    }

    fn forget(&mut self) {
        self.waits.clear();
        (self.served, self.laned, self.healthy_laned) = (0, 0, 0);
    }

    /// Runs so long; every millisecond `arrivals` gives those that come.
    fn run(
        &mut self,
        span: Duration,
        mut arrivals: impl FnMut(&mut VecDeque<(Timestamp, u32)>, Timestamp),
        receiver: Receiver<'_>,
    ) {
        let end = self.now.after(span);
        let mut actions = Vec::new();
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(1));
            arrivals(&mut self.source, self.now);
            while let Some(entry) = self.in_flight.first_entry()
                && entry.key().0 <= self.now
            {
                let (delivery, outcome) = entry.remove();
                self.served += u64::from(outcome.cause.is_none());
                self.shard
                    .finished(delivery, outcome, self.now, &mut actions);
                self.act(&mut actions, receiver);
            }
            let bytes = std::mem::take(&mut self.unacked);
            self.shard.acknowledged(bytes, self.now, &mut actions);
            let ms = self.now.as_millis();
            if ms.is_multiple_of(5) {
                self.shard.tick(self.now, &mut actions);
            }
            if ms.is_multiple_of(100) {
                self.shard.sweep(self.now, &mut actions);
            }
            while let Some(&(at, endpoint)) = self.source.front() {
                let one = delivery(endpoint, self.next);
                let taken = self.shard.offer(one, self.now, false, &mut actions).is_ok();
                if taken {
                    self.arrived.insert(self.next, at);
                    self.next += 1;
                    self.source.pop_front();
                }
                self.act(&mut actions, receiver);
                if !taken {
                    break;
                }
            }
            self.act(&mut actions, receiver);
        }
    }

    fn act(&mut self, actions: &mut Vec<Action>, receiver: Receiver<'_>) {
        for action in actions.drain(..) {
            match action {
                Action::Send(delivery) => {
                    self.began += 1;
                    let arrived = self.arrived.remove(&delivery.ticket.offset).unwrap();
                    if delivery.endpoint.0 >= self.healthy_from {
                        let wait = self.now.since(arrived).as_millis();
                        self.waits.push(u64::try_from(wait).unwrap());
                    }
                    let (takes, outcome) = receiver(delivery.endpoint.0, self.now);
                    let ends = self.now.after(takes);
                    self.in_flight
                        .insert((ends, self.began), (delivery, outcome));
                }
                Action::Append(append) => {
                    self.arrived.remove(&append.ticket.offset);
                    let ix = self.shard.registry().index(append.endpoint).unwrap();
                    self.laned += 1;
                    self.healthy_laned += u64::from(ix.0 >= self.healthy_from);
                    self.unacked += append.charge;
                }
                Action::Close(_) => {}
                Action::Report(_) => unreachable!("nothing came from an owner"),
            }
        }
    }

    fn p99(&mut self) -> u64 {
        self.waits.sort_unstable();
        self.waits[self.waits.len() * 99 / 100]
    }
}

/// So many of all endpoints are sick. Answers the crowd after it has settled and
/// ran ten seconds more.
fn crowd(sick: u32, receiver: Receiver<'_>) -> Crowd {
    let mut order = Rng::new(5);
    let a_millisecond = ENDPOINTS * EVENTS_A_SECOND / 1_000;
    let mut arrivals = |source: &mut VecDeque<(Timestamp, u32)>, now: Timestamp| {
        for _ in 0..a_millisecond {
            let endpoint = u32::try_from(order.below(ENDPOINTS.into())).unwrap();
            source.push_back((now, endpoint));
        }
    };
    let mut crowd = Crowd::new(ENDPOINTS, sick, 10);
    crowd.run(Duration::from_secs(25), &mut arrivals, receiver);
    crowd.forget();
    crowd.run(Duration::from_secs(10), &mut arrivals, receiver);
    crowd
}

fn healthy() -> (Duration, Outcome) {
    (Duration::from_millis(50), ok())
}

fn assert_healthy(mut crowd: Crowd, sick: u32) {
    let p99 = crowd.p99();
    assert!(p99 <= 50, "{p99} ms");
    let offered = u64::from((ENDPOINTS - sick) * EVENTS_A_SECOND) * 10;
    let began = u64::try_from(crowd.waits.len()).unwrap();
    assert!(began * 100 >= offered * 97, "{began} of {offered}");
    assert!(
        crowd.healthy_laned * 1_000 <= offered,
        "{}",
        crowd.healthy_laned
    );
}

#[test]
fn black_holes_cost_the_healthy_no_wait() {
    let sick = ENDPOINTS / 10;
    let receiver = |endpoint: u32, _: Timestamp| {
        if endpoint < sick {
            (TIMEOUT, Outcome::failed(Cause::TimeoutHeaders))
        } else {
            healthy()
        }
    };
    assert_healthy(crowd(sick, &receiver), sick);
}

#[test]
fn slow_endpoints_cost_the_healthy_no_wait() {
    let sick = ENDPOINTS / 10;
    let receiver = |endpoint: u32, _: Timestamp| {
        if endpoint < sick {
            (Duration::from_secs(2), ok())
        } else {
            healthy()
        }
    };
    let crowd = crowd(sick, &receiver);
    let own = crowd.served - u64::try_from(crowd.waits.len()).unwrap().min(crowd.served);
    assert!(own >= 500, "the slow are served as well: {own} in 10 s");
    assert_healthy(crowd, sick);
}

/// One endpoint at 70 events a second for four minutes; from the first minute's
/// end it does what `outage` says for one minute.
fn outage(outage: (Duration, Outcome)) -> Crowd {
    let mut crowd = Crowd::new(1, 0, 64);
    let (from, to) = (later(60_000), later(120_000));
    let receiver = |_: u32, now: Timestamp| {
        if (from..to).contains(&now) {
            outage
        } else {
            (Duration::from_millis(100), ok())
        }
    };
    let mut due = 0;
    let arrivals = |source: &mut VecDeque<(Timestamp, u32)>, now: Timestamp| {
        due += 70;
        for _ in 0..due / 1_000 {
            source.push_back((now, 0));
        }
        due %= 1_000;
    };
    crowd.run(Duration::from_secs(240), arrivals, &receiver);
    crowd
}

#[test]
fn an_outage_costs_an_event_hardly_more_than_one_attempt() {
    let refused = Outcome::failed(Cause::ConnectionRefused);
    let crowd = outage((Duration::from_millis(1), refused));
    let events = crowd.next;
    assert!(events >= 240 * 70 - 10);
    // What took the lane needs one more attempt, made by its owner.
    let attempts = crowd.began + crowd.laned;
    assert!(
        attempts * 100 <= events * 105,
        "{attempts} attempts for {events} events"
    );
    // It is noticed within a cooldown, a minute at most.
    assert!(crowd.served * 2 >= events, "{}", crowd.served);
}
