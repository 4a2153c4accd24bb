//! One endpoint in one shard: what waits for it, in order, what is in flight, and
//! what its receiver has shown it can take.
//!
//! First attempts and those its owner wants wait apart, so that a backlog cannot
//! starve live traffic: while both wait, the owner's get one turn in five.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base_rtt::BaseRtt;
use crate::breaker::{Breaker, Sign};
use crate::delivery::{Class, Delivery, Flight, Room};
use crate::limits::{
    COST_BYTES, FRESH_PER_OWED, PACE_PROMPT, PACE_QUICK, QUEUE_BYTES_MAX, QUEUE_ITEMS_FAIR,
    QUEUE_ITEMS_MAX, QUEUE_WAIT_MAX, SLOW_MS, VERY_SLOW_MS,
};
use crate::outcome::Outcome;
use crate::rate::{Bucket, Pause};
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::window::{Load, Window};

/// What waits for one endpoint, oldest first, and how it fares.
#[derive(Debug, Default)]
pub struct Queue {
    fresh: VecDeque<Waiting>,
    owed: VecDeque<Waiting>,
    bytes: usize,
    in_flight: u32,
    owed_in_flight: u32,
    /// First attempts begun since the last of the owner's.
    fresh_in_a_row: u32,
    last_arrival: Timestamp,
    in_ring: bool,
    /// A time is set to look at it again.
    wakes: bool,
    /// It stands in line for a place that classes of attempts share.
    waits: bool,
    slow_at: Timestamp,
    /// Mean of the latest answer times in milliseconds, times 8.
    answers_ms8: u32,
    /// The same of every attempt, answered or not; 0 while unknown.
    latency_ms8: u32,
    pub(crate) base_rtt: BaseRtt,
    pub(crate) breaker: Breaker,
    pub(crate) window: Window,
    bucket: Bucket,
    direct: Bucket,
    pub(crate) pause: Pause,
    /// Turns it has had in advance.
    pub(crate) debt: u32,
    /// Its tenant's place in the ring, once it stood there.
    pub(crate) tenant: Option<u32>,
    pub(crate) health: Health,
}

/// What its latest attempts say about our own way out.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When the last attempt ended.
    pub(crate) ended: Timestamp,
    /// Since when none reaches a receiver; the default while they do.
    pub(crate) lost_since: Timestamp,
}

/// How much an endpoint may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Attempts in flight.
    pub in_flight: u32,
    /// … of them first attempts.
    pub direct_in_flight: u32,
    /// Attempts a second, 0 for no bound.
    pub rate: u32,
    /// … of them first attempts.
    pub direct_rate: u32,
}

/// What may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The oldest of this room.
    Start(Room),
    /// Nothing before then: its rate is used up.
    At(Timestamp),
    /// Nothing before other retries end.
    RetriesFull,
    /// Nothing: nothing waits, or the window is full.
    Nothing,
}

#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    since: Timestamp,
}

impl Queue {
    /// Whether one more may wait: a fair few always may, more unless room is
    /// `tight`.
    pub fn has_room(&self, tight: bool) -> bool {
        let items_max = if tight {
            QUEUE_ITEMS_FAIR
        } else {
            QUEUE_ITEMS_MAX
        };
        self.len() < items_max && self.bytes < QUEUE_BYTES_MAX
    }

    /// Puts a delivery at the end.
    pub fn push(&mut self, delivery: Delivery, now: Timestamp) {
        self.bytes += delivery.event.body.len();
        let waiting = match delivery.ticket.room {
            Room::Ingest => &mut self.fresh,
            Room::Owner => &mut self.owed,
        };
        waiting.push_back(Waiting {
            delivery,
            since: now,
        });
    }

    /// What may start within these limits, counting first attempts only when
    /// they are `open` and the owner's only when retries have `room`.
    pub fn choose(&mut self, limits: &Limits, open: bool, room: bool, now: Timestamp) -> Choice {
        let fresh = open && !self.fresh.is_empty();
        let owed = !self.owed.is_empty();
        if !fresh && !owed || self.in_flight >= self.window.limit(limits.in_flight) {
            return Choice::Nothing;
        }
        if !self.bucket.has_one(limits.rate, now) {
            return Choice::At(self.bucket.next(limits.rate));
        }
        let in_share = self.in_flight - self.owed_in_flight < limits.direct_in_flight;
        let in_rate = self.direct.has_one(limits.direct_rate, now);
        match (fresh && in_share && in_rate, owed && room) {
            (true, true) if self.fresh_in_a_row >= FRESH_PER_OWED => Choice::Start(Room::Owner),
            (true, _) => Choice::Start(Room::Ingest),
            (false, true) => Choice::Start(Room::Owner),
            (false, false) if fresh && in_share => Choice::At(self.direct.next(limits.direct_rate)),
            (false, false) if owed => Choice::RetriesFull,
            (false, false) => Choice::Nothing,
        }
    }

    /// Takes what [`choose`](Self::choose) chose and counts it as in flight. An
    /// endpoint for which nothing waits any more keeps up, and is slow no
    /// longer.
    pub fn start(&mut self, room: Room, limits: &Limits, now: Timestamp) -> Option<Delivery> {
        let mut next = self.pop_of(room)?;
        let pass = match room {
            Room::Ingest => self.breaker.admit(now).unwrap_or_default(),
            Room::Owner => self.breaker.admit_always(),
        };
        next.started = now;
        next.flight = Flight {
            pass,
            class: self.class(),
            prompt: self.is_prompt(),
        };
        self.in_flight += 1;
        self.bucket.take(limits.rate);
        match room {
            Room::Ingest => {
                self.direct.take(limits.direct_rate);
                self.fresh_in_a_row = self.fresh_in_a_row.saturating_add(1);
            }
            Room::Owner => {
                self.owed_in_flight += 1;
                self.fresh_in_a_row = 0;
            }
        }
        if self.is_empty() {
            self.slow_at = Timestamp::default();
        }
        self.debt = cost(&next) - 1;
        Some(next)
    }

    /// One attempt ended. `most`: what its endpoint may have in flight. What was
    /// `lost` on our own side says nothing about the receiver.
    pub fn ended(
        &mut self,
        delivery: &Delivery,
        outcome: &Outcome,
        most: u32,
        lost: bool,
        now: Timestamp,
        rng: &mut Rng,
    ) {
        let (load, sign) = if lost {
            (Load::Unknown, Sign::Unknown)
        } else {
            (Load::of(outcome), Sign::of(outcome))
        };
        let took = now.since(delivery.started);
        if load == Load::Served {
            self.base_rtt.answered(took, now);
        }
        self.window
            .ended(load, self.in_flight, most, delivery.started, now);
        self.finish(delivery.ticket.room);
        if outcome.status.is_some() {
            self.answered(took);
        }
        self.took(took);
        let change = self.breaker.ended(delivery.flight.pass, sign, now, rng);
        if change == crate::breaker::Change::Closed {
            self.window.recovered();
        }
        if let Some(span) = outcome.retry_after {
            self.pause.asked(span, now, rng);
        }
    }

    fn finish(&mut self, room: Room) {
        assert!(self.in_flight > 0, "an attempt ended that never started");
        self.in_flight -= 1;
        self.owed_in_flight -= u32::from(room == Room::Owner);
    }

    /// An answer took so long: an eighth of the mean from now on.
    fn answered(&mut self, took: Duration) {
        self.answers_ms8 = mean8(self.answers_ms8, took);
    }

    /// An attempt took so long, answered or not. The first counts in full.
    fn took(&mut self, took: Duration) {
        self.latency_ms8 = if self.latency_ms8 == 0 {
            let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
            took.min(u32::MAX / 16) * 8
        } else {
            mean8(self.latency_ms8, took)
        };
    }

    /// Whether it answers at once when nothing waits, as far as is known: then its
    /// answers are late only if they wait on our side.
    pub(crate) fn is_prompt(&self) -> bool {
        match self.base_rtt.lowest() {
            Some(base) => base < PACE_PROMPT,
            None => u128::from(self.answers_ms8 / 8) < PACE_QUICK.as_millis(),
        }
    }

    /// How long its attempts take.
    pub(crate) fn class(&self) -> Class {
        match self.latency_ms8 / 8 {
            VERY_SLOW_MS.. => Class::VerySlow,
            SLOW_MS.. => Class::Slow,
            _ => Class::Quick,
        }
    }

    /// Takes the oldest if it has waited too long.
    pub fn pop_stale(&mut self, now: Timestamp) -> Option<Delivery> {
        let stale = |waiting: &VecDeque<Waiting>| {
            waiting
                .front()
                .is_some_and(|oldest| now.since(oldest.since) >= QUEUE_WAIT_MAX)
        };
        if stale(&self.fresh) {
            self.pop_of(Room::Ingest)
        } else if stale(&self.owed) {
            self.pop_of(Room::Owner)
        } else {
            None
        }
    }

    /// Takes the oldest first attempt if it is one of these.
    pub fn pop_fresh_if(&mut self, is: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        let oldest = self.fresh.front()?;
        is(&oldest.delivery).then(|| self.pop_of(Room::Ingest))?
    }

    /// Takes the oldest without starting it, first attempts first.
    pub fn pop(&mut self) -> Option<Delivery> {
        self.pop_of(Room::Ingest)
            .or_else(|| self.pop_of(Room::Owner))
    }

    /// Takes the oldest of one room without starting it.
    pub fn pop_of(&mut self, room: Room) -> Option<Delivery> {
        let waiting = match room {
            Room::Ingest => &mut self.fresh,
            Room::Owner => &mut self.owed,
        };
        let next = waiting.pop_front()?;
        self.bytes -= next.delivery.event.body.len();
        if waiting.is_empty() && waiting.capacity() > QUEUE_ITEMS_FAIR {
            *waiting = VecDeque::new();
        }
        Some(next.delivery)
    }

    /// Whether it could take more than it has: nothing waits and there is room
    /// in the window.
    pub fn is_hungry(&self, limits: &Limits) -> bool {
        self.is_empty()
            && self.in_flight < self.window.limit(limits.in_flight)
            && self.in_flight - self.owed_in_flight < limits.direct_in_flight
    }

    /// Whether a first attempt waits.
    pub fn fresh_waits(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Whether first attempts may not be made now.
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.breaker.refuses(now) || self.pause.holds(now)
    }

    /// Whether something came for this endpoint within a second before `when`.
    pub fn had_traffic(&self, when: Timestamp) -> bool {
        within_a_second(self.last_arrival, when)
    }

    /// Whether it was slow within the last second and has not caught up since.
    pub fn is_slow(&self, now: Timestamp) -> bool {
        within_a_second(self.slow_at, now)
    }

    /// It held up the others, or would have again.
    pub fn mark_slow(&mut self, now: Timestamp) {
        self.slow_at = now;
    }

    /// Notes that something came for this endpoint.
    pub fn arrived(&mut self, now: Timestamp) {
        self.last_arrival = now;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.fresh.len() + self.owed.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.owed.is_empty()
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Marks the queue as standing in the ring; answers whether it was not.
    pub fn enter_ring(&mut self) -> bool {
        !std::mem::replace(&mut self.in_ring, true)
    }

    /// The queue left the ring.
    pub fn leave_ring(&mut self) {
        self.in_ring = false;
    }

    /// Sets a time to be looked at again; answers whether none was set.
    pub(crate) fn sleep(&mut self) -> bool {
        !std::mem::replace(&mut self.wakes, true)
    }

    /// That time has come.
    pub(crate) fn wake(&mut self) {
        self.wakes = false;
    }

    /// Puts it in line for a shared place; answers whether it was in none.
    pub(crate) fn line_up(&mut self) -> bool {
        !std::mem::replace(&mut self.waits, true)
    }

    /// It has left the line.
    pub(crate) fn leave_line(&mut self) {
        self.waits = false;
    }
}

/// Turns a delivery costs: one, and one more for every [`COST_BYTES`].
pub fn cost(delivery: &Delivery) -> u32 {
    let parts = delivery.event.body.len() / COST_BYTES;
    u32::try_from(parts).unwrap_or(u32::MAX).saturating_add(1)
}

fn mean8(mean: u32, took: Duration) -> u32 {
    let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
    mean - mean / 8 + took.min(u32::MAX / 16)
}

fn within_a_second(then: Timestamp, when: Timestamp) -> bool {
    then > Timestamp::default() && when.since(then).as_secs() < 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delivery::Ticket;
    use crate::event::sample;
    use crate::registry::EndpointIx;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    const LIMITS: Limits = Limits {
        in_flight: 10,
        direct_in_flight: 10,
        rate: 0,
        direct_rate: 0,
    };

    fn delivery(offset: u64, bytes: usize) -> Delivery {
        let mut event = sample("evt", "acme", "a");
        event.body = vec![0; bytes].into();
        Delivery::new(
            event.into(),
            EndpointIx(0),
            0,
            Ticket {
                room: Room::Ingest,
                slot: 0,
                epoch: 0,
                offset,
            },
        )
    }

    #[test]
    fn room_ends_by_items_or_by_bytes() {
        let mut queue = Queue::default();
        for offset in 0..u64::try_from(QUEUE_ITEMS_MAX).unwrap() {
            let fair = queue.len() < QUEUE_ITEMS_FAIR;
            assert!(queue.has_room(false) && queue.has_room(true) == fair);
            queue.push(delivery(offset, 10), START);
        }
        assert!(!queue.has_room(false));
        let mut queue = Queue::default();
        queue.push(delivery(0, QUEUE_BYTES_MAX - 1), START);
        assert!(queue.has_room(true));
        queue.push(delivery(1, 1), START);
        assert!(!queue.has_room(false));
        assert_eq!(queue.pop().map(|d| d.ticket.offset), Some(0));
        assert!(queue.has_room(false));
    }

    #[test]
    fn only_the_oldest_can_have_waited_too_long() {
        let mut queue = Queue::default();
        queue.push(delivery(0, 1), START);
        queue.push(delivery(1, 1), START.after(Duration::from_millis(1)));
        let end = START.after(QUEUE_WAIT_MAX);
        let before = Timestamp::from_millis(end.as_millis() - 1);
        assert!(queue.pop_stale(before).is_none());
        assert_eq!(queue.pop_stale(end).map(|d| d.ticket.offset), Some(0));
        assert!(queue.pop_stale(end).is_none() && queue.len() == 1);
    }

    #[test]
    fn an_endpoint_is_slow_until_it_catches_up_or_for_a_second() {
        let mut queue = Queue::default();
        queue.push(delivery(0, 1), START);
        queue.push(delivery(1, 1), START);
        queue.mark_slow(START);
        assert!(queue.is_slow(START.after(Duration::from_millis(999))));
        assert!(!queue.is_slow(START.after(Duration::from_secs(1))));
        queue.window = Window::full();
        let start = |queue: &mut Queue| queue.start(Room::Ingest, &LIMITS, START).is_some();
        assert!(start(&mut queue) && queue.is_slow(START));
        assert!(start(&mut queue) && !queue.is_slow(START));
        assert_eq!(queue.in_flight(), 2);
    }

    #[test]
    #[should_panic(expected = "never started")]
    fn an_attempt_ends_once() {
        Queue::default().finish(Room::Ingest);
    }
}
