//! One delivery again, or no more: what is asked of its endpoint's owner.
//!
//! Only the lane knows what is owed. A delivery that waits there for its time is
//! made due; of any other its event is sent again.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::DeliveryId;
use posthaste_core::operation::{Kind, Operation};

use super::named::{self, Named};
use super::{Found, found, read_id};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::document::codes;
use crate::api::endpoints::find_any;
use crate::api::look::owed::Waits;
use crate::api::look::turn;
use crate::api::operations::lane::check_attempts;
use crate::api::operations::resend::{self, Place};
use crate::api::operations::{Accepted, accepted, begin, new};
use crate::api::problem::{Problem, Segments};

/// A delivery and what the lane says of it.
struct Known {
    found: Found,
    endpoint: Arc<Endpoint>,
    named: Named,
}

/// Brings a delivery now, or again.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{delivery}/retry",
    operation_id = "retry_delivery",
    tag = "Operations",
    responses(
        Accepted,
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::EndpointPaused,
        codes::DeliveryHeld,
        codes::Invalid,
        codes::Unavailable,
    )
)]
pub async fn retry(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
    caller: Caller,
) -> Result<Response, Problem> {
    bring(&api, None, read_id(&id)?, &caller).await
}

/// Brings a tenant's delivery now, or again.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/deliveries/{delivery}/retry",
    operation_id = "retry_delivery_of_tenant",
    tag = "Operations",
    responses(
        Accepted,
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::EndpointPaused,
        codes::DeliveryHeld,
        codes::Invalid,
        codes::Unavailable,
    )
)]
pub async fn retry_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
    caller: Caller,
) -> Result<Response, Problem> {
    bring(&api, Some(&tenant), read_id(&id)?, &caller).await
}

/// Lets a delivery that is owed never come.
///
/// At an ordered endpoint the next of its ordering key goes then: so one that holds up its key is
/// skipped.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{delivery}/cancel",
    operation_id = "cancel_delivery",
    tag = "Operations",
    responses(
        Accepted,
        codes::TooManyOperations,
        codes::DeliveryNotOwed,
        codes::Invalid,
        codes::Unavailable,
    )
)]
pub async fn cancel(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
    caller: Caller,
) -> Result<Response, Problem> {
    forgo(&api, None, read_id(&id)?, &caller).await
}

/// Lets a tenant's delivery that is owed never come.
///
/// At an ordered endpoint the next of its ordering key goes then: so one that holds up its key is
/// skipped.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/deliveries/{delivery}/cancel",
    operation_id = "cancel_delivery_of_tenant",
    tag = "Operations",
    responses(
        Accepted,
        codes::TooManyOperations,
        codes::DeliveryNotOwed,
        codes::Invalid,
        codes::Unavailable,
    )
)]
pub async fn cancel_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
    caller: Caller,
) -> Result<Response, Problem> {
    forgo(&api, Some(&tenant), read_id(&id)?, &caller).await
}

async fn known(api: &Api, tenant: Option<&str>, id: DeliveryId) -> Result<Known, Problem> {
    let _turn = turn(api)?;
    let found = found(api, tenant, id).await?;
    let name = found.endpoint.to_string();
    let endpoint = find_any(api, "endpoint", None, &name)?;
    let named = named::look(api, endpoint.id, [id].into()).await?;
    Ok(Known {
        found,
        endpoint,
        named,
    })
}

async fn bring(
    api: &Api,
    tenant: Option<&str>,
    id: DeliveryId,
    caller: &Caller,
) -> Result<Response, Problem> {
    let known = known(api, tenant, id).await?;
    match known.named.waits() {
        Some(Waits::Scheduled) => check_attempts(&known.endpoint)?,
        Some(Waits::Held) => {}
        None => {
            let origin = &known.found.origin;
            let place = Place {
                topic: origin.topic.to_string(),
                partition: origin.partition,
                offset: origin.offset,
            };
            return resend::start(api, &known.endpoint, &place, caller).await;
        }
    }
    ask(api, &known, Kind::RetryNow, caller).await
}

async fn forgo(
    api: &Api,
    tenant: Option<&str>,
    id: DeliveryId,
    caller: &Caller,
) -> Result<Response, Problem> {
    let known = known(api, tenant, id).await?;
    ask(api, &known, Kind::Cancel, caller).await
}

async fn ask(api: &Api, known: &Known, kind: Kind, caller: &Caller) -> Result<Response, Problem> {
    let operation = Operation {
        offsets: known.named.offsets(kind)?,
        ..new(api, &known.endpoint, kind, caller)
    };
    begin(api, &operation, &caller.by()).await?;
    Ok(accepted(operation, &[]))
}
