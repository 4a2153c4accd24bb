//! How many attempts a shard makes at once.
//!
//! Receivers that answer within moments need few attempts at once: more of them
//! only wait, in our own queues, on connections that grow cold. Slow ones need
//! many. So the bound moves: while answers come at once but later than they
//! could (Vegas' sign of a queue, Brakmo, O'Malley, Peterson 1994), it shrinks;
//! otherwise it grows. Only young attempts count, so that whoever does not
//! answer at all takes nothing from the others.

use crate::limits::{
    PACE_EVERY_MS, PACE_LATE_MS, PACE_MIN, PACE_PART_MIN, PACE_QUICK_MS, PACE_YOUNG_MS,
    SHARD_IN_FLIGHT_MAX,
};
use crate::time::Timestamp;

/// Milliseconds in one of the young attempts' age groups.
const GROUP_MS: u64 = 10;
const GROUPS: usize = 10;
/// The best answer time is that of this many spans of [`BASE_SPAN_MS`].
const BASE_SPANS: usize = 3;
const BASE_SPAN_MS: u64 = 10_000;
/// Answers without which nothing is concluded.
const ANSWERS_MIN: u64 = 32;

const _: () = assert!(GROUP_MS * GROUPS as u64 == PACE_YOUNG_MS);

/// A bound on young attempts, and how it moves.
#[derive(Debug)]
pub(super) struct Pace {
    limit: usize,
    young: Young,
    /// Answers since `at`, and their time in all.
    answers: u64,
    took_ms: u64,
    at: Timestamp,
    best: Best,
}

/// Attempts in flight by age, in groups of ten milliseconds.
#[derive(Debug, Default)]
struct Young {
    began: [u32; GROUPS],
    total: usize,
    /// The number of the youngest group since the epoch.
    group: u64,
}

/// The lowest mean answer time of late, in microseconds.
#[derive(Debug)]
struct Best {
    spans: [u64; BASE_SPANS],
    at: Timestamp,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            limit: PACE_MIN,
            young: Young::default(),
            answers: 0,
            took_ms: 0,
            at: Timestamp::default(),
            best: Best {
                spans: [u64::MAX; BASE_SPANS],
                at: Timestamp::default(),
            },
        }
    }
}

impl Pace {
    /// As it is once slow receivers had their way.
    #[cfg(test)]
    pub(super) fn full() -> Self {
        Self {
            limit: SHARD_IN_FLIGHT_MAX,
            ..Self::default()
        }
    }

    /// Whether one more may begin.
    pub(super) fn has_room(&mut self, now: Timestamp) -> bool {
        self.young.advance(now);
        self.young.total < self.limit
    }

    /// The part of a window that goes with the pace, at least [`PACE_PART_MIN`].
    pub(super) fn part_of(&self, window: u32) -> u32 {
        let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let full = u32::try_from(SHARD_IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        (window * limit / full).max(PACE_PART_MIN).min(window)
    }

    /// One begins.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.young.advance(now);
        self.young.add(now);
    }

    /// One that began at `started` ends. `answered`: with a response.
    pub(super) fn end(&mut self, started: Timestamp, answered: bool, now: Timestamp) {
        self.young.advance(now);
        self.young.remove(started);
        if answered {
            self.answers += 1;
            self.took_ms += millis(now.since(started).as_millis());
        }
        if millis(now.since(self.at).as_millis()) >= PACE_EVERY_MS {
            self.conclude(now);
        }
    }

    fn conclude(&mut self, now: Timestamp) {
        self.at = now;
        if self.answers < ANSWERS_MIN {
            return;
        }
        // Times are whole milliseconds, cut off: half a one is missing.
        let mean_us = self.took_ms * 1_000 / self.answers + 500;
        (self.answers, self.took_ms) = (0, 0);
        let best_us = self.best.of(mean_us, now);
        let late_us = (best_us + best_us / 4).max(PACE_LATE_MS * 1_000);
        let queues = mean_us > late_us && mean_us < PACE_QUICK_MS * 1_000;
        self.limit = if queues {
            // By the measure of lateness, at most by half.
            let kept = u64::try_from(self.limit).unwrap_or(u64::MAX) * late_us / mean_us;
            usize::try_from(kept).unwrap_or(0).max(self.limit / 2)
        } else {
            self.limit + self.limit / 2
        };
        self.limit = self.limit.clamp(PACE_MIN, SHARD_IN_FLIGHT_MAX);
    }
}

impl Young {
    fn add(&mut self, now: Timestamp) {
        self.began[place(group(now))] += 1;
        self.total += 1;
    }

    fn remove(&mut self, started: Timestamp) {
        let began = &mut self.began[place(group(started))];
        if group(started) + GROUPS as u64 > self.group && *began > 0 {
            *began -= 1;
            self.total -= 1;
        }
    }

    fn advance(&mut self, now: Timestamp) {
        let group = group(now);
        if group == self.group {
            return;
        }
        // A clock that goes back says nothing about ages: begin anew.
        if group < self.group || group - self.group >= GROUPS as u64 {
            self.began = [0; GROUPS];
            self.total = 0;
        } else {
            for aged in self.group + 1..=group {
                let aged = std::mem::take(&mut self.began[place(aged)]);
                self.total -= usize::try_from(aged).unwrap_or(0);
            }
        }
        self.group = group;
    }
}

impl Best {
    /// The best after this mean.
    fn of(&mut self, mean_us: u64, now: Timestamp) -> u64 {
        if millis(now.since(self.at).as_millis()) >= BASE_SPAN_MS {
            self.spans.rotate_right(1);
            self.spans[0] = u64::MAX;
            self.at = now;
        }
        self.spans[0] = self.spans[0].min(mean_us);
        self.spans.iter().copied().min().unwrap_or(mean_us)
    }
}

fn group(at: Timestamp) -> u64 {
    at.as_millis() / GROUP_MS
}

fn place(group: u64) -> usize {
    usize::try_from(group % GROUPS as u64).unwrap_or(0)
}

fn millis(millis: u128) -> u64 {
    u64::try_from(millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    /// Runs receivers that answer after `takes(in flight)` milliseconds, with
    /// as many attempts as the bound allows. Answers the bound in the end.
    fn settles(takes: impl Fn(usize) -> u64) -> usize {
        let mut pace = Pace::default();
        let mut ends: std::collections::BTreeMap<u64, Vec<u64>> = Default::default();
        let mut in_flight = 0;
        for ms in 0..20_000 {
            for started in ends.remove(&ms).unwrap_or_default() {
                pace.end(at(started), true, at(ms));
                in_flight -= 1;
            }
            while in_flight < SHARD_IN_FLIGHT_MAX && pace.has_room(at(ms)) {
                pace.begin(at(ms));
                in_flight += 1;
                let end = ms + takes(in_flight).max(1);
                ends.entry(end).or_default().push(ms);
            }
        }
        pace.limit
    }

    #[test]
    fn slow_receivers_get_every_slot() {
        for latency in [1, 3, 30, 100, 300, 2_000] {
            assert_eq!(settles(|_| latency), SHARD_IN_FLIGHT_MAX, "{latency} ms");
        }
    }

    #[test]
    fn a_queue_of_our_own_gets_no_longer() {
        // Twenty answers a millisecond, however many wait.
        let limit = settles(|in_flight| u64::try_from(in_flight).unwrap() / 20);
        assert!((PACE_MIN..=160).contains(&limit), "{limit}");
    }

    #[test]
    fn whoever_does_not_answer_grows_old_and_counts_no_more() {
        let mut pace = Pace::default();
        (0..PACE_MIN).for_each(|_| pace.begin(at(0)));
        assert!(!pace.has_room(at(0)));
        assert!(!pace.has_room(at(PACE_YOUNG_MS - 10)));
        assert!(pace.has_room(at(PACE_YOUNG_MS)));
        // Their late ends make no second room.
        pace.begin(at(PACE_YOUNG_MS));
        (0..PACE_MIN).for_each(|_| pace.end(at(0), false, at(PACE_YOUNG_MS + 1)));
        assert_eq!(pace.young.total, 1);
    }

    #[test]
    fn a_window_follows_the_pace() {
        let mut pace = Pace::default();
        assert_eq!(
            [1, 2, 10, 256].map(|window| pace.part_of(window)),
            [1, 2, 2, 32]
        );
        pace.limit = SHARD_IN_FLIGHT_MAX;
        assert_eq!(
            [1, 2, 10, 256].map(|window| pace.part_of(window)),
            [1, 2, 10, 256]
        );
    }

    #[test]
    fn an_end_makes_room() {
        let mut pace = Pace::default();
        (0..PACE_MIN).for_each(|_| pace.begin(at(0)));
        pace.end(at(0), true, at(2));
        assert!(pace.has_room(at(2)));
    }

    #[test]
    fn a_clock_that_goes_back_begins_anew() {
        let mut pace = Pace::default();
        (0..PACE_MIN).for_each(|_| pace.begin(at(50)));
        assert!(pace.has_room(at(20)));
        pace.end(at(50), true, at(20));
        assert_eq!(pace.young.total, 0);
    }
}
