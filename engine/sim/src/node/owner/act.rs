//! Does what the partitions' state machines say, as the server's owner does.

use std::sync::Arc;

use posthaste_core::delivery::{Delivery, ReportEnd, Room, Ticket, event_of};
use posthaste_core::gate::{Gate, GateState};
use posthaste_core::id::EndpointId;
use posthaste_core::lane::fold::Owed;
use posthaste_core::lane::owner::{Action, DisableReason, NoticeKind};
use posthaste_core::registry::{EndpointIx, gate_key, table_key};
use posthaste_core::retry::GiveUpCause;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::{Commit, Part, Stage, lane, stored};
use crate::log::{NewRecord, Topic, Value};
use crate::node::lines::snapshot_part;
use crate::node::{Happening, Node, Purpose};
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::Outside;

/// Records of one page at most.
const PAGE_RECORDS: usize = 400;

impl Node {
    /// Does what a partition's machine said.
    pub(super) fn act(&mut self, partition: usize, actions: Vec<Action>, out: &mut Outside) {
        for action in actions {
            self.act_one(partition, action, out);
        }
        self.look(partition, out);
    }

    fn act_one(&mut self, partition: usize, action: Action, out: &mut Outside) {
        let Some(epoch) = self.parts.get(&partition).map(|part| part.epoch) else {
            return;
        };
        match action {
            Action::Dispatch { offset, owed } => self.dispatch(partition, offset, owed, out),
            Action::Bury {
                offset,
                attempts,
                cause,
                last,
            } => {
                let late = cause == GiveUpCause::Expired && out.planted(Plant::LateRetries);
                let owner = self.owner(partition, epoch).filter(|_| late);
                match owner.and_then(|owner| owner.fold().owed(offset)) {
                    Some(owed) => self.dispatch(partition, offset, owed, out),
                    None => self.bury(partition, offset, (attempts, cause, last), out),
                }
            }
            Action::BuryRange(expired) => self.bury_range((partition, epoch), expired, out),
            Action::Read { endpoint, from, to } => {
                let wait = out.fetch_ms();
                let page = Happening::Page(partition, epoch, endpoint, from..to);
                out.tell(wait, self.id, page);
            }
            Action::Move { offset, owed } => self.move_behind(partition, offset, owed, out),
            Action::Gate { endpoint, gate } => self.publish(partition, endpoint, &gate, out),
            Action::Disable { endpoint, reason } => self.disable(endpoint, reason, out),
            Action::Notify(notice) => {
                let seen = match notice.kind {
                    NoticeKind::Disabled(_) => Some(Seen::ToldDisabled),
                    NoticeKind::Recovered { .. } => Some(Seen::ToldRecovered),
                    NoticeKind::Exhausted { .. } => Some(Seen::ToldExhausted),
                    // The gate beside it is looked at itself; and no receiver here
                    // answers 401 or 403.
                    NoticeKind::Down { .. } | NoticeKind::AuthFailing { .. } => None,
                };
                seen.into_iter().for_each(|seen| out.check.seen.note(seen));
            }
            Action::Operate(task) => self.operate((partition, epoch), task, out),
            Action::Snapshot { .. } if out.planted(Plant::NoSnapshots) => {}
            Action::Snapshot { parts } => {
                let records = parts
                    .into_iter()
                    .map(|part| lane(partition, snapshot_part(out.plant, part)));
                let purpose = Purpose::Snapshot(partition, epoch);
                out.append(self.id, records.collect(), purpose, 0);
                if out.planted(Plant::CommitBeforeParts) {
                    let end = out.log.end((Topic::Lane, partition));
                    self.snapshot_written(partition, epoch, end, out);
                }
            }
            Action::Commit { upto, metadata } => {
                if let Some(part) = self.part(partition, epoch) {
                    part.commit = Some(Commit {
                        upto,
                        metadata,
                        under_way: false,
                    });
                }
                self.commit_part(partition, out);
            }
        }
    }

    /// Publishes a gate; where a bug is planted, opens it at once.
    fn publish(&self, partition: usize, endpoint: EndpointId, gate: &Gate, out: &mut Outside) {
        let record = gate.to_proto(endpoint);
        self.write_gate(partition, endpoint, record.clone(), out);
        if gate.state == GateState::Held {
            out.check.seen.note(Seen::GateClosed);
            if out.planted(Plant::OpenGates) {
                let state = proto::gate::State::Open.into();
                self.write_gate(partition, endpoint, proto::Gate { state, ..record }, out);
            }
        }
    }

    fn write_gate(
        &self,
        partition: usize,
        endpoint: EndpointId,
        record: proto::Gate,
        out: &mut Outside,
    ) {
        if let Some(Stage::Open(owner)) = self.parts.get(&partition).map(|part| &part.stage) {
            let read_to = owner.fold().next();
            out.check.gate_written(&record, (partition, read_to));
        }
        self.write_table(gate_key(endpoint), record.to_value(), out);
    }

    fn write_table(&self, key: bytes::Bytes, value: bytes::Bytes, out: &mut Outside) {
        let record = NewRecord {
            to: (Topic::Table, 0),
            key,
            value,
        };
        out.append(self.id, vec![record], Purpose::Table, 0);
    }

    /// Disables an endpoint that is not so yet.
    fn disable(&self, endpoint: EndpointId, reason: DisableReason, out: &mut Outside) {
        let registry = &self.registry;
        let found = registry
            .index(endpoint)
            .and_then(|ix| registry.endpoint(ix));
        let Some(found) = found.filter(|found| !found.disabled) else {
            return;
        };
        let mut changed = (**found).clone();
        changed.disabled = true;
        changed.version += 1;
        let reason = match reason {
            DisableReason::Failing => "failing",
            DisableReason::Gone => "gone",
        };
        reason.clone_into(&mut changed.disabled_reason);
        self.write_table(table_key(endpoint), changed.to_proto().to_value(), out);
    }

    pub(super) fn dispatch(
        &mut self,
        partition: usize,
        offset: u64,
        owed: Owed,
        out: &mut Outside,
    ) {
        let now = self.clock(out).as_millis();
        let Some(part) = self.parts.get(&partition) else {
            return;
        };
        let Stage::Open(owner) = &part.stage else {
            return;
        };
        let read = (owner.fold().next(), part.claim);
        out.check
            .handed_out((partition, offset), part.epoch, read, now);
        if let Some(record) = part.bodies.get(&offset).cloned() {
            return self.hand_over(partition, offset, owed, &record, out);
        }
        out.check.seen.note(Seen::BodyRead);
        let epoch = part.epoch;
        let wait = out.fetch_ms();
        let read = Happening::Read(partition, epoch, offset, owed);
        out.tell(wait, self.id, read);
    }

    /// A body was read. The attempt keeps the number it was handed out with,
    /// whatever another owner told meanwhile.
    pub(in crate::node) fn read(
        &mut self,
        (partition, epoch): (usize, u64),
        offset: u64,
        owed: Owed,
        out: &mut Outside,
    ) {
        if self.part(partition, epoch).is_none() {
            return;
        }
        let failed =
            out.cut_until(self.id).is_some() || out.strikes(out.plan.log.read_fail_permille);
        match stored(partition, offset, out).filter(|_| !failed) {
            Some(record) => self.hand_over(partition, offset, owed, &record, out),
            None => {
                out.check.seen.note(Seen::BodyReadFailed);
                self.came_back(partition, offset, ReportEnd::Bounced, out);
            }
        }
    }

    /// A part of the lane was read for what an endpoint holds.
    pub(in crate::node) fn page(
        &mut self,
        (partition, epoch): (usize, u64),
        endpoint: EndpointId,
        range: std::ops::Range<u64>,
        out: &mut Outside,
    ) {
        if self.part(partition, epoch).is_none() {
            return;
        }
        let cut = out.cut_until(self.id);
        if cut.is_some() || out.strikes(out.plan.log.read_fail_permille) {
            let wait = cut.map_or(50, |until| until - out.now_ms + 1);
            let again = Happening::Page(partition, epoch, endpoint, range);
            return out.tell(wait, self.id, again);
        }
        out.check.seen.note(Seen::PageRead);
        let now = self.clock(out);
        let most = 1 + crate::plan::below(&mut out.rng, PAGE_RECORDS);
        let (records, next) = out.log.read((Topic::Lane, partition), range.start, most);
        let values: Vec<_> = records
            .iter()
            .filter_map(|record| match &record.value {
                Value::Bytes(value) => Some((record.offset, value)),
                Value::Event(_) | Value::Poison => None,
            })
            .collect();
        let mut left = self.bodies_left;
        let mut actions = Vec::new();
        if let Some(part) = self.part(partition, epoch)
            && let Some(owner) = part.owner()
        {
            let next = next.min(range.end);
            let wanted = owner.page(endpoint, next, values.iter().copied(), now, &mut actions);
            for (offset, value) in values {
                if wanted.binary_search(&offset).is_ok() {
                    part.keep(offset, value, &mut left, out.plant);
                }
            }
        }
        self.bodies_left = left;
        self.count_bodies(out);
        self.act(partition, actions, out);
    }

    fn hand_over(
        &mut self,
        partition: usize,
        offset: u64,
        owed: Owed,
        record: &proto::Deliver,
        out: &mut Outside,
    ) {
        let Some(endpoint) = self.registry.index(owed.endpoint) else {
            return self.came_back(partition, offset, ReportEnd::Bounced, out);
        };
        let Some(part) = self.parts.get(&partition) else {
            return;
        };
        let attempts = if out.planted(Plant::ResetAttempts) {
            0
        } else {
            owed.attempts + u32::from(out.planted(Plant::SkipNumbers))
        };
        let next = EndpointIx(endpoint.0 + 1);
        let endpoint = if out.planted(Plant::OtherEndpoint) && self.registry.id(next).is_some() {
            next
        } else {
            endpoint
        };
        let delivery = Delivery::new(
            Arc::new(event_of(record)),
            endpoint,
            attempts,
            Ticket {
                room: Room::Owner,
                slot: u32::try_from(partition).unwrap_or(u32::MAX),
                epoch: part.epoch,
                offset,
            },
        );
        self.hand(delivery, out);
    }

    pub(super) fn snapshot_written(
        &mut self,
        partition: usize,
        epoch: u64,
        part0: u64,
        out: &mut Outside,
    ) {
        let mut actions = Vec::new();
        if let Some(owner) = self.part(partition, epoch).and_then(Part::owner) {
            owner.snapshot_written(part0, &mut actions);
        }
        self.act(partition, actions, out);
    }
}
