//! The node's ingest room: from source partitions to shards, and back as closed
//! positions to commits.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::delivery::{Closed, Delivery, Room, Ticket};
use posthaste_core::event::Event;
use posthaste_core::limits::{BURIALS_MAX, SOURCE_SPAN_MAX};
use posthaste_core::offsets::Tracker;
use posthaste_core::registry::EndpointIx;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::dispatch::Desk;
use super::{Node, Purpose, endpoint_number};
use crate::group::{CommitEnd, GroupId};
use crate::log::{NewRecord, Record, Topic, Value};
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::Outside;

/// Partitions of the dead letters.
pub(crate) const DEAD_PARTITIONS: usize = 4;

/// A source partition under one assignment.
#[derive(Debug)]
pub(super) struct Source {
    partition: usize,
    epoch: u64,
    tracker: Tracker,
    backlog: VecDeque<Read>,
    committing: bool,
    revoking: Option<u64>,
    /// What was committed last, for a planted bug.
    before: u64,
}

/// A record that was read, or the position after several.
#[derive(Debug)]
enum Read {
    Record(Record),
    Next(u64),
}

impl Source {
    fn is_open(&self) -> bool {
        self.tracker.incomplete() > 0 || self.tracker.dirty() || self.committing
    }
}

impl Node {
    pub(super) fn take_source(
        &mut self,
        partition: usize,
        epoch: u64,
        position: u64,
        metadata: &str,
    ) {
        let low16 = u16::try_from(epoch & 0xffff).unwrap_or(0);
        let source = Source {
            partition,
            epoch,
            tracker: Tracker::resume(position, metadata, low16),
            backlog: VecDeque::new(),
            committing: false,
            revoking: None,
            before: position,
        };
        match self.sources.iter_mut().find(|slot| slot.is_none()) {
            Some(free) => *free = Some(source),
            None => self.sources.push(Some(source)),
        }
    }

    fn source(&mut self, partition: usize, epoch: u64) -> Option<&mut Source> {
        let sources = self.sources.iter_mut().flatten();
        let mut sources = sources.filter(|source| source.partition == partition);
        sources.find(|source| source.epoch == epoch)
    }

    pub(super) fn source_batch(
        &mut self,
        partition: usize,
        epoch: u64,
        records: Vec<Record>,
        next: u64,
        out: &mut Outside,
    ) {
        if let Some(source) = self.source(partition, epoch)
            && source.revoking.is_none()
        {
            source.backlog.extend(records.into_iter().map(Read::Record));
            source.backlog.push_back(Read::Next(next));
        }
        self.route(out);
    }

    /// Routes what was read as far as the shards take it.
    pub(super) fn route(&mut self, out: &mut Outside) {
        loop {
            self.offer_held(out);
            if self.desks.iter().any(Desk::is_full) {
                return;
            }
            let mut moved = false;
            for slot in 0..self.sources.len() {
                moved |= self.route_source(slot, out);
            }
            if !moved {
                return;
            }
        }
    }

    fn route_source(&mut self, slot: usize, out: &mut Outside) -> bool {
        let (mut taken, mut moved) = (0, false);
        while let Some(source) = self.sources[slot].as_mut() {
            let room = source.tracker.span() < SOURCE_SPAN_MAX
                && self.burials < BURIALS_MAX
                && !self.desks.iter().any(Desk::is_full);
            match source.backlog.front() {
                Some(Read::Next(_)) => {}
                Some(Read::Record(_)) if room => {}
                Some(Read::Record(_)) | None => break,
            }
            moved = true;
            match source.backlog.pop_front() {
                Some(Read::Record(record)) => {
                    taken += 1;
                    self.route_record(slot, &record, out);
                }
                Some(Read::Next(next)) if !out.planted(Plant::GapsStall) => {
                    source.tracker.skip_to(next);
                }
                Some(Read::Next(_)) | None => {}
            }
        }
        let Some(source) = self.sources[slot].as_ref().filter(|_| moved) else {
            return false;
        };
        out.check.span(source.tracker.span());
        let (partition, epoch) = (source.partition, source.epoch);
        self.credit(GroupId::Ingest, partition, epoch, taken, out);
        self.want_commit(out);
        true
    }

    fn route_record(&mut self, slot: usize, record: &Record, out: &mut Outside) {
        let Some(source) = self.sources[slot].as_mut() else {
            return;
        };
        let (partition, offset) = (source.partition, record.offset);
        if source.tracker.is_done(offset) {
            out.check.known(partition, offset);
            source.tracker.seen(offset, 0);
            return;
        }
        let event = match &record.value {
            Value::Event(event) => Arc::clone(event),
            Value::Poison | Value::Bytes(_) if out.planted(Plant::SkipPoison) => {
                source.tracker.seen(offset, 0);
                return;
            }
            Value::Poison | Value::Bytes(_) => {
                source.tracker.seen(offset, 1);
                return self.bury_record(slot, record, out);
            }
        };
        let matched = self.match_event(&event, out);
        let numbers: Vec<usize> = matched
            .iter()
            .filter_map(|&ix| self.registry.id(ix).and_then(endpoint_number))
            .collect();
        out.check.routed(partition, offset, &numbers);
        let Some(source) = self.sources[slot].as_mut() else {
            return;
        };
        let count = u32::try_from(matched.len()).unwrap_or(u32::MAX);
        source.tracker.seen(offset, count);
        let epoch = source.epoch;
        for &endpoint in &matched {
            let delivery = Delivery::new(
                Arc::clone(&event),
                endpoint,
                0,
                Ticket {
                    room: Room::Ingest,
                    slot: u32::try_from(slot).unwrap_or(u32::MAX),
                    epoch,
                    offset,
                },
            );
            let shard = self.shard_of(endpoint);
            self.desks[shard].hold(delivery);
        }
        self.matched = matched;
    }

    fn match_event(&mut self, event: &Event, out: &Outside) -> Vec<EndpointIx> {
        let mut matched = std::mem::take(&mut self.matched);
        matched.clear();
        let registry = &self.registry;
        registry.matching(&event.tenant, &event.event_type, &mut matched);
        if out.planted(Plant::OtherTenant) && event.tenant.ends_with('0') {
            registry.matching("t1", &event.event_type, &mut matched);
        }
        if out.planted(Plant::ForgetEndpoint) && matched.len() > 1 {
            matched.pop();
        }
        matched
    }

    pub(super) fn shard_of(&self, endpoint: EndpointIx) -> usize {
        usize::try_from(endpoint.0).unwrap_or(0) % self.desks.len()
    }

    fn bury_record(&mut self, slot: usize, record: &Record, out: &mut Outside) {
        let Some(source) = self.sources[slot].as_ref() else {
            return;
        };
        let dead = proto::Dead {
            cause: proto::DeadCause::Poison.into(),
            detail: "cannot be read".to_owned(),
            origin: Some(proto::Origin {
                topic: "events".to_owned(),
                partition: u32::try_from(source.partition).unwrap_or(0),
                offset: record.offset,
                timestamp_ms: record.at_ms,
            }),
            at_ms: self.clock(out).as_millis(),
            ..Default::default()
        };
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        let purpose = Purpose::Poison(slot, source.epoch, record.offset);
        let letter = NewRecord {
            to: (Topic::Dead, source.partition % DEAD_PARTITIONS),
            key: Bytes::new(),
            value: dead.to_value(),
        };
        self.burials += 1;
        out.append(self.id, vec![letter], purpose, 0);
    }

    /// A position has one open delivery fewer.
    pub(super) fn close(&mut self, closed: Closed, out: &mut Outside) {
        let slot = usize::try_from(closed.slot).unwrap_or(usize::MAX);
        let Some(Some(source)) = self.sources.get_mut(slot) else {
            return out.check.seen.note(Seen::ReportAfterRelease);
        };
        if source.epoch != closed.epoch && !out.planted(Plant::StaleTickets) {
            return out.check.seen.note(Seen::ReportAfterRelease);
        }
        if source.tracker.done(closed.offset) {
            out.check.closed(source.partition, closed.offset);
            self.want_commit(out);
        }
    }

    pub(super) fn commit_sources(&mut self, out: &mut Outside) {
        for slot in 0..self.sources.len() {
            self.commit_source(slot, out);
        }
    }

    fn commit_source(&mut self, slot: usize, out: &mut Outside) {
        let Some(source) = self.sources[slot].as_mut() else {
            return;
        };
        if source.committing || !source.tracker.dirty() {
            return;
        }
        source.committing = true;
        let mut at = source.tracker.committable();
        let mut metadata = source.tracker.metadata(self.metadata_max);
        if out.planted(Plant::CommitHighest) {
            (at, metadata) = (source.tracker.next(), String::new());
        } else if out.planted(Plant::CommitBackwards) && source.before + 2 < at {
            at -= 1;
            metadata = String::new();
        } else if out.planted(Plant::CommitBackwards) {
            at = at.saturating_sub(2);
            metadata = String::new();
        } else if out.planted(Plant::MetadataLies) {
            let mut lies = Tracker::new(at, 0);
            if source.tracker.next() > at + 1 {
                lies.seen(at, 1);
                lies.skip_to(source.tracker.next());
            }
            metadata = lies.metadata(self.metadata_max);
        }
        source.before = at;
        source.tracker.mark_committed();
        let place = (GroupId::Ingest, source.partition, source.epoch);
        self.commit(place, at, metadata, out);
    }

    pub(super) fn source_committed(
        &mut self,
        partition: usize,
        epoch: u64,
        end: CommitEnd,
        out: &mut Outside,
    ) {
        let Some(source) = self.source(partition, epoch) else {
            return;
        };
        source.committing = false;
        if end == CommitEnd::Done {
            if source.tracker.dirty() {
                self.want_commit(out);
            }
            return;
        }
        source.tracker.mark_dirty();
        if end == CommitEnd::MetadataTooLarge {
            self.metadata_max /= 2;
        }
        self.want_commit(out);
    }

    pub(super) fn revoke_source(&mut self, partition: usize, until: u64, out: &mut Outside) {
        let mut sources = self.sources.iter_mut().flatten();
        let live = sources.find(|one| one.partition == partition && one.revoking.is_none());
        if let Some(source) = live {
            source.backlog.clear();
            source.revoking = Some(until);
            if source.tracker.incomplete() > 0 {
                out.check.seen.note(Seen::RevokedInFlight);
            }
        }
    }

    pub(super) fn release_sources(&mut self, out: &mut Outside) {
        for slot in 0..self.sources.len() {
            let Some(source) = self.sources[slot].as_ref() else {
                continue;
            };
            let Some(until) = source.revoking else {
                continue;
            };
            let (partition, epoch, open) = (source.partition, source.epoch, source.is_open());
            let early = out.planted(Plant::ReleaseEarly);
            if !open || early || out.now_ms >= until {
                if open && !early {
                    out.check.seen.note(Seen::ReleasedOpen);
                    out.check.disrupted();
                } else {
                    out.check.seen.note(Seen::ReleasedClean);
                }
                self.sources[slot] = None;
                self.release(GroupId::Ingest, partition, epoch, out);
            } else if source.tracker.incomplete() == 0 {
                self.commit_source(slot, out);
            }
        }
    }

    pub(super) fn drop_source(&mut self, partition: usize, epoch: u64) {
        for slot in &mut self.sources {
            let gone =
                |source: &&mut Source| source.partition == partition && source.epoch == epoch;
            if slot.as_mut().filter(gone).is_some() {
                *slot = None;
            }
        }
    }

    /// Intake ends: what is not routed stays in the log.
    pub(super) fn stop_sources(&mut self) {
        for source in self.sources.iter_mut().flatten() {
            source.backlog.clear();
        }
    }

    pub(super) fn has_open_sources(&self) -> bool {
        self.sources.iter().flatten().any(Source::is_open)
    }
}
