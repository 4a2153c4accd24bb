//! How old an event may be, and after how long of failing an endpoint is
//! disabled, as the API writes them.

use std::time::Duration;

use posthaste_core::endpoint::Endpoint;
use posthaste_core::limits::DISABLE_AFTER;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::problem::Problem;
use crate::config::{format_duration, parse_duration};

const NEVER: &str = "never";

/// When an endpoint that does nothing but fail is disabled.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AutoDisable {
    /// After so long, in which at least 20 attempts failed: `12h` to `720h`, or
    /// `never`.
    #[schema(pattern = "^([0-9]+(ms|s|m|h)|never)$", default = "120h")]
    after: String,
}

impl Default for AutoDisable {
    fn default() -> Self {
        Self::after(Some(DISABLE_AFTER))
    }
}

impl From<&Endpoint> for AutoDisable {
    fn from(endpoint: &Endpoint) -> Self {
        Self::after(endpoint.disable_after)
    }
}

impl AutoDisable {
    fn after(span: Option<Duration>) -> Self {
        Self {
            after: span.map_or_else(|| NEVER.to_owned(), format_duration),
        }
    }

    /// As an endpoint's record has it.
    pub(super) fn millis(&self) -> Result<u64, Problem> {
        match &*self.after {
            NEVER => Ok(0),
            after => {
                let param = "auto_disable.after";
                millis(after).map_err(|e| Problem::invalid(param, format!("{e}, or `{NEVER}`")))
            }
        }
    }
}

/// The age an event may have, as an endpoint's record has it.
pub(super) fn max_age_millis(max_age: Option<&str>) -> Result<u64, Problem> {
    let age = max_age.map_or(Ok(0), millis);
    age.map_err(|problem| Problem::invalid("max_age", problem))
}

/// … and as it is shown.
pub(super) fn max_age_of(endpoint: &Endpoint) -> Option<String> {
    endpoint.max_age.map(format_duration)
}

fn millis(text: &str) -> Result<u64, String> {
    let span = parse_duration(text)?;
    // To a record 0 says that there is none. The least that is more is too
    // little as well, and refused for that.
    Ok(u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1))
}
