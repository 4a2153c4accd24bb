//! The API: events in by HTTP, endpoints, dead letters, health and metrics.
//!
//! It never speaks to a shard: it appends to the log and reads folds.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use dashmap::DashMap;
use metrics_exporter_prometheus::PrometheusHandle;
use posthaste_core::limits::{BACKTESTS_MAX, LOOKS_MAX, VERIFICATIONS_MAX};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::routes;

use crate::clock::Clock;
use crate::config::Config;
use crate::control::Endpoints;
use crate::ingest::decode::Decoder;
use crate::log::Log;
use crate::send::Egress;
use crate::vault::Vault;

mod audit;
mod auth;
mod body;
mod catalog;
pub mod dead_letters;
pub mod deliveries;
pub mod document;
mod egress_ips;
pub mod endpoints;
mod event_types;
pub mod events;
pub mod filters;
mod host;
mod idempotency;
mod keys;
mod look;
pub mod operations;
mod page;
mod portal;
pub mod problem;
mod retry_policies;
pub mod secrets;
mod signing;
mod sources;
mod stream;
mod tenants;
mod verification;
mod version;

use document::Routes;

/// What every route sees.
pub struct Api {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) endpoints: Endpoints,
    pub(crate) decoder: Decoder,
    pub(crate) config: Config,
    pub(crate) egress: Arc<Egress>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) clock: Clock,
    pub(crate) idempotency: DashMap<[u8; 32], events::Remembered>,
    pub(crate) event_partitions: u32,
    /// Those that may begin.
    pub(crate) backtests: Semaphore,
    /// … and looks through the log.
    pub(crate) looks: Semaphore,
    /// … and questions to receivers.
    pub(crate) verifications: Semaphore,
    /// … and calls that pull events.
    pulls: stream::Pulls,
    metrics: PrometheusHandle,
    /// Cancelled when the process stops.
    stop: CancellationToken,
}

/// What the API works with.
pub struct Parts {
    /// Events and endpoints go there.
    pub log: Arc<dyn Log>,
    /// The endpoints table.
    pub endpoints: Endpoints,
    /// Reads events out of requests.
    pub decoder: Decoder,
    /// The configuration.
    pub config: Config,
    /// Judges endpoint URLs.
    pub egress: Arc<Egress>,
    /// Seals endpoints' secrets.
    pub vault: Arc<Vault>,
    /// The time.
    pub clock: Clock,
    /// Partitions of the topic that takes events by HTTP.
    pub event_partitions: u32,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
    /// Cancelled when the process stops.
    pub stop: CancellationToken,
}

impl Api {
    /// The API over these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            log: parts.log,
            endpoints: parts.endpoints,
            decoder: parts.decoder,
            config: parts.config,
            egress: parts.egress,
            vault: parts.vault,
            clock: parts.clock,
            idempotency: DashMap::new(),
            event_partitions: parts.event_partitions,
            backtests: Semaphore::new(BACKTESTS_MAX),
            looks: Semaphore::new(LOOKS_MAX),
            verifications: Semaphore::new(VERIFICATIONS_MAX),
            pulls: stream::Pulls::new(),
            metrics: parts.metrics,
            stop: parts.stop,
        }
    }

    /// All routes, behind the door.
    pub fn routes(self) -> Router {
        let api = Arc::new(self);
        let once = Arc::new(idempotency::Once {
            endpoints: api.endpoints.clone(),
            vault: Arc::clone(&api.vault),
        });
        described()
            .into_router()
            .fallback(|| async { problem::Problem::not_found("no such route") })
            .method_not_allowed_fallback(|method: Method| async move {
                problem::Problem::wrong_method(&method)
            })
            .layer(from_fn_with_state(once, idempotency::once))
            .layer(from_fn_with_state(Arc::clone(&api), auth::guard))
            .with_state(api)
    }
}

/// What endpoints' owners are asked for.
fn asked() -> Routes {
    use operations::{lane, replay, resend, routes as operation};
    Routes::default()
        .with(routes!(replay::create))
        .with(routes!(replay::create_for))
        .with(routes!(resend::create))
        .with(routes!(resend::create_for))
        .with(routes!(lane::cancel))
        .with(routes!(lane::retry_now))
        .with(routes!(lane::probe))
        .with(routes!(deliveries::again::retry))
        .with(routes!(deliveries::again::retry_of_tenant))
        .with(routes!(deliveries::again::cancel))
        .with(routes!(deliveries::again::cancel_of_tenant))
        .with(routes!(events::again::replay))
        .with(routes!(events::again::replay_of_tenant))
        .with(routes!(operation::list))
        .with(routes!(operation::list_of_tenant))
        .with(routes!(operation::show))
        .with(routes!(operation::show_of_tenant))
        .with(routes!(operation::pause))
        .with(routes!(operation::pause_of_tenant))
        .with(routes!(operation::resume))
        .with(routes!(operation::resume_of_tenant))
        .with(routes!(operation::cancel))
        .with(routes!(operation::cancel_of_tenant))
}

/// What came in, what came of it, and how far it is read.
fn looked() -> Routes {
    asked()
        .with(routes!(events::read::list))
        .with(routes!(events::read::show))
        .with(routes!(events::read::list_of_tenant, events::publish))
        .with(routes!(events::read::show_of_tenant))
        .with(routes!(deliveries::list))
        .with(routes!(deliveries::show))
        .with(routes!(deliveries::attempts))
        .with(routes!(deliveries::attempt))
        .with(routes!(deliveries::list_of_tenant))
        .with(routes!(deliveries::show_of_tenant))
        .with(routes!(deliveries::attempts_of_tenant))
        .with(routes!(deliveries::attempt_of_tenant))
        .with(routes!(sources::list))
        .with(routes!(sources::preview::show))
}

/// The routes, each with its description.
fn described() -> Routes {
    looked()
        .with(routes!(tenants::list))
        .with(routes!(
            tenants::show,
            tenants::replace,
            tenants::patch,
            tenants::delete
        ))
        .with(routes!(event_types::list, event_types::create))
        .with(routes!(event_types::import::import))
        .with(routes!(
            event_types::show,
            event_types::replace,
            event_types::patch,
            event_types::delete
        ))
        .with(routes!(retry_policies::list))
        .with(routes!(
            retry_policies::show,
            retry_policies::replace,
            retry_policies::delete
        ))
        .with(routes!(endpoints::list, endpoints::create))
        .with(routes!(
            endpoints::show,
            endpoints::change::replace,
            endpoints::change::patch,
            endpoints::change::delete
        ))
        .with(routes!(endpoints::change::enable))
        .with(routes!(verification::verify))
        .with(routes!(endpoints::send_test::send_test))
        .with(routes!(endpoints::stats::stats))
        .with(routes!(endpoints::health::health))
        .with(routes!(endpoints::status::disable))
        .with(routes!(endpoints::status::pause))
        .with(routes!(endpoints::status::resume))
        .with(routes!(stream::pull))
        .with(routes!(secrets::list))
        .with(routes!(secrets::rotate))
        .with(routes!(secrets::delete))
        .with(routes!(secrets::reseal))
        .with(routes!(filters::evaluate))
        .with(routes!(filters::backtest))
        .with(routes!(dead_letters::list))
        .with(routes!(dead_letters::redrive::redrive))
        .with(routes!(keys::list, keys::create))
        .with(routes!(keys::revoke))
        .with(routes!(portal::create))
        .with(routes!(audit::list))
        .with(routes!(secrets::published))
        .with(routes!(egress_ips::list))
        .with(routes!(healthy))
        .with(routes!(ready))
        .with(routes!(metrics))
        .with(routes!(openapi))
        .with(routes!(document::page::docs))
}

/// Runs.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "get_health",
    tag = "Instance",
    responses((status = 200, description = "It runs.", body = String, content_type = "text/plain")),
)]
async fn healthy() -> &'static str {
    "ok\n"
}

/// Ready from the moment rooms run until the process is told to stop.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readiness",
    tag = "Instance",
    responses(
        (status = 200, description = "Ready.", body = String, content_type = "text/plain"),
        (status = 503, description = "Stopping.", body = String, content_type = "text/plain"),
    ),
)]
async fn ready(State(api): State<Arc<Api>>) -> impl IntoResponse {
    if api.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    tag = "Instance",
    responses((status = 200, description = "Metrics.", body = String, content_type = "text/plain")),
)]
async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        api.metrics.render(),
    )
}

/// This description, as OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "get_description",
    tag = "Instance",
    responses((status = 200, description = "The document.", body = serde_json::Value)),
)]
async fn openapi() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        document::text(),
    )
}
