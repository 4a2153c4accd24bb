//! A schedule of retries that endpoints can name, beside those of the
//! configuration.

use std::time::Duration;

use posthaste_proto as proto;

use super::{Head, Named, RecordProblem};
use crate::limits::DESCRIPTION_BYTES_MAX;
use crate::retry::{Policy, PolicyError};
use crate::time::Timestamp;

/// A retry policy as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The text by which endpoints name it.
    pub name: String,
    /// In people's words.
    pub description: String,
    /// The schedule.
    pub policy: Policy,
    /// When the record was made.
    pub created_at: Timestamp,
}

impl RetryPolicy {
    /// Checks the bounds that its schedule does not keep by itself.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn check(&self) -> Result<(), RecordProblem> {
        if self.description.len() > DESCRIPTION_BYTES_MAX {
            return Err(RecordProblem::too_long(
                "description",
                DESCRIPTION_BYTES_MAX,
            ));
        }
        Ok(())
    }
}

impl From<PolicyError> for RecordProblem {
    fn from(error: PolicyError) -> Self {
        Self {
            param: error.param(),
            problem: error.to_string(),
        }
    }
}

impl Named for RetryPolicy {
    const PREFIX: &'static str = "r/";
    type Proto = proto::RetryPolicy;

    fn record_name(&self) -> &str {
        &self.name
    }

    fn from_proto(record: proto::RetryPolicy) -> Result<Self, RecordProblem> {
        let gaps = record.gaps_ms.into_iter().map(Duration::from_millis);
        let retry_policy = Self {
            policy: Policy::new(&record.name, gaps.collect())?,
            name: record.name,
            description: record.description,
            created_at: Timestamp::from_millis(record.created_at_ms),
        };
        retry_policy.check()?;
        Ok(retry_policy)
    }

    fn to_proto(&self, version: u64) -> proto::RetryPolicy {
        let millis = |gap: &Duration| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        proto::RetryPolicy {
            name: self.name.clone(),
            description: self.description.clone(),
            gaps_ms: self.policy.gaps().iter().map(millis).collect(),
            created_at_ms: self.created_at.as_millis(),
            version,
            deleted: false,
        }
    }

    fn deleted(name: &str, version: u64) -> proto::RetryPolicy {
        proto::RetryPolicy {
            name: name.to_owned(),
            version,
            deleted: true,
            ..proto::RetryPolicy::default()
        }
    }

    fn head(record: &proto::RetryPolicy) -> Head<'_> {
        Head {
            name: &record.name,
            version: record.version,
            deleted: record.deleted,
        }
    }
}
