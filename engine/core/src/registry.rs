//! Who wants what: the fold of the endpoints table, and the snapshot of it that
//! ingest and shards read without a lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use crate::content::{self, View};
use crate::endpoint::Endpoint;
use crate::filter::TypePattern;
use crate::gate::Gate;
use crate::id::EndpointId;
use crate::retry::{Policies, Rules};

/// Before an endpoint's id in the table's keys.
const ENDPOINT_PREFIX: &str = "e/";
/// … and in the keys of gates.
const GATE_PREFIX: &str = "g/";

/// A dense index of an endpoint, fixed for the life of the process: a shard
/// finds its queue by it. A deleted endpoint's index is not given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIx(pub u32);

/// The fold of the endpoints table.
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<Slot>,
    by_id: HashMap<EndpointId, EndpointIx>,
    tenants: BTreeMap<String, Vec<EndpointIx>>,
    snapshot: Arc<Registry>,
    changed: Vec<String>,
    policies: Arc<Policies>,
    /// Whether gates or policies changed.
    others_changed: bool,
}

/// What became of a record of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It stands.
    Taken,
    /// It was there already, or is of a kind the table does not fold.
    Nothing,
    /// It is based on a version that is no longer the present one: the first of
    /// two changes of one version stands.
    Refused {
        /// The present version; `None` when the endpoint is deleted.
        present: Option<u64>,
    },
}

/// What a key of the table is about.
enum Key {
    Endpoint(EndpointId),
    Gate(EndpointId),
    /// Something a newer version keeps there.
    Other,
}

#[derive(Debug, Clone)]
struct Slot {
    id: EndpointId,
    endpoint: Option<Arc<Endpoint>>,
    gate: Gate,
    /// Of the last record; [`SWEPT`] once even that is to be forgotten.
    version: u64,
}

/// No version follows this one: ids are not used again.
const SWEPT: u64 = u64::MAX;

/// The endpoints at one moment. Cheap to share, never changes.
#[derive(Debug, Default)]
pub struct Registry {
    slots: Vec<Slot>,
    by_id: Arc<HashMap<EndpointId, EndpointIx>>,
    tenants: HashMap<String, Arc<TenantIndex>>,
    policies: Arc<Policies>,
}

#[derive(Debug, Default)]
struct TenantIndex {
    exact: HashMap<String, Vec<EndpointIx>>,
    wild: Vec<(TypePattern, EndpointIx)>,
    all: Vec<EndpointIx>,
    /// Whether one of them has a filter.
    filtered: bool,
    /// Whether one of them does not want some types.
    excluding: bool,
    members: Vec<EndpointIx>,
}

/// The table's key of an endpoint.
pub fn table_key(id: EndpointId) -> Bytes {
    Bytes::from(format!("{ENDPOINT_PREFIX}{id}"))
}

/// The endpoint whose own record has this key.
pub fn endpoint_of(key: &[u8]) -> Option<EndpointId> {
    match read_key(key) {
        Ok(Key::Endpoint(id)) => Some(id),
        _ => None,
    }
}

/// The table's key of an endpoint's gate.
pub fn gate_key(id: EndpointId) -> Bytes {
    Bytes::from(format!("{GATE_PREFIX}{id}"))
}

impl Table {
    /// Folds one record of the table. An empty value deletes. A record that
    /// cannot be read is an error and changes nothing: the endpoint keeps its
    /// last good state.
    ///
    /// A record with a version stands only if it is above the present one. Where
    /// older records were compacted away versions leap, so it need not be the
    /// very next: whoever wrote it had read the one before.
    pub fn apply(&mut self, key: &[u8], value: &Bytes) -> Result<Applied, String> {
        let id = match read_key(key)? {
            Key::Endpoint(id) => id,
            Key::Gate(id) => return self.apply_gate(id, value).map(|()| Applied::Taken),
            Key::Other => return Ok(Applied::Nothing),
        };
        if value.is_empty() {
            self.set(id, None, SWEPT);
            return Ok(Applied::Taken);
        }
        let record = proto::Endpoint::from_value(value).map_err(|e| e.to_string())?;
        if record.id.as_ref() != id.as_bytes() {
            return Err(format!("key names {id}, the record another endpoint"));
        }
        let (version, deleted) = (record.version, record.deleted);
        let endpoint = match deleted {
            true => None,
            false => Some(Endpoint::from_proto(record).map_err(|e| e.to_string())?),
        };
        if let Some(against) = self.against(id, version, endpoint.as_ref()) {
            return Ok(against);
        }
        self.set(id, endpoint.map(Arc::new), version);
        Ok(Applied::Taken)
    }

    /// What stands against a record of this version.
    fn against(
        &self,
        id: EndpointId,
        version: u64,
        endpoint: Option<&Endpoint>,
    ) -> Option<Applied> {
        let ix = self.by_id.get(&id)?;
        let slot = &self.slots[usize::try_from(ix.0).unwrap_or(usize::MAX)];
        if version == 0 || version > slot.version {
            return None;
        }
        let same = match (endpoint, &slot.endpoint) {
            (None, None) => true,
            (Some(new), Some(present)) => new.to_proto() == present.to_proto(),
            (None, Some(_)) | (Some(_), None) => false,
        };
        Some(match same {
            true => Applied::Nothing,
            false => Applied::Refused {
                present: slot.endpoint.as_ref().map(|present| present.version),
            },
        })
    }

    /// The present state of an endpoint as a record of its own, to be written
    /// behind one that was refused: a compacted log keeps the last record of a
    /// key, so the last has to be one that stands. Every instance makes the same
    /// one of the same state, and the second of two changes nothing. To the
    /// endpoint it is no change: its version stays.
    pub fn restated(&self, id: EndpointId) -> Bytes {
        let ix = self.by_id.get(&id);
        let slot = ix.and_then(|ix| self.slots.get(usize::try_from(ix.0).ok()?));
        let Some(present) = slot.and_then(|slot| slot.endpoint.as_ref()) else {
            return Bytes::new();
        };
        let again = Endpoint {
            restated: present.restated + 1,
            ..Endpoint::clone(present)
        };
        again.to_proto().to_value()
    }

    fn apply_gate(&mut self, id: EndpointId, value: &Bytes) -> Result<(), String> {
        let read = if value.is_empty() {
            None
        } else {
            let record = proto::Gate::from_value(value).map_err(|e| e.to_string())?;
            Some(Gate::from_proto(record))
        };
        let ix = self.index_of(id);
        let gate = &mut self.slots[usize::try_from(ix.0).unwrap_or(usize::MAX)].gate;
        *gate = read.map_or_else(Gate::default, |later| std::mem::take(gate).then(later));
        self.others_changed = true;
        Ok(())
    }

    fn set(&mut self, id: EndpointId, endpoint: Option<Arc<Endpoint>>, version: u64) {
        let ix = self.index_of(id);
        let place = usize::try_from(ix.0).unwrap_or(usize::MAX);
        if let Some(old) = self.slots[place].endpoint.take() {
            if let Some(members) = self.tenants.get_mut(&old.tenant) {
                members.retain(|&member| member != ix);
            }
            self.changed.push(old.tenant.clone());
        }
        if let Some(new) = &endpoint {
            let members = self.tenants.entry(new.tenant.clone()).or_default();
            members.push(ix);
            self.changed.push(new.tenant.clone());
        }
        self.slots[place].endpoint = endpoint;
        self.slots[place].version = version;
    }

    fn index_of(&mut self, id: EndpointId) -> EndpointIx {
        if let Some(&ix) = self.by_id.get(&id) {
            return ix;
        }
        let ix = EndpointIx(u32::try_from(self.slots.len()).expect("fewer than 2^32 endpoints"));
        self.slots.push(Slot {
            id,
            endpoint: None,
            gate: Gate::default(),
            version: 0,
        });
        self.by_id.insert(id, ix);
        ix
    }

    /// Endpoints can name these policies from here on.
    pub fn set_policies(&mut self, policies: Arc<Policies>) {
        self.policies = policies;
        self.others_changed = true;
    }

    /// The endpoints as they are now. Costs what changed plus one pointer an
    /// endpoint, so fold a whole batch before asking.
    pub fn snapshot(&mut self) -> Arc<Registry> {
        if self.changed.is_empty() && !std::mem::take(&mut self.others_changed) {
            return Arc::clone(&self.snapshot);
        }
        let mut tenants = self.snapshot.tenants.clone();
        self.changed.sort();
        self.changed.dedup();
        for tenant in self.changed.drain(..) {
            match self.tenants.get(&tenant) {
                Some(members) if !members.is_empty() => {
                    let index = TenantIndex::build(members, &self.slots);
                    tenants.insert(tenant, Arc::new(index));
                }
                _ => {
                    tenants.remove(&tenant);
                    self.tenants.remove(&tenant);
                }
            }
        }
        let by_id = if self.snapshot.by_id.len() == self.by_id.len() {
            Arc::clone(&self.snapshot.by_id)
        } else {
            Arc::new(self.by_id.clone())
        };
        self.snapshot = Arc::new(Registry {
            slots: self.slots.clone(),
            by_id,
            tenants,
            policies: Arc::clone(&self.policies),
        });
        Arc::clone(&self.snapshot)
    }
}

impl TenantIndex {
    fn build(members: &[EndpointIx], slots: &[Slot]) -> Self {
        let mut index = Self {
            members: members.to_vec(),
            ..Self::default()
        };
        for &ix in members {
            let slot = &slots[usize::try_from(ix.0).unwrap_or(usize::MAX)];
            let Some(endpoint) = slot.endpoint.as_ref().filter(|e| !e.disabled) else {
                continue;
            };
            index.filtered |= endpoint.filter.is_some();
            index.excluding |= !endpoint.exclude_event_types.is_empty();
            if endpoint.event_types.is_empty() {
                index.all.push(ix);
            }
            for pattern in &endpoint.event_types {
                match pattern {
                    TypePattern::Exact(text) => {
                        let listed = index.exact.entry(text.clone()).or_default();
                        if listed.last() != Some(&ix) {
                            listed.push(ix);
                        }
                    }
                    TypePattern::Wild(_) => index.wild.push((pattern.clone(), ix)),
                }
            }
        }
        index
    }
}

impl Registry {
    /// Appends the endpoints that want events of this type, each once.
    pub fn matching(&self, tenant: &str, event_type: &str, out: &mut Vec<EndpointIx>) {
        let Some(index) = self.tenants.get(tenant) else {
            return;
        };
        let start = out.len();
        out.extend_from_slice(&index.all);
        if let Some(exact) = index.exact.get(event_type) {
            out.extend_from_slice(exact);
        }
        let before_wild = out.len();
        for (pattern, ix) in &index.wild {
            if pattern.matches(event_type) {
                out.push(*ix);
            }
        }
        // Only several patterns of one endpoint can name it twice.
        if out.len() > before_wild && out.len() - start > 1 {
            out[start..].sort_unstable();
            let mut seen = start;
            for at in start..out.len() {
                if at == start || out[at] != out[seen - 1] {
                    out[seen] = out[at];
                    seen += 1;
                }
            }
            out.truncate(seen);
        }
        if index.excluding {
            self.exclude(event_type, start, out);
        }
    }

    /// Takes out again those that named the type as one they do not want.
    fn exclude(&self, event_type: &str, start: usize, out: &mut Vec<EndpointIx>) {
        let mut kept = start;
        for at in start..out.len() {
            let endpoint = self.endpoint(out[at]);
            if endpoint.is_some_and(|endpoint| endpoint.wants(event_type)) {
                out[kept] = out[at];
                kept += 1;
            }
        }
        out.truncate(kept);
    }

    /// Takes out of [`matching`](Self::matching) endpoints of a tenant those
    /// whose filter does not let the event pass; its body is scanned at most
    /// once. Answers whether a filter stayed undecided because the body could
    /// not be read.
    pub fn sift(&self, tenant: &str, event: &View<'_>, matched: &mut Vec<EndpointIx>) -> bool {
        let filtered = self.tenants.get(tenant).is_some_and(|index| index.filtered);
        filtered
            && content::retain(matched, event, |&ix| {
                self.endpoint(ix)
                    .and_then(|endpoint| endpoint.filter.as_ref())
            })
    }

    /// An endpoint that exists, enabled or not.
    pub fn endpoint(&self, ix: EndpointIx) -> Option<&Arc<Endpoint>> {
        let slot = self.slots.get(usize::try_from(ix.0).ok()?)?;
        slot.endpoint.as_ref()
    }

    /// Whether an endpoint takes first attempts now: what its owner says, unless
    /// it is paused.
    pub fn gate(&self, ix: EndpointIx) -> &Gate {
        static OPEN: Gate = Gate::OPEN;
        static PAUSED: Gate = Gate::PAUSED;
        let place = usize::try_from(ix.0).ok();
        let Some(slot) = place.and_then(|place| self.slots.get(place)) else {
            return &OPEN;
        };
        match &slot.endpoint {
            Some(endpoint) if endpoint.paused => &PAUSED,
            Some(_) | None => &slot.gate,
        }
    }

    /// What follows an endpoint's failures; the standard where it is gone.
    pub fn rules(&self, ix: EndpointIx) -> Rules<'_> {
        self.endpoint(ix).map_or(Rules::STANDARD, |endpoint| {
            let rules = self
                .policies
                .rules(&endpoint.retry_policy, endpoint.fail_fast_4xx);
            rules.within(endpoint.max_age)
        })
    }

    /// The policies endpoints can name.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The id behind an index, also of a deleted endpoint.
    pub fn id(&self, ix: EndpointIx) -> Option<EndpointId> {
        let slot = self.slots.get(usize::try_from(ix.0).ok()?)?;
        Some(slot.id)
    }

    /// The endpoint of an id, unless it is deleted.
    pub fn find(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoint(self.index(id)?)
    }

    /// The index of an id, also of a deleted endpoint.
    pub fn index(&self, id: EndpointId) -> Option<EndpointIx> {
        self.by_id.get(&id).copied()
    }

    /// Whether an endpoint may follow the version it carries: `None`, or what
    /// stands against it.
    pub fn conflict(&self, endpoint: &Endpoint) -> Option<Applied> {
        let place = usize::try_from(self.index(endpoint.id)?.0).ok()?;
        let slot = self.slots.get(place)?;
        let present = slot.endpoint.as_ref().map(|present| present.version);
        let last = present.unwrap_or(slot.version);
        (last != endpoint.version).then_some(Applied::Refused { present })
    }

    /// A tenant's endpoints, oldest first.
    pub fn of_tenant(&self, tenant: &str) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.tenants
            .get(tenant)
            .into_iter()
            .flat_map(|index| index.members.iter())
            .filter_map(|&ix| self.endpoint(ix))
    }

    /// All endpoints, in the order this process met them.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.slots.iter().filter_map(|slot| slot.endpoint.as_ref())
    }

    /// How many endpoints exist.
    pub fn len(&self) -> usize {
        self.endpoints().count()
    }

    /// Whether no endpoint exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn read_key(key: &[u8]) -> Result<Key, String> {
    let text = std::str::from_utf8(key).map_err(|_| "key is not UTF-8".to_owned())?;
    let id = |id: &str| {
        id.parse::<EndpointId>()
            .map_err(|e| format!("key `{text}`: {e}"))
    };
    if let Some(rest) = text.strip_prefix(ENDPOINT_PREFIX) {
        id(rest).map(Key::Endpoint)
    } else if let Some(rest) = text.strip_prefix(GATE_PREFIX) {
        id(rest).map(Key::Gate)
    } else {
        Ok(Key::Other)
    }
}

#[cfg(test)]
mod tests;
