//! One endpoint's line in its owner: what is out, what was read of what it
//! holds, and what is thought of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use posthaste_proto as proto;

use super::super::fold::{Fold, Head};
use super::super::hold::Hold;
use super::watch::Health;
use crate::breaker::{Breaker, Saved};
use crate::gate::GateState;
use crate::id::EndpointId;
use crate::time::Timestamp;

/// One endpoint's line.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Handed out, or its dead letter being written.
    pub(super) out: usize,
    /// … of at most so many.
    pub(super) most: usize,
    /// Being moved.
    pub(super) moving: usize,
    pub(super) page: Page,
    pub(super) breaker: Breaker,
    pub(super) health: Health,
    /// Our own way out failed last, or a rule of ours forbade it: one at a time
    /// finds out when that is over.
    pub(super) own_fault: bool,
    /// It answered 401 or 403, and has taken nothing since.
    pub(super) auth_failing: bool,
    /// The gate as this owner published it last, and when.
    pub(super) gate: Option<(GateState, Timestamp)>,
    /// The receiver asked for it, or its shard has no room.
    pub(super) paused_until: Timestamp,
    /// It is being disabled since then.
    pub(super) disabling: Option<Timestamp>,
    /// A dead letter for all expired ones before this offset, and for how many.
    pub(super) expiring: Option<(u64, u64)>,
    /// What cannot be handed out is looked through for what expired then.
    pub(super) expire_at: Timestamp,
    /// Whether what is held goes next, where both could.
    pub(super) held_next: bool,
    /// An operator wants one attempt to be made whatever the breaker says.
    pub(super) probe: bool,
    /// Of an ordered endpoint.
    pub(super) order: Option<Order>,
    /// Keys of which one is out, and where it stands.
    pub(super) busy: BTreeMap<u64, u64>,
    pub(super) wake: Option<Timestamp>,
}

/// A stretch of what an endpoint holds, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// What can be handed out, by offset.
    pub(super) items: VecDeque<(u64, Head)>,
    /// What was read and is not settled: those items, and what is out.
    pub(super) open: BTreeSet<u64>,
    /// Everything held below was read.
    pub(super) scanned: u64,
    /// Whether more is held from there on.
    pub(super) behind: bool,
    /// Up to where it is being read.
    pub(super) reading: Option<u64>,
    /// Whether it waits for its turn to read.
    pub(super) queued: bool,
    /// The cursor that was told last.
    pub(super) told: u64,
    /// None of what is held expires before, as far as is known.
    pub(super) expires: Timestamp,
}

/// Timers of an ordered endpoint by the hash of their key.
#[derive(Debug, Default)]
pub(super) struct Order {
    keys: BTreeMap<u64, BTreeSet<u64>>,
    of: BTreeMap<u64, u64>,
}

impl Line {
    pub(super) fn new(behind: bool) -> Self {
        let mut line = Self::default();
        line.page.behind = behind;
        line
    }

    /// As a snapshot tells of it.
    pub(super) fn restore(standing: &proto::snapshot::Standing) -> Self {
        let mut line = Self::new(true);
        line.health = Health::restore(standing);
        line.auth_failing = standing.auth_failing;
        line.paused_until = Timestamp::from_millis(standing.paused_until_ms);
        if let &[since_ms, until_ms, doubled] = &standing.breaker[..] {
            line.breaker = Breaker::load(Saved::Open {
                since_ms,
                until_ms,
                doubled: u32::try_from(doubled).unwrap_or(u32::MAX),
            });
        }
        line
    }

    /// What a snapshot should tell of it, if anything. A closed breaker begins
    /// anew.
    pub(super) fn save(&self) -> Option<proto::snapshot::Standing> {
        let mut standing = self.health.save();
        standing.auth_failing = self.auth_failing;
        standing.paused_until_ms = self.paused_until.as_millis();
        if let Saved::Open {
            since_ms,
            until_ms,
            doubled,
        } = self.breaker.save()
        {
            standing.breaker = vec![since_ms, until_ms, doubled.into()];
        }
        (standing != proto::snapshot::Standing::default()).then_some(standing)
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        self.is_quiet()
            && self.breaker.is_closed()
            && self.health.is_well()
            && !self.auth_failing
            && self.disabling.is_none()
            && self.gate.is_none_or(|(state, _)| state == GateState::Open)
    }

    /// Whether nothing of it is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.out == 0
            && self.moving == 0
            && self.page.reading.is_none()
            && !self.page.queued
            && self.busy.is_empty()
            && self.expiring.is_none()
    }

    /// Whether one more may be out.
    pub(super) fn has_room(&self) -> bool {
        self.out < if self.own_fault { 1 } else { self.most }
    }

    /// Nothing of this key is out any longer, if it was the one at this offset.
    pub(super) fn release(&mut self, order: u64, offset: u64) {
        if self.busy.get(&order) == Some(&offset) {
            self.busy.remove(&order);
        }
    }
}

impl Page {
    /// Puts an item where it belongs.
    pub(super) fn insert(&mut self, offset: u64, head: Head) {
        let place = self.items.partition_point(|(other, _)| *other < offset);
        self.items.insert(place, (offset, head));
        self.open.insert(offset);
    }

    /// Follows what happened to the hold.
    pub(super) fn follow(&mut self, hold: Option<&Hold>) {
        let Some(hold) = hold else {
            let (reading, queued) = (self.reading, self.queued);
            *self = Self {
                reading,
                queued,
                scanned: self.scanned,
                ..Self::default()
            };
            return;
        };
        self.scanned = self.scanned.max(hold.cursor());
        self.items.retain(|(offset, _)| hold.contains(*offset));
        self.open.retain(|offset| hold.contains(*offset));
    }

    /// Forgets what was read and is not out, and reads it again when it is
    /// wanted.
    pub(super) fn fold_up(&mut self) {
        let Some((first, _)) = self.items.front() else {
            return;
        };
        // What is out beyond the first item would be read as new, and a read under
        // way begins behind it.
        if self.open.len() > self.items.len() || self.reading.is_some() {
            return;
        }
        self.scanned = *first;
        self.behind = true;
        self.items = VecDeque::new();
        self.open = BTreeSet::new();
    }
}

impl Order {
    /// Of all timers of an endpoint.
    pub(super) fn of(fold: &Fold, endpoint: EndpointId) -> Self {
        let mut order = Self::default();
        for (offset, owed) in fold.iter() {
            if owed.endpoint == endpoint {
                order.insert(offset, fold.order(offset));
            }
        }
        order
    }

    pub(super) fn insert(&mut self, offset: u64, key: u64) {
        self.keys.entry(key).or_default().insert(offset);
        self.of.insert(offset, key);
    }

    pub(super) fn remove(&mut self, offset: u64) {
        if let Some(key) = self.of.remove(&offset)
            && let Some(offsets) = self.keys.get_mut(&key)
        {
            offsets.remove(&offset);
            if offsets.is_empty() {
                self.keys.remove(&key);
            }
        }
    }

    /// Whether a key has timers.
    pub(super) fn has(&self, key: u64) -> bool {
        self.keys.contains_key(&key)
    }

    /// The first timer of each key, in lane order within it.
    pub(super) fn heads(&self) -> impl Iterator<Item = (u64, u64)> {
        self.keys
            .iter()
            .filter_map(|(&key, offsets)| Some((key, *offsets.first()?)))
    }
}
