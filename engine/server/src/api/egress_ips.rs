//! Where deliveries come from, so that receivers can let them in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;

/// Addresses that deliveries come from.
#[derive(Debug, Serialize, ToSchema)]
struct EgressIps {
    /// Addresses, or blocks of them, as the operator says them; empty where
    /// they say none.
    #[schema(examples(json!(["192.0.2.7", "2001:db8:7::/64"])))]
    data: Vec<String>,
}

/// Tells which addresses deliveries come from.
///
/// A receiver behind a firewall lets them in. That a request comes from one of
/// them proves nothing: its signature does.
#[utoipa::path(
    get,
    path = "/v1/egress_ips",
    operation_id = "list_egress_ips",
    tag = "For receivers",
    responses((status = 200, description = "The addresses.", body = EgressIps)),
)]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    let data = api.config.egress.public_ips.clone();
    Json(EgressIps { data }).into_response()
}
