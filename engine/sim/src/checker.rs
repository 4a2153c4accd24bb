//! The checker: what must hold at every step, and what must hold in the end.
//!
//! It knows the world as it is: what was published, what receivers took, what
//! the log holds. It keeps its own, plain account of all that, shares no code
//! with the core beyond the wire types, and compares whatever a node does with
//! it.

use std::collections::BTreeMap;

use posthaste_core::delivery::{Delivery, Room};
use posthaste_core::lane::fold::Fold;
use posthaste_core::limits::{SHARD_IN_FLIGHT_MAX, SHARD_QUEUED_MAX, SOURCE_SPAN_MAX};
use posthaste_core::outcome::{Outcome, Verdict};
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordType};

mod gates;
mod lane;
mod quick;
mod replays;
mod retries;
mod rules;
mod sources;
mod times;

use crate::plan::Plan;
use crate::seen::{Counts, Seen};
pub use lane::Lane;
pub use replays::Replays;
pub use rules::{RULES, Rule, Violation};
pub use sources::{Key, Sources};

/// An attempt as a node begins it.
#[derive(Debug)]
pub struct Start<'a> {
    /// The node.
    pub node: usize,
    /// What it sends.
    pub delivery: &'a Delivery,
    /// To which endpoint.
    pub endpoint: usize,
    /// How far the node has read the endpoints table.
    pub table_next: u64,
    /// … and when.
    pub table_at_ms: u64,
    /// Source partitions the node reads, of how many.
    pub share: (u32, u32),
}

/// The checker's account of the world. It keeps the first violation.
#[derive(Debug)]
pub struct Checker {
    /// What was published and what became of it.
    pub sources: Sources,
    /// What the lane says.
    pub lanes: Vec<Lane>,
    /// What was asked of owners.
    pub replays: Replays,
    /// Situations reached.
    pub seen: Counts,
    /// Attempts of lane deliveries that were handed out, by assignment and
    /// position, and the number each must have.
    expected: BTreeMap<(u64, u64), u32>,
    /// Failed attempts not yet told, by assignment and position: number, end,
    /// Retry-After.
    ends: BTreeMap<(u64, u64), (u32, u64, u64)>,
    in_flight: Vec<Vec<u32>>,
    /// … of first attempts.
    direct: Vec<Vec<u32>>,
    /// Ordering keys with an attempt in flight: node, assignment, endpoint, key.
    lines: BTreeMap<(usize, u64, usize, u64), u64>,
    gates: Vec<gates::Gate>,
    /// When each owner read each command, by assignment and position.
    commands_read: BTreeMap<(u64, u64), u64>,
    quick: quick::Quick,
    /// The gaps of each endpoint's retry policy, in seconds.
    gaps: Vec<Vec<u64>>,
    /// How much longer things may take where nodes and clocks stand still.
    stands_ms: u64,
    /// The last commit of each assignment.
    commits: BTreeMap<u64, u64>,
    disrupted: bool,
    /// Attempts begun.
    pub attempts: u64,
    /// Deliveries acknowledged twice.
    pub duplicates: u64,
    now_ms: u64,
    first: Option<Violation>,
}

impl Checker {
    /// An account of a world that has not begun.
    pub fn new(plan: &Plan) -> Self {
        Self {
            sources: Sources::new(plan),
            lanes: (0..plan.lane_partitions).map(|_| Lane::default()).collect(),
            replays: Replays::default(),
            seen: Counts::default(),
            expected: BTreeMap::new(),
            ends: BTreeMap::new(),
            in_flight: vec![vec![0; plan.endpoints.len()]; plan.nodes],
            direct: vec![vec![0; plan.endpoints.len()]; plan.nodes],
            lines: BTreeMap::new(),
            gates: plan
                .endpoints
                .iter()
                .map(|_| gates::Gate::default())
                .collect(),
            commands_read: BTreeMap::new(),
            quick: quick::Quick::new(plan),
            gaps: plan
                .endpoints
                .iter()
                .map(|one| times::gaps(plan, one.policy))
                .collect(),
            stands_ms: quick::stands_ms(plan),
            commits: BTreeMap::new(),
            disrupted: false,
            attempts: 0,
            duplicates: 0,
            now_ms: 0,
            first: None,
        }
    }

    /// Time goes on.
    pub fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// A rule is broken.
    pub fn broken(&mut self, rule: Rule, found: impl Into<String>) {
        if self.first.is_none() {
            self.first = Some(Violation {
                rule,
                at_ms: self.now_ms.saturating_sub(crate::plan::START_MS),
                found: found.into(),
            });
        }
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.first.as_ref()
    }

    /// Something happened after which duplicates may be.
    pub fn disrupted(&mut self) {
        self.disrupted = true;
    }

    /// A node died: what it had in flight goes on without it.
    pub fn died(&mut self, node: usize) {
        self.in_flight[node].fill(0);
        self.direct[node].fill(0);
        self.lines.retain(|(other, ..), _| *other != node);
        self.disrupted = true;
    }

    /// A node matched a source record with these endpoints.
    pub fn routed(&mut self, partition: usize, offset: u64, matched: &[usize]) {
        if let Err((rule, found)) = self.sources.routed(partition, offset, matched) {
            self.broken(rule, found);
        }
    }

    /// A node holds a position for settled.
    pub fn closed(&mut self, partition: usize, offset: u64) {
        if let Some(open) = self.sources.open(partition, offset) {
            self.broken(
                Rule::CloseSettled,
                format!("position {partition}/{offset} is closed with {open} open"),
            );
        }
    }

    /// A node holds a position for settled because commit metadata said so.
    pub fn known(&mut self, partition: usize, offset: u64) {
        self.seen.note(Seen::DoneAgain);
        if let Some(open) = self.sources.open(partition, offset) {
            self.broken(
                Rule::MetadataTrue,
                format!("metadata says that {partition}/{offset} is settled; open is {open}"),
            );
        }
    }

    /// An attempt begins.
    pub fn begins(&mut self, start: &Start<'_>) {
        self.attempts += 1;
        let delivery = start.delivery;
        let number = delivery.attempts + 1;
        let key = self.key_of(delivery, start.endpoint);
        if let Err((rule, found)) = self.sources.begins(key, delivery, number, start.table_next) {
            self.broken(rule, found);
        }
        if delivery.ticket.room == Room::Owner {
            let lane = (
                usize::try_from(delivery.ticket.slot).unwrap_or(usize::MAX),
                delivery.ticket.offset,
            );
            let place = (delivery.ticket.epoch, lane_key(lane.0, lane.1));
            let expected = self.expected.remove(&place);
            if expected != Some(number) {
                self.broken(
                    Rule::NumbersRise,
                    format!("attempt {number} of lane {lane:?}, expected {expected:?}"),
                );
            }
            if self.lanes[lane.0].is_settled(lane.1) {
                self.seen.note(Seen::SettledWhileQueued);
            }
            self.in_line(start, lane);
        }
        self.through_gate(start);
        self.within_share(start);
        self.young_enough(start);
        self.flies(start.endpoint, true, false);
        let limit = self.sources.limit(start.endpoint);
        let in_flight = &mut self.in_flight[start.node][start.endpoint];
        *in_flight += 1;
        if *in_flight > limit {
            let found = format!(
                "{in_flight} attempts at once to endpoint {}, limit {limit}",
                start.endpoint
            );
            self.broken(Rule::InFlight, found);
        }
    }

    /// A receiver ends an attempt, whether or not the node lives to hear it.
    pub fn answered(&mut self, key: Key, outcome: &Outcome, taken: bool) {
        if taken && outcome.verdict != Verdict::Delivered {
            self.seen.note(Seen::ResetAfterTaken);
        }
        if outcome.retry_after.is_some() {
            self.seen.note(Seen::RetryAfter);
        }
        let again = self.sources.answered(key, outcome.verdict, self.now_ms);
        if outcome.verdict == Verdict::Delivered {
            self.served(key);
            self.backlog(key, false);
        }
        if again.dead {
            self.seen.note(Seen::DeadThenDelivered);
        }
        if again.delivered {
            self.duplicates += 1;
            self.seen.note(Seen::Duplicate);
            if !self.disrupted {
                self.broken(Rule::Duplicates, format!("{key:?} arrived twice"));
            }
        }
    }

    /// A node hears the end of an attempt.
    pub fn ended(&mut self, node: usize, endpoint: usize, delivery: &Delivery, end: Ended<'_>) {
        let in_flight = &mut self.in_flight[node][endpoint];
        *in_flight = in_flight.saturating_sub(1);
        self.flies(endpoint, false, end.outcome.verdict == Verdict::Delivered);
        self.leaves_line(node, endpoint, delivery);
        if delivery.ticket.room == Room::Owner && end.outcome.verdict != Verdict::Delivered {
            let lane = usize::try_from(delivery.ticket.slot).unwrap_or(usize::MAX);
            let place = (
                delivery.ticket.epoch,
                lane_key(lane, delivery.ticket.offset),
            );
            let asked = end.outcome.retry_after.map_or(0, times::millis);
            self.ends
                .insert(place, (delivery.attempts + 1, end.node_now, asked));
        }
    }

    /// The lane holds a new record.
    pub fn lane_stored(&mut self, partition: usize, offset: u64, value: &bytes::Bytes) {
        let held = lane::held_anew(value, &mut self.sources);
        let stored = self.lanes[partition].stored(offset, value, &mut self.sources);
        let held = held.filter(|_| !stored.copied);
        if let Some(key) = stored.made {
            self.replays.made(key);
        }
        if let Some(key) = held {
            self.backlog(key, true);
        }
        if matches!(
            RecordType::of(value),
            Ok(RecordType::Deliver | RecordType::Progress)
        ) {
            self.tail_grows(partition, offset);
        }
        for seen in stored.seen {
            self.seen.note(seen);
        }
        if let Some((rule, found)) = stored.broken {
            self.broken(rule, format!("lane {partition}/{offset}: {found}"));
        }
    }

    /// The dead letters hold a new record.
    pub fn dead_stored(&mut self, value: &bytes::Bytes) {
        if let Ok(range) = proto::DeadRange::from_value(value) {
            return self.range_stored(&range);
        }
        match self.sources.dead_stored(value) {
            Ok(seen) => self.seen.note(seen),
            Err(found) => self.broken(Rule::DeadTrue, found),
        }
    }

    fn range_stored(&mut self, range: &proto::DeadRange) {
        self.seen.note(Seen::RangeExpired);
        let lane = usize::try_from(range.partition).unwrap_or(usize::MAX);
        let endpoint = sources::endpoint_number(&range.endpoint_id).unwrap_or(usize::MAX);
        let held = self.lanes[lane].held_in(endpoint, range.from..range.to);
        let keys = held.iter().map(|(key, _)| *key).collect();
        self.replays.buried(range, keys);
        for (key, deadline_ms) in held {
            self.sources.bury(key);
            let max_age_ms = self.sources.max_age_ms(endpoint);
            if range.at_ms < times::expires_from(deadline_ms, max_age_ms) {
                let found = format!("{key:?} is buried in a range before it expires");
                self.broken(Rule::DeadTrue, found);
            }
        }
    }

    /// A node commits; `live`: under an assignment it has.
    pub fn commits(&mut self, epoch: u64, at: u64, live: bool) {
        if !live {
            self.broken(
                Rule::CommitLive,
                format!("offset {at} under assignment {epoch}, which is gone"),
            );
        }
        let before = self.commits.entry(epoch).or_default();
        if at < *before {
            let found = format!("from {before} to {at} under assignment {epoch}");
            self.broken(Rule::CommitMonotone, found);
        } else {
            *before = at;
        }
    }

    /// A commit of a source partition stands.
    pub fn source_committed(&mut self, partition: usize, at: u64, metadata: &str) {
        if let Some((offset, open)) = self.sources.committed(partition, at) {
            self.broken(
                Rule::CommitBelowOpen,
                format!("partition {partition} at {at}, but {offset} has {open} open"),
            );
        }
        if metadata.is_empty() {
            return;
        }
        self.seen.note(Seen::MetadataUsed);
        if let Some((offset, open)) = self.sources.contradicts(partition, at, metadata) {
            self.broken(
                Rule::MetadataTrue,
                format!("partition {partition} at {at} says {offset} is settled; open is {open}"),
            );
        }
    }

    /// A commit of a lane partition stands. `records`: of the partition, from
    /// where the commit points to its end.
    pub fn lane_committed(
        &mut self,
        partition: usize,
        (at, metadata): (u64, &str),
        records: &[(u64, bytes::Bytes)],
    ) {
        self.tail_cut(partition, at);
        if let Err((rule, found)) = self.lanes[partition].resumes(at, metadata, records) {
            self.broken(rule, format!("lane {partition}: {found}"));
        }
    }

    /// The levels of one shard.
    pub fn shard_levels(&mut self, queued: usize, in_flight: usize, endpoints: usize) {
        let most = SHARD_QUEUED_MAX + posthaste_core::limits::QUEUE_ITEMS_FAIR * endpoints;
        if queued > most || in_flight > SHARD_IN_FLIGHT_MAX {
            self.broken(
                Rule::Budgets,
                format!("{queued} queued, {in_flight} in flight in one shard"),
            );
        }
    }

    /// Bytes of bodies at hand in one node, and how many it may have.
    pub fn bodies(&mut self, bytes: usize, most: usize) {
        if bytes > most {
            let found = format!("{bytes} bytes of bodies at hand, of {most}");
            self.broken(Rule::Budgets, found);
        }
    }

    /// The span of one source partition.
    pub fn span(&mut self, span: u64) {
        if span > SOURCE_SPAN_MAX {
            self.broken(Rule::Budgets, format!("a source partition spans {span}"));
        }
    }

    /// Deliveries that are not settled, in the end; at most a few are named.
    pub fn finish(&mut self) {
        let unsettled = self.sources.unsettled();
        if !unsettled.is_empty() {
            self.broken(
                Rule::NoLoss,
                format!("{} not settled: {:?}", unsettled.len(), &unsettled[0]),
            );
        }
        if let Err((rule, found)) = self.replays.finish(&mut self.sources) {
            self.broken(rule, found);
        }
    }

    /// Compares a lane partition's account with the core's fold of its records.
    /// `read`: how a node is told of a record.
    pub fn compare(
        &mut self,
        partition: usize,
        records: &[(u64, bytes::Bytes)],
        read: impl Fn(&Fold, u64, &bytes::Bytes) -> bytes::Bytes,
    ) {
        if let Err((rule, found)) = self.lanes[partition].compare(records, read) {
            self.broken(rule, format!("lane {partition}: {found}"));
        }
    }

    /// Whether the lane owes nothing.
    pub fn lane_is_settled(&mut self) -> bool {
        let sources = &mut self.sources;
        let mut lanes = self.lanes.iter();
        lanes.all(|lane| lane.open(sources).is_none())
    }

    /// Attempts a node has in flight.
    pub fn in_flight(&self, node: usize) -> u32 {
        self.in_flight[node].iter().sum()
    }
}

/// The end of an attempt as its node hears it.
#[derive(Debug)]
pub struct Ended<'a> {
    /// What it came to.
    pub outcome: &'a Outcome,
    /// By the node's clock.
    pub node_now: u64,
}

/// Lane partitions are few: their number fits above any offset.
fn lane_key(partition: usize, offset: u64) -> u64 {
    (u64::try_from(partition).unwrap_or(u64::MAX) << 48) | offset
}
