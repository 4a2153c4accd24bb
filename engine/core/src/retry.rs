//! When a failed delivery is tried again, and when it is given up.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::{
    DELIVERY_AGE_MAX, POLICY_NAME_BYTES_MAX, RETRY_GAP_MAX, RETRY_GAP_MIN, RETRY_GAPS_MAX,
    RETRY_POLICIES_MAX, STANDARD_POLICY,
};
use crate::outcome::{Outcome, Verdict};
use crate::rng::Rng;
use crate::time::Timestamp;

/// The last attempt is made at least this long before the deadline, so that
/// its owner still finds it due …
const FINAL_MARGIN: Duration = Duration::from_secs(5 * 60);
/// … or this part of the age an event may have, where that is less.
const FINAL_MARGIN_PART: u32 = 10;

/// Gaps before which jitter only lengthens: the first retries come soon, and
/// a receiver that restarts should not meet them early.
const GAPS_NEVER_SHORTENED: usize = 2;

/// Pause after a failure of our own, which says nothing about the receiver:
/// long enough not to be a burden, short beside the 72 h it may go on.
const OWN_FAILURE_PAUSE: Duration = Duration::from_secs(60);
/// … and up to this much on top, so that what failed together comes apart.
const OWN_FAILURE_SPREAD: Duration = Duration::from_secs(30);

/// Statuses that say the same of every attempt: the request as it is will not
/// be taken. Not 401 and 403, which a mended credential cures.
const REJECTIONS: [u16; 6] = [400, 404, 405, 413, 415, 422];

/// The schedule of an endpoint that names none.
static STANDARD: Policy = Policy {
    gaps: Cow::Borrowed(&STANDARD_GAPS),
};

/// Pauses between attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    gaps: Cow<'static, [Duration]>,
}

/// The policies endpoints can name; `standard` is always among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    named: BTreeMap<String, Policy>,
}

/// What holds for one endpoint's failed attempts.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// When to try again.
    pub policy: &'a Policy,
    /// Give up at once when the receiver answers 400, 404, 405, 413, 415 or 422.
    pub fail_fast_4xx: bool,
    /// How long before the deadline the last attempt is made.
    margin: Duration,
}

/// Why a policy cannot be defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The name is none.
    #[error(
        "`{}`: expected a name of 1 to {POLICY_NAME_BYTES_MAX} characters: visible ASCII \
         without `/`", .0.escape_default()
    )]
    Name(String),
    /// The name is taken.
    #[error("`{STANDARD_POLICY}` is built in: expected another name")]
    BuiltIn,
    /// There are too many.
    #[error("expected at most {RETRY_POLICIES_MAX} policies")]
    TooMany,
    /// It has too many gaps, or none.
    #[error("`{name}` has {count} gaps: expected 1 to {RETRY_GAPS_MAX}")]
    Count {
        /// The policy.
        name: String,
        /// How many.
        count: usize,
    },
    /// A gap is too short or too long.
    #[error(
        "`{name}`, gap {number}: {gap:?}: expected {RETRY_GAP_MIN:?} to {} hours",
        RETRY_GAP_MAX.as_secs() / 3_600
    )]
    Gap {
        /// The policy.
        name: String,
        /// Which, from 1.
        number: usize,
        /// How long it is.
        gap: Duration,
    },
    /// The last attempt would come when the delivery is given up already.
    #[error(
        "`{name}` takes {sum:?}: expected at most {} hours",
        DELIVERY_AGE_MAX.as_secs() / 3_600
    )]
    Sum {
        /// The policy.
        name: String,
        /// All its gaps together.
        sum: Duration,
    },
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again then.
    RetryAt(Timestamp),
    /// Try again then, and do not count the attempt: it failed on our side.
    PauseUntil(Timestamp),
    /// Never again: it becomes a dead letter.
    GiveUp(GiveUpCause),
}

/// Why a delivery is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUpCause {
    /// The schedule has ended.
    Exhausted,
    /// The delivery is too old, or its event is.
    Expired,
    /// The receiver said so (410).
    Gone,
    /// The receiver refused it, and the endpoint asks to fail fast.
    Rejected,
}

/// Standard Webhooks' table ("Deliverability and reliability"), its last gap
/// shortened from 24 h to 20 h so that the last attempt, at 71 h 35 min, lies
/// within 72 h.
const STANDARD_GAPS: [Duration; 9] = [
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
    /// One with these gaps, under a name of its own.
    ///
    /// # Errors
    /// The first bound that name or gaps do not keep to.
    pub fn new(name: &str, gaps: Vec<Duration>) -> Result<Self, PolicyError> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        let fits = (1..=POLICY_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
        let name = name.to_owned();
        if !fits {
            return Err(PolicyError::Name(name));
        }
        if name == STANDARD_POLICY {
            return Err(PolicyError::BuiltIn);
        }
        let count = gaps.len();
        if !(1..=RETRY_GAPS_MAX).contains(&count) {
            return Err(PolicyError::Count { name, count });
        }
        let out_of_bounds = |gap: &Duration| !(RETRY_GAP_MIN..=RETRY_GAP_MAX).contains(gap);
        if let Some(place) = gaps.iter().position(out_of_bounds) {
            let (number, gap) = (place + 1, gaps[place]);
            return Err(PolicyError::Gap { name, number, gap });
        }
        let sum: Duration = gaps.iter().sum();
        if sum > DELIVERY_AGE_MAX {
            return Err(PolicyError::Sum { name, sum });
        }
        let gaps = Cow::Owned(gaps);
        Ok(Self { gaps })
    }

    /// The pauses: after the first attempt, the second, and so on.
    pub fn gaps(&self) -> &[Duration] {
        &self.gaps
    }
}

impl PolicyError {
    /// The field that is wrong.
    pub const fn param(&self) -> &'static str {
        match self {
            Self::Name(_) | Self::BuiltIn | Self::TooMany => "name",
            Self::Count { .. } | Self::Gap { .. } | Self::Sum { .. } => "gaps",
        }
    }
}

impl Policies {
    /// Adds a policy of that name with these gaps.
    ///
    /// # Errors
    /// The first bound it does not keep to.
    pub fn define(&mut self, name: &str, gaps: Vec<Duration>) -> Result<(), PolicyError> {
        let policy = Policy::new(name, gaps)?;
        if self.named.len() >= RETRY_POLICIES_MAX {
            return Err(PolicyError::TooMany);
        }
        self.named.insert(name.to_owned(), policy);
        Ok(())
    }

    /// Adds a policy, unless there is one of that name. However many there are:
    /// whoever wrote it saw to that.
    pub fn complete(&mut self, name: &str, policy: &Policy) {
        if !self.knows(name) {
            self.named.insert(name.to_owned(), policy.clone());
        }
    }

    /// That of a name.
    pub fn get(&self, name: &str) -> Option<&Policy> {
        match name {
            STANDARD_POLICY => Some(&STANDARD),
            _ => self.named.get(name),
        }
    }

    /// Whether there is one of that name.
    pub fn knows(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All names, `standard` first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(STANDARD_POLICY).chain(self.named.keys().map(String::as_str))
    }

    /// The rules of an endpoint that names this policy. Under a name that is
    /// not known, such as one the operator took back, `standard` holds: nothing
    /// is lost for it.
    pub fn rules(&self, name: &str, fail_fast_4xx: bool) -> Rules<'_> {
        Rules {
            policy: self.get(name).unwrap_or(&STANDARD),
            fail_fast_4xx,
            margin: FINAL_MARGIN,
        }
    }
}

impl Rules<'_> {
    /// What holds where nothing is known of an endpoint.
    pub const STANDARD: Rules<'static> = Rules {
        policy: &STANDARD,
        fail_fast_4xx: false,
        margin: FINAL_MARGIN,
    };

    /// The same, of an endpoint that wants no event older than this.
    #[must_use]
    pub fn within(self, max_age: Option<Duration>) -> Self {
        let part = max_age.map_or(FINAL_MARGIN, |age| age / FINAL_MARGIN_PART);
        Self {
            margin: part.min(FINAL_MARGIN),
            ..self
        }
    }

    /// What follows the `attempts`-th attempt, which failed. Jitter is ±20 %,
    /// never below the table for the first two gaps; a longer `Retry-After`
    /// wins, with up to 10 % on top.
    pub fn decide(
        self,
        attempts: u32,
        outcome: &Outcome,
        now: Timestamp,
        deadline: Timestamp,
        rng: &mut Rng,
    ) -> Decision {
        if outcome.verdict == Verdict::Gone {
            return Decision::GiveUp(GiveUpCause::Gone);
        }
        let refused = outcome.status.is_some_and(|s| REJECTIONS.contains(&s));
        if self.fail_fast_4xx && refused {
            return Decision::GiveUp(GiveUpCause::Rejected);
        }
        let last = deadline.as_millis().saturating_sub(millis(self.margin));
        let last = Timestamp::from_millis(last);
        if !outcome.counts() {
            let pause = OWN_FAILURE_PAUSE + part_of(OWN_FAILURE_SPREAD, rng);
            return match now >= last {
                true => Decision::GiveUp(GiveUpCause::Expired),
                false => Decision::PauseUntil(now.after(pause).min(last)),
            };
        }
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(&gap) = self.policy.gaps.get(place) else {
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
            Self::Expired => {
                "the delivery is older than 72 hours, or its event than the endpoint's `max_age`"
            }
            Self::Gone => "the endpoint answered 410 Gone",
            Self::Rejected => "the endpoint refused it and asks not to be tried again",
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
mod tests;
