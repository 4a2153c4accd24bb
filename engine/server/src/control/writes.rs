//! Writing the table: who is about to change what goes to the topic of changes
//! first, then the change to the table; its writer hears what the fold made of
//! it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use dashmap::DashMap;
use posthaste_core::access::{ApiKey, KeyProblem, NewKey, key_key};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::{EndpointId, KeyId, RequestId};
use posthaste_core::operation::{Operation, Wanted, operation_key};
use posthaste_core::registry::{Applied, table_key};
use posthaste_core::rng::Rng;
use posthaste_core::signature::SecretText;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use serde_json::json;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use super::{CommandError, Endpoints};
use crate::clock::random_seed;
use crate::config::Config;
use crate::log::{AppendError, Log, NewRecord, TopicPartition};
use crate::operational::Teller;

mod answers;
mod catalog;

/// How long a writer waits to see its own write.
const FOLD_WAIT: Duration = Duration::from_secs(5);
/// Changes of one endpoint take turns, so that within one process none is
/// refused by the fold; endpoints share this many turns.
const TURNS: usize = 64;
/// How often a change is written again because what it is based on was restated
/// meanwhile: each time takes another conflict of others just before it.
const REBASED_MAX: usize = 16;
/// Names the request in a record of the table, and who asked.
pub(super) const REQUEST_HEADER: &str = "posthaste-request";
/// Posthaste itself, as an actor.
const SYSTEM: &str = "system";
const ACTOR_HEADER: &str = "posthaste-actor";

/// Who changes something, when, and by which request.
#[derive(Debug, Clone)]
pub struct By {
    /// A key's id, `system` or `local`.
    pub actor: String,
    /// Their request.
    pub request: RequestId,
    /// When they asked.
    pub at: Timestamp,
}

/// Whoever waits for what they wrote. No more than there are requests under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<DashMap<RequestId, oneshot::Sender<Applied>>>);

#[derive(Clone)]
pub(super) struct Writer {
    log: Arc<dyn Log>,
    table: TopicPartition,
    changes: TopicPartition,
    pub(super) teller: Teller,
    pending: Pending,
    turns: Arc<[Mutex<()>; TURNS]>,
}

/// What is said of a record of the table.
struct Change {
    key: Bytes,
    action: &'static str,
    subject: String,
    tenant: String,
    version: u64,
}

impl By {
    /// Posthaste itself.
    pub fn system(at: Timestamp) -> Self {
        Self::new(SYSTEM, at)
    }

    /// Somebody whose request has no id yet.
    pub fn new(actor: impl Into<String>, at: Timestamp) -> Self {
        Self {
            actor: actor.into(),
            request: RequestId::generate(at, &mut Rng::new(random_seed())),
            at,
        }
    }
}

impl Pending {
    pub(super) fn tell(&self, request: RequestId, applied: Applied) {
        if let Some((_, waiting)) = self.0.remove(&request) {
            // One that waits no longer was told that it is not yet visible.
            let _ = waiting.send(applied);
        }
    }
}

/// Waits no longer when it is dropped.
struct Waiting<'a> {
    pending: &'a Pending,
    request: RequestId,
    applied: oneshot::Receiver<Applied>,
}

impl<'a> Waiting<'a> {
    fn begin(pending: &'a Pending, request: RequestId) -> Self {
        let (told, applied) = oneshot::channel();
        pending.0.insert(request, told);
        Self {
            pending,
            request,
            applied,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pending.0.remove(&self.request);
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", self.table)
    }
}

impl Writer {
    pub(super) fn new(
        log: Arc<dyn Log>,
        table: TopicPartition,
        config: &Config,
        pending: Pending,
    ) -> Self {
        Self {
            log,
            table,
            changes: TopicPartition {
                topic: config.topics.changes(),
                partition: 0,
            },
            teller: Teller::new(config),
            pending,
            turns: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
        }
    }

    /// The turn of an endpoint's changes.
    fn turn(&self, id: EndpointId) -> &Mutex<()> {
        &self.turns[usize::from(id.as_bytes()[15]) % TURNS]
    }

    /// … and of a name's.
    fn turn_of(&self, name: &[u8]) -> &Mutex<()> {
        let sum = name.iter().copied().fold(0, u8::wrapping_add);
        &self.turns[usize::from(sum) % TURNS]
    }

    /// Writes a change; answers once this instance sees it. No change is made
    /// without a trace: that is written first.
    async fn write(&self, change: Change, value: Bytes, by: &By) -> Result<(), CommandError> {
        self.trace(&change, change.action, by).await?;
        match self.place(change.key.clone(), value, by).await? {
            Applied::Taken | Applied::Nothing => Ok(()),
            Applied::Refused { present } => self.refused(&change, present, by).await,
        }
    }

    /// Appends to the table; answers what this instance's fold made of it.
    async fn place(&self, key: Bytes, value: Bytes, by: &By) -> Result<Applied, CommandError> {
        let mut waiting = Waiting::begin(&self.pending, by.request);
        let record = NewRecord {
            to: self.table.clone(),
            key,
            value,
            headers: headers(by),
        };
        self.append(record).await?;
        match timeout(FOLD_WAIT, &mut waiting.applied).await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(_)) | Err(_) => Err(CommandError::NotYetVisible),
        }
    }

    async fn refused<T>(
        &self,
        change: &Change,
        present: Option<u64>,
        by: &By,
    ) -> Result<T, CommandError> {
        self.trace(change, "change.refused", by).await?;
        Err(CommandError::Conflict { present })
    }

    async fn trace(&self, change: &Change, action: &str, by: &By) -> Result<(), AppendError> {
        let record = proto::Change {
            actor: by.actor.clone(),
            request_id: by.request.as_bytes().to_vec().into(),
            at_ms: by.at.as_millis(),
            action: action.to_owned(),
            subject: change.subject.clone(),
            tenant: change.tenant.clone(),
            version: change.version,
        };
        let record = NewRecord {
            to: self.changes.clone(),
            key: Bytes::new(),
            value: record.to_value(),
            headers: Vec::new(),
        };
        self.append(record).await
    }

    async fn append(&self, record: NewRecord) -> Result<(), AppendError> {
        let result = self.log.append(vec![record]).await.pop();
        let nothing = || Err(AppendError::Unknown("the log gave no answer".to_owned()));
        result.unwrap_or_else(nothing).map(|_| ())
    }
}

fn actor(by: &By) -> (ByteString, Bytes) {
    (
        ByteString::from_static(ACTOR_HEADER),
        Bytes::copy_from_slice(by.actor.as_bytes()),
    )
}

fn headers(by: &By) -> Vec<(ByteString, Bytes)> {
    vec![
        actor(by),
        (
            ByteString::from_static(REQUEST_HEADER),
            Bytes::copy_from_slice(by.request.as_bytes()),
        ),
    ]
}

impl Endpoints {
    /// Writes an endpoint as a change of the version it carries, 0 for a new
    /// one; answers what stands, once this instance sees it.
    ///
    /// # Errors
    /// [`CommandError::Conflict`] when that is not the present version.
    pub async fn put(&self, endpoint: &Endpoint, by: &By) -> Result<Endpoint, CommandError> {
        let _turn = self.writer.turn(endpoint.id).lock().await;
        let before = self.unchanged(endpoint)?;
        let action = action(before.as_deref(), endpoint);
        let next = |base: &Endpoint| Endpoint {
            version: endpoint.version + 1,
            updated_at: match endpoint.version {
                0 => endpoint.created_at,
                _ => by.at,
            },
            restated: base.restated,
            ..endpoint.clone()
        };
        let change = of_endpoint(endpoint, action);
        let record = |base: &Endpoint| next(base).to_proto();
        self.write_endpoint(endpoint, &change, record, by).await?;
        let after = next(endpoint);
        self.announce(&after, &change, by).await;
        Ok(after)
    }

    /// Deletes an endpoint as a change of the version it carries; answers once
    /// this instance sees it.
    ///
    /// # Errors
    /// [`CommandError::Conflict`] when that is not the present version.
    pub async fn delete(&self, endpoint: &Endpoint, by: &By) -> Result<(), CommandError> {
        let _turn = self.writer.turn(endpoint.id).lock().await;
        self.unchanged(endpoint)?;
        let change = of_endpoint(endpoint, "endpoint.deleted");
        self.write_endpoint(endpoint, &change, Endpoint::to_deleted, by)
            .await?;
        self.announce(endpoint, &change, by).await;
        // It is deleted. This only lets the log forget it; a record that stays
        // costs a line.
        let sweep = NewRecord {
            to: self.writer.table.clone(),
            key: table_key(endpoint.id),
            value: Bytes::new(),
            // Whoever waits for what this request changes next does not wait for
            // this.
            headers: vec![actor(by)],
        };
        if let Err(error) = self.writer.append(sweep).await {
            tracing::warn!(endpoint = %endpoint.id, %error, "deleted, and still in the log");
        }
        Ok(())
    }

    /// Tells whoever listens what somebody did to an endpoint; what Posthaste does
    /// itself it tells where it decides so. Where the log does not take it the
    /// trail of changes has it still.
    async fn announce(&self, endpoint: &Endpoint, change: &Change, by: &By) {
        if by.actor == SYSTEM {
            return;
        }
        let mut data = json!({ "version": change.version, "actor": by.actor });
        if change.action == "endpoint.disabled" {
            data["reason"] = endpoint.disabled_reason.clone().into();
        }
        let told = (change.action, data);
        let Some(record) = self.writer.teller.record(endpoint, by.at, told) else {
            return;
        };
        if let Err(error) = self.writer.append(record).await {
            let (id, action) = (endpoint.id, change.action);
            tracing::warn!(endpoint = %id, action, %error, "nobody hears of a change");
        }
    }

    /// Writes a change of the version an endpoint carries, as a record made of
    /// the endpoint as it is.
    async fn write_endpoint(
        &self,
        endpoint: &Endpoint,
        change: &Change,
        record: impl Fn(&Endpoint) -> proto::Endpoint,
        by: &By,
    ) -> Result<(), CommandError> {
        self.writer.trace(change, change.action, by).await?;
        let mut again = REBASED_MAX;
        loop {
            let base = match self.unchanged(endpoint) {
                Ok(present) => present,
                Err(CommandError::Conflict { present }) => {
                    return self.writer.refused(change, present, by).await;
                }
                Err(other) => return Err(other),
            };
            let value = record(base.as_deref().unwrap_or(endpoint)).to_value();
            let present = match self.writer.place(change.key.clone(), value, by).await? {
                Applied::Taken | Applied::Nothing => return Ok(()),
                Applied::Refused { present } => present,
            };
            // Where the version is the same nobody changed it: it was restated.
            if present != Some(endpoint.version) || again == 0 {
                return self.writer.refused(change, present, by).await;
            }
            again -= 1;
        }
    }

    /// The endpoint as it is, if it is of that version still.
    fn unchanged(&self, endpoint: &Endpoint) -> Result<Option<Arc<Endpoint>>, CommandError> {
        let registry = self.registry.borrow();
        if let Some(Applied::Refused { present }) = registry.conflict(endpoint) {
            return Err(CommandError::Conflict { present });
        }
        Ok(registry.find(endpoint.id).cloned())
    }

    /// Writes an operation, new or changed; answers once this instance sees it.
    pub async fn put_operation(&self, operation: &Operation, by: &By) -> Result<(), CommandError> {
        let action = match (operation.version, operation.wanted) {
            (0 | 1, _) => "operation.created",
            (_, Wanted::Unspecified) => "operation.resumed",
            (_, Wanted::Pause) => "operation.paused",
            (_, Wanted::Cancel) => "operation.cancelled",
        };
        let change = Change {
            key: operation_key(operation.id),
            action,
            subject: operation.id.to_string(),
            tenant: operation.tenant.clone(),
            version: operation.version,
        };
        let value = operation.to_proto().to_value();
        self.writer.write(change, value, by).await
    }

    /// Writes a new key; answers once this instance knows it.
    pub async fn put_key(&self, key: &ApiKey, by: &By) -> Result<(), CommandError> {
        let change = of_key(key, "key.created");
        self.writer
            .write(change, key.to_proto().to_value(), by)
            .await
    }

    /// Revokes a key; answers once this instance takes it no longer, and
    /// whether there was one.
    pub async fn revoke_key(&self, id: KeyId, by: &By) -> Result<bool, CommandError> {
        let Some(key) = self.keys().get(id).cloned() else {
            return Ok(false);
        };
        let change = of_key(&key, "key.revoked");
        self.writer.write(change, Bytes::new(), by).await?;
        Ok(true)
    }
}

/// A new key, not written yet, and its text.
///
/// # Errors
/// What is wrong with it.
pub fn new_key(new: NewKey, now: Timestamp) -> Result<(ApiKey, SecretText), KeyProblem> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).expect("the operating system gives randomness");
    let id = KeyId::generate(now, &mut Rng::new(random_seed()));
    ApiKey::make(id, random, new, now)
}

/// What a change of an endpoint is called in its trace.
fn action(before: Option<&Endpoint>, after: &Endpoint) -> &'static str {
    let Some(before) = before else {
        return "endpoint.created";
    };
    let disabled = (before.disabled, after.disabled);
    let newest = after.secrets.first().map(|secret| &secret.id);
    let rotated = newest.is_some_and(|id| before.secrets.iter().all(|one| one.id != *id));
    match (disabled, (before.paused, after.paused)) {
        ((false, true), _) => "endpoint.disabled",
        ((true, false), _) => "endpoint.enabled",
        (_, (false, true)) => "endpoint.paused",
        (_, (true, false)) => "endpoint.resumed",
        _ if rotated => "secret.rotated",
        _ => "endpoint.updated",
    }
}

fn of_endpoint(endpoint: &Endpoint, action: &'static str) -> Change {
    Change {
        key: table_key(endpoint.id),
        action,
        subject: endpoint.id.to_string(),
        tenant: endpoint.tenant.clone(),
        version: endpoint.version + 1,
    }
}

fn of_key(key: &ApiKey, action: &'static str) -> Change {
    Change {
        key: key_key(key.id),
        action,
        subject: key.id.to_string(),
        tenant: key.tenant.clone().unwrap_or_default(),
        version: 0,
    }
}
