//! What `posthaste dev` knows: what was published, what the receiver verified,
//! what the attempts topic tells. Bounded: the oldest deliveries are forgotten,
//! and the publisher waits while too much is owed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use posthaste_core::endpoint::Endpoint;
use posthaste_core::time::Timestamp;
use posthaste_proto::Attempt;

use super::demo::FLAKY;
use super::row::Row;

/// Sample events not yet delivered everywhere. At the bound the publisher
/// waits.
pub(super) const OWED_MAX: usize = 2_000;
/// Attempts shown.
pub(super) const RECENT_MAX: usize = 8;
/// Of so many sample events the first attempt of one fails on purpose.
const TRIP_EVERY: u64 = 4;

/// The board as publisher, receiver and view share it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Board>>);

/// All there is to show.
pub(super) struct Board {
    /// One an endpoint.
    pub(super) rows: Vec<Row>,
    /// The last attempts, newest last.
    pub(super) recent: VecDeque<Line>,
    /// Sample events that the log has.
    pub(super) published: u64,
    /// Those of them that every endpoint got and verified.
    pub(super) settled: u64,
    prepared: u64,
    owed: HashMap<String, Owed>,
    hasher: RandomState,
}

/// A sample event that is not delivered everywhere: a bit a row.
struct Owed {
    rows: u8,
    accepted: bool,
    trips: bool,
}

/// One attempt, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: Timestamp,
    pub(super) event_id: String,
    pub(super) event_type: String,
    pub(super) endpoint: String,
    pub(super) number: u32,
    /// 0 without a response.
    pub(super) status: u32,
    /// Empty when it was delivered.
    pub(super) cause: String,
    pub(super) took: Duration,
    pub(super) verified: bool,
}

/// What the receiver found about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The signature is right.
    Verified,
    /// … but the receiver fails this first attempt on purpose.
    Tripped,
}

/// Figures of the whole run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) verified: u64,
    pub(super) retried: u64,
    pub(super) duplicates: u64,
    pub(super) refused: u64,
    /// Deliveries of this run's sample events that were not verified yet.
    pub(super) owed: u64,
}

impl Shared {
    pub(super) fn new(board: Board) -> Self {
        Self(Arc::new(Mutex::new(board)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    pub(super) fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            rows: endpoints.into_iter().map(Row::new).collect(),
            recent: VecDeque::with_capacity(RECENT_MAX),
            published: 0,
            settled: 0,
            prepared: 0,
            owed: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// A sample event is about to be published; `false` while too much is owed.
    pub(super) fn expect(&mut self, id: &str, event_type: &str) -> bool {
        if self.owed.len() >= OWED_MAX {
            return false;
        }
        self.prepared += 1;
        let wants = self.rows.iter().enumerate();
        let wants = wants.filter(|(_, row)| row.endpoint.wants(event_type));
        let owed = Owed {
            rows: wants.fold(0, |rows, (place, _)| rows | 1 << place),
            accepted: false,
            trips: self.prepared.is_multiple_of(TRIP_EVERY),
        };
        self.owed.insert(id.to_owned(), owed);
        true
    }

    /// The log has it.
    pub(super) fn accepted(&mut self, id: &str) {
        self.published += 1;
        if let Some(owed) = self.owed.get_mut(id) {
            owed.accepted = true;
        }
        self.settle(id);
    }

    /// Nobody can tell whether the log has it.
    pub(super) fn withdraw(&mut self, id: &str) {
        self.owed.remove(id);
    }

    /// The receiver got a request with a right signature.
    pub(super) fn received(&mut self, place: usize, id: &str) -> Found {
        let key = self.hasher.hash_one(id);
        let Some(row) = self.rows.get_mut(place) else {
            return Found::Verified;
        };
        if let Some(owed) = self.owed.get_mut(id)
            && row.endpoint.uid == FLAKY
            && std::mem::take(&mut owed.trips)
        {
            return Found::Tripped;
        }
        if !row.verified(key) {
            return Found::Verified;
        }
        if let Some(owed) = self.owed.get_mut(id) {
            owed.rows &= !(1 << place);
        }
        self.settle(id);
        Found::Verified
    }

    /// The receiver refused a request's signature.
    pub(super) fn refused(&mut self, place: usize) {
        if let Some(row) = self.rows.get_mut(place) {
            row.refused += 1;
        }
    }

    /// The attempts topic tells of an attempt.
    pub(super) fn attempted(&mut self, attempt: &Attempt) -> Line {
        let key = self.hasher.hash_one(attempt.event_id.as_str());
        let of = |row: &&mut Row| row.endpoint.id.as_bytes() == attempt.endpoint_id.as_ref();
        let (endpoint, verified) = match self.rows.iter_mut().find(of) {
            Some(row) => {
                row.attempted(key, attempt);
                let verified = attempt.cause.is_empty() && row.is_verified(key);
                (row.endpoint.uid.clone(), verified)
            }
            // Somebody else's endpoint, made while this runs.
            None => (attempt.tenant.clone(), false),
        };
        let line = Line {
            at: Timestamp::from_millis(attempt.started_ms),
            event_id: attempt.event_id.clone(),
            event_type: attempt.event_type.clone(),
            endpoint,
            number: attempt.number,
            status: attempt.status,
            cause: attempt.cause.clone(),
            took: Duration::from_micros(attempt.duration_us),
            verified,
        };
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(line.clone());
        line
    }

    /// Figures of the whole run.
    pub(super) fn totals(&self) -> Totals {
        let sum = |of: fn(&Row) -> u64| self.rows.iter().map(of).sum();
        let owed = self.owed.values().filter(|owed| owed.accepted);
        Totals {
            published: self.published,
            delivered: sum(|row| row.delivered),
            verified: sum(|row| row.verified),
            retried: sum(|row| row.retried),
            duplicates: sum(|row| row.duplicates),
            refused: sum(|row| row.refused),
            owed: owed.map(|owed| u64::from(owed.rows.count_ones())).sum(),
        }
    }

    fn settle(&mut self, id: &str) {
        let settled = |owed: &Owed| owed.accepted && owed.rows == 0;
        if self.owed.get(id).is_some_and(settled) {
            self.owed.remove(id);
            self.settled += 1;
        }
    }
}

#[cfg(test)]
pub(in crate::cli::dev) mod tests;
