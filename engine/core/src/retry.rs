//! When a failed delivery is tried again, and when it is given up.

use std::time::Duration;

use crate::outcome::{Outcome, Verdict};
use crate::rng::Rng;
use crate::time::Timestamp;

/// The last attempt is made at least this long before the deadline, so that
/// its owner still finds it due.
const FINAL_MARGIN: Duration = Duration::from_secs(5 * 60);

/// Gaps before which jitter only lengthens: the first retries come soon, and
/// a receiver that restarts should not meet them early.
const GAPS_NEVER_SHORTENED: usize = 2;

/// Pauses between attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    gaps: &'static [Duration],
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again then.
    RetryAt(Timestamp),
    /// Never again: it becomes a dead letter.
    GiveUp(GiveUpCause),
}

/// Why a delivery is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUpCause {
    /// The schedule has ended.
    Exhausted,
    /// The delivery is too old.
    Expired,
    /// The receiver said so (410).
    Gone,
}

/// Standard Webhooks' table ("Deliverability and reliability"), its last gap
/// shortened from 24 h to 20 h so that the last attempt, at 71 h 35 min, lies
/// within 72 h.
const STANDARD: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(5 * 3_600),
    Duration::from_secs(10 * 3_600),
    Duration::from_secs(14 * 3_600),
    Duration::from_secs(20 * 3_600),
    Duration::from_secs(20 * 3_600),
];

impl Policy {
    /// The schedule of an endpoint that names none.
    pub fn standard() -> Self {
        Self { gaps: &STANDARD }
    }

    /// What follows the `attempts`-th attempt, which failed. Jitter is ±20 %,
    /// never below the table for the first two gaps; a longer `Retry-After`
    /// wins, with up to 10 % on top.
    pub fn decide(
        &self,
        attempts: u32,
        outcome: &Outcome,
        now: Timestamp,
        deadline: Timestamp,
        rng: &mut Rng,
    ) -> Decision {
        if outcome.verdict == Verdict::Gone {
            return Decision::GiveUp(GiveUpCause::Gone);
        }
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(&gap) = self.gaps.get(place) else {
            return Decision::GiveUp(GiveUpCause::Exhausted);
        };
        let fifth = gap / 5;
        let (least, spread) = if place < GAPS_NEVER_SHORTENED {
            (gap, fifth)
        } else {
            (gap - fifth, fifth * 2)
        };
        let scheduled = least + part_of(spread, rng);
        let asked = outcome
            .retry_after
            .map_or(Duration::ZERO, |span| span + part_of(span / 10, rng));
        let last = deadline.as_millis().saturating_sub(millis(FINAL_MARGIN));
        let last = Timestamp::from_millis(last);
        if now >= last {
            return Decision::GiveUp(GiveUpCause::Expired);
        }
        Decision::RetryAt(now.after(scheduled.max(asked)).min(last))
    }
}

impl GiveUpCause {
    /// A short text for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Exhausted => "every attempt of the retry schedule failed",
            Self::Expired => "the delivery is older than 72 hours",
            Self::Gone => "the endpoint answered 410 Gone",
        }
    }
}

fn part_of(span: Duration, rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.below(millis(span) + 1))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DELIVERY_AGE_MAX;
    use crate::outcome::Cause;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn failed() -> Outcome {
        Outcome::failed(Cause::ConnectionRefused)
    }

    #[test]
    fn the_table_ends_at_71_hours_35_minutes() {
        let sum: Duration = STANDARD.iter().sum();
        assert_eq!(sum.as_secs() / 60, 71 * 60 + 35);
    }

    #[test]
    fn every_gap_is_within_jitter_and_the_last_before_the_deadline() {
        let policy = Policy::standard();
        for seed in 0..500 {
            let mut rng = Rng::new(seed);
            let mut now = START;
            let deadline = START.after(DELIVERY_AGE_MAX);
            for attempts in 1..=9 {
                let gap = STANDARD[attempts - 1];
                let number = u32::try_from(attempts).unwrap();
                let decision = policy.decide(number, &failed(), now, deadline, &mut rng);
                let Decision::RetryAt(due) = decision else {
                    panic!("attempt {attempts}: {decision:?}");
                };
                let waited = due.since(now);
                let clamped = due == Timestamp::from_millis(deadline.as_millis() - 300_000);
                assert!(waited <= gap.mul_f64(1.2), "{attempts}: {waited:?}");
                assert!(
                    clamped || waited >= gap.mul_f64(0.8),
                    "{attempts}: {waited:?}"
                );
                assert!(attempts > 2 || waited >= gap);
                assert!(due < deadline);
                now = due;
            }
            let end = policy.decide(10, &failed(), now, deadline, &mut rng);
            assert_eq!(end, Decision::GiveUp(GiveUpCause::Exhausted));
        }
    }

    #[test]
    fn a_longer_retry_after_wins_and_a_shorter_one_does_not() {
        let deadline = START.after(DELIVERY_AGE_MAX);
        let of = |text, attempts, seed| {
            let outcome = Outcome::response(503, Some(text), START);
            let policy = Policy::standard();
            match policy.decide(attempts, &outcome, START, deadline, &mut Rng::new(seed)) {
                Decision::RetryAt(due) => due.since(START).as_secs(),
                give_up @ Decision::GiveUp(_) => panic!("{give_up:?}"),
            }
        };
        for seed in 0..100 {
            assert!((60..=66).contains(&of("60", 1, seed)));
            assert!((300..=360).contains(&of("1", 2, seed)));
        }
    }

    #[test]
    fn gone_and_too_old_are_given_up() {
        let mut rng = Rng::new(1);
        let policy = Policy::standard();
        let deadline = START.after(DELIVERY_AGE_MAX);
        let gone = Outcome::response(410, None, START);
        assert_eq!(
            policy.decide(1, &gone, START, deadline, &mut rng),
            Decision::GiveUp(GiveUpCause::Gone)
        );
        assert_eq!(
            policy.decide(3, &failed(), deadline, deadline, &mut rng),
            Decision::GiveUp(GiveUpCause::Expired)
        );
    }

    proptest::proptest! {
        /// Whatever was asked and however late it is: never before its time,
        /// never in the past, and with time left before the deadline.
        #[test]
        fn a_retry_is_neither_early_nor_too_late(
            attempts in 0..12_u32,
            age in 0..300_000_000_u64,
            asked in proptest::option::of(0..200_000_u64),
            seed in proptest::prelude::any::<u64>(),
        ) {
            let deadline = START.after(DELIVERY_AGE_MAX);
            let now = START.after(Duration::from_millis(age));
            let text = asked.map(|seconds| seconds.to_string());
            let outcome = Outcome::response(503, text.as_deref(), now);
            let decision = Policy::standard()
                .decide(attempts, &outcome, now, deadline, &mut Rng::new(seed));
            let last = deadline.as_millis() - millis(FINAL_MARGIN);
            match decision {
                Decision::RetryAt(due) => {
                    assert!(now < due && due.as_millis() <= last);
                    let asked = outcome.retry_after.unwrap_or_default();
                    let early = due.since(now) < asked;
                    assert!(!early || due.as_millis() == last, "{due:?} of {asked:?}");
                }
                Decision::GiveUp(GiveUpCause::Exhausted) => assert!(attempts > 9),
                Decision::GiveUp(cause) => {
                    assert!(cause == GiveUpCause::Expired && now.as_millis() >= last);
                }
            }
        }
    }
}
