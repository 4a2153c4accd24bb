//! Whether an endpoint is well enough to be sent to.
//!
//! ```text
//!         5 failures in a row over 1 s,
//!         or half of at least 20 in 30 s
//!  closed -------------------------------> open <----------+
//!    ^                                      | cooldown     | the probe failed:
//!    |         the probe was answered       v over         | the cooldown doubles
//!    +--------------------------------- half-open ---------+
//! ```
//!
//! Whoever is admitted holds a [`Pass`]. Its number says in which stay of which
//! state it was given, so that whatever began before a trip counts no more: half
//! open, the probe alone decides (as linkerd's breaker does). What the breaker
//! refuses to do: count what says nothing about the receiver, or admit a second
//! probe.
//!
//! The constants are Envoy's and Finagle's five in a row, resilience4j's half,
//! and a cooldown that ends within a twentieth of the outage it follows.

use std::time::Duration;

use crate::limits::{
    BREAKER_FAILURES, BREAKER_FAILURES_SPAN, BREAKER_RATE_MIN, BREAKER_RATE_PERCENT,
    BREAKER_SLICE_MS, BREAKER_SLICES, COOLDOWN_CAP_MAX, COOLDOWN_CAP_MIN, COOLDOWN_CAP_PART,
    COOLDOWN_FIRST,
};
use crate::outcome::{Blame, Cause, Outcome};
use crate::rng::Rng;
use crate::time::Timestamp;

/// What an attempt says about its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It works: it took the delivery, asks for fewer (429) or wants none (410).
    Alive,
    /// It does not.
    Failing,
    /// Nothing: a rule forbade the attempt, or we failed ourselves.
    Unknown,
}

/// The permission to make one attempt; given back to [`Breaker::ended`] or
/// [`Breaker::returned`]. The default one is known to no breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pass(u32);

/// What an end changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Same,
    /// Closed, and open now: the endpoint is down.
    Tripped,
    /// The probe failed: open again, for longer.
    Reopened,
    /// The probe was answered: the endpoint is back.
    Closed,
}

/// One endpoint's breaker.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    state: State,
    /// Grows with every change of the state. Passes bear it, plus one.
    stay: u32,
}

#[derive(Debug, Clone)]
enum State {
    Closed(Recent),
    Open(Down),
    /// The probe is on its way.
    HalfOpen(Down),
}

/// What was seen since the breaker closed.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    /// Failures since the last sign of life, and when the first of them was.
    in_a_row: u32,
    since: Timestamp,
    /// Signs of life and failures, by time.
    slices: [(u32, u32); BREAKER_SLICES],
    /// The number of the youngest slice since the epoch.
    slice: u64,
}

/// How long it has been down, and when the next probe may go.
#[derive(Debug, Clone, Copy)]
struct Down {
    since: Timestamp,
    until: Timestamp,
    /// Cooldowns that ended with a failed probe.
    doubled: u32,
}

/// A breaker in plain numbers, times in milliseconds since the Unix epoch. A
/// probe that is on its way is lost with its process, so half-open is saved as
/// open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// The endpoint is up.
    Closed {
        /// Failures since the last sign of life.
        in_a_row: u32,
        /// When the first of them was.
        since_ms: u64,
        /// Signs of life and failures, by time.
        slices: [(u32, u32); BREAKER_SLICES],
        /// The number of the youngest slice since the epoch.
        slice: u64,
    },
    /// The endpoint is down.
    Open {
        /// Since when.
        since_ms: u64,
        /// When the next probe may go.
        until_ms: u64,
        /// Cooldowns that ended with a failed probe.
        doubled: u32,
    },
}

impl Sign {
    /// Of an attempt's end.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome.cause {
            None | Some(Cause::RateLimited | Cause::Gone) => Self::Alive,
            Some(cause) => match cause.blame() {
                Blame::Sender | Blame::Policy => Self::Unknown,
                Blame::Receiver | Blame::Network => Self::Failing,
            },
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(Recent::default())
    }
}

impl Breaker {
    /// Asks to make an attempt. Open and cooled down, it admits one as the
    /// probe.
    pub fn admit(&mut self, now: Timestamp) -> Option<Pass> {
        match self.state {
            State::Closed(_) => Some(self.pass()),
            State::Open(down) if down.is_over(now) => Some(self.probe(down)),
            State::Open(_) | State::HalfOpen(_) => None,
        }
    }

    /// An attempt is made whatever the breaker says: somebody else decided so.
    /// While it is open, that is the probe, though its failure costs nothing
    /// before the cooldown is over.
    pub fn admit_always(&mut self) -> Pass {
        match self.state {
            State::Closed(_) => self.pass(),
            State::Open(down) => self.probe(down),
            State::HalfOpen(_) => Pass::default(),
        }
    }

    /// Whether [`admit`](Self::admit) would admit nobody.
    pub fn refuses(&self, now: Timestamp) -> bool {
        match &self.state {
            State::Closed(_) => false,
            State::Open(down) => !down.is_over(now),
            State::HalfOpen(_) => true,
        }
    }

    /// Whether the endpoint is up, as far as is known.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// Since when it is down.
    pub fn down_since(&self) -> Option<Timestamp> {
        match &self.state {
            State::Closed(_) => None,
            State::Open(down) | State::HalfOpen(down) => Some(down.since),
        }
    }

    /// When the next probe may go; `None` while the breaker is closed or a
    /// probe is on its way.
    pub fn next_probe(&self) -> Option<Timestamp> {
        match &self.state {
            State::Open(down) => Some(down.until),
            State::Closed(_) | State::HalfOpen(_) => None,
        }
    }

    /// Whether this pass is that of the probe on its way.
    pub fn is_probe(&self, pass: Pass) -> bool {
        matches!(self.state, State::HalfOpen(_)) && pass == self.pass()
    }

    /// An attempt ended.
    pub fn ended(&mut self, pass: Pass, sign: Sign, now: Timestamp, rng: &mut Rng) -> Change {
        if pass != self.pass() {
            return Change::Same;
        }
        match &mut self.state {
            State::Closed(recent) => {
                if !recent.add(sign, now) {
                    return Change::Same;
                }
                self.enter(State::Open(Down::begin(now, rng)));
                Change::Tripped
            }
            State::HalfOpen(down) => {
                let down = *down;
                match sign {
                    Sign::Alive => {
                        self.enter(State::default());
                        Change::Closed
                    }
                    Sign::Failing => {
                        self.enter(State::Open(down.longer(now, rng)));
                        Change::Reopened
                    }
                    // The question stands, but not at once again.
                    Sign::Unknown => {
                        self.enter(State::Open(down.again(now, rng)));
                        Change::Same
                    }
                }
            }
            State::Open(_) => Change::Same,
        }
    }

    /// No attempt was made with this pass. Another may be the probe at once.
    pub fn returned(&mut self, pass: Pass) {
        if pass == self.pass()
            && let State::HalfOpen(down) = self.state
        {
            self.enter(State::Open(down));
        }
    }

    /// An attempt failed that was made elsewhere, where this breaker was not
    /// asked. It counts while the breaker is closed.
    pub fn failed_elsewhere(&mut self, now: Timestamp, rng: &mut Rng) -> Change {
        if self.is_closed() {
            self.ended(self.pass(), Sign::Failing, now, rng)
        } else {
            Change::Same
        }
    }

    /// In plain numbers.
    pub fn save(&self) -> Saved {
        match &self.state {
            State::Closed(recent) => Saved::Closed {
                in_a_row: recent.in_a_row,
                since_ms: recent.since.as_millis(),
                slices: recent.slices,
                slice: recent.slice,
            },
            State::Open(down) | State::HalfOpen(down) => Saved::Open {
                since_ms: down.since.as_millis(),
                until_ms: down.until.as_millis(),
                doubled: down.doubled,
            },
        }
    }

    /// From plain numbers.
    pub fn load(saved: Saved) -> Self {
        let state = match saved {
            Saved::Closed {
                in_a_row,
                since_ms,
                slices,
                slice,
            } => State::Closed(Recent {
                in_a_row,
                since: Timestamp::from_millis(since_ms),
                slices,
                slice,
            }),
            Saved::Open {
                since_ms,
                until_ms,
                doubled,
            } => State::Open(Down {
                since: Timestamp::from_millis(since_ms),
                until: Timestamp::from_millis(until_ms),
                doubled,
            }),
        };
        Self { state, stay: 0 }
    }

    fn pass(&self) -> Pass {
        Pass(self.stay.wrapping_add(1))
    }

    fn probe(&mut self, down: Down) -> Pass {
        self.enter(State::HalfOpen(down));
        self.pass()
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.stay = self.stay.wrapping_add(1);
    }
}

impl Recent {
    /// Counts one; answers whether that is too much.
    fn add(&mut self, sign: Sign, now: Timestamp) -> bool {
        match sign {
            Sign::Unknown => false,
            Sign::Alive => {
                self.in_a_row = 0;
                let (alive, _) = self.slice(now);
                *alive = alive.saturating_add(1);
                false
            }
            Sign::Failing => {
                if self.in_a_row == 0 {
                    self.since = now;
                }
                self.in_a_row = self.in_a_row.saturating_add(1);
                let (_, failed) = self.slice(now);
                *failed = failed.saturating_add(1);
                self.is_too_much(now)
            }
        }
    }

    fn is_too_much(&self, now: Timestamp) -> bool {
        if self.in_a_row >= BREAKER_FAILURES && now.since(self.since) >= BREAKER_FAILURES_SPAN {
            return true;
        }
        let failed: u64 = self.slices.iter().map(|slice| u64::from(slice.1)).sum();
        let alive: u64 = self.slices.iter().map(|slice| u64::from(slice.0)).sum();
        let all = failed + alive;
        all >= BREAKER_RATE_MIN && failed * 100 >= all * BREAKER_RATE_PERCENT
    }

    /// The slice of this moment. A clock that goes back says nothing about what
    /// was recent: begin anew.
    fn slice(&mut self, now: Timestamp) -> &mut (u32, u32) {
        let number = now.as_millis() / BREAKER_SLICE_MS;
        let count = BREAKER_SLICES as u64;
        if number != self.slice {
            if number < self.slice || number - self.slice >= count {
                self.slices = [(0, 0); BREAKER_SLICES];
            } else {
                for passed in self.slice + 1..=number {
                    self.slices[place(passed)] = (0, 0);
                }
            }
            self.slice = number;
        }
        &mut self.slices[place(number)]
    }
}

impl Down {
    fn begin(now: Timestamp, rng: &mut Rng) -> Self {
        Self {
            since: now,
            until: now,
            doubled: 0,
        }
        .again(now, rng)
    }

    /// A clock that was set back does not make a cooldown longer than any is.
    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.until || self.until.since(now) > COOLDOWN_CAP_MAX
    }

    fn longer(mut self, now: Timestamp, rng: &mut Rng) -> Self {
        if !self.is_over(now) {
            return self;
        }
        self.doubled = self.doubled.saturating_add(1);
        self.again(now, rng)
    }

    /// Equal jitter: between half of the cooldown and the whole.
    fn again(mut self, now: Timestamp, rng: &mut Rng) -> Self {
        let cap =
            (now.since(self.since) / COOLDOWN_CAP_PART).clamp(COOLDOWN_CAP_MIN, COOLDOWN_CAP_MAX);
        // Past 2^16 every cap is reached.
        let whole = (COOLDOWN_FIRST * (1 << self.doubled.min(16))).min(cap);
        let half = u64::try_from(whole.as_millis() / 2).unwrap_or(u64::MAX);
        let wait = Duration::from_millis(half + rng.below(half + 1));
        self.until = now.after(wait);
        self
    }
}

fn place(slice: u64) -> usize {
    usize::try_from(slice % BREAKER_SLICES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
