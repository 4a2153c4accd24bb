//! What every operation begins with: room for it, and a record of it.

use std::sync::Arc;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::{EndpointId, OperationId};
use posthaste_core::limits::{OPERATION_KEPT, OPERATIONS_MAX, OPERATIONS_PER_ENDPOINT_MAX};
use posthaste_core::operation::{Kind, Known, Operation, Wanted};
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use serde_json::{Value, json};

use super::{Shown, operations};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::problem::Problem;
use crate::clock::random_seed;
use crate::control::By;
use crate::telemetry;

/// An operation that asks for nothing in particular yet.
pub(in crate::api) fn new(
    api: &Api,
    endpoint: &Endpoint,
    kind: Kind,
    caller: &Caller,
) -> Operation {
    let now = api.clock.now();
    Operation {
        id: OperationId::generate(now, &mut Rng::new(random_seed())),
        tenant: endpoint.tenant.clone(),
        endpoint: endpoint.id,
        kind,
        wanted: Wanted::Unspecified,
        actor: caller.by().actor,
        created_at: now,
        ranges: Vec::new(),
        span: (Timestamp::default(), Timestamp::default()),
        event_types: Vec::new(),
        filter: None,
        any: false,
        rate_per_second: 0,
        dead_cause: String::new(),
        offsets: Vec::new(),
        before: 0,
        version: 1,
    }
}

/// Whether an endpoint can have one more.
pub(in crate::api) fn check_room(api: &Api, endpoint: EndpointId) -> Result<(), Problem> {
    let operations = operations(api);
    if operations.len() >= OPERATIONS_MAX {
        let days = OPERATION_KEPT.as_secs() / (24 * 3_600);
        let most = format!(
            "{OPERATIONS_MAX} operations are kept, each for {days} days after its end: try again \
             later"
        );
        return Err(Problem::conflict("too_many_operations", most));
    }
    let open = operations
        .iter()
        .filter(|(_, known)| known.operation.endpoint == endpoint && !known.is_ended());
    if open.count() >= OPERATIONS_PER_ENDPOINT_MAX {
        let most = format!(
            "{endpoint} has {OPERATIONS_PER_ENDPOINT_MAX} operations that are not over: wait, or \
             cancel one"
        );
        return Err(Problem::conflict("too_many_operations", most));
    }
    Ok(())
}

/// Writes an operation; answers once every reader of this instance sees it.
pub(in crate::api) async fn begin(
    api: &Api,
    operation: &Operation,
    by: &By,
) -> Result<(), Problem> {
    check_room(api, operation.endpoint)?;
    put(api, operation, by).await
}

/// The same, where there is known to be room.
pub(in crate::api) async fn put(api: &Api, operation: &Operation, by: &By) -> Result<(), Problem> {
    api.endpoints.put_operation(operation, by).await?;
    telemetry::api_operation();
    Ok(())
}

/// [`accepted`], as it is described.
#[derive(utoipa::IntoResponses)]
#[response(
    status = 202,
    description = "The operation, which begins.",
    headers(("location" = String, description = "Where it is shown.")),
)]
#[expect(dead_code, reason = "only its description is used")]
pub(in crate::api) struct Accepted(Shown);

/// The answer to whoever asked for one: it is written, and not done.
pub(in crate::api) fn accepted(operation: Operation, more: &[(&str, Value)]) -> Response {
    // Of the tenant, so that its own credentials may follow it.
    let (tenant, id) = (&operation.tenant, operation.id);
    let place = format!("/v1/tenants/{tenant}/operations/{id}");
    let mut body = json!(Shown::of(&unheard(operation)));
    for (name, value) in more {
        body[*name] = value.clone();
    }
    let headers = [(header::LOCATION, place)];
    (StatusCode::ACCEPTED, headers, Json(body)).into_response()
}

/// An operation of which its owner has not said anything.
pub(in crate::api) fn unheard(operation: Operation) -> Known {
    Known {
        operation: Arc::new(operation),
        progress: None,
    }
}
