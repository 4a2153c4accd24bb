//! What was published, who must get it, and what became of each delivery.

use posthaste_core::delivery::Delivery;
use posthaste_core::event::{Event, Origin};
use posthaste_core::id::EndpointId;
use posthaste_core::offsets::Tracker;
use posthaste_core::outcome::Verdict;
use posthaste_proto as proto;

use super::{Rule, times};

use crate::plan::{ChangeKind, Plan, Wants};
use std::sync::Arc;

mod ends;

/// One delivery: the position of its event, and its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Source partition.
    pub partition: usize,
    /// Source offset.
    pub offset: u64,
    /// Endpoint.
    pub endpoint: usize,
    /// 0, or of which command that had it delivered again.
    pub generation: u32,
}

/// What the checker finds broken.
pub(super) type Broken = (Rule, String);

/// What became of one delivery.
#[derive(Debug)]
struct Account {
    endpoint: usize,
    generation: u32,
    /// Some node matched it.
    routed: bool,
    delivered: bool,
    laned: bool,
    dead: bool,
    /// A receiver answered 410.
    gone: bool,
    /// An operator's command settled it.
    cancelled: bool,
    started: u32,
    failed: u32,
    /// Assignments under which a first attempt was made.
    firsts: Vec<u64>,
}

#[derive(Debug)]
enum Slot {
    Hole,
    Poison {
        buried: bool,
    },
    Event {
        event: Arc<Event>,
        kind: usize,
        tenant: usize,
        accounts: Vec<Account>,
    },
}

#[derive(Debug)]
struct Known {
    limit: u32,
    /// It was disabled or deleted at some time.
    changed: bool,
    /// Since this record of the table it takes nothing.
    blocked_at: Option<u64>,
    /// A receiver answered 410.
    gone: bool,
    /// When its receiver took something last, or the world began.
    taken_ms: u64,
    /// Attempts its retry policy has.
    attempts: u32,
    ordered: bool,
    fifo: bool,
    /// How old an event may be; 0 for no bound.
    max_age_ms: u64,
}

/// What a receiver's success found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Again {
    /// It was delivered before.
    pub(super) delivered: bool,
    /// It was given up before.
    pub(super) dead: bool,
}

/// Every source record and every delivery of it.
#[derive(Debug)]
pub struct Sources {
    partitions: Vec<Vec<Slot>>,
    /// Below, everything was found settled.
    covered: Vec<u64>,
    endpoints: Vec<Known>,
    /// Who wants what, by tenant and type, in order.
    wanting: Vec<Vec<Vec<usize>>>,
    /// Furthest a clock may have jumped.
    jumps_ms: u64,
}

impl Key {
    /// Of an event's origin.
    pub fn of(origin: &Origin, endpoint: usize) -> Self {
        Self {
            partition: usize::try_from(origin.partition).unwrap_or(usize::MAX),
            offset: origin.offset,
            endpoint,
            generation: 0,
        }
    }

    /// Of a lane record.
    pub fn of_record(record: &proto::Deliver) -> Option<Self> {
        let origin = record.origin.as_ref()?;
        Some(Self {
            partition: usize::try_from(origin.partition).ok()?,
            offset: origin.offset,
            endpoint: endpoint_number(&record.endpoint_id)?,
            generation: match record.generation.as_ref() {
                [] => 0,
                id => u32::from_be_bytes(*id.last_chunk()?),
            },
        })
    }
}

/// The number of an endpoint by its id.
pub(super) fn endpoint_number(id: &[u8]) -> Option<usize> {
    let id = EndpointId::from_bytes(id.try_into().ok()?);
    crate::node::endpoint_number(id)
}

impl Account {
    fn new(endpoint: usize, generation: u32) -> Self {
        Self {
            endpoint,
            generation,
            routed: false,
            delivered: false,
            laned: false,
            dead: false,
            gone: false,
            cancelled: false,
            started: 0,
            failed: 0,
            firsts: Vec::new(),
        }
    }

    fn is_settled(&self) -> bool {
        self.delivered || self.laned || self.dead
    }

    fn has_ended(&self) -> bool {
        self.delivered || self.dead || self.cancelled
    }

    fn place(&self) -> (usize, u32) {
        (self.endpoint, self.generation)
    }
}

impl Sources {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut wanting = vec![vec![Vec::new(); plan.types]; plan.tenants];
        for (number, endpoint) in plan.endpoints.iter().enumerate() {
            for (kind, wanting) in wanting[endpoint.tenant].iter_mut().enumerate() {
                if !matches!(endpoint.wants, Wants::One(one) if one != kind) {
                    wanting.push(number);
                }
            }
        }
        let known = |endpoint: &crate::plan::Endpoint| Known {
            limit: endpoint.max_in_flight,
            changed: false,
            blocked_at: None,
            gone: false,
            taken_ms: crate::plan::START_MS,
            attempts: times::attempts(&times::gaps(plan, endpoint.policy)),
            ordered: endpoint.ordered,
            fifo: endpoint.fifo || endpoint.ordered,
            max_age_ms: endpoint.max_age_ms,
        };
        Self {
            partitions: (0..plan.source_partitions).map(|_| Vec::new()).collect(),
            covered: vec![0; plan.source_partitions],
            endpoints: plan.endpoints.iter().map(known).collect(),
            wanting,
            jumps_ms: plan.jumps_ms(),
        }
    }

    /// An event was published.
    pub fn published(&mut self, partition: usize, event: Arc<Event>, tenant: usize, kind: usize) {
        self.partitions[partition].push(Slot::Event {
            event,
            kind,
            tenant,
            accounts: Vec::new(),
        });
    }

    /// Who wants such an event.
    pub(super) fn wanting(&self, tenant: usize, kind: usize) -> &[usize] {
        &self.wanting[tenant][kind]
    }

    /// Something unreadable was published.
    pub fn poisoned(&mut self, partition: usize) {
        self.partitions[partition].push(Slot::Poison { buried: false });
    }

    /// The log has a hole.
    pub fn hole(&mut self, partition: usize) {
        self.partitions[partition].push(Slot::Hole);
    }

    /// The endpoints table has a new record.
    pub fn changed(&mut self, endpoint: usize, kind: ChangeKind, table_offset: u64) {
        let known = &mut self.endpoints[endpoint];
        match kind {
            ChangeKind::Disable | ChangeKind::Delete => {
                known.changed = true;
                known.blocked_at.get_or_insert(table_offset);
            }
            ChangeKind::Enable => known.blocked_at = None,
            // Nodes that have not read it yet follow the old one.
            ChangeKind::Limit(limit) => {
                known.limit = known.limit.max(limit);
                known.blocked_at = None;
            }
        }
    }

    pub(super) fn limit(&self, endpoint: usize) -> u32 {
        self.endpoints[endpoint].limit
    }

    /// Whether an endpoint was disabled or deleted at some time.
    pub(super) fn is_changed(&self, endpoint: usize) -> bool {
        self.endpoints
            .get(endpoint)
            .is_some_and(|known| known.changed)
    }

    fn slot(&mut self, partition: usize, offset: u64) -> Option<&mut Slot> {
        let place = usize::try_from(offset).ok()?;
        self.partitions.get_mut(partition)?.get_mut(place)
    }

    fn account(&mut self, key: Key) -> Option<&mut Account> {
        let Slot::Event { accounts, .. } = self.slot(key.partition, key.offset)? else {
            return None;
        };
        let wanted = (key.endpoint, key.generation);
        let place = match accounts.binary_search_by_key(&wanted, Account::place) {
            Ok(place) => place,
            Err(place) => {
                accounts.insert(place, Account::new(key.endpoint, key.generation));
                place
            }
        };
        accounts.get_mut(place)
    }

    pub(super) fn routed(
        &mut self,
        partition: usize,
        offset: u64,
        matched: &[usize],
    ) -> Result<(), Broken> {
        let at = format!("event {partition}/{offset}");
        let Some(Slot::Event { kind, tenant, .. }) = self.slot(partition, offset) else {
            return Err((Rule::Matching, format!("{at} is none")));
        };
        let (kind, tenant) = (*kind, *tenant);
        let wanting = std::mem::take(&mut self.wanting[tenant][kind]);
        let mut sorted = matched.to_vec();
        sorted.sort_unstable();
        let twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
        let stranger = sorted
            .iter()
            .find(|one| wanting.binary_search(one).is_err());
        let missing = wanting
            .iter()
            .find(|one| sorted.binary_search(one).is_err() && !self.endpoints[**one].changed);
        let verdict = if twice {
            Err(format!("{at} was matched twice with one endpoint"))
        } else if let Some(stranger) = stranger {
            Err(format!("{at} was matched with endpoint {stranger}"))
        } else if let Some(missing) = missing {
            Err(format!("{at} was not matched with endpoint {missing}"))
        } else {
            Ok(())
        };
        self.wanting[tenant][kind] = wanting;
        for endpoint in sorted {
            let key = Key {
                partition,
                offset,
                endpoint,
                generation: 0,
            };
            if let Some(account) = self.account(key) {
                account.routed = true;
            }
        }
        verdict.map_err(|found| (Rule::Matching, found))
    }

    /// Deliveries of a position that are open, if any, as a text.
    pub(super) fn open(&self, partition: usize, offset: u64) -> Option<String> {
        let place = usize::try_from(offset).ok()?;
        match self.partitions.get(partition)?.get(place) {
            None => Some("nothing yet".to_owned()),
            Some(Slot::Hole | Slot::Poison { buried: true }) => None,
            Some(Slot::Poison { buried: false }) => Some("a poison record".to_owned()),
            Some(Slot::Event {
                kind,
                tenant,
                accounts,
                ..
            }) => {
                let settled = |endpoint: usize| {
                    let found = accounts.binary_search_by_key(&(endpoint, 0), Account::place);
                    found.is_ok_and(|place| accounts[place].is_settled())
                };
                let wanting = self.wanting[*tenant][*kind].iter().copied();
                let routed = accounts.iter().filter(|one| one.routed);
                let all = wanting.chain(routed.map(|one| one.endpoint));
                all.filter(|&one| !self.endpoints[one].changed)
                    .find(|&one| !settled(one))
                    .map(|one| format!("endpoint {one}"))
            }
        }
    }

    /// The first open position below a commit.
    pub(super) fn committed(&mut self, partition: usize, at: u64) -> Option<(u64, String)> {
        for offset in self.covered[partition]..at {
            if let Some(open) = self.open(partition, offset) {
                return Some((offset, open));
            }
            self.covered[partition] = offset + 1;
        }
        None
    }

    /// The first open position that commit metadata holds for settled.
    pub(super) fn contradicts(
        &self,
        partition: usize,
        at: u64,
        metadata: &str,
    ) -> Option<(u64, String)> {
        let tracker = Tracker::resume(at, metadata, 0);
        let end = u64::try_from(self.partitions[partition].len()).unwrap_or(u64::MAX);
        (at..end)
            .filter(|&offset| tracker.is_done(offset))
            .find_map(|offset| self.open(partition, offset).map(|open| (offset, open)))
    }

    pub(super) fn begins(
        &mut self,
        key: Key,
        delivery: &Delivery,
        number: u32,
        table_next: u64,
    ) -> Result<(), Broken> {
        if let Some(at) = self.endpoints[key.endpoint].blocked_at
            && at < table_next
        {
            let found = format!("{key:?} is sent though record {at} of the table was read");
            return Err((Rule::NothingAfterCancel, found));
        }
        let Some(Slot::Event {
            event,
            kind,
            tenant,
            ..
        }) = self.slot(key.partition, key.offset)
        else {
            return Err((Rule::SameEvent, format!("{key:?} is sent, and no event")));
        };
        let same = event.id == delivery.event.id && event.body == delivery.event.body;
        let (kind, tenant) = (*kind, *tenant);
        if !same {
            return Err((
                Rule::SameEvent,
                format!("{key:?} is sent as something else"),
            ));
        }
        if !self.wanting[tenant][kind].contains(&key.endpoint) {
            let found = format!("{key:?} is sent to an endpoint that is not its own");
            return Err((Rule::Tenants, found));
        }
        let epoch = delivery.ticket.epoch;
        let first = delivery.ticket.room == posthaste_core::delivery::Room::Ingest;
        let Some(account) = self.account(key) else {
            return Ok(());
        };
        if number > account.started + 1 {
            let found = format!("{key:?} has attempt {number} after {}", account.started);
            return Err((Rule::HeldSpendsNothing, found));
        }
        account.started += 1;
        if first {
            if account.firsts.contains(&epoch) || number != 1 {
                let found = format!("{key:?} has a second first attempt, or number {number}");
                return Err((Rule::NumbersRise, found));
            }
            account.firsts.push(epoch);
        }
        Ok(())
    }

    pub(super) fn answered(&mut self, key: Key, verdict: Verdict, now_ms: u64) -> Again {
        let known = &mut self.endpoints[key.endpoint];
        match verdict {
            Verdict::Delivered => known.taken_ms = now_ms,
            Verdict::Gone => known.gone = true,
            Verdict::Retry => {}
        }
        let Some(account) = self.account(key) else {
            return Again::default();
        };
        match verdict {
            Verdict::Delivered => {
                let again = Again {
                    delivered: account.delivered,
                    dead: account.dead,
                };
                account.delivered = true;
                return again;
            }
            Verdict::Gone => account.gone = true,
            Verdict::Retry => {}
        }
        account.failed += 1;
        Again::default()
    }

    /// A lane record stands; whether one did before, and whether an attempt
    /// failed.
    pub(super) fn laned(&mut self, key: Key) -> Option<(bool, bool)> {
        let account = self.account(key)?;
        let before = std::mem::replace(&mut account.laned, true);
        Some((before, account.failed > 0))
    }

    pub(super) fn is_delivered(&mut self, key: Key) -> bool {
        self.account(key).is_some_and(|account| account.delivered)
    }

    /// How old an event may be for an endpoint; 0 for no bound.
    pub(super) fn max_age_ms(&self, endpoint: usize) -> u64 {
        let known = self.endpoints.get(endpoint);
        known.map_or(0, |known| known.max_age_ms)
    }

    /// How many deliveries there are.
    pub fn deliveries(&self) -> u64 {
        let slots = self.partitions.iter().flatten();
        let counts = slots.map(|slot| match slot {
            Slot::Event { accounts, .. } => u64::try_from(accounts.len()).unwrap_or(0),
            Slot::Hole | Slot::Poison { .. } => 0,
        });
        counts.sum()
    }
}
