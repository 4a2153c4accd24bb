//! What is said of tenants, event types and retry policies, as one instance has
//! folded it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::records::{EventType, Named, Records, RetryPolicy, Tenant};
use posthaste_core::registry::Applied;
use posthaste_core::retry::Policies;

use super::schema::{Flaw, Schema};

/// All of it at one moment. Cloning it costs a name and a pointer a record.
#[derive(Debug, Default, Clone)]
pub struct Catalog {
    tenants: Records<Tenant>,
    event_types: Records<EventType>,
    retry_policies: Records<RetryPolicy>,
    /// Of the event types whose schema is enforced.
    enforced: BTreeMap<String, Arc<Schema>>,
}

/// A kind of record in the catalog.
pub trait Kind: Named {
    /// What the trail of changes calls making, changing and deleting one.
    const ACTIONS: [&'static str; 3];

    /// Those there are.
    fn among(catalog: &Catalog) -> &Records<Self>;

    /// The tenant a record of this name belongs to; empty for none.
    fn tenant(name: &str) -> &str;
}

impl Kind for Tenant {
    const ACTIONS: [&'static str; 3] = ["tenant.created", "tenant.updated", "tenant.deleted"];

    fn among(catalog: &Catalog) -> &Records<Self> {
        &catalog.tenants
    }

    fn tenant(name: &str) -> &str {
        name
    }
}

impl Kind for EventType {
    const ACTIONS: [&'static str; 3] = [
        "event_type.created",
        "event_type.updated",
        "event_type.deleted",
    ];

    fn among(catalog: &Catalog) -> &Records<Self> {
        &catalog.event_types
    }

    fn tenant(_name: &str) -> &str {
        ""
    }
}

impl Kind for RetryPolicy {
    const ACTIONS: [&'static str; 3] = [
        "retry_policy.created",
        "retry_policy.updated",
        "retry_policy.deleted",
    ];

    fn among(catalog: &Catalog) -> &Records<Self> {
        &catalog.retry_policies
    }

    fn tenant(_name: &str) -> &str {
        ""
    }
}

impl Catalog {
    /// Folds one record of the table; `None` when it is not about this.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) fn apply(&mut self, key: &[u8], value: &Bytes) -> Result<Option<Applied>, String> {
        if let Some(applied) = self.tenants.apply(key, value)? {
            return Ok(Some(applied));
        }
        if let Some(applied) = self.retry_policies.apply(key, value)? {
            return Ok(Some(applied));
        }
        let applied = self.event_types.apply(key, value)?;
        if applied == Some(Applied::Taken) {
            let name = key.strip_prefix(EventType::PREFIX.as_bytes());
            let name = String::from_utf8_lossy(name.unwrap_or_default());
            self.compile(&name);
        }
        Ok(applied)
    }

    /// Once for each change of an event type.
    fn compile(&mut self, name: &str) {
        self.enforced.remove(name);
        let Some(found) = self.event_types.get(name) else {
            return;
        };
        let schema = found.record.schema.as_ref();
        let Some(text) = schema.filter(|_| found.record.enforce) else {
            return;
        };
        match Schema::compile(text) {
            Ok(schema) => _ = self.enforced.insert(name.to_owned(), Arc::new(schema)),
            // Whoever wrote it could read it: another version.
            Err(flaw) => tracing::error!(
                event_type = name, %flaw, "a schema cannot be read and is not enforced here"
            ),
        }
    }

    /// The present state of what has this key, as a record of its own.
    pub(super) fn restated(&self, key: &[u8]) -> Option<Bytes> {
        let tenant = self.tenants.restated(key);
        let event_type = || self.event_types.restated(key);
        let retry_policy = || self.retry_policies.restated(key);
        tenant.or_else(event_type).or_else(retry_policy)
    }

    /// The tenants that have a record.
    pub fn tenants(&self) -> &Records<Tenant> {
        &self.tenants
    }

    /// The event types that have a record.
    pub fn event_types(&self) -> &Records<EventType> {
        &self.event_types
    }

    /// The retry policies that have a record.
    pub fn retry_policies(&self) -> &Records<RetryPolicy> {
        &self.retry_policies
    }

    /// All that endpoints can name: the configuration's, and those with a record.
    /// Where both have a name the configuration's holds.
    pub(super) fn policies(&self, configured: &Policies) -> Policies {
        let mut policies = configured.clone();
        for (name, found) in self.retry_policies.iter() {
            policies.complete(name, &found.record.policy);
        }
        policies
    }

    /// Whether an event that comes by HTTP may be of this type.
    ///
    /// # Errors
    /// Where its body does not satisfy the type's schema, if that is enforced.
    pub fn judge(&self, event_type: &str, body: &[u8]) -> Result<(), Vec<Flaw>> {
        match self.enforced.get(event_type) {
            Some(schema) => schema.judge(body),
            None => Ok(()),
        }
    }
}
