//! How long a full queue may keep intake waiting, and at whose cost.
//!
//! Waiting costs nothing while everybody is busy: then it is what holds the
//! source back. It costs throughput as far as other endpoints stand idle for
//! want of intake. So patience is spent in proportion to the share of endpoints
//! that are hungry, and comes back slowly: what waiting costs is bounded,
//! however many endpoints are slow. A rule that looks only at whether anybody
//! is hungry does not do: of many endpoints with random traffic somebody always
//! is, and most of a healthy backlog would go through the lane.

use crate::limits::{INTAKE_PATIENCE, INTAKE_PATIENCE_RETURN};
use crate::time::Timestamp;

/// A count older than this is taken anew.
const HUNGER_AGE_MAX_MS: u128 = 5;

/// How many endpoints stand idle for want of intake, of how many that have
/// recent traffic and keep up with it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hunger {
    pub(super) hungry: u32,
    pub(super) active: u32,
    at: Timestamp,
}

/// What is left of it.
#[derive(Debug)]
pub(super) struct Patience {
    /// Below zero when the last wait took more than was left.
    left_us: i64,
    at: Timestamp,
    /// The hunger since `at`, when intake waits.
    waiting: Option<Hunger>,
}

impl Hunger {
    pub(super) fn new(hungry: u32, active: u32, now: Timestamp) -> Self {
        Self {
            hungry,
            active,
            at: now,
        }
    }

    /// Whether it can still be believed.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        self.at > Timestamp::default() && now.since(self.at).as_millis() < HUNGER_AGE_MAX_MS
    }

    /// Whether at least half are hungry.
    pub(super) fn is_general(&self) -> bool {
        self.hungry > 0 && self.hungry * 2 >= self.active
    }

    /// The greater of the two shares.
    pub(super) fn or(self, other: Self) -> Self {
        let this = u64::from(self.hungry) * u64::from(other.active.max(1));
        let that = u64::from(other.hungry) * u64::from(self.active.max(1));
        if this >= that { self } else { other }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            left_us: full_us(),
            at: Timestamp::default(),
            waiting: None,
        }
    }
}

impl Patience {
    /// Intake would wait. Answers whether it may; if not, whoever holds it up
    /// is slow, and patience begins anew.
    pub(super) fn may_wait(&mut self, now: Timestamp, hunger: Hunger) -> bool {
        self.account(now);
        self.waiting = Some(hunger);
        if hunger.hungry > 0 && self.left_us <= 0 {
            self.left_us = full_us();
            return false;
        }
        true
    }

    /// Intake goes on.
    pub(super) fn go_on(&mut self, now: Timestamp) {
        if self.waiting.is_some() {
            self.account(now);
            self.waiting = None;
        }
    }

    fn account(&mut self, now: Timestamp) {
        let passed = i64::try_from(now.since(self.at).as_micros()).unwrap_or(i64::MAX);
        let back = passed / INTAKE_PATIENCE_RETURN;
        let spent = self.waiting.map_or(0, |hunger| {
            passed.saturating_mul(hunger.hungry.into()) / i64::from(hunger.active.max(1))
        });
        let left = self.left_us.saturating_add(back).min(full_us());
        self.left_us = left.saturating_sub(spent).max(-full_us());
        self.at = now;
    }
}

fn full_us() -> i64 {
    i64::try_from(INTAKE_PATIENCE.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    /// Milliseconds until waiting for good ends, within a minute.
    fn lasts(hungry: u32, active: u32) -> Option<u64> {
        let mut patience = Patience::default();
        (0..60_000).find(|&ms| {
            let hunger = Hunger::new(hungry, active, at(ms));
            !patience.may_wait(at(ms), hunger)
        })
    }

    #[test]
    fn it_lasts_longer_the_fewer_are_hungry() {
        assert_eq!(lasts(0, 0), None);
        assert_eq!(lasts(0, 100), None);
        assert_eq!(
            lasts(1, 20),
            None,
            "a twentieth comes back as fast as it goes"
        );
        assert!(lasts(100, 100).is_some_and(|ms| (10..=12).contains(&ms)));
        assert!(lasts(50, 100).is_some_and(|ms| (20..=25).contains(&ms)));
    }

    #[test]
    fn short_waits_cost_a_twentieth_of_the_time_at_most() {
        let mut patience = Patience::default();
        let (mut waited, mut slow) = (0, 0);
        for ms in 0..10_000 {
            // One millisecond in ten is spent waiting while all others idle.
            if ms % 10 == 0 {
                let hunger = Hunger::new(9, 10, at(ms));
                slow += u64::from(!patience.may_wait(at(ms), hunger));
                waited += 1;
            } else {
                patience.go_on(at(ms));
            }
        }
        // What is spent beyond the twentieth makes somebody slow, 10 ms each.
        let spent = waited * 9 / 10;
        assert!((30..=spent / 10).contains(&slow), "{slow} of {spent} ms");
    }
}
