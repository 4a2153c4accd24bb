//! One event again, to the endpoints that want it or to some by name.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::limits::OPERATIONS_PER_REQUEST_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::read::find_event;
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::Whole;
use crate::api::document::codes;
use crate::api::endpoints::find;
use crate::api::operations::lane::read_optional;
use crate::api::operations::replay::{check_takes, refuse_names};
use crate::api::operations::resend::{Place, of};
use crate::api::operations::{Shown, check_room, put, unheard};
use crate::api::problem::{Problem, Segments};

/// To whom, and whose event.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = EventReplay)]
#[serde(deny_unknown_fields)]
struct Again {
    /// Ids or uids, also of endpoints that do not want it; all that want it when
    /// absent.
    endpoint_ids: Option<Vec<String>>,
    /// Whose event, where several have one of that id.
    tenant: Option<String>,
}

/// What was begun.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventReplayed)]
struct Begun {
    operations: Vec<Shown>,
}

/// Brings an event again.
#[utoipa::path(
    post,
    path = "/v1/events/{event}/replay",
    operation_id = "replay_event",
    tag = "Operations",
    request_body = Option<Again>,
    responses(
        (status = 202, description = "An operation for each endpoint.", body = Begun),
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::NoEndpoint,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn replay(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Again = read_optional(&body)?;
    start(&api, &id, asked, &caller).await
}

/// Brings a tenant's event again.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/events/{event}/replay",
    operation_id = "replay_event_of_tenant",
    tag = "Operations",
    request_body = Option<Again>,
    responses(
        (status = 202, description = "An operation for each endpoint.", body = Begun),
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::NoEndpoint,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn replay_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let mut asked: Again = read_optional(&body)?;
    refuse_names(None, asked.tenant.replace(tenant).as_ref())?;
    start(&api, &id, asked, &caller).await
}

async fn start(api: &Api, id: &str, asked: Again, caller: &Caller) -> Result<Response, Problem> {
    let found = find_event(api, id, asked.tenant.as_deref()).await?;
    let event = &found.event;
    let named = asked.endpoint_ids.is_some();
    let endpoints: Vec<Arc<Endpoint>> = match asked.endpoint_ids {
        Some(names) => {
            let all = names.iter().map(|name| find(api, &event.tenant, name));
            all.collect::<Result<_, _>>()?
        }
        None => found.wanted_by(api),
    };
    if endpoints.is_empty() {
        let wanted = "no endpoint wants the event: name some in `endpoint_ids`";
        return Err(Problem::conflict("no_endpoint", wanted));
    }
    if endpoints.len() > OPERATIONS_PER_REQUEST_MAX {
        let most = format!("expected at most {OPERATIONS_PER_REQUEST_MAX} endpoints at once");
        return Err(Problem::invalid("endpoint_ids", most));
    }
    for endpoint in &endpoints {
        check_takes(endpoint)?;
        check_room(api, endpoint.id)?;
    }
    let place = Place {
        topic: event.origin.topic.to_string(),
        partition: event.origin.partition,
        offset: event.origin.offset,
    };
    let mut begun = Vec::new();
    for endpoint in &endpoints {
        let mut operation = of(api, endpoint, &place, caller);
        operation.any = named;
        put(api, &operation, &caller.by()).await?;
        begun.push(Shown::of(&unheard(operation)));
    }
    let answer = Begun { operations: begun };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}
