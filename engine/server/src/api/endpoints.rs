//! Endpoints: create, list, show; `change` has what changes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::{Endpoint, Verify};
use posthaste_core::event::check_tenant;
use posthaste_core::id::EndpointId;
use posthaste_core::limits::ENDPOINTS_PER_TENANT_MAX;
use posthaste_core::metadata;
use posthaste_core::rng::Rng;
use posthaste_proto as proto;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::Api;
use super::auth::Caller;
use super::body::{Whole, read_json};
use super::document::{codes, values};
use super::operations::replay::Begun;
use super::page::{Page, Paging};
use super::problem::{Asked, Problem, Segments};
use super::secrets::seal;
use super::signing::{Imported, Signing, secret_text};
use super::verification::{Verification, VerifyName, settle};
use crate::clock::random_seed;
use crate::config::parse_duration;
use crate::control::By;

mod ages;
pub mod change;
mod headers;
pub mod health;
pub mod send_test;
mod shown;
mod start;
pub mod stats;
pub mod status;

use ages::{AutoDisable, max_age_millis};
pub(in crate::api) use change::{Place, answer_asked, based, merge};
use shown::{Shown, filter_of, shown, texts};

/// What a new endpoint is made of, and all of it that can be changed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[schema(examples(json!({
    "url": "https://example.com/hooks", "uid": "billing", "event_types": ["invoice.*"],
    "timeout": "20s",
})))]
#[serde(deny_unknown_fields)]
struct NewEndpoint {
    /// Where its events go: `https://` to a public address, unless `[egress]`
    /// of the configuration allows more.
    #[schema(examples("https://example.com/hooks"))]
    url: String,
    /// A name of the caller's, the only one of its tenant: paths take it as well
    /// as the id.
    #[serde(default)]
    uid: String,
    /// For people.
    #[serde(default)]
    description: String,
    /// What others want to remember of it: at most 50 pairs, keys of 1 to 64
    /// bytes, 8 KiB in all.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    /// Patterns of the types it wants, such as `invoice.*`; all when empty.
    #[serde(default)]
    #[schema(value_type = Vec<values::TypePattern>)]
    event_types: Vec<String>,
    /// Patterns of types it does not want, though `event_types` names them.
    #[serde(default)]
    #[schema(value_type = Vec<values::TypePattern>)]
    exclude_event_types: Vec<String>,
    /// What an event's content must be like.
    // As it is written, so that no number in it is rounded.
    #[serde(default, serialize_with = "nothing")]
    #[schema(value_type = Option<values::Filter>)]
    filter: Option<Box<RawValue>>,
    /// A secret to sign with; one is made when it is absent.
    #[serde(default, serialize_with = "nothing")]
    #[schema(value_type = Option<String>, write_only)]
    secret: Option<Imported>,
    /// How its deliveries are signed.
    #[serde(default)]
    signing: Option<Signing>,
    /// From when on it gets events: what came since then is replayed to it. From
    /// now on when it is absent.
    #[serde(default, serialize_with = "nothing")]
    #[schema(value_type = Option<values::Moment>, write_only)]
    start_at: Option<String>,
    /// Headers of its requests, beside Posthaste's own.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Whether type, attempt and the reason of a retry stand in headers too:
    /// `webhook-event-type`, `webhook-attempt`, `webhook-retry-reason`.
    #[serde(default)]
    event_headers: bool,
    /// Requests at once, at most; 0 for 10.
    #[serde(default)]
    max_in_flight: u32,
    /// How long a receiver may take, at most `30s`; `15s` when absent.
    #[serde(default)]
    #[schema(value_type = Option<values::Duration>)]
    timeout: Option<String>,
    /// How long a connection may take, at most `timeout`.
    #[serde(default)]
    #[schema(value_type = Option<values::Duration>)]
    connect_timeout: Option<String>,
    /// Whether to use HTTP/2 where the receiver offers it.
    #[serde(default)]
    http2: bool,
    /// A retry policy's name; `standard` when empty.
    #[serde(default)]
    retry_policy: String,
    /// Whether a 400, 404, 405, 413, 415 or 422 ends a delivery.
    #[serde(default)]
    fail_fast_4xx: bool,
    /// How old an event may be when it is attempted, `1s` to `720h`: an older one
    /// becomes a dead letter, `expired`. No bound when it is absent. What is
    /// replayed, redriven or sent again was asked for, and is never too old.
    #[serde(default)]
    #[schema(value_type = Option<values::Duration>)]
    max_age: Option<String>,
    /// When it is disabled for failing.
    #[serde(default)]
    auto_disable: AutoDisable,
    /// Whether first attempts are its owner's too, so that its limits are exact.
    #[serde(default)]
    owned: bool,
    /// Attempts a second; 0 for no bound.
    #[serde(default)]
    rate_per_second: u32,
    /// Whether events of one ordering key come one after the other.
    #[serde(default)]
    ordered: bool,
    /// What goes first once it is back.
    #[serde(default)]
    recovery: Recovery,
    /// Whether its receiver is asked before it gets events.
    #[serde(default, with = "VerifyName")]
    #[schema(value_type = VerifyName)]
    verify: Verify,
}

/// Written as `null`, whatever it is.
pub(in crate::api) fn nothing<T, S: Serializer>(_: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_none()
}

/// What goes first once an endpoint is back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Recovery {
    /// New events; the backlog beside them.
    #[default]
    LiveFirst,
    /// The backlog.
    Fifo,
}

type Endpoints = Page<Shown>;

/// A new endpoint, once with its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedEndpoint)]
struct Created<'a> {
    #[serde(flatten)]
    endpoint: Shown,
    secret: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    verification: Option<Verification>,
    /// Brings the events since `start_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operation: Option<Begun>,
}

/// Makes an endpoint. The answer is the only one that shows the secret.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints",
    operation_id = "create_endpoint",
    tag = "Endpoints",
    request_body = NewEndpoint,
    responses(
        (
            status = 201,
            description = "The endpoint, and its secret.",
            body = Created<'static>,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::UidTaken,
        codes::TooManyEndpoints,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
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
    let (endpoint, verification) = settle(api, caller, endpoint).await;
    let operation = start::begin(api, &endpoint, start_at.as_deref(), caller).await?;
    let created = Created {
        endpoint: shown(&endpoint),
        secret: &secret,
        verification,
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
    let endpoint = filled(api, record, None, new)?;
    Ok((endpoint.with_trust_of(None), secret))
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
        max_age_ms: max_age_millis(new.max_age.as_deref())?,
        disable_after_ms: Some(new.auto_disable.millis()?),
        ordered: new.ordered,
        fifo: new.recovery == Recovery::Fifo,
        description: new.description,
        metadata: metadata::to_proto(&new.metadata.unwrap_or_default()),
        owned: new.owned,
        rate_per_second: new.rate_per_second,
        verify: proto::Verify::from(new.verify).into(),
        ..record
    })?;
    headers::seal(api, &mut endpoint, present)?;
    Ok(endpoint)
}

/// A policy is the configuration's or was put; none means `standard`.
fn check_policy(api: &Api, name: &str) -> Result<(), Problem> {
    let registry = api.endpoints.registry();
    let registry = registry.borrow();
    let policies = registry.policies();
    if name.is_empty() || policies.knows(name) {
        return Ok(());
    }
    let names: Vec<_> = policies.names().map(|name| format!("`{name}`")).collect();
    let (shown, wanted) = (name.escape_default(), names.join(", "));
    let problem =
        format!("`{shown}` is unknown: expected {wanted}; PUT /v1/retry_policies/NAME makes more");
    Err(Problem::invalid("retry_policy", problem))
}

/// A tenant's endpoints, oldest first.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/endpoints",
    operation_id = "list_endpoints",
    tag = "Endpoints",
    params(Paging),
    responses(
        (status = 200, description = "A page of them.", body = Endpoints),
        codes::Invalid,
    ),
)]
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
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}",
    operation_id = "get_endpoint",
    tag = "Endpoints",
    responses((
        status = 200,
        description = "The endpoint.",
        body = Shown,
        headers(("etag" = String, description = "Its version, for `if-match`.")),
    )),
)]
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
    let found = registry.find(id);
    let none = || Problem::not_found("no such endpoint");
    found.cloned().ok_or_else(none)
}
