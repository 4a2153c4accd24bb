//! One endpoint's row: figures, and the deliveries they were counted from.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use posthaste_core::endpoint::Endpoint;
use posthaste_proto::Attempt;

/// Deliveries of one endpoint that are remembered; older ones are forgotten,
/// and count as new should they come again.
const KNOWN_MAX: usize = 8_192;
/// Attempts the median is taken of.
const DURATIONS_MAX: usize = 256;

/// One endpoint's figures, of this run alone.
pub(super) struct Row {
    pub(super) endpoint: Endpoint,
    /// Deliveries that were attempted.
    pub(super) events: u64,
    /// Those that the attempts topic tells delivered.
    pub(super) delivered: u64,
    /// Those whose signature the receiver verified.
    pub(super) verified: u64,
    /// Requests for what was verified before.
    pub(super) duplicates: u64,
    /// Requests that failed verification.
    pub(super) refused: u64,
    /// Deliveries that failed and will be tried again.
    pub(super) retrying: u64,
    /// Deliveries that needed more than one attempt.
    pub(super) retried: u64,
    durations_us: VecDeque<u64>,
    known: HashMap<u64, Known>,
    order: VecDeque<u64>,
}

/// One delivery of an endpoint.
#[derive(Default)]
struct Known {
    attempted: bool,
    failing: bool,
    delivered: bool,
    verified: bool,
}

impl Row {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            events: 0,
            delivered: 0,
            verified: 0,
            duplicates: 0,
            refused: 0,
            retrying: 0,
            retried: 0,
            durations_us: VecDeque::with_capacity(DURATIONS_MAX),
            known: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Duration of the last attempt, and the median of the last ones.
    pub(super) fn durations(&self) -> Option<(Duration, Duration)> {
        let last = *self.durations_us.back()?;
        let mut sorted: Vec<_> = self.durations_us.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        Some((Duration::from_micros(last), Duration::from_micros(median)))
    }

    /// The receiver verified a delivery; `false` when it had before.
    pub(super) fn verified(&mut self, key: u64) -> bool {
        let again = std::mem::replace(&mut self.known(key).verified, true);
        self.duplicates += u64::from(again);
        self.verified += u64::from(!again);
        !again
    }

    /// Whether the receiver verified it.
    pub(super) fn is_verified(&mut self, key: u64) -> bool {
        self.known(key).verified
    }

    fn known(&mut self, key: u64) -> &mut Known {
        if !self.known.contains_key(&key) {
            if self.order.len() >= KNOWN_MAX
                && let Some(oldest) = self.order.pop_front()
                && let Some(forgotten) = self.known.remove(&oldest)
            {
                self.retrying -= u64::from(forgotten.failing);
            }
            self.order.push_back(key);
        }
        self.known.entry(key).or_default()
    }

    /// The attempts topic tells of an attempt.
    pub(super) fn attempted(&mut self, key: u64, attempt: &Attempt) {
        let delivered = attempt.cause.is_empty();
        let known = self.known(key);
        let fresh = !std::mem::replace(&mut known.attempted, true);
        let was_failing = std::mem::replace(&mut known.failing, !delivered && !known.delivered);
        let fails = known.failing;
        let done = delivered && !std::mem::replace(&mut known.delivered, true);
        self.events += u64::from(fresh);
        self.delivered += u64::from(done);
        self.retried += u64::from(done && attempt.number > 1);
        self.retrying = self.retrying + u64::from(fails) - u64::from(was_failing);
        if self.durations_us.len() >= DURATIONS_MAX {
            self.durations_us.pop_front();
        }
        self.durations_us.push_back(attempt.duration_us);
    }
}
