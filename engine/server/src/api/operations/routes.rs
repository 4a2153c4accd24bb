//! The routes of operations: all of them, or one tenant's.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::event::check_tenant;
use posthaste_core::id::OperationId;
use posthaste_core::limits::{LIST_PAGE_DEFAULT, LIST_PAGE_MAX};
use posthaste_core::operation::{KINDS, Known, Operation, Wanted};
use serde::Deserialize;

use super::replay::refuse_names;
use super::{STATES, Shown, Stands, operations};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::document::{codes, values};
use crate::api::page::{Page, Paging};
use crate::api::problem::{Asked, Problem, Segments};

/// Which operations, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Of that tenant alone; not where the path names one.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// Of that endpoint, by its id.
    #[param(nullable = false)]
    endpoint: Option<String>,
    /// `replay`, `redrive`, `cancel`, `retry_now` or `probe`.
    #[param(nullable = false)]
    kind: Option<String>,
    /// `pending`, `running`, `paused`, `cancelling`, `succeeded`, `cancelled` or
    /// `failed`.
    #[param(nullable = false)]
    state: Option<String>,
    #[param(schema_with = values::page_limit::<LIST_PAGE_DEFAULT, LIST_PAGE_MAX>)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
}

type Operations = Page<Shown>;

/// Lists operations, oldest first.
#[utoipa::path(
    get,
    path = "/v1/operations",
    operation_id = "list_operations",
    tag = "Operations",
    params(Listing),
    responses(
        (status = 200, description = "A page of them.", body = Operations),
        codes::Invalid,
    ),
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Problem> {
    page(&api, listing)
}

/// Lists a tenant's operations, oldest first.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/operations",
    operation_id = "list_operations_of_tenant",
    tag = "Operations",
    params(Listing),
    responses(
        (status = 200, description = "A page of them.", body = Operations),
        codes::Invalid,
    ),
)]
pub async fn list_of_tenant(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    Asked(mut listing): Asked<Listing>,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    refuse_names(None, listing.tenant.replace(tenant).as_ref())?;
    page(&api, listing)
}

fn page(api: &Api, listing: Listing) -> Result<Response, Problem> {
    let kind = read(listing.kind.as_deref(), "kind", &KINDS)?;
    let state = read(listing.state.as_deref(), "state", &STATES)?;
    let endpoint = listing.endpoint.as_deref().map(str::parse);
    let endpoint = endpoint
        .transpose()
        .map_err(|_| Problem::invalid("endpoint", "expected an endpoint's id"))?;
    let tenant = listing.tenant;
    let operations = operations(api);
    let wanted = |known: &Known| {
        let of = &known.operation;
        tenant.as_ref().is_none_or(|tenant| of.tenant == *tenant)
            && endpoint.is_none_or(|endpoint| of.endpoint == endpoint)
            && kind.is_none_or(|kind| of.kind == kind)
            && state.is_none_or(|state| Stands::of(known) == state)
    };
    let found = operations.iter().filter(|(_, known)| wanted(known));
    let paging = Paging::new(listing.limit, listing.cursor);
    let page: Operations = paging.of(found, Shown::of)?;
    Ok(Json(page).into_response())
}

/// One of a few by its name.
fn read<T: Copy>(
    name: Option<&str>,
    param: &'static str,
    known: &[(T, &str)],
) -> Result<Option<T>, Problem> {
    let Some(name) = name else {
        return Ok(None);
    };
    let found = known.iter().find(|(_, known)| *known == name);
    found.map(|(one, _)| Some(*one)).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(_, name)| format!("`{name}`")).collect();
        let (shown, wanted) = (name.escape_default(), names.join(", "));
        Problem::invalid(param, format!("`{shown}`: expected one of {wanted}"))
    })
}

/// One operation.
#[utoipa::path(
    get,
    path = "/v1/operations/{operation}",
    operation_id = "get_operation",
    tag = "Operations",
    responses(
        (status = 200, description = "The operation as it is now.", body = Shown),
    ),
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    let known = find(&api, None, &id)?;
    Ok(Json(Shown::of(&known)).into_response())
}

/// One operation of a tenant.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/operations/{operation}",
    operation_id = "get_operation_of_tenant",
    tag = "Operations",
    responses(
        (status = 200, description = "The operation as it is now.", body = Shown),
    ),
)]
pub async fn show_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let known = find(&api, Some(&tenant), &id)?;
    Ok(Json(Shown::of(&known)).into_response())
}

/// Holds an operation; what it has done stays done.
#[utoipa::path(
    post,
    path = "/v1/operations/{operation}/pause",
    operation_id = "pause_operation",
    tag = "Operations",
    responses(
        (status = 200, description = "The operation as it is now.", body = Shown),
        codes::OperationOver,
        codes::Unavailable,
    ),
)]
pub async fn pause(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(&api, None, &id, Wanted::Pause, &caller).await
}

/// Holds an operation of a tenant; what it has done stays done.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/operations/{operation}/pause",
    operation_id = "pause_operation_of_tenant",
    tag = "Operations",
    responses(
        (status = 200, description = "The operation as it is now.", body = Shown),
        codes::OperationOver,
        codes::Unavailable,
    ),
)]
pub async fn pause_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(&api, Some(&tenant), &id, Wanted::Pause, &caller).await
}

/// Lets an operation go on.
#[utoipa::path(
    post,
    path = "/v1/operations/{operation}/resume",
    operation_id = "resume_operation",
    tag = "Operations",
    responses(
        (status = 200, description = "The operation as it is now.", body = Shown),
        codes::OperationOver,
        codes::Unavailable,
    ),
)]
pub async fn resume(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(&api, None, &id, Wanted::Unspecified, &caller).await
}

/// Lets an operation of a tenant go on.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/operations/{operation}/resume",
    operation_id = "resume_operation_of_tenant",
    tag = "Operations",
    responses(
        (status = 200, description = "The operation as it is now.", body = Shown),
        codes::OperationOver,
        codes::Unavailable,
    ),
)]
pub async fn resume_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(&api, Some(&tenant), &id, Wanted::Unspecified, &caller).await
}

/// Ends an operation for good; what it has done stays done.
#[utoipa::path(
    post,
    path = "/v1/operations/{operation}/cancel",
    operation_id = "cancel_operation",
    tag = "Operations",
    responses(
        (status = 200, description = "The operation as it is now.", body = Shown),
        codes::OperationOver,
        codes::Unavailable,
    ),
)]
pub async fn cancel(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(&api, None, &id, Wanted::Cancel, &caller).await
}

/// Ends an operation of a tenant for good; what it has done stays done.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/operations/{operation}/cancel",
    operation_id = "cancel_operation_of_tenant",
    tag = "Operations",
    responses(
        (status = 200, description = "The operation as it is now.", body = Shown),
        codes::OperationOver,
        codes::Unavailable,
    ),
)]
pub async fn cancel_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(&api, Some(&tenant), &id, Wanted::Cancel, &caller).await
}

async fn steer(
    api: &Api,
    tenant: Option<&str>,
    id: &str,
    wanted: Wanted,
    caller: &Caller,
) -> Result<Response, Problem> {
    let known = find(api, tenant, id)?;
    if known.operation.wanted != wanted {
        let over = match Stands::of(&known) {
            Stands::Pending | Stands::Running | Stands::Paused => None,
            Stands::Cancelling => Some("cancelling"),
            Stands::Succeeded | Stands::Cancelled | Stands::Failed => Some("over"),
        };
        if let Some(over) = over {
            let detail = format!("the operation is {over}: expected one that goes on");
            return Err(Problem::conflict("operation_over", detail));
        }
        let changed = Operation {
            wanted,
            version: known.operation.version + 1,
            ..known.operation.as_ref().clone()
        };
        api.endpoints.put_operation(&changed, &caller.by()).await?;
    }
    Ok(Json(Shown::of(&find(api, tenant, id)?)).into_response())
}

/// Another tenant's operation is not found, as one that never was.
fn find(api: &Api, tenant: Option<&str>, id: &str) -> Result<Known, Problem> {
    let id = id.parse::<OperationId>().ok();
    let operations = operations(api);
    let known = id.and_then(|id| operations.get(id));
    let own = |known: &&Known| tenant.is_none_or(|tenant| known.operation.tenant == tenant);
    let none = || Problem::not_found("no such operation");
    known.filter(own).cloned().ok_or_else(none)
}
