//! The API: events in by HTTP, endpoints, dead letters, health and metrics.
//!
//! It never speaks to a shard: it appends to the log and reads folds.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use dashmap::DashMap;
use metrics_exporter_prometheus::PrometheusHandle;
use posthaste_core::limits::{BACKTESTS_MAX, LOOKS_MAX};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

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
pub mod dead_letters;
pub mod deliveries;
pub mod endpoints;
pub mod events;
pub mod filters;
mod keys;
mod look;
pub mod operations;
mod page;
mod portal;
pub mod problem;
pub mod secrets;
mod signing;

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
            metrics: parts.metrics,
            stop: parts.stop,
        }
    }

    /// All routes, behind the door.
    pub fn routes(self) -> Router {
        let api = Arc::new(self);
        Router::new()
            .merge(of_tenants())
            .merge(deliveries::routes())
            .merge(events::routes())
            .merge(operations::routes())
            .route("/v1/secrets/reseal", post(secrets::reseal))
            .route("/.well-known/webhook-keys", get(secrets::published))
            .route("/v1/filters/evaluate", post(filters::evaluate))
            .route("/v1/filters/backtest", post(filters::backtest))
            .route("/v1/dead_letters", get(dead_letters::list))
            .route("/v1/dead_letters/redrive", post(dead_letters::redrive))
            .route("/v1/keys", get(keys::list).post(keys::create))
            .route("/v1/keys/{key}", delete(keys::revoke))
            .route("/v1/audit", get(audit::list))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .fallback(|| async { problem::Problem::not_found("no such route") })
            .method_not_allowed_fallback(|method: Method| async move {
                problem::Problem::wrong_method(&method)
            })
            .layer(from_fn_with_state(Arc::clone(&api), auth::guard))
            .with_state(api)
    }
}

/// What belongs to a tenant.
fn of_tenants() -> Router<Arc<Api>> {
    Router::new()
        .route(
            "/v1/tenants/{tenant}/events",
            get(events::list_of_tenant).post(events::publish),
        )
        .route("/v1/tenants/{tenant}/portal_sessions", post(portal::create))
        .route(
            "/v1/tenants/{tenant}/endpoints",
            get(endpoints::list).post(endpoints::create),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}",
            get(endpoints::show)
                .put(endpoints::replace)
                .patch(endpoints::patch)
                .delete(endpoints::delete),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/enable",
            post(endpoints::enable),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/disable",
            post(endpoints::disable),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/pause",
            post(endpoints::pause),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/resume",
            post(endpoints::resume),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/secrets",
            get(secrets::list),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/secrets/rotate",
            post(secrets::rotate),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/secrets/{secret}",
            delete(secrets::delete),
        )
}

/// Ready from the moment rooms run until the process is told to stop.
async fn ready(State(api): State<Arc<Api>>) -> impl IntoResponse {
    if api.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        api.metrics.render(),
    )
}
