//! The node's shards, and the hands that do what they say.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::delivery::{Closed, Delivery, Report, ReportEnd, Room};
use posthaste_core::lane::partition_of;
use posthaste_core::limits::{APPEND_BATCH_RECORDS, MAILBOX_BATCH};
use posthaste_core::outcome::{Cause, Outcome, Verdict};
use posthaste_core::registry::Registry;
use posthaste_core::rng::Rng;
use posthaste_core::shard::{Action, Append, AppendKind, Shard};
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::ingest::DEAD_PARTITIONS;
use super::lines::{keyed, order_of};
use super::{Happening, Node, Purpose, endpoint_number};
use crate::checker::{Ended, Start};
use crate::group::GroupId;
use crate::log::{NewRecord, Topic};
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::{Answer, Event, Outside};

/// Closed tickets and reports leave a shard so often, as in the server.
const FLUSH_MS: u64 = 5;
/// While deliveries only wait, so often is enough.
const IDLE_FLUSH_MS: u64 = 20;
/// What waits too long is moved on so often, as in the server.
const SWEEP_MS: u64 = 100;

/// One shard and what waits around it.
#[derive(Debug)]
pub(super) struct Desk {
    shard: Shard,
    actions: Vec<Action>,
    /// From ingest, not yet taken.
    held: VecDeque<Delivery>,
    appends: VecDeque<Append>,
    appending: bool,
    failures: u32,
    closed: Vec<Closed>,
    reports: Vec<Report>,
    flush_set: bool,
    swept_at: u64,
    draining: bool,
}

impl Desk {
    pub(super) fn new(registry: Arc<Registry>, seed: u64) -> Self {
        Self {
            shard: Shard::new(registry, Rng::new(seed)),
            actions: Vec::new(),
            held: VecDeque::new(),
            appends: VecDeque::new(),
            appending: false,
            failures: 0,
            closed: Vec::new(),
            reports: Vec::new(),
            flush_set: false,
            swept_at: 0,
            draining: false,
        }
    }

    pub(super) fn set_registry(&mut self, registry: Arc<Registry>, out: &mut Outside) {
        if self.shard.queued() > 0 {
            out.check.seen.note(Seen::DisabledWhileQueued);
        }
        let registry = if out.planted(Plant::WideWindow) {
            widened(out)
        } else {
            registry
        };
        self.shard.set_registry(registry);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.shard.in_flight()
    }

    /// Whether ingest should hand over nothing now.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= MAILBOX_BATCH
    }

    pub(super) fn hold(&mut self, delivery: Delivery) {
        self.held.push_back(delivery);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
            && self.shard.in_flight() == 0
            && self.shard.unacked_bytes() == 0
            && self.closed.is_empty()
            && self.reports.is_empty()
    }
}

/// The endpoints with every limit at its most, for a planted bug.
fn widened(out: &Outside) -> Arc<Registry> {
    let mut table = posthaste_core::registry::Table::default();
    table.set_policies(super::lines::policies(&out.plan));
    for number in 0..out.plan.endpoints.len() {
        let wide = crate::plan::ChangeKind::Limit(posthaste_core::limits::IN_FLIGHT_MAX);
        let (key, value) = super::endpoint_record(&out.plan, number, Some(wide));
        let read = table.apply(&key, &value);
        assert!(read.is_ok(), "the table is well formed: {read:?}");
    }
    table.snapshot()
}

impl Node {
    /// Offers what ingest handed over until the shards want no more.
    pub(super) fn offer_held(&mut self, out: &mut Outside) {
        for shard in 0..self.desks.len() {
            let now = self.clock(out);
            let desk = &mut self.desks[shard];
            while let Some(delivery) = desk.held.pop_front() {
                if out.planted(Plant::OneAtATime) && desk.shard.in_flight() > 0 {
                    desk.held.push_front(delivery);
                    break;
                }
                if desk.draining {
                    desk.shard.refuse(delivery, now, &mut desk.actions);
                } else if let Err(back) = desk.shard.offer(delivery, now, false, &mut desk.actions)
                {
                    out.check.seen.note(Seen::IntakeBlocked);
                    desk.held.push_front(back);
                    break;
                }
            }
            self.apply(shard, None, out);
        }
    }

    /// Hands a lane delivery to its shard; what has no room goes back.
    pub(super) fn hand(&mut self, delivery: Delivery, out: &mut Outside) {
        let shard = self.shard_of(delivery.endpoint);
        let now = self.clock(out);
        let desk = &mut self.desks[shard];
        if desk.draining {
            desk.shard.refuse(delivery, now, &mut desk.actions);
        } else {
            let taken = desk.shard.offer(delivery, now, true, &mut desk.actions);
            assert!(taken.is_ok(), "an owner's delivery is taken or bounced");
        }
        self.apply(shard, None, out);
    }

    /// Does what a shard said. `last`: what the attempt came to that made it
    /// say so.
    fn apply(&mut self, shard: usize, last: Option<&Outcome>, out: &mut Outside) {
        let actions = std::mem::take(&mut self.desks[shard].actions);
        for action in actions {
            match action {
                Action::Send(delivery) => self.send(shard, delivery, out),
                Action::Append(append) => self.push_append(shard, append, last, out),
                Action::Close(ticket) => self.desks[shard].closed.push(ticket.into()),
                Action::Report(report) => self.desks[shard].reports.push(report),
            }
        }
        let endpoints = out.plan.endpoints.len();
        let desk = &mut self.desks[shard];
        out.check
            .shard_levels(desk.shard.queued(), desk.shard.in_flight(), endpoints);
        let leaves = !desk.closed.is_empty() || !desk.reports.is_empty();
        let waits = desk.shard.queued() > 0 || !desk.held.is_empty();
        if (leaves || waits) && !desk.flush_set {
            desk.flush_set = true;
            let wait = if leaves { FLUSH_MS } else { IDLE_FLUSH_MS };
            out.tell(wait, self.id, Happening::Flush(shard));
        }
        self.append_waiting(shard, out);
    }

    fn send(&mut self, shard: usize, mut delivery: Delivery, out: &mut Outside) {
        let id = self.registry.id(delivery.endpoint);
        let Some(endpoint) = id.and_then(endpoint_number) else {
            unreachable!("an index is never taken back");
        };
        if delivery.attempts > 0 && out.planted(Plant::NewEventId) {
            Arc::make_mut(&mut delivery.event).id = "evt_other".into();
        }
        if delivery.attempts > 0 && out.planted(Plant::NewBody) {
            Arc::make_mut(&mut delivery.event).body = Bytes::from_static(b"{}");
        }
        let starts = if out.planted(Plant::SendTwice) { 2 } else { 1 };
        for _ in 0..starts {
            out.check.begins(&Start {
                node: self.id,
                delivery: &delivery,
                endpoint,
                table_next: self.table_next,
                table_at_ms: self.table_at_ms,
                share: self.share(out),
            });
        }
        self.note_zombie(&delivery, out);
        let now_ms = out.now_ms;
        let key = out.check.key_of(&delivery, endpoint);
        let first = order_of(&out.plan, key) == Some(0);
        let (healed, receiver) = (out.healed, &mut out.receivers[endpoint]);
        let reply = receiver.answer(now_ms, healed, first, &mut out.answers);
        let answer = Answer {
            node: self.id,
            life: out.reach[self.id].life,
            shard,
            key,
            delivery,
            reply,
        };
        out.after(reply.after_ms, Event::Answer(Box::new(answer)));
    }

    fn note_zombie(&self, delivery: &Delivery, out: &mut Outside) {
        let group = match delivery.ticket.room {
            Room::Ingest => GroupId::Ingest,
            Room::Owner => GroupId::Owner,
        };
        let seat = self.seat;
        if seat.is_some_and(|seat| !out.group(group).has(seat)) {
            out.check.seen.note(Seen::Zombie);
        }
    }

    pub(super) fn finished(&mut self, answer: Answer, out: &mut Outside) {
        let Answer {
            shard,
            key,
            delivery,
            reply,
            ..
        } = answer;
        let now = self.clock(out);
        let ended = Ended {
            outcome: &reply.outcome,
            node_now: now.as_millis(),
        };
        out.check.ended(self.id, key.endpoint, &delivery, ended);
        if reply.outcome.cause == Some(Cause::TimeoutHeaders) {
            out.check.seen.note(Seen::TimedOut);
        }
        if out.planted(Plant::ForgetSlots) && key.offset.is_multiple_of(5) {
            return;
        }
        let mut outcome = reply.outcome;
        if out.planted(Plant::FailureIsDone) && outcome.verdict == Verdict::Retry {
            outcome = Outcome::response(200, None, now);
        } else if out.planted(Plant::SuccessFails) && outcome.verdict == Verdict::Delivered {
            outcome = Outcome::failed(Cause::ConnectionReset);
        }
        let desk = &mut self.desks[shard];
        desk.shard
            .finished(delivery, outcome, now, &mut desk.actions);
        self.apply(shard, Some(&outcome), out);
        if !self.desks[shard].held.is_empty() {
            self.route(out);
        }
    }

    pub(super) fn flush(&mut self, shard: usize, out: &mut Outside) {
        let now = self.clock(out);
        let desk = &mut self.desks[shard];
        desk.flush_set = false;
        desk.shard.tick(now, &mut desk.actions);
        if out.now_ms >= desk.swept_at + SWEEP_MS {
            desk.swept_at = out.now_ms;
            desk.shard.sweep(now, &mut desk.actions);
            if desk.shard.suspects_itself() {
                out.check.suspects_itself();
            }
        }
        let closed = std::mem::take(&mut desk.closed);
        let slow = out.planted(Plant::SlowReports) && out.now_ms % 2_000 > 20;
        let reports = match slow {
            true => Vec::new(),
            false => std::mem::take(&mut desk.reports),
        };
        for one in closed {
            self.close(one, out);
        }
        for report in reports {
            self.report_of(report, out);
        }
        self.apply(shard, None, out);
        if !self.desks[shard].held.is_empty() {
            self.route(out);
        }
    }

    /// Source partitions this node reads, of all, where first attempts keep to
    /// their part.
    fn share(&self, out: &Outside) -> (u32, u32) {
        if !out.plan.shares {
            return (1, 1);
        }
        let mine = self
            .leases
            .keys()
            .filter(|(group, _)| *group == GroupId::Ingest);
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        (count(mine.count()), count(out.plan.source_partitions))
    }

    /// Shards hear of the node's part at once.
    pub(super) fn share_out(&mut self, out: &Outside) {
        let (mine, all) = match out.planted(Plant::IgnoreShare) {
            true => (1, 1),
            false => self.share(out),
        };
        for desk in &mut self.desks {
            desk.shard.set_share(mine, all);
        }
    }

    fn report_of(&mut self, mut report: Report, out: &mut Outside) {
        if matches!(report.end, ReportEnd::Bounced) {
            out.check.seen.note(Seen::Bounced);
            if out.planted(Plant::BounceCounts) {
                report.end = ReportEnd::Attempted(Outcome::failed(Cause::ConnectionReset));
            }
        }
        if out.planted(Plant::DropReports) && report.ticket.offset.is_multiple_of(7) {
            return;
        }
        self.report(report, out);
    }

    fn push_append(
        &mut self,
        shard: usize,
        mut append: Append,
        last: Option<&Outcome>,
        out: &mut Outside,
    ) {
        if let AppendKind::Lane(_) = append.kind
            && let Ok(record) = proto::Deliver::from_value(&append.value)
        {
            if let Some(value) = keyed(&out.plan, &append.value) {
                append.value = value;
            }
            let now = self.clock(out).as_millis();
            out.check.lane_written(&record, last, now);
        }
        let desk = &mut self.desks[shard];
        if out.planted(Plant::CloseBeforeAck) {
            desk.closed.push(Closed {
                slot: append.ticket.slot,
                epoch: append.ticket.epoch,
                offset: append.ticket.offset,
            });
        }
        if out.planted(Plant::LoseAppends) && append.ticket.offset.is_multiple_of(9) {
            return;
        }
        desk.appends.push_back(append);
    }

    fn append_waiting(&mut self, shard: usize, out: &mut Outside) {
        let desk = &mut self.desks[shard];
        if desk.appending || desk.appends.is_empty() {
            return;
        }
        desk.appending = true;
        let count = desk.appends.len().min(APPEND_BATCH_RECORDS);
        let batch: Vec<_> = desk.appends.drain(..count).collect();
        let lane = u32::try_from(out.plan.lane_partitions).unwrap_or(1);
        let dead = u32::try_from(DEAD_PARTITIONS).unwrap_or(1);
        let record = |append: &Append| {
            let (topic, partitions) = match append.kind {
                AppendKind::Lane(_) => (Topic::Lane, lane),
                AppendKind::Dead(_) => (Topic::Dead, dead),
            };
            let partition = partition_of(append.endpoint, partitions);
            NewRecord {
                to: (topic, usize::try_from(partition).unwrap_or(0)),
                key: Bytes::new(),
                value: append.value.clone(),
            }
        };
        let records = batch.iter().map(record).collect();
        out.append(self.id, records, Purpose::Shard(shard, batch), 0);
    }

    pub(super) fn shard_appended(
        &mut self,
        shard: usize,
        batch: Vec<Append>,
        results: &[Option<u64>],
        out: &mut Outside,
    ) {
        let now = self.clock(out);
        let desk = &mut self.desks[shard];
        let mut failed = Vec::new();
        for (append, result) in batch.into_iter().zip(results) {
            if result.is_none() && !out.planted(Plant::CloseOnFailedAppend) {
                failed.push(append);
                continue;
            }
            let charge = append.charge;
            desk.closed.push(append.ticket.into());
            desk.shard.acknowledged(charge, now, &mut desk.actions);
        }
        if failed.is_empty() {
            desk.failures = 0;
            desk.appending = false;
        } else {
            // What failed goes first: a lane keeps its order as far as it can.
            failed
                .into_iter()
                .rev()
                .for_each(|append| desk.appends.push_front(append));
            let wait = (50 << desk.failures.min(7)).min(5_000);
            desk.failures += 1;
            out.tell(wait, self.id, Happening::AppendAgain(shard));
        }
        self.apply(shard, None, out);
        if !self.desks[shard].held.is_empty() {
            self.route(out);
        }
    }

    pub(super) fn append_again(&mut self, shard: usize, out: &mut Outside) {
        self.desks[shard].appending = false;
        self.append_waiting(shard, out);
    }

    /// The node stops: what waits goes to the lane or back to its owner.
    pub(super) fn evacuate(&mut self, shard: usize, out: &mut Outside) {
        let now = self.clock(out);
        let desk = &mut self.desks[shard];
        desk.draining = true;
        desk.shard.evacuate(now, &mut desk.actions);
        self.apply(shard, None, out);
        self.offer_held(out);
    }
}
