//! Tenants: what is said of them, and how many endpoints they have.
//!
//! A tenant needs no record: one that has endpoints and none is shown with
//! defaults, as version 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::check_tenant;
use posthaste_core::limits::TENANT_DELETE_PAGE_MAX;
use posthaste_core::records::{Tenant, Versioned};
use posthaste_core::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::auth::Caller;
use super::body::{Whole, read_json};
use super::catalog::{answer, change, delete as delete_record, present};
use super::document::changes::{Patch, Replacement};
use super::document::codes;
use super::document::values::{self, IfMatch};
use super::endpoints::{based, merge};
use super::page::{Page, Paging};
use super::problem::{Asked, Problem, Segments};
use crate::config::format_rfc3339;
use crate::control::{By, CommandError};

/// All that can be said of one.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = TenantSettings)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What people call it, at most 256 bytes.
    #[serde(default)]
    name: String,
    /// For people, at most 1024 bytes.
    #[serde(default)]
    description: String,
    /// What others want to remember of it: at most 50 pairs, keys of 1 to 64
    /// bytes, 8 KiB in all.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

type TenantReplacement = Replacement<Settings>;
type TenantPatch = Patch<Settings>;
type Tenants = Page<Shown>;

/// A tenant as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
struct Shown {
    /// The text by which events and endpoints name it.
    tenant: String,
    /// What people call it.
    name: String,
    description: String,
    metadata: BTreeMap<String, String>,
    /// How many it has.
    endpoints: usize,
    /// … and of these, how many are enabled.
    endpoints_enabled: usize,
    /// `null` while nothing is said of it.
    #[schema(value_type = Option<values::Time>, required = true)]
    created_at: Option<String>,
    /// 0 while nothing is said of it.
    version: u64,
}

/// How a tenant is deleted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Deletion {
    /// Its endpoints too, each as a change of its own.
    #[serde(default)]
    endpoints: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    all: usize,
    enabled: usize,
}

impl Counts {
    fn add(mut self, endpoint: &Endpoint) -> Self {
        self.all += 1;
        self.enabled += usize::from(!endpoint.disabled);
        self
    }

    fn of(registry: &Registry, tenant: &str) -> Self {
        let endpoints = registry.of_tenant(tenant);
        endpoints.fold(Self::default(), |counts, endpoint| counts.add(endpoint))
    }
}

fn shown(tenant: &str, record: Option<&Versioned<Tenant>>, counts: Counts) -> Shown {
    let is = record.map(|record| &*record.record);
    Shown {
        tenant: tenant.to_owned(),
        name: is.map_or_else(String::new, |is| is.name.clone()),
        description: is.map_or_else(String::new, |is| is.description.clone()),
        metadata: is.map_or_else(BTreeMap::new, |is| is.metadata.clone()),
        endpoints: counts.all,
        endpoints_enabled: counts.enabled,
        created_at: is.map(|is| format_rfc3339(is.created_at)),
        version: record.map_or(0, |record| record.version),
    }
}

fn absent() -> Problem {
    Problem::not_found("no such tenant")
}

fn counts(api: &Api, tenant: &str) -> Counts {
    Counts::of(&api.endpoints.registry().borrow(), tenant)
}

/// Tenants by name: those that have endpoints, or of which something is said.
#[utoipa::path(
    get,
    path = "/v1/tenants",
    operation_id = "list_tenants",
    tag = "Tenants",
    params(Paging),
    responses(
        (status = 200, description = "A page of them.", body = Tenants),
        codes::Invalid,
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(paging): Asked<Paging>,
) -> Result<Response, Problem> {
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let catalog = api.endpoints.catalog();
    let mut all: BTreeMap<&str, (Option<Versioned<Tenant>>, Counts)> = BTreeMap::new();
    for endpoint in registry.endpoints() {
        let (_, counts) = all.entry(&endpoint.tenant).or_default();
        *counts = counts.add(endpoint);
    }
    for (name, record) in catalog.tenants().iter() {
        all.entry(name).or_default().0 = Some(record);
    }
    let all = all
        .iter()
        .map(|(name, (record, counts))| (*name, (*name, record, *counts)));
    let page = paging.by_name(all, |(name, record, counts)| {
        shown(name, record.as_ref(), counts)
    })?;
    Ok(Json(page).into_response())
}

/// A tenant that has endpoints, or of which something is said.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}",
    operation_id = "get_tenant",
    tag = "Tenants",
    responses(
        (
            status = 200,
            description = "The tenant.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
    ),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
) -> Result<Response, Problem> {
    let record = api.endpoints.catalog().tenants().get(&tenant);
    let counts = counts(&api, &tenant);
    if record.is_none() && counts.all == 0 {
        return Err(absent());
    }
    let version = record.as_ref().map_or(0, |record| record.version);
    Ok(answer(
        false,
        version,
        &shown(&tenant, record.as_ref(), counts),
    ))
}

/// Replaces all that is said of a tenant, or says it for the first time.
#[utoipa::path(
    put,
    path = "/v1/tenants/{tenant}",
    operation_id = "replace_tenant",
    tag = "Tenants",
    params(IfMatch),
    request_body = TenantReplacement,
    responses(
        (
            status = 200,
            description = "The tenant as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        (
            status = 201,
            description = "What is said of it for the first time.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::TooManyTenants,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    let mut settings: Map<String, Value> = read_json(&body)?;
    let based = based(&headers, Some(&mut settings))?;
    let settings = Value::Object(settings);
    let (record, is_new) = change(&api, &tenant, based, &caller.by(), |present| {
        said(&api, &tenant, present, settings.clone())
    })
    .await?;
    let shown = shown(&tenant, Some(&record), counts(&api, &tenant));
    Ok(answer(is_new, record.version, &shown))
}

/// Changes what is said of a tenant, where the body names it.
///
/// JSON merge patch (RFC 7396): `null` takes a member back.
#[utoipa::path(
    patch,
    path = "/v1/tenants/{tenant}",
    operation_id = "change_tenant",
    tag = "Tenants",
    params(IfMatch),
    request_body = TenantPatch,
    responses(
        (
            status = 200,
            description = "The tenant as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::TooManyTenants,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn patch(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let mut patch: Map<String, Value> = read_json(&body)?;
    let based = based(&headers, Some(&mut patch))?;
    let patch = Value::Object(patch);
    let (record, _) = change(
        &api,
        &tenant,
        based,
        &caller.by(),
        |present: Option<&Tenant>| {
            if present.is_none() && counts(&api, &tenant).all == 0 {
                return Err(absent());
            }
            let settings = present.map_or_else(Settings::default, Settings::from);
            let mut settings = serde_json::to_value(settings)
                .map_err(|error| Problem::malformed(error.to_string()))?;
            merge(&mut settings, &patch);
            said(&api, &tenant, present, settings)
        },
    )
    .await?;
    let shown = shown(&tenant, Some(&record), counts(&api, &tenant));
    Ok(answer(false, record.version, &shown))
}

fn said(
    api: &Api,
    tenant: &str,
    present: Option<&Tenant>,
    settings: Value,
) -> Result<Tenant, Problem> {
    let read = serde_path_to_error::deserialize(settings);
    let settings: Settings = read.map_err(|error| Problem::wrong_json(&error))?;
    let record = Tenant {
        tenant: tenant.to_owned(),
        name: settings.name,
        description: settings.description,
        metadata: settings.metadata,
        created_at: present.map_or_else(|| api.clock.now(), |present| present.created_at),
    };
    record.check()?;
    Ok(record)
}

impl From<&Tenant> for Settings {
    fn from(tenant: &Tenant) -> Self {
        Self {
            name: tenant.name.clone(),
            description: tenant.description.clone(),
            metadata: tenant.metadata.clone(),
        }
    }
}

/// Deletes what is said of a tenant that has no endpoints.
///
/// With `endpoints=true` they are deleted before that; what waits for them is
/// cancelled. Of more than 500 it deletes so many and is to be repeated.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{tenant}",
    operation_id = "delete_tenant",
    tag = "Tenants",
    params(Deletion, IfMatch),
    responses(
        (status = 204, description = "It is deleted."),
        codes::TenantNotEmpty,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    Asked(deletion): Asked<Deletion>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let based = based(&headers, None)?;
    let record = present::<Tenant>(&api.endpoints.catalog(), &tenant, based)?;
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let all = Counts::of(&registry, &tenant).all;
    if record.is_none() && all == 0 {
        return Err(absent());
    }
    let not_empty = |detail| Problem::conflict("tenant_not_empty", detail);
    if all > 0 && !deletion.endpoints {
        let detail = format!("it has {all} endpoints: `?endpoints=true` deletes them too");
        return Err(not_empty(detail));
    }
    let by = caller.by();
    for endpoint in registry.of_tenant(&tenant).take(TENANT_DELETE_PAGE_MAX) {
        delete_endpoint(&api, endpoint, &by).await?;
    }
    if let Some(left) = all
        .checked_sub(TENANT_DELETE_PAGE_MAX)
        .filter(|left| *left > 0)
    {
        let done = TENANT_DELETE_PAGE_MAX;
        let detail = format!("{done} endpoints are deleted and {left} are left: ask again");
        return Err(not_empty(detail));
    }
    if record.is_some() {
        delete_record::<Tenant>(&api, &tenant, based, &by).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes an endpoint as it is now; one that is gone meanwhile is as good.
async fn delete_endpoint(api: &Api, endpoint: &Endpoint, by: &By) -> Result<(), Problem> {
    let mut present = endpoint.clone();
    let mut again = true;
    loop {
        match api.endpoints.delete(&present, by).await {
            Err(CommandError::Conflict { present: None }) => return Ok(()),
            Err(CommandError::Conflict { .. }) if again => again = false,
            deleted => return deleted.map_err(Into::into),
        }
        let registry = Arc::clone(&api.endpoints.registry().borrow());
        let now = registry
            .index(endpoint.id)
            .and_then(|ix| registry.endpoint(ix));
        match now {
            Some(now) => present = Endpoint::clone(now),
            None => return Ok(()),
        }
    }
}
