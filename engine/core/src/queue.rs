//! One endpoint's queue in one shard: what waits, in order, and what is in
//! flight.

use std::collections::VecDeque;
use std::time::Duration;

use crate::delivery::Delivery;
use crate::limits::{
    PACE_QUICK_MS, QUEUE_BYTES_MAX, QUEUE_ITEMS_FAIR, QUEUE_ITEMS_MAX, QUEUE_WAIT_MAX,
};
use crate::time::Timestamp;

/// What waits for one endpoint, oldest first, and how much is in flight.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    in_flight: u32,
    last_arrival: Timestamp,
    in_ring: bool,
    slow_at: Timestamp,
    /// Mean of the latest answer times in milliseconds, times 8.
    answers_ms8: u32,
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

    /// Takes the oldest and counts it as in flight. An endpoint for which
    /// nothing waits any more keeps up, and is slow no longer.
    pub fn start(&mut self) -> Option<Delivery> {
        let next = self.pop()?;
        self.in_flight += 1;
        if self.waiting.is_empty() {
            self.slow_at = Timestamp::default();
        }
        Some(next)
    }

    /// One attempt ended.
    pub fn finish(&mut self) {
        assert!(self.in_flight > 0, "an attempt ended that never started");
        self.in_flight -= 1;
    }

    /// An answer took so long: an eighth of the mean from now on.
    pub fn answered(&mut self, took: Duration) {
        let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        self.answers_ms8 = self.answers_ms8 - self.answers_ms8 / 8 + took.min(u32::MAX / 16);
    }

    /// Whether its answers come within moments, as far as is known.
    pub fn is_quick(&self) -> bool {
        u64::from(self.answers_ms8 / 8) < PACE_QUICK_MS
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

    /// Whether it could take more than it has: nothing waits and there is room
    /// in the window.
    pub fn is_hungry(&self, window: u32) -> bool {
        self.waiting.is_empty() && self.in_flight < window
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

fn within_a_second(then: Timestamp, when: Timestamp) -> bool {
    then > Timestamp::default() && when.since(then).as_secs() < 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delivery::{Room, Ticket};
    use crate::event::sample;
    use crate::registry::EndpointIx;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn delivery(offset: u64, bytes: usize) -> Delivery {
        let mut event = sample("evt", "acme", "a");
        event.body = vec![0; bytes].into();
        Delivery {
            event: event.into(),
            endpoint: EndpointIx(0),
            attempts: 0,
            started: Timestamp::default(),
            ticket: Ticket {
                room: Room::Ingest,
                slot: 0,
                epoch: 0,
                offset,
            },
        }
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
        assert!(queue.start().is_some() && queue.is_slow(START));
        assert!(queue.start().is_some() && !queue.is_slow(START));
        assert_eq!(queue.in_flight(), 2);
    }

    #[test]
    #[should_panic(expected = "never started")]
    fn an_attempt_ends_once() {
        Queue::default().finish();
    }
}
