//! Endpoints: create, list, show, enable, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::check_tenant;
use posthaste_core::id::EndpointId;
use posthaste_core::limits::ENDPOINTS_PER_TENANT_MAX;
use posthaste_core::rng::Rng;
use posthaste_core::signature::{SigningKey, generate_secret};
use posthaste_proto as proto;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Api;
use super::body::{Whole, read_json};
use super::problem::{Problem, Segments};
use crate::clock::random_seed;
use crate::config::parse_duration;

/// What a new endpoint is made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEndpoint {
    url: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    event_types: Vec<String>,
    /// As it is written, so that no number in it is rounded.
    #[serde(default)]
    filter: Option<Box<RawValue>>,
    /// Imported; made here when absent.
    #[serde(default)]
    secret: Option<Imported>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    max_in_flight: u32,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    connect_timeout: Option<String>,
    #[serde(default)]
    http2: bool,
    #[serde(default)]
    retry_policy: String,
    #[serde(default)]
    fail_fast_4xx: bool,
    #[serde(default)]
    owned: bool,
    /// Attempts a second; 0 for no bound.
    #[serde(default)]
    rate_per_second: u32,
    #[serde(default)]
    ordered: bool,
    #[serde(default)]
    recovery: Recovery,
}

/// What goes first once an endpoint is back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Recovery {
    /// New events; the backlog beside them.
    #[default]
    LiveFirst,
    /// The backlog.
    Fifo,
}

/// A secret the caller brings. It has no Debug that shows it.
#[derive(Deserialize)]
#[serde(transparent)]
struct Imported(String);

impl std::fmt::Debug for Imported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Imported(..)")
    }
}

/// An endpoint as it is shown: never with its secret.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    uid: String,
    tenant: String,
    url: String,
    description: String,
    status: &'static str,
    event_types: Vec<String>,
    filter: Option<Box<RawValue>>,
    max_in_flight: u32,
    timeout: String,
    connect_timeout: String,
    http2: bool,
    retry_policy: String,
    fail_fast_4xx: bool,
    owned: bool,
    rate_per_second: u32,
    ordered: bool,
    recovery: Recovery,
    #[serde(skip_serializing_if = "String::is_empty")]
    disabled_reason: String,
    headers: Vec<String>,
    created_at_ms: u64,
}

/// A new endpoint, once with its secret.
#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    endpoint: Shown,
    secret: String,
}

/// Makes an endpoint. The answer is the only one that shows the secret.
pub async fn create(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    let new: NewEndpoint = read_json(&body)?;
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    if registry.of_tenant(&tenant).count() >= ENDPOINTS_PER_TENANT_MAX {
        let most = format!("a tenant has at most {ENDPOINTS_PER_TENANT_MAX} endpoints");
        return Err(Problem::conflict("too_many_endpoints", most));
    }
    let taken = |endpoint: &Arc<Endpoint>| !new.uid.is_empty() && endpoint.uid == new.uid;
    if registry.of_tenant(&tenant).any(taken) {
        return Err(Problem::conflict(
            "uid_taken",
            format!("the tenant has an endpoint with uid `{}`", new.uid),
        ));
    }
    let (endpoint, secret) = build(&api, tenant, new)?;
    api.endpoints.put(&endpoint).await?;
    let created = Created {
        endpoint: shown(&endpoint),
        secret,
    };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

fn build(api: &Api, tenant: String, new: NewEndpoint) -> Result<(Endpoint, String), Problem> {
    api.egress
        .check_url(&new.url)
        .map_err(|error| Problem::invalid("url", error))?;
    check_policy(api, &new.retry_policy)?;
    let secret = match new.secret {
        Some(Imported(text)) => text,
        None => {
            let mut random = [0; 32];
            getrandom::fill(&mut random)
                .map_err(|error| Problem::unavailable(format!("no randomness: {error}")))?;
            generate_secret(random).expose().to_owned()
        }
    };
    SigningKey::parse(&secret).map_err(|error| Problem::invalid("secret", error.to_string()))?;
    let millis = |param, text: Option<String>| match text {
        None => Ok(0),
        Some(text) => parse_duration(&text)
            .map(|span| u32::try_from(span.as_millis()).unwrap_or(u32::MAX))
            .map_err(|problem| Problem::invalid(param, problem)),
    };
    let now = api.clock.now();
    let id = EndpointId::generate(now, &mut Rng::new(random_seed()));
    let endpoint = Endpoint::from_proto(proto::Endpoint {
        id: id.as_bytes().to_vec().into(),
        uid: new.uid,
        tenant,
        url: new.url,
        event_types: new.event_types,
        filter: new.filter.map_or_else(String::new, |f| f.get().to_owned()),
        secrets: vec![proto::Secret {
            id: "s1".to_owned(),
            text: secret.clone(),
            not_before_ms: 0,
            expires_at_ms: 0,
        }],
        headers: new
            .headers
            .into_iter()
            .map(|(name, value)| proto::Header {
                name,
                value: value.into_bytes().into(),
            })
            .collect(),
        max_in_flight: new.max_in_flight,
        connect_timeout_ms: millis("connect_timeout", new.connect_timeout)?,
        timeout_ms: millis("timeout", new.timeout)?,
        http2: new.http2,
        retry_policy: new.retry_policy,
        fail_fast_4xx: new.fail_fast_4xx,
        disabled: false,
        disabled_reason: String::new(),
        ordered: new.ordered,
        fifo: new.recovery == Recovery::Fifo,
        created_at_ms: now.as_millis(),
        description: new.description,
        owned: new.owned,
        rate_per_second: new.rate_per_second,
    })?;
    Ok((endpoint, secret))
}

/// A policy is the configuration's; none means `standard`.
fn check_policy(api: &Api, name: &str) -> Result<(), Problem> {
    let policies = &api.config.retry_policies.0;
    if name.is_empty() || policies.knows(name) {
        return Ok(());
    }
    let names: Vec<_> = policies.names().map(|name| format!("`{name}`")).collect();
    let (shown, wanted) = (name.escape_default(), names.join(", "));
    let problem = format!("`{shown}` is unknown: expected {wanted}; [retry_policies] defines more");
    Err(Problem::invalid("retry_policy", problem))
}

fn shown(endpoint: &Endpoint) -> Shown {
    Shown {
        id: endpoint.id.to_string(),
        uid: endpoint.uid.clone(),
        tenant: endpoint.tenant.clone(),
        url: endpoint.url.clone(),
        description: endpoint.description.clone(),
        status: if endpoint.disabled {
            "disabled"
        } else {
            "active"
        },
        event_types: endpoint
            .event_types
            .iter()
            .map(ToString::to_string)
            .collect(),
        filter: endpoint
            .filter
            .as_ref()
            .and_then(|filter| RawValue::from_string(filter.text().to_owned()).ok()),
        max_in_flight: endpoint.max_in_flight,
        timeout: format!("{}ms", endpoint.timeout.as_millis()),
        connect_timeout: format!("{}ms", endpoint.connect_timeout.as_millis()),
        http2: endpoint.http2,
        retry_policy: endpoint.retry_policy.clone(),
        fail_fast_4xx: endpoint.fail_fast_4xx,
        owned: endpoint.owned,
        rate_per_second: endpoint.rate_per_second,
        ordered: endpoint.ordered,
        recovery: if endpoint.fifo {
            Recovery::Fifo
        } else {
            Recovery::LiveFirst
        },
        disabled_reason: endpoint.disabled_reason.clone(),
        headers: endpoint.headers.iter().map(|h| h.name.clone()).collect(),
        created_at_ms: endpoint.created_at.as_millis(),
    }
}

/// A tenant's endpoints.
pub async fn list(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let data: Vec<_> = registry.of_tenant(&tenant).map(|e| shown(e)).collect();
    Ok(Json(std::collections::BTreeMap::from([("data", data)])).into_response())
}

/// One endpoint, by id or uid.
pub async fn show(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    Ok(Json(shown(&endpoint)).into_response())
}

/// Lets a disabled endpoint have deliveries again, by id or uid: what it holds
/// first of all.
pub async fn enable(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let mut endpoint = (*find(&api, &tenant, &name)?).clone();
    if endpoint.disabled {
        endpoint.disabled = false;
        endpoint.disabled_reason.clear();
        api.endpoints.put(&endpoint).await?;
    }
    Ok(Json(shown(&endpoint)).into_response())
}

/// Deletes an endpoint, by id or uid. What waits for it is cancelled.
pub async fn delete(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
) -> Result<StatusCode, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    api.endpoints.delete(endpoint.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Another tenant's endpoint is not found, as one that never was.
fn find(api: &Api, tenant: &str, name: &str) -> Result<Arc<Endpoint>, Problem> {
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    registry
        .of_tenant(tenant)
        .find(|endpoint| {
            endpoint.id.to_string() == name || (!name.is_empty() && endpoint.uid == name)
        })
        .cloned()
        .ok_or_else(|| Problem::not_found("no such endpoint"))
}
