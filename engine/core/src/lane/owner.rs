//! The owner of one lane partition: makes what is owed happen.
//!
//! Nothing is attempted before the owner has read its own claim: by then it has
//! folded every fact of its predecessors. What it handed out stands in an
//! overlay until the fact about it is read back, so that nothing is handed out
//! twice. What it refuses to do: hand out more of one endpoint than
//! [`OWNER_OUTSTANDING_MAX`], dead letters being written included, or anything
//! before it is due.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::RecordError;
use proto::progress::{Entry, Kind};

use super::fold::{Change, Fact, Fold, Owed};
use crate::delivery::ReportEnd;
use crate::id::EndpointId;
use crate::limits::{OWNER_OUTSTANDING_MAX, PROGRESS_ENTRIES_MAX};
use crate::outcome::{Outcome, Verdict};
use crate::retry::{Decision, GiveUpCause, Rules};
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::timers::Timers;

/// How long a delivery waits after its shard had no room for it.
const BOUNCE_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// What an owner wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand the delivery of the record at this offset to its shard.
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
}

/// What became of a delivery this owner handed out, as far as it knows and the
/// fold does not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlay {
    /// With its shard, in its endpoint's line, after so many attempts.
    Out(EndpointId, u32),
    /// The fact is written or about to be.
    Told,
    /// The dead letter is being written; it keeps its place in the line.
    Burying(EndpointId),
}

/// One endpoint's turn: what is due, and how much of it is out.
#[derive(Debug, Default)]
struct Line {
    due: VecDeque<u64>,
    out: usize,
}

/// The state of one owned partition.
#[derive(Debug)]
pub struct Owner {
    fold: Fold,
    claimed: Option<u64>,
    ready: bool,
    timers: Timers<u64>,
    lines: BTreeMap<EndpointId, Line>,
    /// Lines that have room again since the last tick.
    freed: Vec<EndpointId>,
    overlay: BTreeMap<u64, Overlay>,
    facts: Vec<Entry>,
    rng: Rng,
    draining: bool,
}

impl Owner {
    /// An owner that folds from `position` on.
    pub fn new(position: u64, rng: Rng) -> Self {
        Self {
            fold: Fold::new(position),
            claimed: None,
            ready: false,
            timers: Timers::default(),
            lines: BTreeMap::new(),
            freed: Vec::new(),
            overlay: BTreeMap::new(),
            facts: Vec::new(),
            rng,
            draining: false,
        }
    }

    /// The claim was appended at `offset`, which is the owner epoch.
    pub fn claimed(&mut self, offset: u64) {
        self.claimed = Some(offset);
        self.ready |= self.fold.next() > offset;
    }

    /// Folds the record at `offset`.
    pub fn record(&mut self, offset: u64, value: &Bytes) -> Result<Change, RecordError> {
        let change = self.fold.apply(offset, value)?;
        match &change {
            Change::Owed(owed) => self.timers.insert(owed.due, offset),
            Change::Facts(facts) => {
                let own = self.claimed.is_some() && self.fold.author() == self.claimed;
                facts.iter().for_each(|fact| self.learned(fact, own));
            }
            Change::Claim => self.ready |= self.claimed.is_some_and(|claim| offset >= claim),
            Change::Duplicate | Change::Nothing => {}
        }
        Ok(change)
    }

    /// The position moved without records.
    pub fn skip_to(&mut self, next: u64) {
        self.fold.skip_to(next);
        self.ready |= self.claimed.is_some_and(|claim| next > claim);
    }

    fn learned(&mut self, fact: &Fact, own: bool) {
        match *fact {
            Fact::Settled(offset) => {
                self.forget_told(offset);
            }
            // Of another owner's retry only the due time matters: what we told
            // is still on its way.
            Fact::Retry(offset, owed) => {
                if own {
                    self.forget_told(offset);
                }
                self.timers.insert(owed.due, offset);
            }
            // Another owner knew more: our own fact about it came to nothing,
            // and the fold's time stands.
            Fact::Absorbed(offset) => {
                if own
                    && self.forget_told(offset)
                    && let Some(owed) = self.fold.owed(offset)
                {
                    self.timers.insert(owed.due, offset);
                }
            }
        }
    }

    fn forget_told(&mut self, offset: u64) -> bool {
        let told = self.overlay.get(&offset) == Some(&Overlay::Told);
        if told {
            self.overlay.remove(&offset);
        }
        told
    }

    /// Hands out what is due.
    pub fn tick(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.ready || self.draining {
            return;
        }
        for endpoint in std::mem::take(&mut self.freed) {
            self.hand_out(endpoint, now, actions);
        }
        while let Some(offset) = self.timers.pop_due(now) {
            let Some(owed) = self.fold.owed(offset).copied() else {
                continue;
            };
            if owed.due > now || self.overlay.contains_key(&offset) {
                continue;
            }
            let line = self.lines.entry(owed.endpoint).or_default();
            line.due.push_back(offset);
            self.hand_out(owed.endpoint, now, actions);
        }
    }

    fn hand_out(&mut self, endpoint: EndpointId, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(mut line) = self.lines.remove(&endpoint) else {
            return;
        };
        while !self.draining && line.out < OWNER_OUTSTANDING_MAX {
            let Some(offset) = line.due.pop_front() else {
                break;
            };
            let Some(owed) = self.fold.owed(offset).copied() else {
                continue;
            };
            // A timer can stand twice for one delivery, which the overlay knows;
            // and another owner may have put it off while it stood in line.
            if self.overlay.contains_key(&offset) || owed.due > now {
                continue;
            }
            line.out += 1;
            if now >= owed.deadline {
                self.overlay.insert(offset, Overlay::Burying(endpoint));
                actions.push(Action::Bury {
                    offset,
                    attempts: owed.attempts,
                    cause: GiveUpCause::Expired,
                    last: None,
                });
                continue;
            }
            self.overlay
                .insert(offset, Overlay::Out(endpoint, owed.attempts));
            actions.push(Action::Dispatch { offset, owed });
        }
        if line.out > 0 || !line.due.is_empty() {
            self.lines.insert(endpoint, line);
        }
    }

    /// Whose delivery it is that is out for this offset.
    pub fn out_to(&self, offset: u64) -> Option<EndpointId> {
        match self.overlay.get(&offset) {
            Some(&Overlay::Out(endpoint, _)) => Some(endpoint),
            _ => None,
        }
    }

    /// A delivery that was handed out came back; `rules` are its endpoint's.
    pub fn report(
        &mut self,
        offset: u64,
        end: ReportEnd,
        rules: Rules<'_>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(&Overlay::Out(endpoint, attempts)) = self.overlay.get(&offset) else {
            return;
        };
        self.overlay.remove(&offset);
        // Otherwise another owner settled it meanwhile.
        if let Some(owed) = self.fold.owed(offset).copied() {
            match end {
                ReportEnd::Bounced => self.timers.insert(now.after(BOUNCE_WAIT), offset),
                ReportEnd::Cancelled => self.tell(Kind::Cancelled, offset, attempts, None),
                ReportEnd::Attempted(outcome) => {
                    // The number it went out with: what another owner tried
                    // since does not make this attempt a later one.
                    let made = Owed { attempts, ..owed };
                    self.attempted(offset, made, outcome, rules, now, actions);
                }
            }
        }
        let burying = matches!(self.overlay.get(&offset), Some(Overlay::Burying(_)));
        if !burying && let Some(line) = self.lines.get_mut(&endpoint) {
            line.out -= 1;
        }
        self.hand_out(endpoint, now, actions);
    }

    fn attempted(
        &mut self,
        offset: u64,
        owed: Owed,
        outcome: Outcome,
        rules: Rules<'_>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let attempts = owed.attempts + 1;
        if outcome.verdict == Verdict::Delivered {
            self.tell(Kind::Done, offset, attempts, None);
            return;
        }
        match rules.decide(attempts, &outcome, now, owed.deadline, &mut self.rng) {
            Decision::RetryAt(due) => self.tell(Kind::Retry, offset, attempts, Some(due)),
            // Nothing happened that the log should know.
            Decision::PauseUntil(due) => self.timers.insert(due, offset),
            Decision::GiveUp(cause) => {
                self.overlay.insert(offset, Overlay::Burying(owed.endpoint));
                actions.push(Action::Bury {
                    offset,
                    attempts,
                    cause,
                    last: Some(outcome),
                });
            }
        }
    }

    /// The dead letter of this offset is in the log.
    pub fn buried(&mut self, offset: u64) {
        let Some(&Overlay::Burying(endpoint)) = self.overlay.get(&offset) else {
            return;
        };
        self.tell(Kind::Dead, offset, 0, None);
        if let Some(line) = self.lines.get_mut(&endpoint) {
            line.out -= 1;
            self.freed.push(endpoint);
        }
    }

    fn tell(&mut self, kind: Kind, offset: u64, attempts: u32, due: Option<Timestamp>) {
        self.overlay.insert(offset, Overlay::Told);
        self.facts.push(Entry {
            kind: kind.into(),
            offset,
            attempt: attempts,
            due_ms: due.map_or(0, Timestamp::as_millis),
        });
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
        self.facts.is_empty()
            && !self
                .overlay
                .values()
                .any(|state| matches!(state, Overlay::Out(..) | Overlay::Burying(_)))
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn next_due(&self) -> Option<Timestamp> {
        if !self.ready || self.draining {
            return None;
        }
        if self.freed.is_empty() {
            self.timers.next_due()
        } else {
            Some(Timestamp::default())
        }
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
