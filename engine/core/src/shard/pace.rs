//! How many attempts a shard makes at once.
//!
//! Receivers that answer within moments need few attempts at once: more of them
//! only wait, in our own queues, on connections that grow cold. Slow ones need
//! many. So only those that answer at once count here, and the bound moves: while
//! they answer later than each did at its best (Vegas' sign of a queue, Brakmo,
//! O'Malley, Peterson 1994), it shrinks; otherwise it grows. Only young attempts
//! count, so that whoever does not answer at all takes nothing from the others.

use std::time::Duration;

use crate::base_rtt::BaseRtt;
use crate::limits::{
    PACE_EVERY, PACE_LATE, PACE_MIN, PACE_PART_MIN, PACE_QUICK, PACE_YOUNG_MS, SHARD_IN_FLIGHT_MAX,
};
use crate::time::Timestamp;

/// Milliseconds in one of the young attempts' age groups.
const GROUP_MS: u64 = 10;
const GROUPS: usize = 10;
/// Answers without which nothing is concluded.
const ANSWERS_MIN: u32 = 32;

const _: () = assert!(GROUP_MS * GROUPS as u64 == PACE_YOUNG_MS);

/// A bound on young attempts, and how it moves.
#[derive(Debug)]
pub(super) struct Pace {
    limit: usize,
    young: Young,
    /// Answers since `at`, their time in all, and what it could have been.
    answers: u32,
    took: Duration,
    base: Duration,
    at: Timestamp,
    strangers: BaseRtt,
}

/// Attempts in flight by age, in groups of ten milliseconds.
#[derive(Debug, Default)]
struct Young {
    began: [u32; GROUPS],
    total: usize,
    /// The number of the youngest group since the epoch.
    group: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            limit: PACE_MIN,
            young: Young::default(),
            answers: 0,
            took: Duration::ZERO,
            base: Duration::ZERO,
            at: Timestamp::default(),
            strangers: BaseRtt::default(),
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

    /// One that began at `started` ends.
    pub(super) fn end(&mut self, started: Timestamp, now: Timestamp) {
        self.young.advance(now);
        self.young.remove(started);
    }

    /// … with an answer, of an endpoint that answers in this time when nothing
    /// waits. Those of which it is not known yet have one for all.
    pub(super) fn answered(&mut self, took: Duration, base: Option<Duration>, now: Timestamp) {
        if base.is_none() {
            self.strangers.answered(took, now);
        }
        let base = base.or(self.strangers.lowest());
        self.answers += 1;
        self.took += took;
        self.base += base.unwrap_or(took);
        if now.since(self.at) >= PACE_EVERY {
            self.conclude(now);
        }
    }

    fn conclude(&mut self, now: Timestamp) {
        self.at = now;
        if self.answers < ANSWERS_MIN {
            return;
        }
        // Times are whole milliseconds, cut off: half a one is missing.
        let mean = |sum: Duration| sum / self.answers + Duration::from_micros(500);
        let (took, base) = (mean(self.took), mean(self.base));
        (self.answers, self.took, self.base) = (0, Duration::ZERO, Duration::ZERO);
        let late = (base + base / 4).max(PACE_LATE);
        self.limit = if took > late && took < PACE_QUICK {
            // By the measure of lateness, at most by half.
            let kept = self.limit * whole_us(late) / whole_us(took);
            kept.max(self.limit / 2)
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

fn group(at: Timestamp) -> u64 {
    at.as_millis() / GROUP_MS
}

fn place(group: u64) -> usize {
    usize::try_from(group % GROUPS as u64).unwrap_or(0)
}

fn whole_us(time: Duration) -> usize {
    usize::try_from(time.as_micros()).unwrap_or(usize::MAX)
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
        let (mut pace, mut base) = (Pace::default(), BaseRtt::default());
        let mut ends: std::collections::BTreeMap<u64, Vec<u64>> = Default::default();
        let mut in_flight = 0;
        for ms in 0..20_000 {
            for started in ends.remove(&ms).unwrap_or_default() {
                let took = Duration::from_millis(ms - started);
                pace.end(at(started), at(ms));
                base.answered(took, at(ms));
                pace.answered(took, base.lowest(), at(ms));
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
        (0..PACE_MIN).for_each(|_| pace.end(at(0), at(PACE_YOUNG_MS + 1)));
        assert_eq!(pace.young.total, 1);
    }

    #[test]
    fn endpoints_of_other_speeds_do_not_look_like_a_queue() {
        let (mut pace, ms) = (Pace::default(), Duration::from_millis);
        for second in 0..10_u64 {
            for _ in 0..100 {
                pace.answered(ms(1), Some(ms(1)), at(second * 1_000));
                pace.answered(ms(20), Some(ms(20)), at(second * 1_000));
            }
        }
        assert_eq!(pace.limit, SHARD_IN_FLIGHT_MAX);
        // Late by their own measure they are one.
        for second in 10..20_u64 {
            (0..100).for_each(|_| pace.answered(ms(10), Some(ms(1)), at(second * 1_000)));
        }
        assert_eq!(pace.limit, PACE_MIN);
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
        pace.end(at(0), at(2));
        assert!(pace.has_room(at(2)));
    }

    #[test]
    fn a_clock_that_goes_back_begins_anew() {
        let mut pace = Pace::default();
        (0..PACE_MIN).for_each(|_| pace.begin(at(50)));
        assert!(pace.has_room(at(20)));
        pace.end(at(50), at(20));
        assert_eq!(pace.young.total, 0);
    }
}
