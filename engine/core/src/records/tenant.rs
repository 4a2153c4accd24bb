//! What can be said of a tenant. It needs no saying: a tenant is whoever events
//! and endpoints name.

use std::collections::BTreeMap;

use posthaste_proto as proto;

use super::{Head, Named, RecordProblem};
use crate::event::check_tenant;
use crate::limits::{
    DESCRIPTION_BYTES_MAX, METADATA_BYTES_MAX, METADATA_KEY_BYTES_MAX, METADATA_PAIRS_MAX,
    TENANT_NAME_BYTES_MAX,
};
use crate::time::Timestamp;

/// A tenant as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The text by which events and endpoints name it.
    pub tenant: String,
    /// What people call it.
    pub name: String,
    /// In people's words.
    pub description: String,
    /// What others want to remember of it.
    pub metadata: BTreeMap<String, String>,
    /// When the record was made.
    pub created_at: Timestamp,
}

impl Tenant {
    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), RecordProblem> {
        let problem = |param, problem| Err(RecordProblem { param, problem });
        if let Err(error) = check_tenant(&self.tenant) {
            return problem("tenant", error.to_string());
        }
        if self.name.len() > TENANT_NAME_BYTES_MAX {
            return Err(RecordProblem::too_long("name", TENANT_NAME_BYTES_MAX));
        }
        if self.description.len() > DESCRIPTION_BYTES_MAX {
            return Err(RecordProblem::too_long(
                "description",
                DESCRIPTION_BYTES_MAX,
            ));
        }
        let pairs = self.metadata.len();
        if pairs > METADATA_PAIRS_MAX {
            let wanted = format!("{pairs} pairs: expected at most {METADATA_PAIRS_MAX}");
            return problem("metadata", wanted);
        }
        for key in self.metadata.keys() {
            if key.is_empty() || key.len() > METADATA_KEY_BYTES_MAX {
                let shown = key.escape_default();
                let wanted =
                    format!("`{shown}`: expected keys of 1 to {METADATA_KEY_BYTES_MAX} bytes");
                return problem("metadata", wanted);
            }
        }
        let bytes = self
            .metadata
            .iter()
            .map(|(key, value)| key.len() + value.len());
        let bytes: usize = bytes.sum();
        if bytes > METADATA_BYTES_MAX {
            let wanted = format!("{bytes} bytes: expected at most {METADATA_BYTES_MAX} in all");
            return problem("metadata", wanted);
        }
        Ok(())
    }
}

impl Named for Tenant {
    const PREFIX: &'static str = "t/";
    type Proto = proto::Tenant;

    fn record_name(&self) -> &str {
        &self.tenant
    }

    fn from_proto(record: proto::Tenant) -> Result<Self, RecordProblem> {
        let metadata = record.metadata.into_iter();
        let tenant = Self {
            tenant: record.tenant,
            name: record.name,
            description: record.description,
            metadata: metadata.map(|pair| (pair.key, pair.value)).collect(),
            created_at: Timestamp::from_millis(record.created_at_ms),
        };
        tenant.check()?;
        Ok(tenant)
    }

    fn to_proto(&self, version: u64) -> proto::Tenant {
        let pairs = self.metadata.iter().map(|(key, value)| proto::Pair {
            key: key.clone(),
            value: value.clone(),
        });
        proto::Tenant {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            metadata: pairs.collect(),
            created_at_ms: self.created_at.as_millis(),
            version,
            deleted: false,
        }
    }

    fn deleted(name: &str, version: u64) -> proto::Tenant {
        proto::Tenant {
            tenant: name.to_owned(),
            version,
            deleted: true,
            ..proto::Tenant::default()
        }
    }

    fn head(record: &proto::Tenant) -> Head<'_> {
        Head {
            name: &record.tenant,
            version: record.version,
            deleted: record.deleted,
        }
    }
}
