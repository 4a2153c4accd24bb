//! Replays: the events of some time again, or what was given up in it.
//!
//! The range is fixed when it is asked for: what comes later is delivered
//! anyhow. A dry run reads the same records and counts what would be delivered.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::content::Filter;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::filter::TypePattern;
use posthaste_core::lane::partition_of;
use posthaste_core::limits::{REPLAY_RATE_DEFAULT, REPLAY_RATE_MAX};
use posthaste_core::operation::{Kind, Operation};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::span::{Found, Span};
use super::{Shown, accepted, begin, new, unheard};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::{Whole, read_json};
use crate::api::dead_letters;
use crate::api::document::{codes, values};
use crate::api::endpoints::{find, find_any};
use crate::api::filters::backtest::{self, Counts, Wanted};
use crate::api::filters::{budget, read_filter, read_types, topics_of};
use crate::api::look::CLOCKS_APART;
use crate::api::problem::{Problem, Segments};
use crate::config::{Topics, format_rfc3339};

/// What to bring again, for which endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Replay {
    /// Its id; where the tenant is named, its uid does too. The path of an
    /// endpoint names it already.
    endpoint_id: Option<String>,
    tenant: Option<String>,
    /// Events since then: a UTC time, or how long ago.
    #[schema(value_type = values::Moment)]
    since: String,
    /// Before then; up to now when it is absent.
    #[schema(value_type = Option<values::Moment>)]
    until: Option<String>,
    #[serde(default)]
    mode: Mode,
    /// Only these, of what the endpoint wants.
    #[serde(default)]
    #[schema(value_type = Vec<values::TypePattern>)]
    event_types: Vec<String>,
    /// Only what passes it, of what the endpoint wants.
    #[schema(value_type = Option<values::Filter>)]
    filter: Option<Box<RawValue>>,
    /// Deliveries a second, at most 100,000; 500 when it is absent.
    #[serde(alias = "rate")]
    rate_per_second: Option<u32>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

/// Which of that time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = ReplayMode)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// All events.
    #[default]
    All,
    /// What was given up.
    Failed,
}

/// What a replay would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayCount)]
struct Counted {
    dry_run: bool,
    #[schema(value_type = values::Time)]
    since: String,
    #[schema(value_type = values::Time)]
    until: String,
    /// In the ranges to be read.
    records: u64,
    /// … of which so many were read …
    scanned: u64,
    /// … and so many would be delivered.
    matched: u64,
    /// Could not be read.
    skipped: u64,
    /// All that would be delivered, by what was read.
    estimated: u64,
    /// Whether all was read: then the estimate is the count.
    exact: bool,
    /// Whether the range begins before what the log still keeps.
    truncated: bool,
}

/// A replay that makes sense.
struct Plan {
    kind: Kind,
    span: Span,
    found: Found,
    event_types: Vec<TypePattern>,
    filter: Option<Filter>,
    rate: u32,
}

/// Starts a replay for an endpoint the body names.
#[utoipa::path(
    post,
    path = "/v1/replays",
    operation_id = "replay_events",
    tag = "Operations",
    request_body = Replay,
    responses(
        (status = 200, description = "What a dry run counted.", body = Counted),
        (
            status = 202,
            description = "The operation, which begins.",
            body = Begun,
            headers(("location" = String, description = "Where it is shown.")),
        ),
        codes::NotFound,
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Replay = read_json(&body)?;
    let name = asked.endpoint_id.as_deref().unwrap_or_default();
    let endpoint = find_any(&api, "endpoint_id", asked.tenant.as_deref(), name)?;
    start(&api, &endpoint, asked, &caller).await
}

/// Starts a replay for the endpoint of the path.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/replays",
    operation_id = "replay_events_to_endpoint",
    tag = "Operations",
    request_body = Replay,
    responses(
        (status = 200, description = "What a dry run counted.", body = Counted),
        (
            status = 202,
            description = "The operation, which begins.",
            body = Begun,
            headers(("location" = String, description = "Where it is shown.")),
        ),
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn create_for(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let asked: Replay = read_json(&body)?;
    refuse_names(asked.endpoint_id.as_ref(), asked.tenant.as_ref())?;
    start(&api, &endpoint, asked, &caller).await
}

/// The path says whose it is.
pub(in crate::api) fn refuse_names(
    endpoint: Option<&String>,
    tenant: Option<&String>,
) -> Result<(), Problem> {
    for (param, named) in [("endpoint_id", endpoint), ("tenant", tenant)] {
        if named.is_some() {
            return Err(Problem::invalid(param, "the path names it already"));
        }
    }
    Ok(())
}

async fn start(
    api: &Api,
    endpoint: &Endpoint,
    asked: Replay,
    caller: &Caller,
) -> Result<Response, Problem> {
    let dry_run = asked.dry_run;
    let plan = plan(api, endpoint, asked).await?;
    let truncated = plan.found.truncated;
    if dry_run {
        return Ok(Json(plan.count(api, endpoint).await?).into_response());
    }
    check_takes(endpoint)?;
    let operation = plan.operation(api, endpoint, caller);
    begin(api, &operation, &caller.by()).await?;
    Ok(accepted(operation, &[("truncated", json!(truncated))]))
}

/// Whether what an operation brings would be delivered at all.
pub(in crate::api) fn check_takes(endpoint: &Endpoint) -> Result<(), Problem> {
    if endpoint.disabled {
        let wanted = "the endpoint is disabled: enable it first";
        return Err(Problem::conflict("endpoint_disabled", wanted));
    }
    Ok(())
}

/// A replay that begins.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StartedReplay)]
pub(in crate::api) struct Begun {
    #[serde(flatten)]
    operation: Shown,
    /// Whether its range begins before what the log still keeps.
    truncated: bool,
}

/// Begins a new endpoint's replay from a time in the past up to now.
pub(in crate::api) async fn from_the_past(
    api: &Api,
    endpoint: &Endpoint,
    since: &str,
    caller: &Caller,
) -> Result<Begun, Problem> {
    let named = |problem: Problem| problem.about("start_at");
    let span = Span::read(since, None, api.clock.now()).map_err(named)?;
    let topics = topics_of(api, Some(&endpoint.tenant));
    let found = span.find(api, &topics).await.map_err(named)?;
    let truncated = found.truncated;
    let plan = Plan {
        kind: Kind::Replay,
        span,
        found,
        event_types: Vec::new(),
        filter: None,
        rate: REPLAY_RATE_DEFAULT,
    };
    let operation = plan.operation(api, endpoint, caller);
    begin(api, &operation, &caller.by()).await?;
    Ok(Begun {
        operation: Shown::of(&unheard(operation)),
        truncated,
    })
}

async fn plan(api: &Api, endpoint: &Endpoint, asked: Replay) -> Result<Plan, Problem> {
    let span = Span::read(&asked.since, asked.until.as_deref(), api.clock.now())?;
    let rate = read_rate(asked.rate_per_second)?;
    let event_types = read_types(&asked.event_types)?;
    let filter = asked.filter.as_deref().map(read_filter).transpose()?;
    let (kind, found) = match asked.mode {
        Mode::All => {
            let topics = topics_of(api, Some(&endpoint.tenant));
            (Kind::Replay, span.find(api, &topics).await?)
        }
        Mode::Failed => {
            refuse_conditions(&event_types, filter.as_ref())?;
            let partition = partition_of(endpoint.id, Topics::DEAD_PARTITIONS);
            let topic = api.config.topics.dead();
            // Its owner goes by the letters' own times.
            let wide = span.widened(CLOCKS_APART);
            let mut found = wide.find_in(api, &topic, partition).await?;
            if !asked.dry_run {
                let (since, until) = (span.since, span.until);
                let held = dead_letters::in_lane(api, endpoint.id, since, until).await?;
                found.ranges.extend(held);
            }
            (Kind::Redrive, found)
        }
    };
    Ok(Plan {
        kind,
        span,
        found,
        event_types,
        filter,
        rate,
    })
}

/// What was given up was wanted once, whatever it is.
fn refuse_conditions(types: &[TypePattern], filter: Option<&Filter>) -> Result<(), Problem> {
    let wanted = "with `mode`: \"failed\" all that was given up is brought again: expected none";
    if !types.is_empty() {
        return Err(Problem::invalid("event_types", wanted));
    }
    match filter {
        Some(_) => Err(Problem::invalid("filter", wanted)),
        None => Ok(()),
    }
}

/// Deliveries written a second.
pub(in crate::api) fn read_rate(asked: Option<u32>) -> Result<u32, Problem> {
    let rate = asked.unwrap_or(REPLAY_RATE_DEFAULT);
    if (1..=REPLAY_RATE_MAX).contains(&rate) {
        return Ok(rate);
    }
    let wanted = format!("expected 1 to {REPLAY_RATE_MAX}; {REPLAY_RATE_DEFAULT} without it");
    Err(Problem::invalid("rate_per_second", wanted))
}

impl Plan {
    fn operation(self, api: &Api, endpoint: &Endpoint, caller: &Caller) -> Operation {
        Operation {
            ranges: self.found.ranges,
            span: (self.span.since, self.span.until),
            event_types: self.event_types,
            filter: self.filter,
            rate_per_second: self.rate,
            ..new(api, endpoint, self.kind, caller)
        }
    }

    async fn count(self, api: &Api, endpoint: &Endpoint) -> Result<Counted, Problem> {
        let records = self.found.ranges.iter().map(|range| range.to - range.from);
        let (records, truncated) = (records.sum(), self.found.truncated);
        let span = self.span;
        let counts = match self.kind {
            Kind::Redrive => dead_letters::count(api, endpoint.id, span.since, span.until).await?,
            _ => self.count_events(api, endpoint).await?,
        };
        Ok(Counted {
            dry_run: true,
            since: format_rfc3339(span.since),
            until: format_rfc3339(span.until),
            records,
            scanned: counts.scanned,
            matched: counts.matched,
            skipped: counts.skipped,
            estimated: counts.estimated,
            exact: counts.exact,
            truncated,
        })
    }

    /// What its owner would do with each event, without doing it.
    async fn count_events(self, api: &Api, endpoint: &Endpoint) -> Result<Counts, Problem> {
        let (_turn, budget) = budget(api)?;
        let topics = topics_of(api, Some(&endpoint.tenant));
        let range = backtest::Range {
            since: self.span.since,
            until: self.span.until,
        };
        let filters = [endpoint.filter.clone(), self.filter];
        let wanted = Wanted {
            filters: filters.into_iter().flatten().collect(),
            tenant: Some(endpoint.tenant.clone()),
            event_types: vec![endpoint.event_types.clone(), self.event_types],
            samples: 0,
        };
        let log = &*api.log;
        let report = backtest::run(log, &api.decoder, &topics, range, &wanted, budget).await?;
        Ok(report.counts())
    }
}
