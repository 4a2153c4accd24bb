//! Operations on what an endpoint is owed: cancel it, retry it now, probe.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::IdError;
use posthaste_core::limits::OWED_PER_REQUEST_MAX;
use posthaste_core::operation::{Kind, Operation};
use posthaste_core::time::Timestamp;
use serde::Deserialize;
use utoipa::ToSchema;

use super::replay::check_takes;
use super::{Accepted, accepted, begin, new};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::{Whole, read_json};
use crate::api::dead_letters::read_time;
use crate::api::deliveries;
use crate::api::document::{codes, values};
use crate::api::endpoints::find;
use crate::api::look::{lane_of, turn};
use crate::api::problem::{Problem, Segments};
use crate::log::Offset;

/// What to cancel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = CancelOwed)]
#[serde(deny_unknown_fields)]
struct Cancel {
    /// What came to the lane before then, a UTC time or how long ago; everything
    /// there is now when it is absent.
    #[schema(value_type = Option<values::Moment>)]
    before: Option<String>,
    /// These alone, 1 to 100 of them: all are cancelled, or none.
    delivery_ids: Option<Vec<String>>,
}

/// What to retry.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = RetryOwed)]
#[serde(deny_unknown_fields)]
struct Retry {
    /// These alone, 1 to 100 of them, all or none; without it everything that
    /// waits for a time.
    delivery_ids: Option<Vec<String>>,
}

/// Nothing can be said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Cancels what an endpoint is owed.
///
/// At an ordered endpoint a cancelled delivery holds up its ordering key no longer: the next one
/// goes.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/cancel",
    operation_id = "cancel_owed",
    tag = "Operations",
    request_body = Option<Cancel>,
    responses(
        Accepted,
        codes::TooManyOperations,
        codes::DeliveryNotOwed,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn cancel(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let asked: Cancel = read_optional(&body)?;
    let operation = match (asked.delivery_ids, asked.before) {
        (Some(_), Some(_)) => {
            let wanted = "expected none beside `before`";
            return Err(Problem::invalid("delivery_ids", wanted));
        }
        (Some(ids), None) => named(&api, &endpoint, Kind::Cancel, &ids, &caller).await?,
        (None, before) => {
            let before = before.map(|text| past(&text, "before", api.clock.now()));
            cancel_before(&api, &endpoint, before.transpose()?, &caller).await?
        }
    };
    begin(&api, &operation, &caller.by()).await?;
    Ok(accepted(operation, &[]))
}

/// Makes everything that waits for a time due now, or what is named.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/retry_now",
    operation_id = "retry_owed_now",
    tag = "Operations",
    request_body = Option<Retry>,
    responses(
        Accepted,
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::EndpointPaused,
        codes::DeliveryHeld,
        codes::DeliveryNotOwed,
        codes::Invalid,
        codes::Unavailable,
    )
)]
pub async fn retry_now(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let asked: Retry = read_optional(&body)?;
    check_attempts(&endpoint)?;
    let operation = match asked.delivery_ids {
        Some(ids) => named(&api, &endpoint, Kind::RetryNow, &ids, &caller).await?,
        None => new(&api, &endpoint, Kind::RetryNow, &caller),
    };
    begin(&api, &operation, &caller.by()).await?;
    Ok(accepted(operation, &[]))
}

/// Lets one attempt out to an endpoint that is down, whatever its breaker says.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/probe",
    operation_id = "probe_endpoint",
    tag = "Operations",
    responses(
        Accepted,
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::EndpointPaused,
        codes::Unavailable,
    )
)]
pub async fn probe(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let Nothing {} = read_optional(&body)?;
    check_attempts(&endpoint)?;
    let operation = new(&api, &endpoint, Kind::Probe, &caller);
    begin(&api, &operation, &caller.by()).await?;
    Ok(accepted(operation, &[]))
}

/// An operation on deliveries that are named.
async fn named(
    api: &Api,
    endpoint: &Endpoint,
    kind: Kind,
    ids: &[String],
    caller: &Caller,
) -> Result<Operation, Problem> {
    let invalid = |why: String| Problem::invalid("delivery_ids", why);
    if !(1..=OWED_PER_REQUEST_MAX).contains(&ids.len()) {
        let wanted = format!("expected 1 to {OWED_PER_REQUEST_MAX} ids");
        return Err(invalid(wanted));
    }
    let read = |id: &String| {
        let shown = id.escape_default();
        id.parse()
            .map_err(|error: IdError| invalid(format!("`{shown}`: {error}")))
    };
    let ids = ids.iter().map(read).collect::<Result<_, _>>()?;
    let _turn = turn(api)?;
    let found = deliveries::named::look(api, endpoint.id, ids).await?;
    let offsets = found.offsets(kind);
    Ok(Operation {
        offsets: offsets.map_err(|problem| problem.about("delivery_ids"))?,
        ..new(api, endpoint, kind, caller)
    })
}

/// Whether an attempt can be made now.
pub(in crate::api) fn check_attempts(endpoint: &Endpoint) -> Result<(), Problem> {
    check_takes(endpoint)?;
    if endpoint.paused {
        let wanted = "the endpoint is paused: resume it first";
        return Err(Problem::conflict("endpoint_paused", wanted));
    }
    Ok(())
}

/// A cancellation of what came to the lane before a time, or before now.
pub(in crate::api) async fn cancel_before(
    api: &Api,
    endpoint: &Endpoint,
    before: Option<Timestamp>,
    caller: &Caller,
) -> Result<Operation, Problem> {
    let lane = lane_of(api, endpoint.id);
    let before: Offset = match before {
        Some(time) => api.log.offset_at(&lane, time).await?,
        None => api.log.bounds(&lane).await?.1,
    };
    Ok(Operation {
        before,
        ..new(api, endpoint, Kind::Cancel, caller)
    })
}

/// A body's JSON; without a body, what is meant by nothing.
pub(in crate::api) fn read_optional<T>(body: &[u8]) -> Result<T, Problem>
where
    T: Default + serde::de::DeserializeOwned,
{
    match body {
        [] => Ok(T::default()),
        body => read_json(body),
    }
}

/// A time that has been.
pub(in crate::api) fn past(
    text: &str,
    param: &'static str,
    now: Timestamp,
) -> Result<Timestamp, Problem> {
    let time = read_time(text, now).map_err(|problem| Problem::invalid(param, problem))?;
    if time > now {
        let wanted = "it is in the future: expected a time before now";
        return Err(Problem::invalid(param, wanted));
    }
    Ok(time)
}
