//! Whether an endpoint takes deliveries: pause and resume, and disable.
//!
//! While it is paused what it wants is held in the lane, and expires there as it
//! would anyhow; while it is disabled it wants nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::OperationId;
use posthaste_core::limits::DISABLED_REASON_BYTES_MAX;
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::Shown;
use super::change::{Place, answer};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::Whole;
use crate::api::document::codes;
use crate::api::document::values::IfMatch;
use crate::api::operations::begin;
use crate::api::operations::lane::{cancel_before, past, read_optional};
use crate::api::problem::{Problem, Segments};

/// How long a resume waits until what it skips is cancelled.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
/// Of an endpoint that an operator disabled without a word.
const MANUAL: &str = "manual";

/// From where an endpoint goes on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = EndpointResume)]
#[serde(deny_unknown_fields)]
struct Resume {
    /// `held`, as when it is absent: with all that is held; `now`: with what
    /// comes; a UTC time, or how long ago: with what was held since.
    from: Option<String>,
}

/// Why an endpoint is disabled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = EndpointDisable)]
#[serde(deny_unknown_fields)]
struct Disable {
    /// In people's words, 1 to 256 bytes; `manual` when it is absent.
    reason: Option<String>,
}

/// Holds what an endpoint wants from now on; what is in flight ends.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/pause",
    operation_id = "pause_endpoint",
    tag = "Endpoints",
    params(IfMatch),
    responses(
        (
            status = 200,
            description = "The endpoint as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn pause(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = Place::named(&api, &tenant, &name, &headers)?;
    let changed = place.change(&caller, |present| {
        Ok(Endpoint {
            paused: true,
            ..present.clone()
        })
    });
    Ok(answer(&changed.await?))
}

/// Lets a paused endpoint go on. What is skipped is cancelled first: until that
/// is done it stays paused, so that nothing of it is delivered.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/resume",
    operation_id = "resume_endpoint",
    tag = "Endpoints",
    params(IfMatch),
    request_body = Option<Resume>,
    responses(
        (
            status = 200,
            description = "The endpoint as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::VersionConflict,
        codes::TooManyOperations,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn resume(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Resume = read_optional(&body)?;
    let since = match asked.from.as_deref() {
        None | Some("held") => None,
        Some("now") => Some(None),
        Some(time) => {
            let known = past(time, "from", api.clock.now());
            let known = known.map_err(|problem| {
                let wanted = "otherwise `held` or `now`";
                problem.with(wanted)
            });
            Some(Some(known?))
        }
    };
    let place = Place::named(&api, &tenant, &name, &headers)?;
    let present = place.present()?;
    if let Some(before) = since.filter(|_| present.paused) {
        let operation = cancel_before(&api, &present, before, &caller).await?;
        begin(&api, &operation, &caller.by()).await?;
        cancelled(&api, operation.id).await?;
    }
    let changed = place.change(&caller, |present| {
        Ok(Endpoint {
            paused: false,
            ..present.clone()
        })
    });
    Ok(answer(&changed.await?))
}

/// Waits for a cancellation.
async fn cancelled(api: &Api, id: OperationId) -> Result<(), Problem> {
    let mut operations = api.endpoints.operations();
    let over =
        operations.wait_for(|operations| operations.get(id).is_some_and(|known| known.is_ended()));
    let ended = timeout(CANCEL_WAIT, over).await;
    match ended.map(|seen| seen.is_ok()) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Problem::unavailable(format!(
            "the endpoint's owner has not cancelled what is skipped ({id}): the endpoint stays \
             paused, try again"
        ))),
    }
}

/// Lets an endpoint have no deliveries any more; what it holds is kept until it
/// expires.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/disable",
    operation_id = "disable_endpoint",
    tag = "Endpoints",
    params(IfMatch),
    request_body = Option<Disable>,
    responses(
        (
            status = 200,
            description = "The endpoint as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn disable(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Disable = read_optional(&body)?;
    let reason = asked.reason.unwrap_or_else(|| MANUAL.to_owned());
    if reason.is_empty() || reason.len() > DISABLED_REASON_BYTES_MAX {
        let wanted = format!("expected 1 to {DISABLED_REASON_BYTES_MAX} bytes, or none");
        return Err(Problem::invalid("reason", wanted));
    }
    let place = Place::named(&api, &tenant, &name, &headers)?;
    let changed = place.change(&caller, |present| {
        Ok(Endpoint {
            disabled: true,
            disabled_reason: match present.disabled {
                // Why it is what it is.
                true => present.disabled_reason.clone(),
                false => reason.clone(),
            },
            ..present.clone()
        })
    });
    Ok(answer(&changed.await?))
}
