//! One endpoint's queue in one shard: what waits, in order, and what is in
//! flight.

use std::collections::VecDeque;

use crate::delivery::Delivery;
use crate::limits::{QUEUE_BYTES_MAX, QUEUE_ITEMS_FAIR, QUEUE_ITEMS_MAX, QUEUE_WAIT_MAX};
use crate::time::Timestamp;

/// What waits for one endpoint, oldest first, and how much is in flight.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    in_flight: u32,
    last_arrival: Timestamp,
    in_ring: bool,
}

#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    since: Timestamp,
}

impl Queue {
    /// Whether one more may wait. A queue may always hold a fair few, however
    /// full its shard is.
    pub fn has_room(&self, shard_full: bool) -> bool {
        let items_max = if shard_full {
            QUEUE_ITEMS_FAIR
        } else {
            QUEUE_ITEMS_MAX
        };
        self.waiting.len() < items_max && self.bytes < QUEUE_BYTES_MAX
    }

    /// Puts a delivery at the end.
    pub fn push(&mut self, delivery: Delivery, now: Timestamp) {
        self.bytes += delivery.event.body.len();
        self.waiting.push_back(Waiting {
            delivery,
            since: now,
        });
    }

    /// Takes the oldest and counts it as in flight.
    pub fn start(&mut self) -> Option<Delivery> {
        let next = self.pop()?;
        self.in_flight += 1;
        Some(next)
    }

    /// One attempt ended.
    pub fn finish(&mut self) {
        assert!(self.in_flight > 0, "an attempt ended that never started");
        self.in_flight -= 1;
    }

    /// Takes the oldest if it has waited too long.
    pub fn pop_stale(&mut self, now: Timestamp) -> Option<Delivery> {
        let oldest = self.waiting.front()?;
        if now.since(oldest.since) < QUEUE_WAIT_MAX {
            return None;
        }
        self.pop()
    }

    /// Takes the oldest without starting it.
    pub fn pop(&mut self) -> Option<Delivery> {
        let next = self.waiting.pop_front()?;
        self.bytes -= next.delivery.event.body.len();
        if self.waiting.is_empty() && self.waiting.capacity() > QUEUE_ITEMS_FAIR {
            self.waiting = VecDeque::new();
        }
        Some(next.delivery)
    }

    /// Whether an attempt could start, under a limit of `window` in flight.
    pub fn is_ready(&self, window: u32) -> bool {
        !self.waiting.is_empty() && self.in_flight < window
    }

    /// Whether it could take more than it has: nothing waits, there is room in
    /// the window, and something came within the last second.
    pub fn is_hungry(&self, window: u32, now: Timestamp) -> bool {
        self.waiting.is_empty()
            && self.in_flight < window
            && self.last_arrival > Timestamp::default()
            && now.since(self.last_arrival).as_secs() < 1
    }

    /// Notes that something came for this endpoint.
    pub fn arrived(&mut self, now: Timestamp) {
        self.last_arrival = now;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
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
}
