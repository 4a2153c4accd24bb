//! How many attempts in flight are so young that they say nothing yet of their
//! receiver.
//!
//! A receiver that answers within moments needs few attempts at once: more of
//! them only wait in its queue, on connections that grow cold. One that takes
//! its time needs many. So the bound is on the young ones: it holds while
//! answers come at once, and does not bind when they do not, however many
//! attempts wait.

use crate::limits::{FRESH_MS, SHARD_FRESH_MAX};
use crate::time::Timestamp;

/// Attempts that began within the last [`FRESH_MS`], by the millisecond.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    began: [u32; FRESH_MS],
    total: u32,
    at: Timestamp,
}

impl Fresh {
    /// Whether one more may begin.
    pub(super) fn has_room(&mut self, now: Timestamp) -> bool {
        self.advance(now);
        self.total < SHARD_FRESH_MAX
    }

    /// One begins.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.advance(now);
        self.began[place(now)] += 1;
        self.total += 1;
    }

    /// One that began at `started` ends.
    pub(super) fn end(&mut self, started: Timestamp, now: Timestamp) {
        self.advance(now);
        let began = &mut self.began[place(started)];
        if is_fresh(started, now) && *began > 0 {
            *began -= 1;
            self.total -= 1;
        }
    }

    fn advance(&mut self, now: Timestamp) {
        if now == self.at {
            return;
        }
        let passed = now.since(self.at);
        if now < self.at || passed.as_millis() >= FRESH_MS as u128 {
            self.began = [0; FRESH_MS];
            self.total = 0;
        } else {
            for millis in self.at.as_millis() + 1..=now.as_millis() {
                let aged = &mut self.began[place(Timestamp::from_millis(millis))];
                self.total -= std::mem::take(aged);
            }
        }
        self.at = now;
    }
}

fn is_fresh(started: Timestamp, now: Timestamp) -> bool {
    now.since(started).as_millis() < FRESH_MS as u128
}

fn place(at: Timestamp) -> usize {
    usize::try_from(at.as_millis() % FRESH_MS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn the_young_are_bounded_and_grow_old() {
        let mut fresh = Fresh::default();
        for n in 0..SHARD_FRESH_MAX {
            assert!(fresh.has_room(at(0)), "{n}");
            fresh.begin(at(0));
        }
        assert!(!fresh.has_room(at(0)));
        assert!(!fresh.has_room(at(FRESH_MS as u64 - 1)));
        assert!(fresh.has_room(at(FRESH_MS as u64)));
    }

    #[test]
    fn an_end_makes_room_once_and_a_late_one_makes_none() {
        let mut fresh = Fresh::default();
        (0..SHARD_FRESH_MAX).for_each(|_| fresh.begin(at(0)));
        fresh.end(at(0), at(2));
        assert!(fresh.has_room(at(2)));
        fresh.begin(at(2));
        assert!(!fresh.has_room(at(2)));
        // All but the last have aged; their ends are no news.
        (1..SHARD_FRESH_MAX).for_each(|_| fresh.end(at(0), at(FRESH_MS as u64)));
        assert_eq!(fresh.total, 1);
        fresh.end(at(2), at(FRESH_MS as u64 + 1));
        assert_eq!(fresh.total, 0);
    }

    #[test]
    fn a_clock_that_goes_back_forgets() {
        let mut fresh = Fresh::default();
        fresh.begin(at(50));
        assert!(fresh.has_room(at(20)));
        assert_eq!(fresh.total, 0);
        fresh.end(at(50), at(20));
        assert_eq!(fresh.total, 0);
    }
}
