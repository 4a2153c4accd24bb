//! How many attempts at once an endpoint gets, found by trying (TCP's slow
//! start and congestion avoidance, Jacobson 1988).
//!
//! It opens by one for each success until it first shrank, then by one for each
//! full round, and halves when the receiver shows that it is too much. What it
//! refuses to do: open while it is not used to the full, for then nothing shows
//! that more would go well; and halve twice for attempts of one round.
//!
//! The width is a number with sixteen binary places: a fraction counts as
//! nothing until it is whole. Comparing what is in flight with a part of the
//! width instead stalls it where the part falls between two whole numbers.

use crate::limits::{WINDOW_FIRST, WINDOW_RECOVERED, WINDOW_START};
use crate::outcome::{Cause, Outcome};
use crate::time::Timestamp;

/// One, in the width's own units.
const ONE: u32 = 1 << 16;

/// What an attempt says about its receiver's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It took the delivery.
    Served,
    /// It is too much for it: no time, no connection, or it says so.
    TooMuch,
    /// Nothing: it failed for other reasons.
    Unknown,
}

/// How many attempts at once one endpoint gets.
#[derive(Debug, Clone)]
pub struct Window {
    width: u32,
    /// Below it a success opens by one, from it on by a part.
    threshold: u32,
    /// When it last shrank.
    shrank_at: Timestamp,
    /// Whether nothing was served since.
    failing: bool,
    /// Whether anything was ever served.
    served: bool,
}

impl Load {
    /// Of an attempt's end.
    pub fn of(outcome: &Outcome) -> Self {
        if outcome.cause.is_none() {
            return Self::Served;
        }
        let says_so = matches!(outcome.status, Some(408 | 425 | 429 | 502..=504));
        let breaks = matches!(
            outcome.cause,
            Some(
                Cause::TimeoutConnect
                    | Cause::TimeoutHeaders
                    | Cause::ConnectionRefused
                    | Cause::ConnectionReset
            )
        );
        if says_so || breaks {
            Self::TooMuch
        } else {
            Self::Unknown
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self {
            width: WINDOW_FIRST * ONE,
            threshold: u32::MAX,
            shrank_at: Timestamp::default(),
            failing: false,
            served: false,
        }
    }
}

impl Window {
    /// As it is once everything went well for long.
    #[cfg(test)]
    pub(crate) fn full() -> Self {
        Self {
            width: crate::limits::IN_FLIGHT_MAX * ONE,
            served: true,
            ..Self::default()
        }
    }

    /// Attempts at once, of at most `most`.
    pub fn limit(&self, most: u32) -> u32 {
        (self.width / ONE).min(most).max(1)
    }

    /// An attempt that began at `started` ended; `in_flight` counts it still.
    pub fn ended(
        &mut self,
        load: Load,
        in_flight: u32,
        most: u32,
        started: Timestamp,
        now: Timestamp,
    ) {
        match load {
            Load::Served => self.open(in_flight, most),
            // What began before the last time is news of the same round.
            Load::TooMuch if started > self.shrank_at => self.shrink(now),
            Load::TooMuch | Load::Unknown => {}
        }
    }

    /// The endpoint is back after it was down: few at first, quickly up to half
    /// of what it had before.
    pub fn recovered(&mut self) {
        self.width = WINDOW_RECOVERED * ONE;
    }

    fn open(&mut self, in_flight: u32, most: u32) {
        self.failing = false;
        if !self.served {
            self.served = true;
            self.width = self.width.max(WINDOW_START.min(most.max(1)) * ONE);
            return;
        }
        if in_flight < self.limit(most) {
            return;
        }
        let step = if self.width < self.threshold {
            ONE
        } else {
            // One, divided by the width.
            u32::try_from(u64::from(ONE) * u64::from(ONE) / u64::from(self.width)).unwrap_or(ONE)
        };
        self.width = self.width.saturating_add(step).min(most.max(1) * ONE);
    }

    fn shrink(&mut self, now: Timestamp) {
        self.shrank_at = now;
        // A second time in a row tells nothing about what went well before.
        if !std::mem::replace(&mut self.failing, true) {
            self.threshold = (self.width / 2).max(ONE);
        }
        self.width = (self.width / 2).max(ONE);
    }
}

#[cfg(test)]
mod tests;
