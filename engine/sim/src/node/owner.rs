//! The node's owner room: the lane partitions it holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use posthaste_core::delivery::{Report, ReportEnd};
use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::lane::fold::{Change, Fact, Owed};
use posthaste_core::lane::owner::Owner;
use posthaste_core::limits::{GATE_DWELL, OPERATION_KEPT, PROGRESS_EVERY, SNAPSHOT_EVERY};
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::lines::as_read;
use super::{Happening, Node};
use crate::group::GroupId;
use crate::log::{NewRecord, Record, Topic, Value};
use crate::plan::START_MS;
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::Outside;

mod act;
mod opening;
mod operations;
mod release;
mod writes;

/// What is due is handed out so often, as in the server.
const TICK_MS: u64 = 50;
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

/// A lane partition under one assignment.
#[derive(Debug)]
pub(super) struct Part {
    epoch: u64,
    stage: Stage,
    bodies: BTreeMap<u64, proto::Deliver>,
    commit: Option<Commit>,
    writing: bool,
    revoking: Option<u64>,
    claim: Option<u64>,
    /// When it is looked at next.
    due_at: u64,
    flush_set: bool,
    draining: bool,
}

#[derive(Debug)]
enum Stage {
    /// Its state is being read; what comes meanwhile waits.
    Opening(Vec<(Vec<Record>, u64)>),
    Open(Box<Owner>),
}

/// A position to be committed.
#[derive(Debug)]
struct Commit {
    upto: u64,
    metadata: String,
    under_way: bool,
}

impl Part {
    fn new(epoch: u64) -> Self {
        Self {
            epoch,
            stage: Stage::Opening(Vec::new()),
            bodies: BTreeMap::new(),
            commit: None,
            writing: false,
            revoking: None,
            claim: None,
            due_at: u64::MAX,
            flush_set: false,
            draining: false,
        }
    }

    /// The state machine, once there is one.
    fn owner(&mut self) -> Option<&mut Owner> {
        match &mut self.stage {
            Stage::Opening(_) => None,
            Stage::Open(owner) => Some(owner),
        }
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        if let Some(owner) = self.owner() {
            owner.drain();
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        match &self.stage {
            Stage::Opening(_) => true,
            Stage::Open(owner) => {
                owner.is_drained() && !self.writing && owner.is_saved() && self.commit.is_none()
            }
        }
    }

    /// Keeps a body at hand, where there is room.
    fn keep(&mut self, offset: u64, value: &Bytes, left: &mut usize, plant: Option<Plant>) {
        if let Ok(deliver) = proto::Deliver::from_value(value)
            && (charge(&deliver) <= *left || plant == Some(Plant::KeepAllBodies))
        {
            *left = left.saturating_sub(charge(&deliver));
            if let Some(before) = self.bodies.insert(offset, deliver) {
                *left += charge(&before);
            }
        }
    }
}

fn charge(record: &proto::Deliver) -> usize {
    record.body.len() + 512
}

impl Node {
    pub(super) fn take_part(
        &mut self,
        (partition, epoch): (usize, u64),
        position: u64,
        metadata: String,
        out: &mut Outside,
    ) {
        out.check.lane_taken(partition);
        self.resume_at_snapshot(partition, &metadata, out);
        if let Some(old) = self.parts.insert(partition, Part::new(epoch)) {
            self.bodies_left += old.bodies.values().map(charge).sum::<usize>();
        }
        let wait = out.fetch_ms();
        let open = Happening::Open(partition, epoch, position, metadata);
        out.tell(wait, self.id, open);
    }

    fn part(&mut self, partition: usize, epoch: u64) -> Option<&mut Part> {
        let part = self.parts.get_mut(&partition);
        part.filter(|part| part.epoch == epoch)
    }

    fn owner(&mut self, partition: usize, epoch: u64) -> Option<&mut Owner> {
        self.part(partition, epoch).and_then(Part::owner)
    }

    /// The table was read on.
    pub(super) fn endpoints_changed(&mut self, out: &mut Outside) {
        for partition in self.parts.keys().copied().collect::<Vec<_>>() {
            let registry = self.endpoints(out);
            if let Some(owner) = self.parts.get_mut(&partition).and_then(Part::owner) {
                owner.set_endpoints(registry);
            }
            self.tell_operations(partition, out);
            self.look(partition, out);
        }
    }

    pub(super) fn part_batch(
        &mut self,
        (partition, epoch): (usize, u64),
        records: Vec<Record>,
        next: u64,
        out: &mut Outside,
    ) {
        let now = self.clock(out);
        let mut left = self.bodies_left;
        let mut settled = Vec::new();
        let Some(part) = self.part(partition, epoch) else {
            return;
        };
        if let Stage::Opening(early) = &mut part.stage {
            return early.push((records, next));
        }
        for record in &records {
            let (Value::Bytes(value), Stage::Open(owner)) = (&record.value, &mut part.stage) else {
                continue;
            };
            let read = as_read(out.plant, owner.fold(), record.offset, value);
            match owner.record(record.offset, &read, now) {
                Ok(Change::Owed(_)) => part.keep(record.offset, value, &mut left, out.plant),
                Ok(Change::Held(head)) => {
                    out.check.seen.note(Seen::Held);
                    if owner.has_read(head.owed.endpoint, record.offset) {
                        part.keep(record.offset, value, &mut left, out.plant);
                    }
                }
                Ok(Change::Facts(facts)) => {
                    for fact in facts {
                        if let Fact::Settled(offset, _) = fact {
                            settled.push(offset);
                        }
                        if let Fact::Settled(offset, _) = fact
                            && let Some(body) = part.bodies.remove(&offset)
                        {
                            left += charge(&body);
                        }
                    }
                }
                Ok(Change::Duplicate) => out.check.seen.note(Seen::DuplicateDropped),
                Ok(Change::Commanded(_)) => out.check.command_read(epoch, record.offset),
                Ok(Change::Claim | Change::Nothing) => {}
                Err(error) => unreachable!("the lane is well formed: {error}"),
            }
        }
        if let Some(owner) = part.owner() {
            owner.skip_to(next);
        }
        self.bodies_left = left;
        self.count_bodies(out);
        self.credit(GroupId::Owner, partition, epoch, records.len(), out);
        if out.planted(Plant::HandOutSettled) {
            for offset in settled {
                self.hand_out_settled(partition, offset, out);
            }
        }
        self.look(partition, out);
    }

    /// Bodies at hand stay within their budget.
    fn count_bodies(&self, out: &mut Outside) {
        let bodies = self.parts.values().flat_map(|part| part.bodies.values());
        out.check
            .bodies(bodies.map(charge).sum(), out.plan.bodies_max);
    }

    fn hand_out_settled(&mut self, partition: usize, offset: u64, out: &mut Outside) {
        let Some(record) = stored(partition, offset, out) else {
            return;
        };
        let id = |bytes: &Bytes| <[u8; 16]>::try_from(bytes.as_ref()).unwrap_or_default();
        let owed = Owed {
            delivery: DeliveryId::from_bytes(id(&record.delivery_id)),
            endpoint: EndpointId::from_bytes(id(&record.endpoint_id)),
            attempts: record.attempt,
            due: Timestamp::default(),
            deadline: Timestamp::from_millis(record.deadline_ms),
        };
        self.dispatch(partition, offset, owed, out);
    }

    /// Lets the partition be looked at when something is due.
    fn look(&mut self, partition: usize, out: &mut Outside) {
        let (now_ms, skew) = (out.now_ms, self.ahead_ms(out));
        let soon = self.clock(out).after(GATE_DWELL);
        let Some(part) = self.parts.get_mut(&partition) else {
            return;
        };
        let (writing, flush_set, epoch) = (part.writing, part.flush_set, part.epoch);
        let (draining, drained) = (part.draining, part.is_drained());
        let Some(owner) = part.owner() else {
            return;
        };
        // An owner looks at the line of a disabled endpoint every minute for ever,
        // also when it owes nothing: then only gates wait for a time.
        let idle = owner.fold().is_empty();
        // What is over is forgotten after the world's end, which comes some hours
        // earlier: nothing else is due as late.
        let far = Timestamp::from_millis(START_MS).after(OPERATION_KEPT - 4 * HOUR);
        let mut at = owner
            .next_due()
            .filter(|due| *due <= far)
            .filter(|due| !idle || *due <= soon)
            .map(|due| {
                let due = due.as_millis().saturating_add_signed(-skew);
                if out.planted(Plant::EarlyRetries) {
                    due.saturating_sub(3_600_000)
                } else {
                    due
                }
            });
        // A snapshot is due then at the latest, or as soon as all was told.
        if !owner.is_saved() || draining && !drained {
            let every = u64::try_from(SNAPSHOT_EVERY.as_millis()).unwrap_or(60_000);
            let wait = if draining { TICK_MS } else { every };
            at = Some(at.map_or(now_ms + wait, |at| at.min(now_ms + wait)));
        }
        if owner.facts_waiting() > 0 && !writing && !flush_set {
            part.flush_set = true;
            let wait = u64::try_from(PROGRESS_EVERY.as_millis()).unwrap_or(200);
            out.tell(wait, self.id, Happening::FlushFacts(partition, epoch));
        }
        let Some(at) = at else {
            return;
        };
        let at = at.max(now_ms + 1).next_multiple_of(TICK_MS);
        if at < part.due_at {
            part.due_at = at;
            out.tell(at - now_ms, self.id, Happening::Due(partition, epoch));
        }
    }

    /// The clock went forward or back: what is due is looked at anew.
    pub(super) fn jumped(&mut self, out: &mut Outside) {
        for partition in self.parts.keys().copied().collect::<Vec<_>>() {
            if let Some(part) = self.parts.get_mut(&partition) {
                part.due_at = u64::MAX;
            }
            self.look(partition, out);
        }
    }

    pub(super) fn due(&mut self, partition: usize, epoch: u64, out: &mut Outside) {
        let mut now = self.clock(out);
        if out.planted(Plant::EarlyRetries) {
            now = now.after(HOUR);
        }
        let now_ms = out.now_ms;
        let Some(part) = self.part(partition, epoch).filter(|p| p.due_at <= now_ms) else {
            return;
        };
        part.due_at = u64::MAX;
        let mut actions = Vec::new();
        if let Some(owner) = part.owner() {
            owner.tick(now, &mut actions);
        }
        self.act(partition, actions, out);
    }

    pub(super) fn report(&mut self, report: Report, out: &mut Outside) {
        let ticket = report.ticket;
        let partition = usize::try_from(ticket.slot).unwrap_or(usize::MAX);
        if self.part(partition, ticket.epoch).is_none() {
            return out.check.seen.note(Seen::ReportAfterRelease);
        }
        self.came_back(partition, ticket.offset, report.end, out);
    }

    /// Tells a partition what became of a delivery it handed out.
    fn came_back(&mut self, partition: usize, offset: u64, end: ReportEnd, out: &mut Outside) {
        let now = self.clock(out);
        let mut actions = Vec::new();
        if let Some(owner) = self.parts.get_mut(&partition).and_then(Part::owner) {
            owner.report(offset, end, now, &mut actions);
        }
        self.act(partition, actions, out);
    }
}

fn lane(partition: usize, value: Bytes) -> NewRecord {
    NewRecord {
        to: (Topic::Lane, partition),
        key: Bytes::new(),
        value,
    }
}

/// The lane record at an offset.
fn stored(partition: usize, offset: u64, out: &Outside) -> Option<proto::Deliver> {
    let (records, _) = out.log.read((Topic::Lane, partition), offset, 1);
    let record = records.first().filter(|record| record.offset == offset)?;
    let Value::Bytes(value) = &record.value else {
        return None;
    };
    proto::Deliver::from_value(value).ok()
}
