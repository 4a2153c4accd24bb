//! Deliveries and attempts: why an event did not arrive.
//!
//! Nothing of this is kept for looking at: a delivery is what its event, its
//! attempts, its place in the lane and its dead letter say, and each is looked for
//! in the log, from the time on that the delivery's id begins with. Every look is
//! bounded and says how far it came.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::event::check_tenant;
use posthaste_core::id::{AttemptId, DeliveryId};
use posthaste_proto as proto;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::document::codes;
use super::look::{Bound, Budget, Piece, turn};
use super::problem::{Asked, Problem, Segments};
use crate::log::{LogError, TopicPartition};

pub mod again;
mod dead;
mod find;
mod lane;
mod list;
pub(super) mod named;
pub(super) mod record;
mod show;

pub use find::Found;
pub use list::Listing;
pub(super) use list::{Entry, add, judge};
use record::{Recorded, recorded, trace};

/// The attempts of one delivery.
#[derive(Debug, Serialize, ToSchema)]
struct Attempts {
    data: Vec<record::Shown>,
    /// What ended the look before all were seen.
    #[schema(required = true)]
    ended_by: Option<Bound>,
}

/// What a delivery is, by its id.
///
/// # Errors
/// 404 when the log no longer has its event, or holds too much since its time;
/// 503 when the log does not answer, or too many look already.
pub async fn find_delivery(api: &Api, id: DeliveryId) -> Result<Found, Problem> {
    let _turn = turn(api)?;
    find::find(api, id).await
}

/// Lists deliveries by their attempts, the last attempt first.
///
/// An entry says what the attempts say that were looked at, from the end of the log back, within
/// bounds of bytes and time; `scanned` says how far. A delivery whose attempts lie further apart
/// can be listed again, by its older ones.
///
/// With the status `held` or `scheduled` it lists what one endpoint is owed as its lane says now,
/// attempted or not, in the order it came there: `held` is what comes as soon as the endpoint takes
/// it, `scheduled` what waits for its time.
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    operation_id = "list_deliveries",
    tag = "Deliveries",
    params(Listing),
    responses(
        (status = 200, description = "A page of them.", body = list::Deliveries),
        codes::NotFound,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Problem> {
    list::page(&api, listing).await
}

/// Lists a tenant's deliveries by their attempts, the last attempt first.
///
/// An entry says what the attempts say that were looked at, from the end of the log back, within
/// bounds of bytes and time; `scanned` says how far. A delivery whose attempts lie further apart
/// can be listed again, by its older ones.
///
/// With the status `held` or `scheduled` it lists what one endpoint is owed as its lane says now,
/// attempted or not, in the order it came there: `held` is what comes as soon as the endpoint takes
/// it, `scheduled` what waits for its time.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/deliveries",
    operation_id = "list_deliveries_of_tenant",
    tag = "Deliveries",
    params(Listing),
    responses(
        (status = 200, description = "A page of them.", body = list::Deliveries),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn list_of_tenant(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    list::page(&api, listing.of_tenant(tenant)?).await
}

/// Shows how one delivery stands, and why.
#[utoipa::path(
    get,
    path = "/v1/deliveries/{delivery}",
    operation_id = "get_delivery",
    tag = "Deliveries",
    responses(
        (status = 200, description = "The delivery.", body = show::Delivery),
        codes::Invalid,
        codes::NotFound,
        codes::Unavailable,
    ),
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    show::answer(&api, None, read_id(&id)?).await
}

/// Shows how one delivery of a tenant's stands, and why.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/deliveries/{delivery}",
    operation_id = "get_delivery_of_tenant",
    tag = "Deliveries",
    responses(
        (status = 200, description = "The delivery.", body = show::Delivery),
        codes::Invalid,
        codes::NotFound,
        codes::Unavailable,
    ),
)]
pub async fn show_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    show::answer(&api, Some(&tenant), read_id(&id)?).await
}

/// Lists the attempts of one delivery, in the order they were made.
#[utoipa::path(
    get,
    path = "/v1/deliveries/{delivery}/attempts",
    operation_id = "list_attempts",
    tag = "Deliveries",
    responses(
        (status = 200, description = "The attempts.", body = Attempts),
        codes::Invalid,
        codes::NotFound,
        codes::Unavailable,
    ),
)]
pub async fn attempts(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    attempts_answer(&api, None, read_id(&id)?).await
}

/// Lists the attempts of one delivery of a tenant's, in the order they were made.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/deliveries/{delivery}/attempts",
    operation_id = "list_attempts_of_tenant",
    tag = "Deliveries",
    responses(
        (status = 200, description = "The attempts.", body = Attempts),
        codes::Invalid,
        codes::NotFound,
        codes::Unavailable,
    ),
)]
pub async fn attempts_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    attempts_answer(&api, Some(&tenant), read_id(&id)?).await
}

/// Shows one attempt.
#[utoipa::path(
    get,
    path = "/v1/attempts/{attempt}",
    operation_id = "get_attempt",
    tag = "Deliveries",
    responses(
        (status = 200, description = "The attempt.", body = record::Shown),
        codes::Invalid,
        codes::NotFound,
        codes::Unavailable,
    ),
)]
pub async fn attempt(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    attempt_answer(&api, None, &id).await
}

/// Shows one attempt of a tenant's.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/attempts/{attempt}",
    operation_id = "get_attempt_of_tenant",
    tag = "Deliveries",
    responses(
        (status = 200, description = "The attempt.", body = record::Shown),
        codes::Invalid,
        codes::NotFound,
        codes::Unavailable,
    ),
)]
pub async fn attempt_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    attempt_answer(&api, Some(&tenant), &id).await
}

fn read_id(text: &str) -> Result<DeliveryId, Problem> {
    text.parse().map_err(|error: posthaste_core::id::IdError| {
        Problem::invalid("delivery", error.to_string())
    })
}

/// Another tenant's is not found, as one that never was.
fn belongs(tenant: Option<&str>, to: &str) -> bool {
    tenant.is_none_or(|tenant| tenant == to)
}

/// The delivery, where it is this tenant's.
async fn found(api: &Api, tenant: Option<&str>, id: DeliveryId) -> Result<Found, Problem> {
    let found = find::find(api, id).await?;
    match belongs(tenant, &found.tenant) {
        true => Ok(found),
        false => Err(find::not_found(true)),
    }
}

async fn attempts_answer(
    api: &Api,
    tenant: Option<&str>,
    id: DeliveryId,
) -> Result<Response, Problem> {
    let _turn = turn(api)?;
    let found = found(api, tenant, id).await?;
    let trace = of_delivery(api, &found).await?;
    let answer = Attempts {
        data: trace.attempts.iter().map(Recorded::shown).collect(),
        ended_by: trace.ended_by,
    };
    Ok(Json(answer).into_response())
}

/// The attempts of one delivery.
async fn of_delivery(api: &Api, found: &Found) -> Result<record::Trace, LogError> {
    let wanted = |attempt: &proto::Attempt| {
        // Spares most of them the hash.
        attempt.origin_ms == found.origin.timestamp.as_millis()
            && attempt.origin_offset == found.origin.offset
            && record::delivery(attempt) == Some(found.id)
    };
    let begins = found.begins(api.clock.now());
    trace(api, begins, wanted, true, &mut Budget::new()).await
}

async fn attempt_answer(api: &Api, tenant: Option<&str>, id: &str) -> Result<Response, Problem> {
    let id: AttemptId = id.parse().map_err(|error: posthaste_core::id::IdError| {
        Problem::invalid("attempt", error.to_string())
    })?;
    let found = read_attempt(api, id).await?;
    let found = found.filter(|found| belongs(tenant, &found.attempt.tenant));
    let found =
        found.ok_or_else(|| Problem::not_found("no such attempt, or the log no longer has it"))?;
    Ok(Json(found.shown()).into_response())
}

async fn read_attempt(api: &Api, id: AttemptId) -> Result<Option<Recorded>, Problem> {
    let (partition, offset, _) = id.place();
    let tp = TopicPartition {
        topic: api.config.topics.attempts(),
        partition,
    };
    if partition >= api.log.describe(&tp.topic).await?.partitions {
        return Ok(None);
    }
    let records = match api.log.read(&tp, offset, 1).await {
        Ok((records, _)) => records,
        Err(LogError::OutOfRange { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let records = records.into_iter().filter(|r| r.offset == offset).collect();
    let attempts = recorded(&Piece { tp, records }, |_| true);
    Ok(attempts.into_iter().find(|attempt| attempt.id == id))
}
