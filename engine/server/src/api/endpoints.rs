//! Endpoints: create, list, show; `change` has what changes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::{Endpoint, Held};
use posthaste_core::event::check_tenant;
use posthaste_core::filter::TypePattern;
use posthaste_core::id::EndpointId;
use posthaste_core::limits::ENDPOINTS_PER_TENANT_MAX;
use posthaste_core::rng::Rng;
use posthaste_proto as proto;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::Api;
use super::auth::Caller;
use super::body::{Whole, read_json};
use super::operations::replay::Begun;
use super::page::Paging;
use super::problem::{Asked, Problem, Segments};
use super::secrets::seal;
use super::signing::{Chosen, Imported, Signing, secret_text};
use crate::clock::random_seed;
use crate::config::{format_rfc3339, parse_duration};
use crate::control::By;

mod change;
mod start;
mod status;

pub(in crate::api) use change::Place;
pub use change::{delete, patch, replace};
pub use status::{disable, enable, pause, resume};

/// What a new endpoint is made of, and all of it that can be changed.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewEndpoint {
    url: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    event_types: Vec<String>,
    #[serde(default)]
    exclude_event_types: Vec<String>,
    /// As it is written, so that no number in it is rounded.
    #[serde(default, skip_serializing)]
    filter: Option<Box<RawValue>>,
    /// Imported; made here when absent.
    #[serde(default, skip_serializing)]
    secret: Option<Imported>,
    #[serde(default)]
    signing: Option<Signing>,
    /// From when on it gets events, a UTC time or how long ago; from now on
    /// without it.
    #[serde(default, skip_serializing)]
    start_at: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Type, attempt and retry reason in headers too.
    #[serde(default)]
    event_headers: bool,
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
    exclude_event_types: Vec<String>,
    signing: Chosen,
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
    event_headers: bool,
    created_at: String,
    version: u64,
}

/// A new endpoint, once with its secret.
#[derive(Serialize)]
struct Created<'a> {
    #[serde(flatten)]
    endpoint: Shown,
    secret: &'a str,
    /// Brings the events since `start_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<Begun>,
}

/// Makes an endpoint. The answer is the only one that shows the secret.
pub async fn create(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    make(&api, tenant, read_json(&body)?, &caller).await
}

async fn make(
    api: &Api,
    tenant: String,
    mut new: NewEndpoint,
    caller: &Caller,
) -> Result<Response, Problem> {
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    if registry.of_tenant(&tenant).count() >= ENDPOINTS_PER_TENANT_MAX {
        let most = format!("a tenant has at most {ENDPOINTS_PER_TENANT_MAX} endpoints");
        return Err(Problem::conflict("too_many_endpoints", most));
    }
    check_uid(api, &tenant, &new.uid, None)?;
    let start_at = start::read(api, new.start_at.take())?;
    let (endpoint, secret) = build(api, tenant, new)?;
    let endpoint = api.endpoints.put(&endpoint, &caller.by()).await?;
    withdraw_second(api, &endpoint, &caller.by()).await?;
    let operation = start::begin(api, &endpoint, start_at.as_deref(), caller).await?;
    let created = Created {
        endpoint: shown(&endpoint),
        secret: &secret,
        operation,
    };
    let tag = change::tag(&endpoint);
    Ok((StatusCode::CREATED, tag, Json(created)).into_response())
}

/// Whether the tenant has another endpoint of that uid.
fn check_uid(
    api: &Api,
    tenant: &str,
    uid: &str,
    except: Option<EndpointId>,
) -> Result<(), Problem> {
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let taken = |endpoint: &Arc<Endpoint>| {
        !uid.is_empty() && endpoint.uid == uid && Some(endpoint.id) != except
    };
    match registry.of_tenant(tenant).any(taken) {
        true => Err(uid_taken(uid)),
        false => Ok(()),
    }
}

fn uid_taken(uid: &str) -> Problem {
    let detail = format!("the tenant has an endpoint with uid `{uid}`");
    Problem::conflict("uid_taken", detail)
}

/// Two requests at once, each at an instance of its own, can make two endpoints
/// of one uid. The log has an order: the second of them is withdrawn.
async fn withdraw_second(api: &Api, endpoint: &Endpoint, by: &By) -> Result<(), Problem> {
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let alike = registry
        .of_tenant(&endpoint.tenant)
        .filter(|other| !other.uid.is_empty() && other.uid == endpoint.uid);
    let first = alike.filter_map(|other| registry.index(other.id)).min();
    if first.is_none_or(|first| registry.id(first) == Some(endpoint.id)) {
        return Ok(());
    }
    api.endpoints.delete(endpoint, by).await?;
    Err(uid_taken(&endpoint.uid))
}

fn build(
    api: &Api,
    tenant: String,
    mut new: NewEndpoint,
) -> Result<(Endpoint, Zeroizing<String>), Problem> {
    let Signing { scheme, algorithm } = new.signing.take().unwrap_or_default();
    let secret = secret_text("signing.algorithm", scheme, algorithm, new.secret.take())?;
    let now = api.clock.now();
    let id = EndpointId::generate(now, &mut Rng::new(random_seed()));
    let first = seal(api, id, &secret, now)?;
    let record = proto::Endpoint {
        id: id.as_bytes().to_vec().into(),
        tenant,
        signing_scheme: proto::SigningScheme::from(scheme).into(),
        secrets: vec![first.to_proto()],
        created_at_ms: now.as_millis(),
        ..proto::Endpoint::default()
    };
    Ok((filled(api, record, None, new)?, secret))
}

/// A record with what can be changed of it as it is asked for. `present` is the
/// endpoint it is of, where there is one.
fn filled(
    api: &Api,
    record: proto::Endpoint,
    present: Option<&Endpoint>,
    new: NewEndpoint,
) -> Result<Endpoint, Problem> {
    api.egress
        .check_url(&new.url)
        .map_err(|error| Problem::invalid("url", error))?;
    check_policy(api, &new.retry_policy)?;
    let millis = |param, text: Option<String>| match text {
        None => Ok(0),
        Some(text) => parse_duration(&text)
            .map(|span| u32::try_from(span.as_millis()).unwrap_or(u32::MAX))
            .map_err(|problem| Problem::invalid(param, problem)),
    };
    let mut endpoint = Endpoint::from_proto(proto::Endpoint {
        uid: new.uid,
        url: new.url,
        event_types: new.event_types,
        exclude_event_types: new.exclude_event_types,
        event_headers: new.event_headers,
        filter: new.filter.map_or_else(String::new, |f| f.get().to_owned()),
        headers: new
            .headers
            .into_iter()
            .map(|(name, value)| proto::Header {
                name,
                value: value.into_bytes().into(),
                sealed: None,
            })
            .collect(),
        max_in_flight: new.max_in_flight,
        connect_timeout_ms: millis("connect_timeout", new.connect_timeout)?,
        timeout_ms: millis("timeout", new.timeout)?,
        http2: new.http2,
        retry_policy: new.retry_policy,
        fail_fast_4xx: new.fail_fast_4xx,
        ordered: new.ordered,
        fifo: new.recovery == Recovery::Fifo,
        description: new.description,
        owned: new.owned,
        rate_per_second: new.rate_per_second,
        ..record
    })?;
    seal_headers(api, &mut endpoint, present)?;
    Ok(endpoint)
}

/// Seals headers' values; one that stays what it was stays sealed as it was.
fn seal_headers(
    api: &Api,
    endpoint: &mut Endpoint,
    present: Option<&Endpoint>,
) -> Result<(), Problem> {
    let before = present.map_or(&[][..], |present| &present.headers);
    for header in &mut endpoint.headers {
        let Held::Clear(value) = &header.held else {
            continue;
        };
        let id = header.seal_id();
        let same = before.iter().find(|old| {
            let opened = api.vault.open(endpoint.id, &id, &old.held);
            old.name == header.name && opened.is_ok_and(|old| old == *value)
        });
        header.held = match same {
            Some(old) => old.held.clone(),
            None => {
                let sealed = api.vault.seal(endpoint.id, &id, value);
                Held::Sealed(sealed.map_err(|error| Problem::unavailable(error.to_string()))?)
            }
        };
    }
    Ok(())
}

/// The values of an endpoint's headers, to be changed.
fn open_headers(api: &Api, endpoint: &Endpoint) -> Result<BTreeMap<String, String>, Problem> {
    let opened = endpoint.headers.iter().map(|header| {
        let value = api.vault.open(endpoint.id, &header.seal_id(), &header.held);
        let value = value.map_err(|error| {
            let name = &header.name;
            Problem::conflict("unreadable_header", format!("`{name}` is {error}"))
        })?;
        Ok((header.name.clone(), value.to_string()))
    });
    opened.collect()
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

/// Its filter as it was written.
fn filter_of(endpoint: &Endpoint) -> Option<Box<RawValue>> {
    let text = endpoint.filter.as_ref()?.text();
    RawValue::from_string(text.to_owned()).ok()
}

fn texts(patterns: &[TypePattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn shown(endpoint: &Endpoint) -> Shown {
    Shown {
        id: endpoint.id.to_string(),
        uid: endpoint.uid.clone(),
        tenant: endpoint.tenant.clone(),
        url: endpoint.url.clone(),
        description: endpoint.description.clone(),
        status: match (endpoint.disabled, endpoint.paused) {
            (true, _) => "disabled",
            (false, true) => "paused",
            (false, false) => "active",
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
        event_headers: endpoint.event_headers,
        created_at: format_rfc3339(endpoint.created_at),
        version: endpoint.version,
    }
}

/// A tenant's endpoints, oldest first.
pub async fn list(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    Asked(paging): Asked<Paging>,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let all = registry.of_tenant(&tenant).map(|e| (e.id, e));
    Ok(Json(paging.of(all, |e| shown(e))?).into_response())
}

/// One endpoint, by id or uid.
pub async fn show(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    Ok(change::answer(&endpoint))
}

/// Another tenant's endpoint is not found, as one that never was.
pub(super) fn find(api: &Api, tenant: &str, name: &str) -> Result<Arc<Endpoint>, Problem> {
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    registry
        .of_tenant(tenant)
        .find(|endpoint| {
            endpoint.id.to_string() == name || (!name.is_empty() && endpoint.uid == name)
        })
        .cloned()
        .ok_or_else(|| Problem::not_found("no such endpoint"))
}

/// Any tenant's endpoint, by its id, or by its uid together with its tenant.
pub(super) fn find_any(
    api: &Api,
    param: &'static str,
    tenant: Option<&str>,
    name: &str,
) -> Result<Arc<Endpoint>, Problem> {
    if let Some(tenant) = tenant {
        return find(api, tenant, name);
    }
    let Ok(id) = name.parse::<EndpointId>() else {
        let wanted = "expected an endpoint's id, or its uid together with its `tenant`";
        return Err(Problem::invalid(param, wanted));
    };
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let found = registry.index(id).and_then(|ix| registry.endpoint(ix));
    let none = || Problem::not_found("no such endpoint");
    found.cloned().ok_or_else(none)
}
