//! How many attempts a second an endpoint gets, and how long it asked to be
//! left alone.
//!
//! Tokens are counted in thousandths: a millisecond at `n` a second is worth
//! exactly `n` of them, so nothing is rounded and nothing drifts.

use std::time::Duration;

use crate::limits::{RATE_BURST_PART, RETRY_AFTER_JITTER_PART, RETRY_AFTER_MAX};
use crate::rng::Rng;
use crate::time::Timestamp;

/// Thousandths of a token that one attempt takes.
const ATTEMPT: u64 = 1_000;

/// A bucket of attempts that fills with time. The rate is an argument, so that
/// what waits follows a changed one; 0 is no bound.
#[derive(Debug, Clone, Default)]
pub struct Bucket {
    level: u64,
    at: Timestamp,
}

/// Until when a whole endpoint asked to be left alone.
#[derive(Debug, Clone, Default)]
pub struct Pause {
    not_before: Timestamp,
}

impl Bucket {
    /// Whether an attempt may begin. It is not counted yet.
    pub fn has_one(&mut self, per_second: u32, now: Timestamp) -> bool {
        if per_second == 0 {
            return true;
        }
        self.fill(per_second, now);
        self.level >= ATTEMPT
    }

    /// Counts one that [`has_one`](Self::has_one) allowed.
    pub fn take(&mut self, per_second: u32) {
        if per_second != 0 {
            self.level = self.level.saturating_sub(ATTEMPT);
        }
    }

    /// When an attempt may begin, as far as is known now.
    pub fn next(&self, per_second: u32) -> Timestamp {
        let lacking = ATTEMPT.saturating_sub(self.level);
        let millis = lacking.div_ceil(u64::from(per_second.max(1)));
        self.at.after(Duration::from_millis(millis))
    }

    fn fill(&mut self, per_second: u32, now: Timestamp) {
        let full = ATTEMPT + u64::from(per_second) * ATTEMPT / RATE_BURST_PART;
        // A clock that goes back brings nothing, and loses nothing either.
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(per_second));
        self.level = self.level.saturating_add(gained).min(full);
        self.at = now;
    }
}

impl Pause {
    /// The receiver asked to be left alone for so long. Up to a tenth is added,
    /// so that not all who were asked come back at once.
    pub fn asked(&mut self, span: Duration, now: Timestamp, rng: &mut Rng) {
        if span.is_zero() {
            return;
        }
        let span = span.min(RETRY_AFTER_MAX);
        let most = u64::try_from((span / RETRY_AFTER_JITTER_PART).as_millis()).unwrap_or(0);
        let jitter = Duration::from_millis(rng.below(most + 1));
        self.not_before = self.not_before.max(now.after(span + jitter));
    }

    /// Whether it is in force. A clock that was set back does not make it
    /// longer than any may be.
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.not_before && self.not_before.since(now) <= RETRY_AFTER_MAX * 2
    }

    /// Until when.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop};
    use proptest::{prop_assert, proptest};

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_rate_is_kept_to_the_attempt_for_long() {
        for rate in [1_u32, 3, 7, 70] {
            let mut bucket = Bucket::default();
            let hours = if rate < 5 { 12 } else { 1 };
            let (mut now, mut taken) = (at(0), 0_u64);
            while now < at(hours * 3_600_000) {
                assert!(bucket.has_one(rate, now));
                bucket.take(rate);
                taken += 1;
                let next = bucket.next(rate);
                if next > now {
                    let early = Timestamp::from_millis(next.as_millis() - 1);
                    assert!(!bucket.clone().has_one(rate, early));
                    now = next;
                }
            }
            let whole = hours * 3_600 * u64::from(rate);
            let burst = u64::from(rate) / 10 + 1;
            // What is left of a millisecond waits, it is not lost.
            assert!(
                (whole..=whole + burst).contains(&taken),
                "{rate}: {taken} of {whole}"
            );
        }
    }

    #[test]
    fn no_rate_is_no_bound() {
        let mut bucket = Bucket::default();
        for _ in 0..1_000 {
            assert!(bucket.has_one(0, at(0)));
            bucket.take(0);
        }
    }

    #[test]
    fn a_pause_holds_as_long_as_asked_and_a_tenth_longer_at_most() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut pause = Pause::default();
            assert!(!pause.holds(at(0)));
            pause.asked(Duration::from_secs(10), at(0), &mut rng);
            assert!(pause.holds(at(9_999)) && !pause.holds(at(11_000)));
            let until = pause.not_before();
            pause.asked(Duration::from_secs(1), at(0), &mut rng);
            assert_eq!(pause.not_before(), until, "a shorter one does not end it");
            pause.asked(Duration::from_secs(u64::MAX / 2), at(0), &mut rng);
            assert!(!pause.holds(at(27 * 3_600_000)));
            pause.asked(Duration::ZERO, at(0), &mut rng);
        }
        let mut pause = Pause::default();
        pause.asked(Duration::ZERO, at(0), &mut Rng::new(1));
        assert!(!pause.holds(at(0)), "asked for nothing");
        pause.asked(Duration::from_secs(10), at(1_000_000_000), &mut Rng::new(1));
        assert!(!pause.holds(at(0)), "the clock was set back by days");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// Over any span no more begin than it holds, and the burst.
        #[test]
        fn no_span_holds_more_than_its_share(
            rate in 1..500_u32,
            gaps in prop::collection::vec(0..40_u64, 1..100),
        ) {
            let mut bucket = Bucket::default();
            let (mut now, mut begun) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                while bucket.has_one(rate, at(now)) {
                    bucket.take(rate);
                    begun.push(now);
                }
            }
            let burst = u64::from(rate) / 10 + 1;
            for (first, &from) in begun.iter().enumerate().step_by(7) {
                for (last, &to) in begun.iter().enumerate().skip(first).step_by(17) {
                    let count = u64::try_from(last - first + 1).unwrap();
                    let share = (to - from) * u64::from(rate) / 1_000;
                    prop_assert!(count <= share + burst + 1, "{} in {} ms", count, to - from);
                }
            }
        }
    }
}
