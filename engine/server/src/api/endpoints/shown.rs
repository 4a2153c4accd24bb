//! An endpoint as it is shown.

use std::collections::BTreeMap;

use posthaste_core::endpoint::{Endpoint, Verify};
use posthaste_core::filter::TypePattern;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Recovery;
use super::ages::{AutoDisable, max_age_of};
use crate::api::document::values;
use crate::api::signing::Chosen;
use crate::api::verification::VerifyName;
use crate::config::format_rfc3339;

/// An endpoint as it is shown: never with its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub(super) struct Shown {
    #[schema(examples("ep_01M8A8SGRT3TMFMM1F4JJZHFBM"))]
    id: String,
    uid: String,
    tenant: String,
    url: String,
    description: String,
    metadata: BTreeMap<String, String>,
    status: Status,
    #[schema(value_type = Vec<values::TypePattern>)]
    event_types: Vec<String>,
    #[schema(value_type = Vec<values::TypePattern>)]
    exclude_event_types: Vec<String>,
    signing: Chosen,
    #[schema(value_type = Option<values::Filter>)]
    filter: Option<Box<RawValue>>,
    max_in_flight: u32,
    #[schema(value_type = values::Duration)]
    timeout: String,
    #[schema(value_type = values::Duration)]
    connect_timeout: String,
    http2: bool,
    retry_policy: String,
    fail_fast_4xx: bool,
    /// How old an event may be when it is attempted.
    #[schema(value_type = Option<values::Duration>, required = true)]
    max_age: Option<String>,
    auto_disable: AutoDisable,
    owned: bool,
    rate_per_second: u32,
    ordered: bool,
    recovery: Recovery,
    #[serde(with = "VerifyName")]
    #[schema(value_type = VerifyName)]
    verify: Verify,
    /// `gone`, `failing` or `verification`; absent while it is active.
    #[serde(skip_serializing_if = "String::is_empty")]
    disabled_reason: String,
    /// The names of its headers; their values are not shown.
    headers: Vec<String>,
    event_headers: bool,
    #[schema(value_type = values::Time)]
    created_at: String,
    /// When this version of it was made.
    #[schema(value_type = values::Time)]
    updated_at: String,
    /// Raised by each change.
    version: u64,
}

/// Whether an endpoint gets deliveries.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = EndpointStatus)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Active,
    Paused,
    Disabled,
}

/// Its filter as it was written.
pub(super) fn filter_of(endpoint: &Endpoint) -> Option<Box<RawValue>> {
    let text = endpoint.filter.as_ref()?.text();
    RawValue::from_string(text.to_owned()).ok()
}

pub(super) fn texts(patterns: &[TypePattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

pub(super) fn shown(endpoint: &Endpoint) -> Shown {
    Shown {
        id: endpoint.id.to_string(),
        uid: endpoint.uid.clone(),
        tenant: endpoint.tenant.clone(),
        url: endpoint.url.clone(),
        description: endpoint.description.clone(),
        metadata: endpoint.metadata.clone(),
        status: match (endpoint.disabled, endpoint.paused) {
            (true, _) => Status::Disabled,
            (false, true) => Status::Paused,
            (false, false) => Status::Active,
        },
        event_types: texts(&endpoint.event_types),
        exclude_event_types: texts(&endpoint.exclude_event_types),
        filter: filter_of(endpoint),
        signing: Chosen::from(endpoint),
        max_in_flight: endpoint.max_in_flight,
        timeout: format!("{}ms", endpoint.timeout.as_millis()),
        connect_timeout: format!("{}ms", endpoint.connect_timeout.as_millis()),
        http2: endpoint.http2,
        retry_policy: endpoint.retry_policy.clone(),
        fail_fast_4xx: endpoint.fail_fast_4xx,
        max_age: max_age_of(endpoint),
        auto_disable: AutoDisable::from(endpoint),
        owned: endpoint.owned,
        rate_per_second: endpoint.rate_per_second,
        ordered: endpoint.ordered,
        recovery: if endpoint.fifo {
            Recovery::Fifo
        } else {
            Recovery::LiveFirst
        },
        verify: endpoint.verify,
        disabled_reason: endpoint.disabled_reason.clone(),
        headers: endpoint.headers.iter().map(|h| h.name.clone()).collect(),
        event_headers: endpoint.event_headers,
        created_at: format_rfc3339(endpoint.created_at),
        updated_at: format_rfc3339(endpoint.updated_at),
        version: endpoint.version,
    }
}
