//! Retry policies: the schedules that endpoints can name. Those of the
//! configuration, and `standard`, are shown and not changed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use posthaste_core::limits::STANDARD_POLICY;
use posthaste_core::records::{RetryPolicy, Versioned};
use posthaste_core::retry::Policy;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::auth::Caller;
use super::body::{Whole, read_json};
use super::catalog::{answer, change, delete as delete_record, same_name};
use super::document::changes::Replacement;
use super::document::codes;
use super::document::values::{self, IfMatch};
use super::endpoints::based;
use super::page::{Page, Paging};
use super::problem::{Asked, Problem, Segments};
use crate::config::{format_duration, format_rfc3339, parse_duration};
use crate::control::Catalog;

/// All that can be said of one.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = RetryPolicySettings, examples(json!({"gaps": ["5s", "30s", "2m"]})))]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The pauses after the first attempt, the second, and so on: 1 to 30 of them,
    /// each `1s` to `24h`, at most `72h` in all.
    #[schema(value_type = Vec<values::Duration>)]
    gaps: Vec<String>,
    /// What it is for, at most 1024 bytes.
    #[serde(default)]
    description: String,
}

type RetryPolicyReplacement = Replacement<Settings>;
type RetryPolicies = Page<Shown>;

/// Where a policy comes from; only one of the API can be changed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PolicySource)]
#[serde(rename_all = "snake_case")]
enum Source {
    BuiltIn,
    Configuration,
    Api,
}

/// A schedule of retries.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetryPolicy)]
struct Shown {
    /// The text by which endpoints name it.
    name: String,
    source: Source,
    /// What it is for.
    description: String,
    /// The pauses after the first attempt, the second, and so on. Each is 20 % off
    /// at most; the first two are never shorter.
    #[schema(value_type = Vec<values::Duration>)]
    gaps: Vec<String>,
    /// So many attempts are made of a delivery at most: one more than gaps.
    attempts: usize,
    /// All gaps together.
    #[schema(value_type = values::Duration)]
    window: String,
    /// `null` for one that is not the API's.
    #[schema(value_type = Option<values::Time>, required = true)]
    created_at: Option<String>,
    /// Raised by each change; `null` for one that is not the API's.
    #[schema(required = true)]
    version: Option<u64>,
}

/// One as its source has it; of the API more is known.
fn of_policy(name: &str, source: Source, policy: &Policy) -> Shown {
    let gaps = policy.gaps();
    Shown {
        name: name.to_owned(),
        source,
        description: String::new(),
        gaps: gaps.iter().copied().map(format_duration).collect(),
        attempts: gaps.len() + 1,
        window: format_duration(gaps.iter().sum::<Duration>()),
        created_at: None,
        version: None,
    }
}

fn of_record(found: &Versioned<RetryPolicy>) -> Shown {
    let Versioned { record, version } = found;
    Shown {
        description: record.description.clone(),
        created_at: Some(format_rfc3339(record.created_at)),
        version: Some(*version),
        ..of_policy(&record.name, Source::Api, &record.policy)
    }
}

/// One that is not the API's, and so is not changed here.
fn read_only(api: &Api, name: &str) -> Option<Shown> {
    let policy = api.config.retry_policies.0.get(name)?;
    let source = match name {
        STANDARD_POLICY => Source::BuiltIn,
        _ => Source::Configuration,
    };
    Some(of_policy(name, source, policy))
}

/// What stands against changing one of that name.
fn check_source(api: &Api, name: &str) -> Result<(), Problem> {
    let Some(fixed) = read_only(api, name) else {
        return Ok(());
    };
    let detail = match fixed.source {
        Source::BuiltIn => format!("`{name}` is built in: expected another name"),
        Source::Configuration | Source::Api => {
            format!("`{name}` is in [retry_policies] of the configuration: take it out there first")
        }
    };
    Err(Problem::conflict("retry_policy_read_only", detail))
}

fn absent() -> Problem {
    Problem::not_found("no such retry policy")
}

/// All of them, each name once: where the configuration has it too, its own holds.
fn all<'a>(api: &'a Api, catalog: &'a Catalog) -> impl Iterator<Item = (&'a str, Shown)> {
    let configured = &api.config.retry_policies.0;
    let fixed = configured.names();
    let fixed = fixed.filter_map(|name| Some((name, read_only(api, name)?)));
    let records = catalog.retry_policies().iter();
    let records = records.filter(|(name, _)| !configured.knows(name));
    fixed.chain(records.map(|(name, found)| (name, of_record(&found))))
}

/// Retry policies by name: the API's, the configuration's and `standard`.
#[utoipa::path(
    get,
    path = "/v1/retry_policies",
    operation_id = "list_retry_policies",
    tag = "Retry policies",
    params(Paging),
    responses(
        (status = 200, description = "A page of them.", body = RetryPolicies),
        codes::Invalid,
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(paging): Asked<Paging>,
) -> Result<Response, Problem> {
    let catalog = api.endpoints.catalog();
    let page = paging.by_name(all(&api, &catalog), |one| one)?;
    Ok(Json(page).into_response())
}

/// A retry policy.
#[utoipa::path(
    get,
    path = "/v1/retry_policies/{retry_policy}",
    operation_id = "get_retry_policy",
    tag = "Retry policies",
    responses(
        (
            status = 200,
            description = "The retry policy.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`; of the API's own.")),
        ),
    ),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Segments(name): Segments<String>,
) -> Result<Response, Problem> {
    if let Some(fixed) = read_only(&api, &name) {
        return Ok(Json(fixed).into_response());
    }
    let catalog = api.endpoints.catalog();
    let found = catalog.retry_policies().get(&name).ok_or_else(absent)?;
    Ok(answer(false, found.version, &of_record(&found)))
}

/// Makes a retry policy, or replaces it.
///
/// Every instance follows it. It holds for what fails from then on: what waits for
/// its next attempt already keeps its time, and is given up by the new schedule.
#[utoipa::path(
    put,
    path = "/v1/retry_policies/{retry_policy}",
    operation_id = "replace_retry_policy",
    tag = "Retry policies",
    params(IfMatch),
    request_body = RetryPolicyReplacement,
    responses(
        (
            status = 200,
            description = "The retry policy as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        (
            status = 201,
            description = "The retry policy, which is new.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::RetryPolicyReadOnly,
        codes::TooManyRetryPolicies,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Segments(name): Segments<String>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    check_source(&api, &name)?;
    let mut settings: Map<String, Value> = read_json(&body)?;
    let based = based(&headers, Some(&mut settings))?;
    same_name(&mut settings, &name)?;
    let read = serde_path_to_error::deserialize(Value::Object(settings));
    let settings: Settings = read.map_err(|error| Problem::wrong_json(&error))?;
    let gaps: Result<Vec<_>, _> = settings
        .gaps
        .iter()
        .map(|gap| parse_duration(gap))
        .collect();
    let gaps = gaps.map_err(|problem| Problem::invalid("gaps", problem))?;
    let policy = Policy::new(&name, gaps)
        .map_err(|error| Problem::invalid(error.param(), error.to_string()))?;
    let by = caller.by();
    let changed = change(&api, &name, based, &by, |present: Option<&RetryPolicy>| {
        let record = RetryPolicy {
            name: name.clone(),
            description: settings.description.clone(),
            policy: policy.clone(),
            created_at: present.map_or_else(|| api.clock.now(), |present| present.created_at),
        };
        record.check()?;
        Ok(record)
    });
    let (changed, is_new) = changed.await?;
    Ok(answer(is_new, changed.version, &of_record(&changed)))
}

/// Deletes a retry policy that no endpoint names.
#[utoipa::path(
    delete,
    path = "/v1/retry_policies/{retry_policy}",
    operation_id = "delete_retry_policy",
    tag = "Retry policies",
    params(IfMatch),
    responses(
        (status = 204, description = "It is deleted."),
        codes::RetryPolicyReadOnly,
        codes::RetryPolicyInUse,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Segments(name): Segments<String>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    check_source(&api, &name)?;
    let based = based(&headers, None)?;
    if api
        .endpoints
        .catalog()
        .retry_policies()
        .get(&name)
        .is_none()
    {
        return Err(absent());
    }
    // One that comes to name it meanwhile follows `standard`, as any does that
    // names what is not there.
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let named = registry.endpoints().filter(|one| one.retry_policy == name);
    match named.count() {
        0 => delete_record::<RetryPolicy>(&api, &name, based, &caller.by()).await?,
        count => {
            let detail = format!("endpoints that name it: {count}; give them another one first");
            return Err(Problem::conflict("retry_policy_in_use", detail));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
