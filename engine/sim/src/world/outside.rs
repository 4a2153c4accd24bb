//! What lies outside the nodes: time, the log, the groups, the receivers, the
//! network, and the checker that sees it all.

use std::collections::BTreeMap;

use bytes::Bytes;
use posthaste_core::rng::Rng;

use super::{Arrival, Event, index};
use crate::checker::Checker;
use crate::group::{Group, GroupId, Order, Seat};
use crate::log::{Log, NewRecord, Topic, Tp, Value, Waiter};
use crate::node::{Happening, Purpose};
use crate::plan::{Plan, START_MS};
use crate::plant::Plant;
use crate::receiver::Receiver;
use crate::trace::Trace;

/// How a node can be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reach {
    /// It runs.
    pub alive: bool,
    /// Which of its lives it is.
    pub life: u64,
    /// It stands still until then.
    pub paused_until: u64,
    /// It cannot reach the log until then.
    pub cut_until: u64,
    /// How far its clock jumped, in milliseconds.
    pub jumped_ms: i64,
}

/// Everything outside the nodes.
#[derive(Debug)]
pub struct Outside {
    /// Virtual time.
    pub now_ms: u64,
    /// No faults any more.
    pub healed: bool,
    /// What was drawn.
    pub plan: Plan,
    /// A planted bug.
    pub plant: Option<Plant>,
    /// The log.
    pub log: Log,
    /// The groups.
    pub groups: BTreeMap<GroupId, Group>,
    /// The receivers.
    pub receivers: Vec<Receiver>,
    /// The checker.
    pub check: Checker,
    /// What happened.
    pub trace: Trace,
    /// How each node can be reached.
    pub reach: Vec<Reach>,
    /// For everything between nodes and the rest.
    pub rng: Rng,
    /// For the receivers.
    pub answers: Rng,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    numbers: u64,
}

impl Outside {
    pub(super) fn new(plan: Plan, plant: Option<Plant>) -> Self {
        let scripts = plan.endpoints.iter().map(|one| Receiver::new(one.script));
        let groups = GroupId::ALL.map(|id| {
            let partitions = match id {
                GroupId::Ingest => plan.source_partitions,
                GroupId::Owner => plan.lane_partitions,
            };
            (id, Group::new(partitions))
        });
        Self {
            now_ms: START_MS,
            healed: false,
            log: Log::default(),
            groups: groups.into_iter().collect(),
            receivers: scripts.collect(),
            check: Checker::new(&plan),
            trace: Trace::default(),
            reach: vec![Reach::default(); plan.nodes],
            rng: Rng::new(plan.seed ^ 0x0047_51de),
            answers: Rng::new(plan.seed ^ 0x000a_9355),
            queue: BTreeMap::new(),
            sequence: 0,
            numbers: 0,
            plan,
            plant,
        }
    }

    /// Lets something happen at a time.
    pub fn at(&mut self, at_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue
            .insert((at_ms.max(self.now_ms), self.sequence), event);
    }

    /// Lets something happen after a while.
    pub fn after(&mut self, wait_ms: u64, event: Event) {
        self.at(self.now_ms + wait_ms, event);
    }

    /// What happens next; time goes on to it.
    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        let ((at_ms, _), event) = self.queue.pop_first()?;
        self.now_ms = at_ms;
        self.check.at(at_ms);
        Some((at_ms, event))
    }

    /// Notes a step.
    pub fn note(&mut self, step: &[u64]) {
        self.trace.note(&[self.now_ms]);
        self.trace.note(step);
    }

    /// A number never given before: assignments and memberships.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Whether a fault strikes.
    pub fn strikes(&mut self, permille: u64) -> bool {
        permille > 0 && !self.healed && self.rng.below(1_000) < permille
    }

    /// Whether a planted bug is there.
    pub fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// Whether a node still lives that life.
    pub fn lives(&self, node: usize, life: u64) -> bool {
        let reach = &self.reach[node];
        reach.alive && reach.life == life
    }

    /// Until when a node stands still, if it does.
    pub fn paused_until(&self, node: usize) -> Option<u64> {
        Some(self.reach[node].paused_until).filter(|&until| until > self.now_ms)
    }

    /// Until when a node cannot reach the log, if so.
    pub fn cut_until(&self, node: usize) -> Option<u64> {
        Some(self.reach[node].cut_until).filter(|&until| until > self.now_ms)
    }

    /// A group.
    pub fn group(&mut self, id: GroupId) -> &mut Group {
        let Some(group) = self.groups.get_mut(&id) else {
            unreachable!("both groups are made at the start");
        };
        group
    }

    /// Time of an acknowledgement.
    pub fn ack_ms(&mut self) -> u64 {
        1 + self.rng.below(self.plan.log.ack_ms)
    }

    /// Time of a fetch.
    pub fn fetch_ms(&mut self) -> u64 {
        1 + self.rng.below(self.plan.log.fetch_ms)
    }

    /// Time of a commit.
    pub fn commit_ms(&mut self) -> u64 {
        if self.strikes(self.plan.log.commit_slow_permille) {
            return 1_000 + self.rng.below(9_000);
        }
        self.ack_ms()
    }

    /// Something happens to a node after a while.
    pub fn tell(&mut self, wait_ms: u64, node: usize, happening: Happening) {
        let life = self.reach[node].life;
        self.after(wait_ms, Event::Node(node, life, happening));
    }

    /// Sends records to the log.
    pub fn append(&mut self, node: usize, records: Vec<NewRecord>, purpose: Purpose, tries: u32) {
        // As the server does: doubled from 50 ms up to 5 s.
        let pause = match tries {
            0 => 0,
            tries => (50 << (tries - 1).min(7)).min(5_000),
        };
        let wait = pause + self.ack_ms();
        let life = self.reach[node].life;
        let arrival = Arrival {
            node,
            life,
            records,
            purpose,
            tries,
        };
        self.after(wait, Event::Arrive(arrival));
    }

    /// The log takes a record of ours.
    pub(super) fn store(&mut self, record: &NewRecord) -> u64 {
        let value = Value::Bytes(record.value.clone());
        let offset = self.put(record.to, record.key.clone(), value);
        match record.to.0 {
            Topic::Lane => self.check.lane_stored(record.to.1, offset, &record.value),
            Topic::Dead => self.check.dead_stored(&record.value),
            Topic::Table => self.check.table_stored(&record.value, offset),
            Topic::Events => {}
        }
        self.note(&[6, index(record.to.1), offset]);
        offset
    }

    /// Appends to the log and calls who waits for it.
    pub fn put(&mut self, to: Tp, key: Bytes, value: Value) -> u64 {
        let offset = self.log.append(to, key, value, self.now_ms);
        self.wake(to);
        offset
    }

    /// Calls who waits for a partition.
    pub fn wake(&mut self, tp: Tp) {
        for Waiter { node, life, epoch } in self.log.take_waiters(tp) {
            let wait = self.fetch_ms();
            let happening = match tp.0 {
                Topic::Table => Happening::FetchTable,
                Topic::Events => Happening::Fetch(GroupId::Ingest, tp.1, epoch),
                Topic::Lane | Topic::Dead => Happening::Fetch(GroupId::Owner, tp.1, epoch),
            };
            self.after(wait, Event::Node(node, life, happening));
        }
    }

    /// Sends the coordinator's orders.
    pub fn give(&mut self, group: GroupId, orders: Vec<(Seat, Order)>) {
        for (seat, order) in orders {
            let wait = 1 + self.rng.below(200);
            self.tell(wait, seat.node, Happening::Order(seat, group, order));
        }
    }
}
