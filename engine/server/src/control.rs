//! The endpoints table: fed from the log into snapshots that everybody reads,
//! and written by commands.
//!
//! ```text
//!  command --> posthaste.changes: who is about to do what
//!          --> posthaste.endpoints ==> fold of every instance: taken, or refused
//!          <-- told by its own fold, once that shows it
//! ```
//!
//! Of two changes of one version the fold takes the first, everywhere alike; the
//! other's writer hears what is there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use posthaste_core::access::Keys;
use posthaste_core::answers::Answers;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::RequestId;
use posthaste_core::operation::Operations;
use posthaste_core::registry::{Applied, Registry, Table, endpoint_of};
use posthaste_core::retry::Policies;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::log::{
    AppendError, GroupConsumer, GroupEvent, Log, LogError, NewRecord, Offset, Record,
    TopicPartition, append_until_durable,
};
use crate::telemetry;

mod catalog;
mod schema;
mod writes;

pub use catalog::{Catalog, Kind};
pub use schema::{Flaw, Schema};
pub use writes::{By, new_key};
use writes::{Pending, REQUEST_HEADER, Writer};

/// First pause before a restatement is appended again.
const RESTATE_WAIT: Duration = Duration::from_millis(50);

/// The endpoints, the API's keys, operations and what is said of tenants and
/// event types, as one instance sees them, and how far it has read.
#[derive(Debug, Clone)]
pub struct Endpoints {
    registry: watch::Receiver<Arc<Registry>>,
    keys: watch::Receiver<Arc<Keys>>,
    operations: watch::Receiver<Arc<Operations>>,
    catalog: watch::Receiver<Arc<Catalog>>,
    answers: Arc<Mutex<Answers>>,
    folded: watch::Receiver<Offset>,
    writer: Writer,
}

/// The loop that folds the table.
pub struct Feed {
    consumer: Box<dyn GroupConsumer>,
    table: Table,
    keys: Shown<Keys>,
    operations: Shown<Operations>,
    catalog: Shown<Catalog>,
    answers: Arc<Mutex<Answers>>,
    registry: watch::Sender<Arc<Registry>>,
    folded: watch::Sender<Offset>,
    policies: Arc<Policies>,
    /// Endpoints whose policy is not known, as last counted.
    strays: usize,
    /// Who waits for what they wrote.
    pending: Pending,
    log: Arc<dyn Log>,
    /// Where the table ended when this instance began to read it.
    end: Offset,
    /// Keys with a refused change that nothing stands behind yet.
    refused: Vec<Bytes>,
}

/// A fold of a part of the table, and those who see it.
struct Shown<T> {
    fold: T,
    changed: bool,
    seen: watch::Sender<Arc<T>>,
}

/// What a batch came to, told once it can be seen.
type Verdicts = Vec<(RequestId, Applied)>;

/// Why a command on the table failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log has it, this instance has not read it back in time.
    #[error("the change is in the log but not yet visible here")]
    NotYetVisible,
    /// It was changed since it was read, and is left as it is now.
    #[error("it was changed since it was read")]
    Conflict {
        /// The present version; `None` when it is deleted.
        present: Option<u64>,
    },
}

impl Endpoints {
    /// Reads the whole table as it is now, and keeps reading: answers once this
    /// instance has caught up.
    pub async fn open(
        log: Arc<dyn Log>,
        config: &Config,
        stop: CancellationToken,
    ) -> Result<Self, LogError> {
        let table = TopicPartition {
            topic: config.topics.endpoints(),
            partition: 0,
        };
        let (_, end) = log.bounds(&table).await?;
        let (registry, registry_seen) = watch::channel(Arc::default());
        let (keys, keys_seen) = Shown::new();
        let (operations, operations_seen) = Shown::new();
        let (catalog, catalog_seen) = Shown::new();
        let answers = Arc::<Mutex<Answers>>::default();
        let (folded, folded_seen) = watch::channel(0);
        let pending = Pending::default();
        let feed = Feed {
            consumer: log.follow(&table.topic)?,
            table: Table::default(),
            keys,
            operations,
            catalog,
            answers: Arc::clone(&answers),
            registry,
            folded,
            policies: Arc::clone(&config.retry_policies.0),
            strays: 0,
            pending: pending.clone(),
            log: Arc::clone(&log),
            end,
            refused: Vec::new(),
        };
        tokio::spawn(feed.run(stop));
        let mut endpoints = Self {
            registry: registry_seen,
            keys: keys_seen,
            operations: operations_seen,
            catalog: catalog_seen,
            answers,
            folded: folded_seen,
            writer: Writer::new(log, table, config.topics.changes(), pending),
        };
        endpoints.wait_for(end).await?;
        Ok(endpoints)
    }

    async fn wait_for(&mut self, end: Offset) -> Result<(), LogError> {
        self.folded
            .wait_for(|&folded| folded >= end)
            .await
            .map_err(|_| LogError::Other("the endpoints table cannot be read".to_owned()))?;
        Ok(())
    }

    /// The endpoints now, and every change from here on.
    pub fn registry(&self) -> watch::Receiver<Arc<Registry>> {
        self.registry.clone()
    }

    /// The API's keys now.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.borrow())
    }

    /// What was asked of owners, and how far it is, now and from here on.
    pub fn operations(&self) -> watch::Receiver<Arc<Operations>> {
        self.operations.clone()
    }

    /// What is said of tenants and event types now.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }
}

impl<T: Clone + Default> Shown<T> {
    fn new() -> (Self, watch::Receiver<Arc<T>>) {
        let (seen, receiver) = watch::channel(Arc::default());
        let shown = Self {
            fold: T::default(),
            changed: false,
            seen,
        };
        (shown, receiver)
    }

    /// Shows what changed, if anything did.
    fn publish(&mut self) {
        if std::mem::take(&mut self.changed) {
            self.seen.send_replace(Arc::new(self.fold.clone()));
        }
    }
}

impl Feed {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = self.consumer.next() => event,
            };
            match event {
                GroupEvent::Batch {
                    tp,
                    epoch,
                    records,
                    next,
                } => {
                    let size = records.iter().map(Record::size).sum();
                    let verdicts = records.iter().filter_map(|record| self.fold(record));
                    let verdicts: Verdicts = verdicts.collect();
                    self.consumer.credit(&tp, epoch, size);
                    self.publish(next);
                    for (request, applied) in verdicts {
                        self.pending.tell(request, applied);
                    }
                    if next >= self.end {
                        self.restate(&tp);
                    }
                }
                GroupEvent::Assigned { position, .. } => {
                    self.folded.send_replace(position);
                }
                GroupEvent::Fatal(error) => {
                    tracing::error!(%error, "the endpoints table cannot be read further");
                    return;
                }
                GroupEvent::Revoking { .. } | GroupEvent::Lost { .. } => {}
            }
        }
    }

    /// Folds one record; answers what its writer is to hear.
    fn fold(&mut self, record: &Record) -> Option<(RequestId, Applied)> {
        let Record { key, value, .. } = record;
        let applied = match self.apply(key, value) {
            Ok(applied) => applied,
            Err(problem) => {
                let offset = record.offset;
                tracing::error!(offset, problem, "endpoint record ignored");
                return None;
            }
        };
        self.note(key, applied);
        let mut headers = record.headers.iter();
        let (_, id) = headers.find(|(name, _)| *name == REQUEST_HEADER)?;
        let id = <[u8; 16]>::try_from(id.as_ref()).ok()?;
        Some((RequestId::from_bytes(id), applied))
    }

    /// Whoever a record is about takes it.
    fn apply(&mut self, key: &[u8], value: &Bytes) -> Result<Applied, String> {
        if self.keys.fold.apply(key, value)? {
            self.keys.changed = true;
            return Ok(Applied::Taken);
        }
        if self.operations.fold.apply(key, value)? {
            self.operations.changed = true;
            return Ok(Applied::Taken);
        }
        if let Some(applied) = self.catalog.fold.apply(key, value)? {
            self.catalog.changed |= applied == Applied::Taken;
            return Ok(applied);
        }
        if let Some(applied) = self.answers().apply(key, value)? {
            return Ok(applied);
        }
        self.table.apply(key, value)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was refused until something stands behind it.
    fn note(&mut self, key: &Bytes, applied: Applied) {
        let refused = matches!(applied, Applied::Refused { .. });
        if !refused && self.refused.is_empty() {
            return;
        }
        self.refused.retain(|known| known != key);
        if refused {
            self.refused.push(key.clone());
        }
    }

    /// Writes the present state behind each refused change. All instances do,
    /// and alike: one is enough, and the others change nothing.
    fn restate(&mut self, table: &TopicPartition) {
        for key in std::mem::take(&mut self.refused) {
            let value = match endpoint_of(&key) {
                Some(id) => Some(self.table.restated(id)),
                None => {
                    let said = self.catalog.fold.restated(&key);
                    said.or_else(|| self.answers().restated(&key))
                }
            };
            let Some(value) = value else {
                continue;
            };
            let name = String::from_utf8_lossy(&key);
            tracing::info!(key = %name, "a change that came too late is overwritten");
            let record = NewRecord {
                to: table.clone(),
                key,
                value,
                headers: Vec::new(),
            };
            let log = Arc::clone(&self.log);
            tokio::spawn(async move { append_until_durable(&*log, record, RESTATE_WAIT).await });
        }
    }

    /// Endpoints that name a policy this configuration does not define: the
    /// standard one serves them.
    fn count_strays(&mut self, registry: &Registry) {
        let known = |endpoint: &&Arc<Endpoint>| self.policies.knows(&endpoint.retry_policy);
        let (mut count, mut last) = (0, None);
        for stray in registry.endpoints().filter(|endpoint| !known(endpoint)) {
            count += 1;
            last = Some(stray);
        }
        telemetry::unknown_policies(count);
        if let Some(endpoint) = last.filter(|_| count > self.strays) {
            tracing::warn!(
                endpoints = count,
                such_as = %endpoint.id,
                retry_policy = endpoint.retry_policy,
                "endpoints name a retry policy that is not in the configuration, `standard` serves \
                 them"
            );
        }
        self.strays = count;
    }

    fn publish(&mut self, next: Offset) {
        let registry = self.table.snapshot();
        // How far operations are is written every second or two: that is nothing
        // to owners and shards, which look through all they have.
        if !Arc::ptr_eq(&registry, &self.registry.borrow()) {
            telemetry::endpoints(registry.len());
            self.count_strays(&registry);
            self.registry.send_replace(registry);
        }
        self.keys.publish();
        self.operations.publish();
        self.catalog.publish();
        self.folded.send_replace(next);
    }
}

#[cfg(test)]
mod tests;
