//! The owner of one lane partition: makes what is owed happen.
//!
//! ```text
//!  records -> fold: timers, holds --+--> lines, one an endpoint: breaker, page, gate
//!                                   |        | serve
//!  reports, pages, dead letters ----+        v
//!                                  Actions: dispatch, read, bury, gate, snapshot ..
//! ```
//!
//! Nothing is attempted before the owner has read its own claim: by then it has
//! folded every fact of its predecessors. What it handed out stands in an
//! overlay until the fact about it is read back, so that nothing is handed out
//! twice. What it refuses to do: hand out more of one endpoint than
//! [`Settings::outstanding`], dead letters being written included, anything
//! before it is due, or anything but a probe to an endpoint that is down.
//!
//! [`Settings::outstanding`]: super::settings::Settings::outstanding

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::RecordError;
use proto::progress::Entry;

use super::caps::Caps;
use super::fold::{Change, Fact, Fold, Head, Owed};
use super::settings::{Endpoints, Standing};
use super::snapshot::Loaded;
use crate::breaker::Pass;
use crate::gate::Gate;
use crate::id::EndpointId;
use crate::limits::PROGRESS_ENTRIES_MAX;
use crate::outcome::Outcome;
use crate::retry::GiveUpCause;
use crate::rng::Rng;
use crate::time::Timestamp;

mod ends;
mod facts;
mod held;
mod line;
mod operations;
mod serve;
mod snapshots;
mod watch;

use line::Line;
use operations::Operations;
pub use operations::{Found, Task};
use snapshots::Snapshots;

/// What an owner wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Hand the delivery of the record at this offset to its shard; what comes
    /// of it goes to [`Owner::report`].
    Dispatch {
        /// Of the `Deliver` record.
        offset: u64,
        /// What is owed.
        owed: Owed,
    },
    /// Append the dead letter of the record at this offset; when the log has
    /// acknowledged it, call [`Owner::buried`].
    Bury {
        /// Of the `Deliver` record.
        offset: u64,
        /// Attempts made.
        attempts: u32,
        /// Why it is given up.
        cause: GiveUpCause,
        /// The last attempt.
        last: Option<Outcome>,
    },
    /// Append one dead letter for all of these. When the log has acknowledged it,
    /// call [`Owner::range_buried`].
    BuryRange(Expired),
    /// Read the lane from `from` to before `to`, as far as is convenient, and
    /// call [`Owner::page`].
    Read {
        /// Who is to hear of it.
        endpoint: EndpointId,
        /// From here.
        from: u64,
        /// Up to here, exclusive.
        to: u64,
    },
    /// Append the record at this offset again, with these attempts, no due time
    /// and the reason `moved`; when the log has acknowledged it, call
    /// [`Owner::moved`] with its new offset.
    Move {
        /// Of the `Deliver` record.
        offset: u64,
        /// What is owed.
        owed: Owed,
    },
    /// Publish an endpoint's gate in the endpoints table.
    Gate {
        /// Whose.
        endpoint: EndpointId,
        /// What.
        gate: Gate,
    },
    /// Disable an endpoint in the endpoints table, and tell its tenant.
    Disable {
        /// Which.
        endpoint: EndpointId,
        /// Why.
        reason: DisableReason,
    },
    /// Tell the endpoint's tenant.
    Notify(Notice),
    /// Do something for an operation.
    Operate(Task),
    /// Append these parts in order; when the log has acknowledged them all, call
    /// [`Owner::snapshot_written`] with the first one's offset.
    Snapshot {
        /// Values of records of this partition.
        parts: Vec<Bytes>,
    },
    /// Commit this position of this partition.
    Commit {
        /// The position.
        upto: u64,
        /// The commit's metadata.
        metadata: String,
    },
}

/// Records of an endpoint that are held, and expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Whose.
    pub endpoint: EndpointId,
    /// The first may stand here.
    pub from: u64,
    /// The last stands before.
    pub to: u64,
    /// How many they are.
    pub count: u64,
    /// Offsets of the endpoint's in there, rising, that are not among them: they
    /// were settled before, wait for a time, or are copies. At most
    /// [`DEAD_RANGE_EXCEPT_MAX`](crate::limits::DEAD_RANGE_EXCEPT_MAX).
    pub except: Vec<u64>,
}

/// Why an endpoint is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisableReason {
    /// Nothing but failures for as long as the endpoint says.
    Failing,
    /// It answered 410.
    Gone,
}

/// An operational event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// About which endpoint.
    pub endpoint: EndpointId,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub kind: NoticeKind,
}

/// What happened, in an operational event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// `endpoint.disabled`
    Disabled(DisableReason),
    /// `endpoint.circuit_opened`
    Down {
        /// Since when.
        since: Timestamp,
    },
    /// `endpoint.recovered`
    Recovered {
        /// Since when it had been down.
        down_since: Timestamp,
    },
    /// `endpoint.auth_failing`
    AuthFailing {
        /// 401 or 403.
        status: u16,
    },
    /// `delivery.exhausted`
    Exhausted {
        /// Of the `Deliver` record.
        offset: u64,
        /// Attempts made.
        attempts: u32,
        /// Why it is given up.
        cause: GiveUpCause,
    },
}

/// Something that was handed out.
#[derive(Debug, Clone, Copy)]
struct Outgoing {
    owed: Owed,
    /// The hash of its ordering key.
    order: u64,
    /// Whether it was held; else it waited for a time.
    held: bool,
    /// Whether it counts as being moved.
    moving: bool,
    pass: Pass,
}

/// How far something is that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// With its shard.
    Out,
    /// The fact is written or about to be: a retry after so many attempts, or
    /// that it is settled.
    Told(Option<u32>),
    /// The dead letter is being written; it keeps its place in the line.
    Burying(GiveUpCause),
    /// Being appended again.
    Moving,
}

/// What an owner knows and the fold does not yet.
#[derive(Debug, Clone, Copy)]
struct Overlay {
    stage: Stage,
    out: Outgoing,
}

/// The state of one owned partition.
#[derive(Debug)]
pub struct Owner {
    fold: Fold,
    endpoints: Arc<dyn Endpoints>,
    claimed: Option<u64>,
    ready: bool,
    lines: BTreeMap<EndpointId, Box<Line>>,
    /// When a line wants to be looked at.
    wakes: BTreeSet<(Timestamp, EndpointId)>,
    overlay: BTreeMap<u64, Overlay>,
    facts: VecDeque<Entry>,
    /// Reads under way, and who waits for one.
    reads: usize,
    readers: VecDeque<EndpointId>,
    moves: usize,
    operations: Operations,
    snapshots: Snapshots,
    caps: Caps,
    rng: Rng,
    draining: bool,
}

impl Owner {
    /// An owner that folds from `position`, which must be the log's start or
    /// before.
    pub fn new(position: u64, endpoints: Arc<dyn Endpoints>, rng: Rng) -> Self {
        let loaded = Loaded {
            fold: Fold::new(position),
            standings: Vec::new(),
        };
        Self::load(loaded, endpoints, rng)
    }

    /// An owner that goes on from a snapshot: the first record it folds is the
    /// one at the snapshot's `upto`.
    pub fn load(loaded: Loaded, endpoints: Arc<dyn Endpoints>, rng: Rng) -> Self {
        let mut owner = Self {
            fold: loaded.fold,
            endpoints,
            claimed: None,
            ready: false,
            lines: BTreeMap::new(),
            wakes: BTreeSet::new(),
            overlay: BTreeMap::new(),
            facts: VecDeque::new(),
            reads: 0,
            readers: VecDeque::new(),
            moves: 0,
            operations: Operations::default(),
            snapshots: Snapshots::default(),
            caps: Caps::default(),
            rng,
            draining: false,
        };
        for (endpoint, standing) in loaded.standings {
            let line = Box::new(Line::restore(&standing));
            owner.lines.insert(endpoint, line);
        }
        owner
    }

    /// The partition may have no more than this from here on.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
    }

    /// The endpoints changed: whose settings did is looked at.
    pub fn set_endpoints(&mut self, endpoints: Arc<dyn Endpoints>) {
        let before = std::mem::replace(&mut self.endpoints, endpoints);
        let after = &self.endpoints;
        let is_changed = |one: &EndpointId| before.settings(*one) != after.settings(*one);
        let changed: Vec<_> = self.lines.keys().copied().filter(is_changed).collect();
        for endpoint in changed {
            self.touch(endpoint);
        }
        self.operations.touch();
    }

    /// The claim was appended at `offset`, which is the owner epoch.
    pub fn claimed(&mut self, offset: u64) {
        self.claimed = Some(offset);
        self.begin(self.fold.next() > offset);
    }

    /// Folds the record at `offset`.
    pub fn record(
        &mut self,
        offset: u64,
        value: &Bytes,
        now: Timestamp,
    ) -> Result<Change, RecordError> {
        let change = self.fold.apply(offset, value)?;
        self.snapshots.read(value.len(), &change);
        match &change {
            Change::Owed(owed) => {
                self.order_timer(offset, owed.endpoint);
                self.failed_elsewhere(owed.endpoint, value, now);
                self.touch(owed.endpoint);
            }
            Change::Held(head) => self.held(offset, head),
            Change::Facts(facts) => {
                let own = self.claimed.is_some() && self.fold.author() == self.claimed;
                facts.iter().for_each(|fact| self.learned(fact, own));
            }
            Change::Claim => self.begin(self.claimed.is_some_and(|claim| offset >= claim)),
            Change::Commanded(command) => self.commanded(command),
            Change::Duplicate | Change::Nothing => {}
        }
        self.operations_fold();
        Ok(change)
    }

    /// The position moved without records.
    pub fn skip_to(&mut self, next: u64) {
        self.fold.skip_to(next);
        self.operations_fold();
        self.begin(self.claimed.is_some_and(|claim| next > claim));
    }

    /// Attempts may start, if `ready`: every endpoint that is owed something
    /// gets its line.
    fn begin(&mut self, ready: bool) {
        if self.ready || !ready {
            return;
        }
        self.ready = true;
        let holding = self.fold.holds().map(|(endpoint, _)| endpoint);
        let owing: BTreeSet<_> = holding.chain(self.fold.timers().endpoints()).collect();
        let known: Vec<_> = self.lines.keys().copied().collect();
        for endpoint in owing.into_iter().chain(known) {
            self.touch(endpoint);
            // What a restored line knew of its hold was not kept up to date.
            if let Some(line) = self.lines.get_mut(&endpoint) {
                line.page.behind = true;
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.ready {
            return;
        }
        self.write_snapshot(now, actions);
        while !self.draining
            && let Some(&(at, endpoint)) = self.wakes.first()
            && at <= now
        {
            self.serve(endpoint, now, actions);
        }
        self.operate(now, actions);
    }

    /// Has a line looked at with the next tick.
    fn touch(&mut self, endpoint: EndpointId) {
        if !self.ready {
            return;
        }
        let behind = self.fold.hold_of(endpoint).is_some();
        let line = self
            .lines
            .entry(endpoint)
            .or_insert_with(|| Box::new(Line::new(behind)));
        let wake = line.wake.replace(Timestamp::default());
        if wake == Some(Timestamp::default()) {
            return;
        }
        if let Some(wake) = wake {
            self.wakes.remove(&(wake, endpoint));
        }
        self.wakes.insert((Timestamp::default(), endpoint));
    }

    /// Takes a line out to work on; [`put`](Self::put) gives it back.
    fn take(&mut self, endpoint: EndpointId) -> Box<Line> {
        let Some(mut line) = self.lines.remove(&endpoint) else {
            return Box::new(Line::new(self.fold.hold_of(endpoint).is_some()));
        };
        if let Some(wake) = line.wake.take() {
            self.wakes.remove(&(wake, endpoint));
        }
        line
    }

    fn put(&mut self, endpoint: EndpointId, mut line: Box<Line>, wake: Option<Timestamp>) {
        line.wake = wake;
        if let Some(wake) = wake {
            self.wakes.insert((wake, endpoint));
        }
        self.lines.insert(endpoint, line);
    }

    /// Facts to append now, at most [`PROGRESS_ENTRIES_MAX`]; `None` when there
    /// are none.
    pub fn take_facts(&mut self) -> Option<proto::Progress> {
        if self.facts.is_empty() {
            return None;
        }
        let count = self.facts.len().min(PROGRESS_ENTRIES_MAX);
        Some(proto::Progress {
            owner_epoch: self.claimed.unwrap_or(0),
            entries: self.facts.drain(..count).collect(),
        })
    }

    /// Facts that wait to be appended.
    pub fn facts_waiting(&self) -> usize {
        self.facts.len()
    }

    /// Hands nothing out from here on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether nothing is out and nothing waits to be told.
    pub fn is_drained(&self) -> bool {
        let told = |overlay: &Overlay| matches!(overlay.stage, Stage::Told(_));
        self.facts.is_empty() && self.overlay.values().all(told)
    }

    /// When [`tick`](Self::tick) has something to do next, snapshots apart.
    pub fn next_due(&self) -> Option<Timestamp> {
        if !self.ready || self.draining {
            return None;
        }
        let line = self.wakes.first().map(|&(at, _)| at);
        line.into_iter().chain(self.operations.next_due()).min()
    }

    /// The state.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// Whether the own claim was read: attempts may start.
    pub fn is_ready(&self) -> bool {
        self.ready
    }
}

#[cfg(test)]
mod tests;
