//! The endpoints table: fed from the log into snapshots that everybody reads,
//! and written by commands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::EndpointId;
use posthaste_core::registry::{Registry, Table, table_key};
use posthaste_core::retry::Policies;
use posthaste_proto::Record as _;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::log::{
    AppendError, GroupConsumer, GroupEvent, Log, LogError, NewRecord, Offset, TopicPartition,
};
use crate::telemetry;

/// How long a writer waits to see its own write.
const FOLD_WAIT: Duration = Duration::from_secs(5);

/// The endpoints as one instance sees them, and how far it has read.
#[derive(Debug, Clone)]
pub struct Endpoints {
    registry: watch::Receiver<Arc<Registry>>,
    folded: watch::Receiver<Offset>,
    log: Writer,
    /// Held from reading an endpoint to seeing it changed.
    editing: Arc<Mutex<()>>,
}

#[derive(Clone)]
struct Writer {
    log: Arc<dyn Log>,
    table: TopicPartition,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", self.table)
    }
}

/// The loop that folds the table.
pub struct Feed {
    consumer: Box<dyn GroupConsumer>,
    table: Table,
    registry: watch::Sender<Arc<Registry>>,
    folded: watch::Sender<Offset>,
    policies: Arc<Policies>,
    /// Endpoints whose policy is not known, as last counted.
    strays: usize,
}

/// Why a command on the table failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log has it, this instance has not read it back in time.
    #[error("the change is in the log but not yet visible here")]
    NotYetVisible,
    /// The endpoint is not there any more.
    #[error("no such endpoint")]
    Gone,
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
        let (folded, folded_seen) = watch::channel(0);
        let feed = Feed {
            consumer: log.follow(&table.topic)?,
            table: Table::default(),
            registry,
            folded,
            policies: Arc::clone(&config.retry_policies.0),
            strays: 0,
        };
        tokio::spawn(feed.run(stop));
        let mut endpoints = Self {
            registry: registry_seen,
            folded: folded_seen,
            log: Writer { log, table },
            editing: Arc::default(),
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

    /// Writes an endpoint; answers once this instance sees it.
    pub async fn put(&self, endpoint: &Endpoint) -> Result<Offset, CommandError> {
        let value = endpoint.to_proto().to_value();
        self.write(vec![(endpoint.id, value)]).await
    }

    /// Changes an endpoint as it is now, one change of this instance after
    /// another; answers it once this instance sees it.
    ///
    /// # Errors
    /// What `change` says against it, or the command's own failure.
    pub async fn edit<E: From<CommandError>>(
        &self,
        id: EndpointId,
        change: impl FnOnce(&mut Endpoint) -> Result<(), E>,
    ) -> Result<Endpoint, E> {
        let _alone = self.editing.lock().await;
        let mut endpoint = self.current(id).ok_or(CommandError::Gone)?;
        change(&mut endpoint)?;
        self.put(&endpoint).await?;
        Ok(endpoint)
    }

    /// The same of several at once, as far as they are there and `change` says
    /// yes; answers how many.
    ///
    /// # Errors
    /// The log did not take all of them.
    pub async fn edit_all(
        &self,
        ids: &[EndpointId],
        change: impl Fn(&mut Endpoint) -> bool,
    ) -> Result<usize, CommandError> {
        let _alone = self.editing.lock().await;
        let mut values = Vec::with_capacity(ids.len());
        for mut endpoint in ids.iter().filter_map(|&id| self.current(id)) {
            if change(&mut endpoint) {
                values.push((endpoint.id, endpoint.to_proto().to_value()));
            }
        }
        let count = values.len();
        if count > 0 {
            self.write(values).await?;
        }
        Ok(count)
    }

    fn current(&self, id: EndpointId) -> Option<Endpoint> {
        let registry = self.registry.borrow();
        let endpoint = registry.endpoint(registry.index(id)?)?;
        Some(Endpoint::clone(endpoint))
    }

    /// Deletes an endpoint; answers once this instance sees it.
    pub async fn delete(&self, id: EndpointId) -> Result<Offset, CommandError> {
        self.write(vec![(id, Bytes::new())]).await
    }

    /// Writes values, at least one; answers the last one's offset.
    async fn write(&self, values: Vec<(EndpointId, Bytes)>) -> Result<Offset, CommandError> {
        let records = values.into_iter().map(|(id, value)| NewRecord {
            to: self.log.table.clone(),
            key: table_key(id),
            value,
            headers: Vec::new(),
        });
        let results = self.log.log.append(records.collect()).await;
        let mut last = Err(AppendError::Unknown("the log gave no answer".to_owned()));
        for result in results {
            last = Ok(result?);
        }
        let offset = last?;
        let mut folded = self.folded.clone();
        match timeout(FOLD_WAIT, folded.wait_for(|&folded| folded > offset)).await {
            Ok(Ok(_)) => Ok(offset),
            Ok(Err(_)) | Err(_) => Err(CommandError::NotYetVisible),
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
                    let size = records.iter().map(crate::log::Record::size).sum();
                    for record in &records {
                        if let Err(problem) = self.table.apply(&record.key, &record.value) {
                            tracing::error!(
                                offset = record.offset,
                                problem,
                                "endpoint record ignored"
                            );
                        }
                    }
                    self.consumer.credit(&tp, epoch, size);
                    self.publish(next);
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
        telemetry::endpoints(registry.len());
        self.count_strays(&registry);
        self.registry.send_replace(registry);
        self.folded.send_replace(next);
    }
}
