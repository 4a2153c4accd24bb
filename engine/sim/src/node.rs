//! A node: what the server does around the core's machines, under virtual time.
//!
//! ```text
//!  ingest (tracker) --> shards --> receivers          the rooms of the server,
//!    ^   owner (fold) --^  |                          without their threads
//!    +-- closed, reports --+--> appends --> log
//! ```
//!
//! It is thin on purpose: whatever decides something is the core's. Planted bugs
//! stand here, each behind [`Outside::planted`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::id::{EndpointId, OperationId};
use posthaste_core::lane::fold::Owed;
use posthaste_core::operation::Operations;
use posthaste_core::registry::{EndpointIx, Registry, Table, table_key};
use posthaste_core::shard::Append;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

mod consumer;
mod dispatch;
mod ingest;
mod lines;
mod owner;

use crate::group::{CommitEnd, GroupId, Order, Seat};
use crate::log::{Topic, Value, Waiter};
use crate::plan::{ChangeKind, Plan, START_MS, Wants};
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::{Answer, Arrival, Outside};
use consumer::Lease;
use dispatch::Desk;
pub(crate) use ingest::DEAD_PARTITIONS;
use ingest::Source;
pub(crate) use lines::{as_read, order_of};
use owner::Part;

/// Positions are committed so often, as in the server.
const COMMIT_MS: u64 = 1_000;
/// A stopping node takes so long at most.
const DRAIN_MS: u64 = 25_000;

/// What reaches a node.
#[derive(Debug)]
pub enum Happening {
    /// It starts.
    Boot,
    /// It is told to stop, and to start again after so long.
    Stop(u64),
    /// The endpoints table is read on.
    FetchTable,
    /// A partition is read on.
    Fetch(GroupId, usize, u64),
    /// The coordinator orders something.
    Order(Seat, GroupId, Order),
    /// It was put out of its groups.
    Lost(Seat),
    /// The rooms hear that these assignments are gone.
    RoomsLost(Vec<(GroupId, usize, u64)>),
    /// The log answered.
    Appended(Arrival, Vec<Option<u64>>),
    /// A commit was answered.
    Committed(GroupId, usize, u64, (u64, CommitEnd)),
    /// A receiver answered.
    Finished(Box<Answer>),
    /// Time for what a shard does every few milliseconds.
    Flush(usize),
    /// A shard's appender has waited long enough after a failure.
    AppendAgain(usize),
    /// Something of a lane partition is due.
    Due(usize, u64),
    /// Facts of a lane partition are to be written.
    FlushFacts(usize, u64),
    /// The log answered a read of the state of a lane partition: assignment, and
    /// the position committed with its metadata.
    Open(usize, u64, u64, String),
    /// The log answered a read of a body: lane partition, assignment, offset and
    /// what is owed.
    Read(usize, u64, u64, Owed),
    /// The log answered a read of what an endpoint holds.
    Page(usize, u64, EndpointId, std::ops::Range<u64>),
    /// The log answered a read for an operation: of this range, these records.
    LookUp(usize, u64, OperationId, u32, std::ops::Range<u64>),
    /// Its clock jumped.
    Jumped,
    /// Time to commit.
    CommitTick,
    /// Time to look whether revoked partitions, or the node, are done.
    Check,
}

/// What appended records are for.
#[derive(Debug)]
pub enum Purpose {
    /// What a shard wants in the log.
    Shard(usize, Vec<Append>),
    /// The claim on a lane partition.
    Claim(usize, u64),
    /// Facts about a lane partition.
    Facts(usize, u64),
    /// The dead letter of the lane record at this offset.
    Bury(usize, u64, u64),
    /// The dead letter of what an endpoint holds.
    BuryRange(usize, u64, EndpointId),
    /// The lane record at this offset, again.
    Move(usize, u64, u64),
    /// The parts of a snapshot.
    Snapshot(usize, u64),
    /// The endpoints table.
    Table,
    /// What an operation makes.
    Made(usize, u64, OperationId),
    /// How far an operation is.
    Told(usize, u64, OperationId),
    /// The dead letter of a source record: slot, assignment, offset.
    Poison(u32, u64, u64),
}

/// A node.
#[derive(Debug)]
pub struct Node {
    id: usize,
    skew_ms: i64,
    seat: Option<Seat>,
    table: Table,
    table_next: u64,
    /// When it was read on last.
    table_at_ms: u64,
    registry: Arc<Registry>,
    operations: Operations,
    leases: BTreeMap<(GroupId, usize), Lease>,
    sources: Vec<Option<Source>>,
    parts: BTreeMap<usize, Part>,
    bodies_left: usize,
    desks: Vec<Desk>,
    matched: Vec<EndpointIx>,
    metadata_max: usize,
    commit_set: bool,
    burials: usize,
    stopping: Option<Stopping>,
    shards_seed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Stopping {
    until_ms: u64,
    down_ms: u64,
    done: bool,
}

/// The id of an endpoint by its number.
pub fn endpoint_id(number: usize) -> EndpointId {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let mut bytes = [0; 16];
    // Spread over lane partitions, which a hash of it chooses.
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    EndpointId::from_bytes(bytes)
}

/// The number of an endpoint by its id.
pub fn endpoint_number(id: EndpointId) -> Option<usize> {
    let number: [u8; 4] = id.as_bytes()[12..].try_into().ok()?;
    usize::try_from(u32::from_be_bytes(number)).ok()
}

/// The table's key and record of an endpoint, changed or as it was planned.
pub fn endpoint_record(plan: &Plan, number: usize, change: Option<ChangeKind>) -> (Bytes, Bytes) {
    let planned = &plan.endpoints[number];
    let id = endpoint_id(number);
    let key = table_key(id);
    if change == Some(ChangeKind::Delete) {
        return (key, Bytes::new());
    }
    let event_types = match planned.wants {
        Wants::All => Vec::new(),
        Wants::One(kind) => vec![format!("kind.{kind}")],
        Wants::Wild => vec!["kind.*".to_owned()],
        Wants::Twice => vec!["*".to_owned(), "kind.*".to_owned()],
    };
    let record = proto::Endpoint {
        id: id.as_bytes().to_vec().into(),
        tenant: format!("t{}", planned.tenant),
        url: format!("https://example.com/{number}"),
        event_types,
        secrets: vec![proto::Secret {
            id: "s1".to_owned(),
            text: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
            ..Default::default()
        }],
        max_in_flight: match change {
            Some(ChangeKind::Limit(limit)) => limit,
            _ => planned.max_in_flight,
        },
        retry_policy: lines::policy_name(planned.policy),
        max_age_ms: planned.max_age_ms,
        disabled: change == Some(ChangeKind::Disable),
        created_at_ms: START_MS,
        owned: planned.owned,
        ordered: planned.ordered,
        fifo: planned.fifo,
        ..Default::default()
    };
    (key, record.to_value())
}

impl Node {
    /// A node that does nothing yet.
    pub fn new(id: usize, plan: &Plan) -> Self {
        // Every second clock is behind, the others ahead.
        let skew = i64::try_from(plan.skew_ms).unwrap_or(0);
        let skew_ms = match id % 3 {
            0 => 0,
            1 => skew,
            _ => -skew,
        };
        let mut table = Table::default();
        table.set_policies(lines::policies(plan));
        Self {
            id,
            skew_ms,
            seat: None,
            table,
            table_next: 0,
            table_at_ms: 0,
            registry: Arc::default(),
            operations: Operations::default(),
            leases: BTreeMap::new(),
            sources: Vec::new(),
            parts: BTreeMap::new(),
            bodies_left: plan.bodies_max,
            desks: Vec::new(),
            matched: Vec::new(),
            metadata_max: posthaste_core::limits::COMMIT_METADATA_MAX,
            commit_set: false,
            burials: 0,
            stopping: None,
            shards_seed: plan.seed,
        }
    }

    /// Its current membership.
    pub fn seat(&self) -> Option<Seat> {
        self.seat
    }

    /// Attempts in flight, as its shards count.
    pub fn in_flight(&self) -> usize {
        self.desks.iter().map(Desk::in_flight).sum()
    }

    /// Whether it has stopped of itself.
    pub fn has_stopped(&self) -> bool {
        self.stopping.is_some_and(|stopping| stopping.done)
    }

    /// How long a stopped node stays down.
    pub fn stop_for(&self) -> Option<u64> {
        self.stopping.map(|stopping| stopping.down_ms)
    }

    /// The node's clock.
    fn clock(&self, out: &Outside) -> Timestamp {
        Timestamp::from_millis(out.now_ms.saturating_add_signed(self.ahead_ms(out)))
    }

    /// How far its clock is ahead.
    fn ahead_ms(&self, out: &Outside) -> i64 {
        self.skew_ms + out.reach[self.id].jumped_ms
    }

    /// Something happens.
    pub fn happen(&mut self, happening: Happening, out: &mut Outside) {
        match happening {
            Happening::Boot => self.boot(out),
            Happening::Stop(down_ms) => self.stop(down_ms, out),
            Happening::FetchTable => self.fetch_table(out),
            Happening::Fetch(group, partition, epoch) => self.fetch(group, partition, epoch, out),
            Happening::Order(seat, group, order) => self.order(seat, group, order, out),
            Happening::Lost(seat) => self.lost(seat, out),
            Happening::RoomsLost(gone) => self.rooms_lost(&gone),
            Happening::Appended(arrival, results) => self.appended(arrival, results, out),
            Happening::Committed(group, partition, epoch, end) => {
                self.committed(group, partition, epoch, end, out);
            }
            Happening::Finished(answer) => self.finished(*answer, out),
            Happening::Flush(shard) => self.flush(shard, out),
            Happening::AppendAgain(shard) => self.append_again(shard, out),
            Happening::Due(partition, epoch) => self.due(partition, epoch, out),
            Happening::FlushFacts(partition, epoch) => self.flush_facts(partition, epoch, out),
            Happening::Open(partition, epoch, position, metadata) => {
                self.open((partition, epoch), position, metadata, out);
            }
            Happening::Read(partition, epoch, offset, owed) => {
                self.read((partition, epoch), offset, owed, out);
            }
            Happening::Page(partition, epoch, endpoint, range) => {
                self.page((partition, epoch), endpoint, range, out);
            }
            Happening::LookUp(partition, epoch, id, range, stretch) => {
                self.look_up((partition, epoch), id, (range, stretch), out);
            }
            Happening::Jumped => self.jumped(out),
            Happening::CommitTick => self.commit_tick(out),
            Happening::Check => self.check_stopping(out),
        }
        self.release_revoked(out);
    }

    fn boot(&mut self, out: &mut Outside) {
        let wait = out.fetch_ms();
        out.tell(wait, self.id, Happening::FetchTable);
        for _ in 0..out.plan.shards {
            let seed = self.shards_seed ^ out.number();
            self.desks.push(Desk::new(Arc::clone(&self.registry), seed));
        }
        if out.planted(Plant::RegistryLate) {
            self.join(out);
        }
    }

    /// Reads the table; ingest and owner start once it was read to its end.
    fn fetch_table(&mut self, out: &mut Outside) {
        let table = (Topic::Table, 0);
        if let Some(until) = out.cut_until(self.id) {
            let wait = until - out.now_ms + 10;
            return out.tell(wait, self.id, Happening::FetchTable);
        }
        let (records, next) = out.log.read(table, self.table_next, 500);
        for record in records {
            if let Value::Bytes(value) = &record.value
                && let Some(value) = lines::table_read(out.plant, &record.key, value)
            {
                let asked = self.operations.apply(&record.key, &value);
                if asked == Ok(false) {
                    let read = self.table.apply(&record.key, &value);
                    assert!(read.is_ok(), "the table is well formed: {read:?}");
                }
                assert!(asked.is_ok(), "operations are well formed: {asked:?}");
            }
        }
        let moved = next > self.table_next;
        self.table_next = next;
        self.table_at_ms = out.now_ms;
        if moved {
            let first = self.registry.is_empty();
            self.registry = self.table.snapshot();
            if first || !out.planted(Plant::StaleRegistry) {
                for desk in &mut self.desks {
                    desk.set_registry(Arc::clone(&self.registry), out);
                }
            }
            self.endpoints_changed(out);
        }
        if next < out.log.end(table) {
            let wait = out.fetch_ms();
            return out.tell(wait, self.id, Happening::FetchTable);
        }
        let life = out.reach[self.id].life;
        out.log.wait(
            table,
            Waiter {
                node: self.id,
                life,
                epoch: 0,
            },
        );
        if self.seat.is_none() && self.stopping.is_none() {
            self.join(out);
        }
    }

    /// Lets the next commit happen within [`COMMIT_MS`].
    fn want_commit(&mut self, out: &mut Outside) {
        if !std::mem::replace(&mut self.commit_set, true) {
            out.tell(COMMIT_MS, self.id, Happening::CommitTick);
        }
    }

    fn commit_tick(&mut self, out: &mut Outside) {
        self.commit_set = false;
        self.commit_sources(out);
        self.commit_parts(out);
    }

    fn release_revoked(&mut self, out: &mut Outside) {
        self.release_sources(out);
        self.release_parts(out);
    }

    fn stop(&mut self, down_ms: u64, out: &mut Outside) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping {
            until_ms: out.now_ms + DRAIN_MS,
            down_ms,
            done: false,
        });
        self.stop_sources();
        self.drain_parts(out);
        for shard in 0..self.desks.len() {
            self.evacuate(shard, out);
        }
        out.tell(20, self.id, Happening::Check);
    }

    fn check_stopping(&mut self, out: &mut Outside) {
        let Some(stopping) = self.stopping else {
            return;
        };
        self.commit_sources(out);
        self.commit_parts(out);
        let clean = self.burials == 0
            && !self.has_open_sources()
            && self.parts.values().all(Part::is_drained)
            && self.desks.iter().all(Desk::is_idle);
        let late = out.now_ms >= stopping.until_ms;
        if clean {
            out.check.seen.note(Seen::DrainedClean);
        } else if late {
            out.check.disrupted();
        } else {
            return out.tell(20, self.id, Happening::Check);
        }
        self.stopping = Some(Stopping {
            done: true,
            ..stopping
        });
    }
}

impl Happening {
    /// Its number, for the trace.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Boot => 0,
            Self::Stop(_) => 1,
            Self::FetchTable => 2,
            Self::Fetch(..) => 3,
            Self::Order(..) => 4,
            Self::Lost(_) => 5,
            Self::RoomsLost(_) => 6,
            Self::Appended(..) => 7,
            Self::Committed(..) => 8,
            Self::Finished(_) => 9,
            Self::Flush(_) => 10,
            Self::AppendAgain(_) => 11,
            Self::Due(..) => 12,
            Self::FlushFacts(..) => 13,
            Self::Read(..) => 14,
            Self::CommitTick => 15,
            Self::Check => 16,
            Self::Open(..) => 17,
            Self::Page(..) => 18,
            Self::Jumped => 19,
            Self::LookUp(..) => 20,
        }
    }
}
