//! What operators ask of an endpoint's owner, and how far it is: folded from
//! the endpoints table on every instance.
//!
//! ```text
//!  API ----> o/<id>  what is wanted --> fold of every instance --> the owner does it
//!  owner --> p/<id>  how far it is  --> fold of every instance --> the API shows it
//! ```
//!
//! Each record has one writer, so neither overwrites what the other said. What
//! an operation has done so far stands in the lane, in the deliveries made in
//! its name, not here: progress is for people, and may lag.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
pub use proto::operation::{Kind, Wanted};
pub use proto::operation_progress::State;

use crate::content::Filter;
use crate::filter::TypePattern;
use crate::id::{EndpointId, OperationId};
use crate::limits::{
    EVENT_TYPES_MAX, OPERATION_EXCEPT_MAX, OPERATION_OFFSETS_MAX, OPERATION_RANGES_MAX,
};
use crate::time::Timestamp;

/// Before an operation's id in the table's keys.
const OPERATION_PREFIX: &str = "o/";
/// … and in the keys of their progress.
const PROGRESS_PREFIX: &str = "p/";

/// What kinds of operations are called.
pub const KINDS: [(Kind, &str); 5] = [
    (Kind::Replay, "replay"),
    (Kind::Redrive, "redrive"),
    (Kind::Cancel, "cancel"),
    (Kind::RetryNow, "retry_now"),
    (Kind::Probe, "probe"),
];

/// What a kind of operation is called.
pub fn kind_name(kind: Kind) -> &'static str {
    let found = KINDS.iter().find(|(known, _)| *known == kind);
    found.map_or("unknown", |(_, name)| name)
}

/// Something to be done to one endpoint's deliveries.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Names it.
    pub id: OperationId,
    /// The endpoint's tenant.
    pub tenant: String,
    /// Whose deliveries.
    pub endpoint: EndpointId,
    /// What.
    pub kind: Kind,
    /// Whether it is to go on.
    pub wanted: Wanted,
    /// Who asked.
    pub actor: String,
    /// When.
    pub created_at: Timestamp,
    /// Of which records, for [`Kind::Replay`] and [`Kind::Redrive`].
    pub ranges: Vec<Range>,
    /// The time range that was asked for, for people; zero where none was.
    pub span: (Timestamp, Timestamp),
    /// Only events of these types; empty for whatever the endpoint wants.
    pub event_types: Vec<TypePattern>,
    /// Only events that pass.
    pub filter: Option<Filter>,
    /// Also events the endpoint does not want: somebody named them.
    pub any: bool,
    /// Deliveries written a second; 0 for as the lane takes them.
    pub rate_per_second: u32,
    /// Only dead letters of this cause, by its name; empty for all.
    pub dead_cause: String,
    /// Offsets of deliveries in the lane, for the kinds that are about some.
    pub offsets: Vec<u64>,
    /// What stands before this offset of the lane, for [`Kind::Cancel`].
    pub before: u64,
    /// Of its record.
    pub version: u64,
}

/// Records of one partition: of a source for a replay, of the dead letters for a
/// redrive. Of the lane itself a redrive takes what was held for the endpoint:
/// so the records are named that one dead letter for many tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    /// Their topic.
    pub topic: String,
    /// Their partition.
    pub partition: u32,
    /// The first.
    pub from: u64,
    /// The end, exclusive.
    pub to: u64,
    /// Offsets of the lane, rising, that stay out: they were not given up with
    /// the others.
    pub except: Vec<u64>,
    /// Of the lane: how many were given up; 0 of other topics.
    pub count: u64,
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub state: State,
    /// Of the owner that says so.
    pub owner_epoch: u64,
    /// When it did.
    pub at: Timestamp,
    /// The next record of each range.
    pub next: Vec<u64>,
    /// Records read.
    pub scanned: u64,
    /// Deliveries written, cancelled or made due.
    pub count: u64,
    /// Records that could not be read, or go to nobody.
    pub skipped: u64,
    /// Why it failed; empty otherwise.
    pub detail: String,
}

/// An operation and how far it is.
#[derive(Debug, Clone)]
pub struct Known {
    /// What was asked for.
    pub operation: Arc<Operation>,
    /// Nothing before its owner has said anything.
    pub progress: Option<Arc<Progress>>,
}

/// The fold of the operations that are not forgotten.
#[derive(Debug, Default, Clone)]
pub struct Operations {
    by_id: BTreeMap<OperationId, Known>,
    /// Of operations that are not read yet: a compacted log may have them the
    /// other way round.
    early: BTreeMap<OperationId, Arc<Progress>>,
}

/// The table's key of an operation.
pub fn operation_key(id: OperationId) -> Bytes {
    Bytes::from(format!("{OPERATION_PREFIX}{id}"))
}

/// The table's key of its progress.
pub fn progress_key(id: OperationId) -> Bytes {
    Bytes::from(format!("{PROGRESS_PREFIX}{id}"))
}

impl Operation {
    /// From its record.
    ///
    /// # Errors
    /// What is wrong: a kind of a newer version, too, which is not done here.
    pub fn from_proto(record: proto::Operation) -> Result<Self, String> {
        let kind = record.kind();
        if kind == Kind::Unspecified {
            return Err("an operation of no known kind".to_owned());
        }
        let except = record.ranges.iter().map(|range| range.except.len());
        let bounded = record.ranges.len() <= OPERATION_RANGES_MAX
            && except.sum::<usize>() <= OPERATION_EXCEPT_MAX
            && record.offsets.len() <= OPERATION_OFFSETS_MAX
            && record.event_types.len() <= EVENT_TYPES_MAX;
        if !bounded {
            return Err("an operation over the bounds".to_owned());
        }
        let types = record.event_types.iter().map(|text| text.parse());
        let types = types.collect::<Result<_, _>>();
        let filter = Some(record.filter.as_str()).filter(|text| !text.is_empty());
        Ok(Self {
            id: OperationId::from_bytes(bytes16(&record.id)?),
            endpoint: EndpointId::from_bytes(bytes16(&record.endpoint_id)?),
            kind,
            wanted: record.wanted(),
            created_at: Timestamp::from_millis(record.created_at_ms),
            ranges: record.ranges.into_iter().map(Range::from).collect(),
            span: (
                Timestamp::from_millis(record.since_ms),
                Timestamp::from_millis(record.until_ms),
            ),
            event_types: types.map_err(|error: crate::filter::PatternError| error.to_string())?,
            filter: match filter.map(Filter::parse) {
                None => None,
                Some(read) => Some(read.map_err(|error| error.to_string())?),
            },
            any: record.any,
            rate_per_second: record.rate_per_second,
            dead_cause: record.dead_cause,
            offsets: record.offsets,
            before: record.before,
            tenant: record.tenant,
            actor: record.actor,
            version: record.version,
        })
    }

    /// As its record.
    pub fn to_proto(&self) -> proto::Operation {
        proto::Operation {
            id: self.id.as_bytes().to_vec().into(),
            tenant: self.tenant.clone(),
            endpoint_id: self.endpoint.as_bytes().to_vec().into(),
            kind: self.kind.into(),
            wanted: self.wanted.into(),
            actor: self.actor.clone(),
            created_at_ms: self.created_at.as_millis(),
            ranges: self.ranges.iter().cloned().map(Into::into).collect(),
            since_ms: self.span.0.as_millis(),
            until_ms: self.span.1.as_millis(),
            event_types: self.event_types.iter().map(ToString::to_string).collect(),
            filter: self
                .filter
                .as_ref()
                .map_or_else(String::new, |filter| filter.text().to_owned()),
            any: self.any,
            rate_per_second: self.rate_per_second,
            dead_cause: self.dead_cause.clone(),
            offsets: self.offsets.clone(),
            before: self.before,
            version: self.version,
        }
    }

    /// How many records its ranges have.
    pub fn records(&self) -> u64 {
        let spans = self.ranges.iter().map(|range| range.to - range.from);
        spans.fold(0, u64::saturating_add)
    }
}

impl From<proto::operation::Range> for Range {
    fn from(record: proto::operation::Range) -> Self {
        Self {
            topic: record.topic,
            partition: record.partition,
            from: record.from,
            to: record.to.max(record.from),
            except: record.except,
            count: record.count,
        }
    }
}

impl From<Range> for proto::operation::Range {
    fn from(range: Range) -> Self {
        Self {
            topic: range.topic,
            partition: range.partition,
            from: range.from,
            to: range.to,
            except: range.except,
            count: range.count,
        }
    }
}

impl Progress {
    /// From its record. A state of a newer version is one that goes on.
    pub fn from_proto(record: proto::OperationProgress) -> Self {
        Self {
            state: match record.state() {
                State::Unspecified => State::Running,
                state => state,
            },
            owner_epoch: record.owner_epoch,
            at: Timestamp::from_millis(record.at_ms),
            next: record.next,
            scanned: record.scanned,
            count: record.count,
            skipped: record.skipped,
            detail: record.detail,
        }
    }

    /// As its record.
    pub fn to_proto(&self, id: OperationId) -> proto::OperationProgress {
        proto::OperationProgress {
            id: id.as_bytes().to_vec().into(),
            state: self.state.into(),
            owner_epoch: self.owner_epoch,
            at_ms: self.at.as_millis(),
            next: self.next.clone(),
            scanned: self.scanned,
            count: self.count,
            skipped: self.skipped,
            detail: self.detail.clone(),
        }
    }

    /// Whether nothing follows.
    pub fn is_ended(&self) -> bool {
        match self.state {
            State::Unspecified | State::Running | State::Paused => false,
            State::Succeeded | State::Cancelled | State::Failed => true,
        }
    }
}

impl Known {
    /// Whether its owner said that it is over.
    pub fn is_ended(&self) -> bool {
        self.progress.as_ref().is_some_and(|p| p.is_ended())
    }
}

impl Operations {
    /// Folds one record of the endpoints table; answers whether it was about an
    /// operation. An empty value forgets it.
    ///
    /// # Errors
    /// What cannot be read; it changes nothing.
    pub fn apply(&mut self, key: &[u8], value: &Bytes) -> Result<bool, String> {
        let text = std::str::from_utf8(key).unwrap_or_default();
        let read = |id: &str| {
            id.parse::<OperationId>()
                .map_err(|e| format!("key `{text}`: {e}"))
        };
        if let Some(id) = text.strip_prefix(OPERATION_PREFIX) {
            self.asked(read(id)?, value)?;
        } else if let Some(id) = text.strip_prefix(PROGRESS_PREFIX) {
            self.told(read(id)?, value)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn asked(&mut self, id: OperationId, value: &Bytes) -> Result<(), String> {
        if value.is_empty() {
            self.by_id.remove(&id);
            return Ok(());
        }
        let record = proto::Operation::from_value(value).map_err(|e| e.to_string())?;
        let operation = Operation::from_proto(record)?;
        if operation.id != id {
            return Err(format!("key names {id}, the record {}", operation.id));
        }
        let operation = Arc::new(operation);
        match self.by_id.get_mut(&id) {
            // A cancelled operation stays so.
            Some(known) if known.operation.wanted == Wanted::Cancel => {}
            Some(known) => known.operation = operation,
            None => {
                let progress = self.early.remove(&id);
                self.by_id.insert(
                    id,
                    Known {
                        operation,
                        progress,
                    },
                );
            }
        }
        Ok(())
    }

    fn told(&mut self, id: OperationId, value: &Bytes) -> Result<(), String> {
        if value.is_empty() {
            self.early.remove(&id);
            return Ok(());
        }
        let record = proto::OperationProgress::from_value(value).map_err(|e| e.to_string())?;
        let later = Arc::new(Progress::from_proto(record));
        let Some(known) = self.by_id.get_mut(&id) else {
            self.early.insert(id, later);
            return Ok(());
        };
        let stands = known
            .progress
            .as_ref()
            .is_some_and(|present| present.is_ended() || present.owner_epoch > later.owner_epoch);
        if !stands {
            known.progress = Some(later);
        }
        Ok(())
    }

    /// One of them.
    pub fn get(&self, id: OperationId) -> Option<&Known> {
        self.by_id.get(&id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (OperationId, &Known)> {
        self.by_id.iter().map(|(&id, known)| (id, known))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

fn bytes16(bytes: &Bytes) -> Result<[u8; 16], String> {
    let wrong = |_| "an id is not 16 bytes long".to_owned();
    bytes.as_ref().try_into().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation() -> Operation {
        Operation {
            id: OperationId::from_bytes([1; 16]),
            tenant: "acme".to_owned(),
            endpoint: EndpointId::from_bytes([2; 16]),
            kind: Kind::Replay,
            wanted: Wanted::Unspecified,
            actor: "local".to_owned(),
            created_at: Timestamp::from_millis(5),
            ranges: vec![Range {
                topic: "events".to_owned(),
                partition: 3,
                from: 10,
                to: 20,
                except: vec![12, 17],
                count: 5,
            }],
            span: (Timestamp::from_millis(1), Timestamp::from_millis(2)),
            event_types: vec!["invoice.*".parse().unwrap()],
            filter: Some(Filter::parse(r#"{"data.amount": {"$gte": 100}}"#).unwrap()),
            any: false,
            rate_per_second: 7,
            dead_cause: String::new(),
            offsets: Vec::new(),
            before: 0,
            version: 1,
        }
    }

    fn progress(owner_epoch: u64, state: State, count: u64) -> Progress {
        Progress {
            state,
            owner_epoch,
            at: Timestamp::from_millis(9),
            next: vec![12],
            scanned: 2,
            count,
            skipped: 0,
            detail: String::new(),
        }
    }

    fn tell(table: &mut Operations, progress: &Progress) {
        let id = operation().id;
        let value = progress.to_proto(id).to_value();
        assert_eq!(table.apply(&progress_key(id), &value), Ok(true));
    }

    fn ask(table: &mut Operations, operation: &Operation) {
        let value = operation.to_proto().to_value();
        assert_eq!(table.apply(&operation_key(operation.id), &value), Ok(true));
    }

    #[test]
    fn a_record_reads_back() {
        let operation = operation();
        let read = Operation::from_proto(operation.to_proto()).unwrap();
        assert_eq!(read.to_proto(), operation.to_proto());
        assert_eq!(read.records(), 10);
        let progress = progress(4, State::Running, 1);
        let record = progress.to_proto(operation.id);
        assert_eq!(Progress::from_proto(record), progress);
    }

    #[test]
    fn the_newer_owner_is_believed_and_the_end_stands() {
        let mut table = Operations::default();
        tell(&mut table, &progress(4, State::Running, 1));
        ask(&mut table, &operation());
        let seen = |table: &Operations| {
            let known = table.get(operation().id).unwrap();
            known.progress.as_ref().map(|p| (p.count, p.is_ended()))
        };
        assert_eq!(seen(&table), Some((1, false)));
        tell(&mut table, &progress(6, State::Running, 5));
        tell(&mut table, &progress(4, State::Running, 9));
        assert_eq!(seen(&table), Some((5, false)));
        tell(&mut table, &progress(6, State::Succeeded, 8));
        tell(&mut table, &progress(7, State::Running, 2));
        assert_eq!(seen(&table), Some((8, true)));
        let forget = Bytes::new();
        assert!(table.apply(b"p/op_x", &forget).is_err());
        assert_eq!(table.apply(b"e/x", &forget), Ok(false));
        let key = operation_key(operation().id);
        assert_eq!(table.apply(&key, &forget), Ok(true));
        assert!(table.is_empty());
    }

    #[test]
    fn what_is_cancelled_stays_cancelled() {
        let mut table = Operations::default();
        let cancelled = Operation {
            wanted: Wanted::Cancel,
            ..operation()
        };
        for asked in [operation(), cancelled, operation()] {
            ask(&mut table, &asked);
        }
        let known = table.get(operation().id).unwrap();
        assert_eq!(known.operation.wanted, Wanted::Cancel);
    }
}
