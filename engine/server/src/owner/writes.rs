//! What an owner writes to the log, and reads from it out of turn. Every write
//! is repeated until the log has it: a fact may stand twice, never not at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::gate::Gate;
use posthaste_core::id::{EndpointId, OperationId};
use posthaste_core::lane::fold::Owed;
use posthaste_core::lane::owner::{Expired, Notice};
use posthaste_core::lane::partition_of;
use posthaste_core::lane::snapshot::Loaded;
use posthaste_core::outcome::Outcome;
use posthaste_core::registry::gate_key;
use posthaste_core::retry::GiveUpCause;
use posthaste_core::shard::dead_letter;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use tokio::sync::Semaphore;

use super::opening;
use super::operations::{Came, Decode};
use crate::clock::Clock;
use crate::config::Topics;
use crate::control::{By, CommandError, Endpoints};
use crate::log::{
    APPEND_WAIT_MAX, Epoch, Log, LogError, NewRecord, Offset, Record, TopicPartition,
    append_until_durable,
};
use crate::operational::{self, Told};
use crate::telemetry;

pub(super) const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Of the lane, read at once for held deliveries.
const PAGE_BYTES: usize = 1024 * 1024;

/// Something the owner asked for is done.
pub(super) struct Written {
    pub(super) place: Place,
    pub(super) done: Done,
}

/// A partition under one assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: u32,
    pub(super) epoch: Epoch,
}

pub(super) enum Done {
    /// The state at the committed position.
    Opened(Result<Box<Loaded>, LogError>),
    /// The claim stands there.
    Claimed(Offset),
    /// So many facts are in the log.
    Facts(u64),
    /// The dead letter of this offset is.
    Buried(Offset),
    RangeBuried(EndpointId),
    /// The record of the first offset stands at the second as well.
    Moved(Offset, Offset),
    /// A delivery's record, `None` when it could not be read just now.
    Read(Offset, Owed, Option<Box<proto::Deliver>>),
    /// A part of the lane for an endpoint, and what comes next.
    Page(EndpointId, Vec<Record>, Offset),
    /// All parts of a snapshot are in the log, the first there.
    Snapshot(Offset),
    /// Something for an operation.
    Operated(OperationId, Came),
    /// Something nobody waits for.
    Told,
}

/// A delivery to give up.
pub(super) struct Burial {
    pub(super) offset: Offset,
    pub(super) attempts: u32,
    pub(super) cause: GiveUpCause,
    pub(super) last: Option<Outcome>,
}

/// Writes for all partitions.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) log: Arc<dyn Log>,
    pub(super) topics: Topics,
    pub(super) decode: Decode,
    pub(super) instance_id: String,
    pub(super) clock: Clock,
    /// Lets few partitions be opened at a time: each may read much.
    pub(super) openings: Arc<Semaphore>,
    pub(super) endpoints: Endpoints,
}

/// Partitions that are opened at once.
pub(super) const OPENINGS_MAX: usize = 4;

/// A write under way.
pub(super) type Writing = BoxFuture<'static, Written>;

impl Writer {
    /// Partitions of the lane.
    pub(super) fn lanes(&self) -> u32 {
        self.topics.lane_partitions
    }

    pub(super) fn lane(&self, partition: u32) -> TopicPartition {
        TopicPartition {
            topic: self.topics.lane(),
            partition,
        }
    }

    /// Runs a write to its end.
    pub(super) fn run<F>(&self, place: Place, write: impl FnOnce(Self) -> F) -> Writing
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let write = write(self.clone());
        write.map(move |done| Written { place, done }).boxed()
    }

    /// Reads the state at a committed position.
    pub(super) fn open(&self, place: Place, position: Offset, metadata: String) -> Writing {
        self.run(place, |this| async move {
            let tp = this.lane(place.partition);
            let _turn = this.openings.acquire().await;
            let opened = opening::open(&*this.log, &tp, position, &metadata).await;
            Done::Opened(opened.map(Box::new))
        })
    }

    /// Claims a partition.
    pub(super) fn claim(&self, place: Place) -> Writing {
        self.run(place, |this| async move {
            let claim = proto::Claim {
                instance_id: this.instance_id.clone(),
                at_ms: this.clock.now().as_millis(),
            };
            Done::Claimed(this.append(place, claim.to_value()).await)
        })
    }

    /// Writes facts.
    pub(super) fn facts(&self, place: Place, progress: proto::Progress) -> Writing {
        self.run(place, |this| async move {
            this.append(place, progress.to_value()).await;
            Done::Facts(u64::try_from(progress.entries.len()).unwrap_or(u64::MAX))
        })
    }

    async fn append(&self, place: Place, value: Bytes) -> Offset {
        let record = plain(self.lane(place.partition), value);
        append_until_durable(&*self.log, record, FIRST_WAIT).await
    }

    /// Reads a delivery's record.
    pub(super) fn read(&self, place: Place, offset: Offset, owed: Owed) -> Writing {
        self.run(place, move |this| async move {
            let record = this.record(place, offset).await;
            Done::Read(offset, owed, record.map(Box::new))
        })
    }

    /// Reads what an endpoint may hold.
    pub(super) fn page(
        &self,
        place: Place,
        endpoint: EndpointId,
        from: Offset,
        to: Offset,
    ) -> Writing {
        self.run(place, move |this| async move {
            let tp = this.lane(place.partition);
            match this.log.read(&tp, from, PAGE_BYTES).await {
                Ok((records, next)) => Done::Page(endpoint, records, next.min(to)),
                // The topic's retention is no longer what was verified.
                Err(LogError::OutOfRange { start, .. }) if start > from => {
                    tracing::error!(
                        %tp, from, start, %endpoint,
                        "held deliveries are lost: the lane's retention has passed them"
                    );
                    telemetry::lane_passed();
                    Done::Page(endpoint, Vec::new(), start.min(to))
                }
                Err(error) => {
                    tracing::warn!(%tp, from, %error, "cannot read what is held, trying again");
                    tokio::time::sleep(FIRST_WAIT).await;
                    Done::Page(endpoint, Vec::new(), from)
                }
            }
        })
    }

    async fn record(&self, place: Place, offset: Offset) -> Option<proto::Deliver> {
        let tp = self.lane(place.partition);
        let read = self.log.read(&tp, offset, 1).await;
        let records = match read {
            Ok((records, _)) => records,
            Err(error) => {
                tracing::warn!(%tp, offset, %error, "cannot read a delivery, trying again");
                return None;
            }
        };
        let record = records.into_iter().find(|record| record.offset == offset)?;
        proto::Deliver::from_value(&record.value).ok()
    }

    /// A record, however often it has to be asked for.
    async fn record_surely(
        &self,
        place: Place,
        offset: Offset,
        known: Option<proto::Deliver>,
    ) -> proto::Deliver {
        let mut wait = FIRST_WAIT;
        let mut record = known;
        loop {
            if let Some(found) = record {
                return found;
            }
            record = self.record(place, offset).await;
            if record.is_none() {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(APPEND_WAIT_MAX);
            }
        }
    }

    /// Writes a dead letter; reads the record first where it is not at hand.
    pub(super) fn bury(
        &self,
        place: Place,
        burial: Burial,
        known: Option<proto::Deliver>,
    ) -> Writing {
        self.run(place, move |this| async move {
            let offset = burial.offset;
            let mut record = this.record_surely(place, offset, known).await;
            record.attempt = burial.attempts;
            if let Some(last) = burial.last {
                record.last_status = last.status.map_or(0, u32::from);
                record.last_cause = last.cause.map_or("", |cause| cause.code()).to_owned();
            }
            let endpoint = record.endpoint_id.clone();
            let letter = dead_letter(record, burial.cause, this.clock.now());
            this.append_dead(endpoint, letter.to_value()).await;
            Done::Buried(offset)
        })
    }

    /// Writes one dead letter for many, of a tenant if it is known.
    pub(super) fn bury_range(&self, place: Place, expired: Expired, tenant: String) -> Writing {
        self.run(place, move |this| async move {
            let range = proto::DeadRange {
                cause: proto::DeadCause::Expired.into(),
                endpoint_id: expired.endpoint.as_bytes().to_vec().into(),
                partition: place.partition,
                from: expired.from,
                to: expired.to,
                count: expired.count,
                at_ms: this.clock.now().as_millis(),
                except: expired.except,
                tenant,
            };
            let endpoint = range.endpoint_id.clone();
            this.append_dead(endpoint, range.to_value()).await;
            Done::RangeBuried(expired.endpoint)
        })
    }

    async fn append_dead(&self, endpoint: Bytes, value: Bytes) {
        let id = <[u8; 16]>::try_from(endpoint.as_ref()).unwrap_or_default();
        let partition = partition_of(EndpointId::from_bytes(id), Topics::DEAD_PARTITIONS);
        let letter = NewRecord {
            to: TopicPartition {
                topic: self.topics.dead(),
                partition,
            },
            key: endpoint,
            value,
            headers: Vec::new(),
        };
        append_until_durable(&*self.log, letter, FIRST_WAIT).await;
    }

    /// Appends a record again: it waits for its endpoint, not for a time.
    pub(super) fn shift(
        &self,
        place: Place,
        offset: Offset,
        owed: Owed,
        known: Option<proto::Deliver>,
    ) -> Writing {
        self.run(place, move |this| async move {
            let mut record = this.record_surely(place, offset, known).await;
            record.attempt = owed.attempts;
            record.due_ms = 0;
            record.reason = proto::Reason::Moved.into();
            let to = this.append(place, record.to_value()).await;
            Done::Moved(offset, to)
        })
    }

    /// Publishes a gate.
    pub(super) fn gate(&self, place: Place, endpoint: EndpointId, gate: &Gate) -> Writing {
        let value = gate.to_proto(endpoint).to_value();
        self.table(place, gate_key(endpoint), value)
    }

    /// Changes an endpoint, unless somebody else did since it was read.
    pub(super) fn endpoint(&self, place: Place, endpoint: Endpoint) -> Writing {
        self.run(place, |this| async move {
            let mut wait = FIRST_WAIT;
            loop {
                let by = By::system(this.clock.now());
                match this.endpoints.put(&endpoint, &by).await {
                    Ok(_) => return Done::Told,
                    Err(CommandError::Conflict { .. }) => {
                        let id = endpoint.id;
                        tracing::info!(endpoint = %id, "changed by others first, left as it is");
                        return Done::Told;
                    }
                    Err(error @ (CommandError::Append(_) | CommandError::NotYetVisible)) => {
                        tracing::error!(%error, "change failed, trying again in {wait:?}");
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(APPEND_WAIT_MAX);
            }
        })
    }

    fn table(&self, place: Place, key: Bytes, value: Bytes) -> Writing {
        self.run(place, |this| async move {
            this.put(key, value).await;
            Done::Told
        })
    }

    /// Writes a record of the endpoints table.
    pub(super) async fn put(&self, key: Bytes, value: Bytes) {
        let record = NewRecord {
            to: TopicPartition {
                topic: self.topics.endpoints(),
                partition: 0,
            },
            key,
            value,
            headers: Vec::new(),
        };
        append_until_durable(&*self.log, record, FIRST_WAIT).await;
    }

    /// Tells whoever listens. A delivery's record is read first where the notice
    /// is about one and it is not at hand.
    pub(super) fn notify(
        &self,
        place: Place,
        notice: Notice,
        endpoint: Arc<Endpoint>,
        known: Option<proto::Deliver>,
    ) -> Writing {
        self.run(place, move |this| async move {
            let delivery = match operational::delivery_of(notice.kind) {
                Some(offset) => Some(this.record_surely(place, offset, known).await),
                None => None,
            };
            let told = operational::noticed(notice.kind, delivery.as_ref());
            this.announce(&endpoint, notice.at, told).await;
            Done::Told
        })
    }

    pub(super) async fn announce(&self, endpoint: &Endpoint, at: Timestamp, told: Told) {
        let record = self.endpoints.teller().record(endpoint, at, told);
        if let Some(record) = record {
            append_until_durable(&*self.log, record, FIRST_WAIT).await;
        }
    }

    /// Appends all parts of a snapshot, again from the first if one fails.
    pub(super) fn snapshot(&self, place: Place, parts: Vec<Bytes>) -> Writing {
        self.run(place, |this| async move {
            let mut wait = FIRST_WAIT;
            loop {
                let lane = this.lane(place.partition);
                let records = parts.iter().cloned().map(|part| plain(lane.clone(), part));
                let results = this.log.append(records.collect()).await;
                match results.into_iter().collect::<Result<Vec<_>, _>>() {
                    Ok(offsets) => return Done::Snapshot(offsets.first().copied().unwrap_or(0)),
                    Err(error) => {
                        tracing::error!(%lane, %error, "snapshot failed, trying again in {wait:?}");
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(APPEND_WAIT_MAX);
            }
        })
    }
}

pub(super) fn plain(to: TopicPartition, value: Bytes) -> NewRecord {
    NewRecord {
        to,
        key: Bytes::new(),
        value,
        headers: Vec::new(),
    }
}
