//! The world: events in virtual time, one after another, and what they reach.

use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::event::{Event as CoreEvent, JSON, Origin};
use posthaste_core::lane::fold::Fold;
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;

mod incidents;
mod operations;
mod outside;
mod replays;

use crate::checker::{Key, Rule, Violation};
use crate::group::{CommitEnd, GroupId, Seat};
use crate::log::{NewRecord, Topic, Value};
use crate::node::{Happening, Node, Purpose, as_read, endpoint_record, order_of};
use crate::plan::{Plan, START_MS, below};
use crate::plant::Plant;
use crate::receiver::Reply;
use crate::seen::{Counts, Seen};
use crate::trace::Trace;
pub use outside::{Outside, Reach};

/// Once faults have ended, everything settles within the retry schedule's 72
/// hours, and the time to notice.
const SETTLE_MS: u64 = 80 * 3_600_000;
/// Characters of a snapshot's place.
const PLACE_MAX: usize = 64;
/// More steps than any world takes that settles at all.
const STEPS_MAX: u64 = 30_000_000;

/// Something that happens at a time.
#[derive(Debug)]
pub enum Event {
    /// Events are published, from this one on.
    Publish(usize),
    /// This change is made to an endpoint.
    Change(usize),
    /// This incident strikes.
    Incident(usize),
    /// An operator does this.
    Operate(usize),
    /// An operator who heard no answer asks again.
    Again(Vec<NewRecord>),
    /// Nothing new goes wrong from here on.
    Healed,
    /// A node starts.
    Start(usize),
    /// The groups' offsets are gone.
    Forget,
    /// Records reach the log.
    Arrive(Arrival),
    /// A receiver answers.
    Answer(Box<Answer>),
    /// The coordinator has not heard of a member for too long.
    Expire(Seat),
    /// A member joins.
    Join(Seat),
    /// A member leaves.
    Leave(Seat),
    /// A member gives a partition back.
    Released(Seat, GroupId, usize),
    /// A commit reaches the coordinator.
    Commit(Commit),
    /// Something reaches a node, if it still lives that life.
    Node(usize, u64, Happening),
}

/// Records on their way to the log.
#[derive(Debug)]
pub struct Arrival {
    /// From whom.
    pub node: usize,
    /// In which of its lives.
    pub life: u64,
    /// The records.
    pub records: Vec<NewRecord>,
    /// What they are for.
    pub purpose: Purpose,
    /// How often they were sent before.
    pub tries: u32,
}

/// A receiver's answer.
#[derive(Debug)]
pub struct Answer {
    /// To whom.
    pub node: usize,
    /// In which of its lives.
    pub life: u64,
    /// The shard that made the attempt.
    pub shard: usize,
    /// Which delivery.
    pub key: Key,
    /// What was sent.
    pub delivery: posthaste_core::delivery::Delivery,
    /// The answer.
    pub reply: Reply,
}

/// A commit on its way.
#[derive(Debug)]
pub struct Commit {
    /// From whom.
    pub seat: Seat,
    /// In which of its lives.
    pub life: u64,
    /// Of which group.
    pub group: GroupId,
    /// Of which partition.
    pub partition: usize,
    /// Under which assignment.
    pub epoch: u64,
    /// The offset.
    pub at: u64,
    /// The metadata.
    pub metadata: String,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The first rule broken, if any.
    pub violation: Option<Violation>,
    /// Deliveries there were.
    pub deliveries: u64,
    /// Attempts made.
    pub attempts: u64,
    /// Deliveries acknowledged twice.
    pub duplicates: u64,
    /// Virtual time it took.
    pub virtual_ms: u64,
    /// Everything that happened.
    pub trace: Trace,
    /// Situations reached.
    pub seen: Counts,
}

/// A world.
#[derive(Debug)]
pub struct World {
    pub(crate) out: Outside,
    pub(crate) nodes: Vec<Node>,
    publish: Rng,
    operate: Rng,
}

/// Runs a plan, with a planted bug or without.
pub fn run(plan: &Plan, plant: Option<Plant>) -> Verdict {
    World::new(plan.clone(), plant).run()
}

impl World {
    fn new(plan: Plan, plant: Option<Plant>) -> Self {
        let nodes = (0..plan.nodes).map(|id| Node::new(id, &plan)).collect();
        let mut world = Self {
            publish: Rng::new(plan.seed ^ 0x009a_b115),
            operate: Rng::new(plan.seed ^ 0x000b_e7a7),
            out: Outside::new(plan, plant),
            nodes,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let out = &mut self.out;
        for number in 0..out.plan.endpoints.len() {
            let (key, value) = endpoint_record(&out.plan, number, None);
            out.log
                .append((Topic::Table, 0), key, Value::Bytes(value), START_MS);
        }
        for node in 0..out.plan.nodes {
            out.after(out_of(node), Event::Start(node));
        }
        out.after(50, Event::Publish(0));
        for (number, change) in out.plan.changes.clone().iter().enumerate() {
            out.at(START_MS + change.at_ms, Event::Change(number));
        }
        for (number, incident) in out.plan.incidents.clone().iter().enumerate() {
            out.at(START_MS + incident.at_ms, Event::Incident(number));
        }
        for (number, operation) in out.plan.operations.clone().iter().enumerate() {
            out.at(START_MS + operation.at_ms, Event::Operate(number));
        }
        out.at(out.plan.faults_end_ms(), Event::Healed);
    }

    fn run(mut self) -> Verdict {
        let horizon = self.out.plan.last_ms() + SETTLE_MS;
        while let Some((at_ms, event)) = self.out.next() {
            if at_ms > horizon || self.out.trace.steps() > STEPS_MAX {
                self.out
                    .check
                    .broken(Rule::AllSettles, "something goes on and on");
            }
            if self.out.check.violation().is_some() {
                break;
            }
            self.step(event);
        }
        self.finish();
        let check = &self.out.check;
        Verdict {
            violation: check.violation().cloned(),
            deliveries: check.sources.deliveries(),
            attempts: check.attempts,
            duplicates: check.duplicates,
            virtual_ms: self.out.now_ms - START_MS,
            trace: self.out.trace,
            seen: check.seen.clone(),
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Publish(first) => self.publish(first),
            Event::Change(number) => self.change(number),
            Event::Incident(number) => self.incident(number),
            Event::Operate(number) => self.operate(number),
            Event::Again(records) => self.again(&records),
            Event::Healed => {
                self.out.healed = true;
                self.out.check.healed();
            }
            Event::Start(node) => self.start(node),
            Event::Forget => self.forget(),
            Event::Arrive(arrival) => self.arrive(arrival),
            Event::Answer(answer) => self.answer(answer),
            Event::Expire(seat) => self.expire(seat),
            Event::Join(seat) => self.membership(seat, true),
            Event::Leave(seat) => self.membership(seat, false),
            Event::Released(seat, group, partition) => {
                if let Some(until) = self.out.cut_until(seat.node) {
                    self.out
                        .at(until + 10, Event::Released(seat, group, partition));
                    return;
                }
                let orders = self.out.group(group).released(seat, partition);
                self.out.give(group, orders);
            }
            Event::Commit(commit) => self.commit(&commit),
            Event::Node(node, life, happening) => self.happen(node, life, happening),
        }
    }

    /// Offsets are forgotten only of groups without members.
    fn forget(&mut self) {
        if self.out.reach.iter().any(|reach| reach.alive) {
            return;
        }
        self.out.note(&[1]);
        self.out.check.seen.note(Seen::Forgotten);
        self.out.check.disrupted();
        self.out
            .groups
            .values_mut()
            .for_each(|group| group.forget());
    }

    fn publish(&mut self, first: usize) {
        let plan = &self.out.plan;
        let left = plan.events - first;
        let burst = (1 + below(&mut self.publish, plan.burst)).min(left);
        let gap = plan.span_ms * u64::try_from(burst).unwrap_or(1)
            / u64::try_from(plan.events).unwrap_or(1);
        for number in first..first + burst {
            self.publish_one(number);
        }
        if burst < left {
            let wait = self.publish.below(2 * gap + 1);
            self.out.after(wait, Event::Publish(first + burst));
        }
    }

    fn publish_one(&mut self, number: usize) {
        let r = &mut self.publish;
        let plan = &self.out.plan;
        let partition = below(r, plan.source_partitions);
        let at = (Topic::Events, partition);
        let now_ms = self.out.now_ms;
        let poison = r.below(1_000) < plan.poison_permille;
        let gap = r.below(100) < plan.gap_percent;
        let hot = r.below(100) < plan.hot_percent;
        let tenant = if hot { 0 } else { below(r, plan.tenants) };
        let kind = below(r, plan.types);
        self.out.note(&[2, index(partition), index(number)]);
        if poison {
            self.out.check.sources.poisoned(partition);
            self.out.put(at, Bytes::new(), Value::Poison);
        } else {
            let event = Arc::new(CoreEvent {
                id: format!("evt_{number}").into(),
                tenant: format!("t{tenant}").into(),
                event_type: format!("kind.{kind}").into(),
                content_type: JSON,
                body: Bytes::from(format!("{{\"n\":{number}}}")),
                ordering_key: Bytes::new(),
                origin: Origin {
                    topic: "events".into(),
                    partition: u32::try_from(partition).unwrap_or(0),
                    offset: self.out.log.end(at),
                    timestamp: Timestamp::from_millis(now_ms),
                },
            });
            let plan = &self.out.plan;
            let first = |endpoint| {
                let key = Key::of(&event.origin, endpoint);
                order_of(plan, key) == Some(0)
            };
            let shared = Arc::clone(&event);
            self.out
                .check
                .published(partition, shared, (tenant, kind), first);
            self.out.put(at, Bytes::new(), Value::Event(event));
        }
        if gap {
            self.out.check.seen.note(Seen::HoleSkipped);
            self.out.check.sources.hole(partition);
            self.out.log.gap(at);
            self.out.wake(at);
        }
    }

    /// Records reach the log, or do not; the answer goes back.
    fn arrive(&mut self, arrival: Arrival) {
        let out = &mut self.out;
        let cut = out.cut_until(arrival.node).is_some();
        let lives = out.lives(arrival.node, arrival.life);
        let mut results = Vec::with_capacity(arrival.records.len());
        for record in &arrival.records {
            let faults = out.plan.log;
            let failed = cut || out.strikes(faults.fail_permille);
            let unknown = out.strikes(faults.unknown_permille);
            if failed {
                out.check.seen.note(Seen::AppendFailed);
                results.push(None);
                continue;
            }
            let offset = out.store(record);
            if !lives {
                out.check.seen.note(Seen::AppendedPosthumously);
            }
            if unknown {
                out.check.seen.note(Seen::AppendUnknown);
                out.check.disrupted();
                results.push(None);
            } else {
                results.push(Some(offset));
            }
        }
        let wait = out.ack_ms();
        let (node, life) = (arrival.node, arrival.life);
        let happening = Happening::Appended(arrival, results);
        out.after(wait, Event::Node(node, life, happening));
    }

    fn answer(&mut self, answer: Box<Answer>) {
        let out = &mut self.out;
        let Answer { node, life, .. } = *answer;
        out.note(&[
            3,
            index(node),
            answer.key.offset,
            index(answer.key.endpoint),
        ]);
        out.check
            .answered(answer.key, &answer.reply.outcome, answer.reply.taken);
        self.happen(node, life, Happening::Finished(answer));
    }

    fn happen(&mut self, node: usize, life: u64, happening: Happening) {
        if !self.out.lives(node, life) {
            return;
        }
        if let Some(until) = self.out.paused_until(node) {
            self.out.at(until, Event::Node(node, life, happening));
            return;
        }
        self.out.note(&[4, index(node), happening.number()]);
        self.nodes[node].happen(happening, &mut self.out);
        if self.nodes[node].has_stopped() {
            self.stopped(node);
        }
    }

    fn commit(&mut self, commit: &Commit) {
        let out = &mut self.out;
        let seat = commit.seat;
        let faults = out.plan.log;
        let end = if out.cut_until(seat.node).is_some() || out.strikes(faults.commit_fail_permille)
        {
            out.check.seen.note(Seen::CommitFailed);
            CommitEnd::Failed
        } else {
            self.commit_arrives(commit)
        };
        let out = &mut self.out;
        out.note(&[5, index(commit.partition), commit.at, end as u64]);
        let answer = (commit.at, end);
        let happening = Happening::Committed(commit.group, commit.partition, commit.epoch, answer);
        let wait = out.ack_ms();
        out.after(wait, Event::Node(seat.node, commit.life, happening));
    }

    fn commit_arrives(&mut self, commit: &Commit) -> CommitEnd {
        let out = &mut self.out;
        let metadata_max = match commit.group {
            GroupId::Ingest => out.plan.metadata_max,
            // A snapshot's place has no shorter form.
            GroupId::Owner => out.plan.metadata_max.max(PLACE_MAX),
        };
        let group = out.group(commit.group);
        let before = group.committed(commit.partition).map_or(0, |(at, _)| *at);
        let (at, metadata) = (commit.at, &commit.metadata);
        let place = (commit.partition, commit.epoch);
        let end = group.commit(commit.seat, place, at, metadata, metadata_max);
        let late = group.is_late(commit.partition);
        let seen = &mut out.check.seen;
        match end {
            CommitEnd::Failed => seen.note(Seen::CommitFenced),
            CommitEnd::MetadataTooLarge => seen.note(Seen::MetadataTooLarge),
            CommitEnd::Done => {
                if late {
                    seen.note(Seen::CommitLate);
                    out.check.disrupted();
                }
                if at < before {
                    out.check.seen.note(Seen::CommitRewound);
                }
                match commit.group {
                    GroupId::Ingest => out.check.source_committed(commit.partition, at, metadata),
                    GroupId::Owner => {
                        let records = out.log.lane(commit.partition, at);
                        let said = (at, metadata.as_str());
                        out.check.lane_committed(commit.partition, said, &records);
                    }
                }
            }
        }
        end
    }

    fn finish(&mut self) {
        if self.out.check.violation().is_some() {
            return;
        }
        self.out.check.finish();
        let check = &mut self.out.check;
        if !check.lane_is_settled() {
            check.broken(Rule::AllSettles, "the lane owes something");
        }
        for partition in 0..self.out.plan.source_partitions {
            let end = self.out.log.end((Topic::Events, partition));
            let group = self.out.group(GroupId::Ingest);
            let committed = group.committed(partition).map_or(0, |(at, _)| *at);
            if committed != end && !group.is_late(partition) {
                self.out.check.broken(
                    Rule::LagZero,
                    format!("partition {partition} is committed to {committed}, its end is {end}"),
                );
            }
        }
        for node in 0..self.nodes.len() {
            let told = self.out.check.in_flight(node);
            let held = self.nodes[node].in_flight();
            if told != 0 || held != 0 {
                self.out.check.broken(
                    Rule::LagZero,
                    format!("node {node} has {told} attempts in flight, its shards {held}"),
                );
            }
        }
        self.compare_folds();
    }

    fn compare_folds(&mut self) {
        for partition in 0..self.out.plan.lane_partitions {
            let records = self.out.log.lane(partition, 0);
            let plant = self.out.plant;
            let read = |fold: &Fold, offset, value: &Bytes| as_read(plant, fold, offset, value);
            self.out.check.compare(partition, &records, read);
            let late = self.out.group(GroupId::Owner).is_late(partition);
            self.out.check.tails_end(partition, late);
        }
    }
}

/// Nodes do not start all at once.
fn out_of(node: usize) -> u64 {
    u64::try_from(node).unwrap_or(0) * 7
}

/// A number for the trace.
pub(crate) fn index(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
