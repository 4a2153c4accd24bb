//! The filter lab: what a filter does with one event, and what it would have
//! done with those of the last hours. Nothing is changed or delivered by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use bytestring::ByteString;
use posthaste_core::content::{Filter, View};
use posthaste_core::event::{SYSTEM_TENANT, check_tenant};
use posthaste_core::filter::TypePattern;
use posthaste_core::limits::{
    BACKTEST_BYTES_MAX, BACKTEST_SAMPLES_DEFAULT, BACKTEST_SAMPLES_MAX, BACKTEST_TIME_MAX,
    BACKTESTS_MAX, EVENT_TYPES_MAX,
};
use posthaste_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Api;
use super::body::{Whole, read_json};
use super::dead_letters::read_time;
use super::document::{codes, values};
use super::problem::Problem;

pub(super) mod backtest;

use backtest::{Budget, Range, Wanted};

/// How far back a backtest begins that does not say so.
const SINCE_DEFAULT: Duration = Duration::from_secs(3_600);

/// A filter and an event for it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(examples(json!({
    "filter": {"amount": {"$gte": 100}},
    "event": {"type": "invoice.paid", "body": {"amount": 7}},
})))]
#[serde(deny_unknown_fields)]
struct Evaluation {
    #[schema(value_type = values::Filter)]
    filter: Box<RawValue>,
    event: Sample,
}

/// An event to try a filter on.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SampleEvent)]
#[serde(deny_unknown_fields)]
struct Sample {
    #[serde(rename = "type", default)]
    event_type: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Any JSON; `null` without one.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    body: Option<Box<RawValue>>,
}

/// Whether it passes; if not, each condition that stands in the way.
#[derive(Debug, Serialize, ToSchema)]
struct Evaluated {
    matched: bool,
    failed: Vec<Failed>,
}

/// A condition that does not hold.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FailedCondition)]
struct Failed {
    /// A JSON pointer into the filter.
    place: String,
    problem: String,
}

/// A filter and the events to try it on.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(examples(json!({
    "filter": {"amount": {"$gte": 100}}, "tenant": "acme", "since": "24h",
})))]
#[serde(deny_unknown_fields)]
struct Backtest {
    #[schema(value_type = values::Filter)]
    filter: Box<RawValue>,
    /// Only events of that tenant.
    tenant: Option<String>,
    /// Only events of these types, given as patterns.
    #[serde(default)]
    #[schema(value_type = Vec<values::TypePattern>)]
    event_types: Vec<String>,
    /// An hour ago without it.
    #[schema(value_type = Option<values::Moment>)]
    since: Option<String>,
    /// Now without it.
    #[schema(value_type = Option<values::Moment>)]
    until: Option<String>,
    /// Matches to show, at most 250; 20 when absent.
    limit: Option<usize>,
}

/// Judges one event.
#[utoipa::path(
    post,
    path = "/v1/filters/evaluate",
    operation_id = "evaluate_filter",
    tag = "Filters",
    request_body = Evaluation,
    responses(
        (status = 200, description = "Whether it passes.", body = Evaluated),
        codes::Invalid,
    ),
)]
pub async fn evaluate(Whole(body): Whole) -> Result<Response, Problem> {
    let Evaluation { filter, event } = read_json(&body)?;
    let filter = read_filter(&filter)?;
    let headers = event.headers.into_iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| (ByteString::from(name), Bytes::from(value)))
        .collect();
    let view = View {
        event_type: &event.event_type,
        headers: &headers,
        body: event
            .body
            .as_deref()
            .map_or("null", RawValue::get)
            .as_bytes(),
    };
    let reasons = filter.explain(&view).into_iter();
    let failed: Vec<_> = reasons
        .map(|reason| Failed {
            place: reason.place,
            problem: reason.problem,
        })
        .collect();
    let matched = failed.is_empty();
    Ok(Json(Evaluated { matched, failed }).into_response())
}

/// Judges the events the source topics hold of some time.
#[utoipa::path(
    post,
    path = "/v1/filters/backtest",
    operation_id = "backtest_filter",
    tag = "Filters",
    request_body = Backtest,
    responses(
        (status = 200, description = "What it would have done.", body = backtest::Report),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn backtest(
    State(api): State<Arc<Api>>,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Backtest = read_json(&body)?;
    let now = api.clock.now();
    let range = range(asked.since.as_deref(), asked.until.as_deref(), now)?;
    let wanted = wanted(&asked)?;
    let topics = topics_of(&api, wanted.tenant.as_deref());
    let (_turn, budget) = budget(&api)?;
    let report = backtest::run(&*api.log, &api.decoder, &topics, range, &wanted, budget).await?;
    Ok(Json(report).into_response())
}

/// Where a tenant's events are read from.
pub(super) fn topics_of(api: &Api, tenant: Option<&str>) -> Vec<ByteString> {
    if tenant == Some(SYSTEM_TENANT) {
        return vec![api.config.topics.operational()];
    }
    let names = api.config.ingest.topics.iter();
    names.map(|name| ByteString::from(name.as_str())).collect()
}

/// What one reader of the source topics may take, and its turn.
pub(super) fn budget(api: &Api) -> Result<(SemaphorePermit<'_>, Budget), Problem> {
    let Ok(turn) = api.backtests.try_acquire() else {
        let busy = format!("{BACKTESTS_MAX} backtests run already: try again later");
        return Err(Problem::unavailable(busy));
    };
    let budget = Budget {
        bytes: BACKTEST_BYTES_MAX,
        until: Instant::now() + BACKTEST_TIME_MAX,
    };
    Ok((turn, budget))
}

pub(super) fn read_filter(raw: &RawValue) -> Result<Filter, Problem> {
    Filter::parse(raw.get()).map_err(|error| Problem::invalid("filter", error.to_string()))
}

fn range(since: Option<&str>, until: Option<&str>, now: Timestamp) -> Result<Range, Problem> {
    let read = |param, text: Option<&str>, default| match text {
        Some(text) => read_time(text, now).map_err(|problem| Problem::invalid(param, problem)),
        None => Ok(default),
    };
    let ago = u64::try_from(SINCE_DEFAULT.as_millis()).unwrap_or(0);
    let hour_ago = Timestamp::from_millis(now.as_millis().saturating_sub(ago));
    let since = read("since", since, hour_ago)?;
    // What came in this millisecond has come.
    let end = now.after(Duration::from_millis(1));
    let until = read("until", until, end)?.min(end);
    if since >= until.min(now) {
        let wanted = "expected a time in the past, and before `until`";
        return Err(Problem::invalid("since", wanted));
    }
    Ok(Range { since, until })
}

fn wanted(asked: &Backtest) -> Result<Wanted, Problem> {
    if let Some(tenant) = &asked.tenant {
        check_tenant(tenant)?;
    }
    let samples = asked.limit.unwrap_or(BACKTEST_SAMPLES_DEFAULT);
    if samples > BACKTEST_SAMPLES_MAX {
        let most = format!("expected at most {BACKTEST_SAMPLES_MAX}");
        return Err(Problem::invalid("limit", most));
    }
    Ok(Wanted {
        filters: vec![read_filter(&asked.filter)?],
        tenant: asked.tenant.clone(),
        event_types: vec![read_types(&asked.event_types)?],
        samples,
    })
}

pub(super) fn read_types(texts: &[String]) -> Result<Vec<TypePattern>, Problem> {
    let invalid = |problem: String| Problem::invalid("event_types", problem);
    if texts.len() > EVENT_TYPES_MAX {
        return Err(invalid(format!("at most {EVENT_TYPES_MAX} patterns")));
    }
    let patterns = texts.iter().map(|text| {
        let pattern = text.parse::<TypePattern>();
        pattern.map_err(|error| invalid(error.to_string()))
    });
    patterns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_this_millisecond_is_tried_too() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let whole = range(None, None, now).ok().unwrap();
        assert!(whole.since < now && whole.until > now);
        // Which is not to say that nothing is a range.
        let now_text = "2023-11-14T22:13:20Z";
        assert!(range(Some(now_text), None, now).is_err());
        let past = range(None, Some(now_text), now).ok().unwrap();
        assert_eq!(past.until, now);
    }
}
