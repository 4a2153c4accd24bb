//! What can be said of a tenant. It needs no saying: a tenant is whoever events
//! and endpoints name.

use std::collections::BTreeMap;

use posthaste_proto as proto;

use super::{Head, Named, RecordProblem};
use crate::event::check_tenant;
use crate::limits::{DESCRIPTION_BYTES_MAX, TENANT_NAME_BYTES_MAX};
use crate::metadata;
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
        metadata::check(&self.metadata).or_else(|wanted| problem("metadata", wanted))
    }
}

impl Named for Tenant {
    const PREFIX: &'static str = "t/";
    type Proto = proto::Tenant;

    fn record_name(&self) -> &str {
        &self.tenant
    }

    fn from_proto(record: proto::Tenant) -> Result<Self, RecordProblem> {
        let tenant = Self {
            tenant: record.tenant,
            name: record.name,
            description: record.description,
            metadata: metadata::from_proto(record.metadata),
            created_at: Timestamp::from_millis(record.created_at_ms),
        };
        tenant.check()?;
        Ok(tenant)
    }

    fn to_proto(&self, version: u64) -> proto::Tenant {
        proto::Tenant {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            metadata: metadata::to_proto(&self.metadata),
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
