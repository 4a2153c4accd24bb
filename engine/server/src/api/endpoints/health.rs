//! Whether an endpoint gets its events, in one answer that is the same on every
//! instance.
//!
//! ```text
//!  endpoints table: status, gate (its owner's word), operations -+
//!  attempts, back from the newest: the last of either kind ------+--> state, why
//!  its lane partition, folded: what is owed, and held -----------+
//!  changes, back from the newest: since when it is not to get any
//! ```
//!
//! Of what a look does not reach, nothing is said.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::gate::{Gate, GateState};
use posthaste_core::limits::OPERATIONS_PER_ENDPOINT_MAX;
use posthaste_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::find;
use super::stats::{Recorded, Scanned as Attempts};
use crate::api::Api;
use crate::api::deliveries::record;
use crate::api::document::{codes, values};
use crate::api::look::{Bound, turn};
use crate::api::operations;
use crate::api::problem::{Problem, Segments};
use crate::config::format_rfc3339_millis;
use crate::log::LogError;

mod evidence;

use evidence::Trail;

/// Whether an endpoint gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EndpointState)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Its last attempt was answered 2xx; or none is on record, and nothing it is
    /// owed has failed.
    Healthy,
    /// Its last attempt failed. Where not all attempts are recorded: a delivery
    /// failed, and comes again.
    Failing,
    /// Its breaker is open: what it wants is held until a probe is answered 2xx.
    Down,
    /// What it wants is held until it is resumed.
    Paused,
    /// It wants nothing until it is enabled.
    Disabled,
    /// The log holds too much to look through at once.
    Unknown,
}

/// How an endpoint stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointHealth)]
struct Health {
    /// The endpoint's id.
    endpoint: String,
    tenant: String,
    state: State,
    /// The state in words.
    why: String,
    /// `null` where that is not known.
    #[schema(value_type = Option<values::Time>, required = true)]
    since: Option<String>,
    /// The last attempt that was answered 2xx; `null` where none was seen.
    #[schema(required = true)]
    last_success: Option<record::Shown>,
    /// The last one that was not.
    #[schema(required = true)]
    last_failure: Option<record::Shown>,
    /// Attempts that failed since the last success, as far as they were seen.
    failed_in_a_row: usize,
    /// `null` where the log holds too much to tell.
    #[schema(required = true)]
    owed: Option<Owed>,
    /// Those that are not over.
    operations: Vec<operations::Shown>,
    scanned: Scanned,
}

/// What an endpoint is owed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointOwed)]
struct Owed {
    /// Deliveries that wait for their time.
    scheduled: u64,
    /// Deliveries that wait for the endpoint.
    held: u64,
    /// The time of the oldest event among those that are scheduled and the first
    /// one in line of those held; `null` where nothing is owed, or the line is too
    /// far away.
    #[schema(value_type = Option<values::Time>, required = true)]
    oldest_event_at: Option<String>,
    /// When the next of the scheduled ones is due.
    #[schema(value_type = Option<values::Time>, required = true)]
    next_attempt_at: Option<String>,
}

/// How far the looks came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointHealthScanned)]
struct Scanned {
    attempts: Attempts,
    /// What ended the look at the lane; `null` when all was seen. `owed` is
    /// `null` then if a newer version wrote some of it.
    #[schema(required = true)]
    lane_ended_by: Option<Bound>,
}

/// Tells whether an endpoint gets its events, and what it is owed.
///
/// It is read from the log, within bounds of bytes and time, and the same on
/// every instance; `scanned` says how far the looks came.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/health",
    operation_id = "get_endpoint_health",
    tag = "Endpoints",
    responses(
        (status = 200, description = "How it stands.", body = Health),
        codes::Unavailable,
    ),
)]
pub async fn health(
    Shared(api): Shared<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let _turn = turn(&api)?;
    Ok(Json(look(&api, &endpoint).await?).into_response())
}

async fn look(api: &Api, endpoint: &Endpoint) -> Result<Health, LogError> {
    let now = api.clock.now();
    let (trail, lane, changed) = tokio::try_join!(
        evidence::trail(api, endpoint.id, now),
        evidence::lane(api, endpoint.id),
        evidence::changed(api, endpoint, now),
    )?;
    let gate = gate_of(api, endpoint);
    let recorded = Recorded::from(api.config.audit);
    let state = judge(endpoint, &gate, &trail, lane.owed.as_ref(), recorded);
    let since = match state {
        State::Disabled | State::Paused => changed.or(said_at(&gate, state)),
        State::Down => said_at(&gate, state),
        State::Healthy | State::Failing if recorded == Recorded::All => trail.turned(),
        State::Healthy | State::Failing | State::Unknown => None,
    };
    Ok(Health {
        endpoint: endpoint.id.to_string(),
        tenant: endpoint.tenant.clone(),
        state,
        why: why(state, endpoint, &trail),
        since: since.map(format_rfc3339_millis),
        failed_in_a_row: trail.failed_in_a_row(),
        owed: lane.owed.as_ref().map(Owed::from),
        operations: running(api, endpoint),
        scanned: Scanned {
            attempts: Attempts {
                since: trail.reached.map(|at| format_rfc3339_millis(at.min(now))),
                ended_by: trail.ended_by,
                recorded,
            },
            lane_ended_by: lane.ended_by,
        },
        last_success: trail.last_success.as_ref().map(record::Recorded::shown),
        last_failure: trail.last_failure.as_ref().map(record::Recorded::shown),
    })
}

fn gate_of(api: &Api, endpoint: &Endpoint) -> Gate {
    let registry = api.endpoints.registry().borrow().clone();
    let ix = registry.index(endpoint.id);
    ix.map_or(Gate::OPEN, |ix| registry.gate(ix).clone())
}

fn running(api: &Api, endpoint: &Endpoint) -> Vec<operations::Shown> {
    let operations = Arc::clone(&api.endpoints.operations().borrow());
    let known = operations.iter().map(|(_, known)| known);
    known
        .filter(|known| known.operation.endpoint == endpoint.id && !known.is_ended())
        .take(OPERATIONS_PER_ENDPOINT_MAX)
        .map(operations::Shown::of)
        .collect()
}

/// The state that all of this comes to.
fn judge(
    endpoint: &Endpoint,
    gate: &Gate,
    trail: &Trail,
    owed: Option<&evidence::Owed>,
    recorded: Recorded,
) -> State {
    if endpoint.disabled {
        return State::Disabled;
    }
    if endpoint.paused || gate.state == GateState::Paused {
        return State::Paused;
    }
    let success = trail.last_success.as_ref().map(record::Recorded::at);
    // Taken since: its breaker closed, and what it holds goes first.
    let back = success.is_some_and(|at| at > gate.at);
    if gate.state == GateState::Held && !back {
        return State::Down;
    }
    let failure = trail.last_failure.as_ref().map(record::Recorded::at);
    if recorded == Recorded::All && (success.is_some() || failure.is_some()) {
        return match failure > success {
            true => State::Failing,
            false => State::Healthy,
        };
    }
    match owed {
        Some(owed) if owed.failing > 0 => State::Failing,
        Some(_) => State::Healthy,
        None => State::Unknown,
    }
}

/// The state in words.
fn why(state: State, endpoint: &Endpoint, trail: &Trail) -> String {
    let failure = trail.last_failure.as_ref();
    let failure = failure.and_then(|last| record::Failure::of(&last.attempt.cause));
    let said = |what: &str| match &failure {
        Some(failure) => format!("{what}: {}", failure.text),
        None => what.to_owned(),
    };
    match state {
        State::Healthy if trail.last_success.is_some() => "the last attempt was taken".to_owned(),
        State::Healthy => "nothing it is owed has failed".to_owned(),
        State::Failing => said("an attempt failed"),
        State::Down => said("its breaker is open, what it wants is held"),
        State::Paused => "it is paused, what it wants is held".to_owned(),
        State::Disabled => match endpoint.disabled_reason.as_str() {
            "" => "it is disabled".to_owned(),
            reason => format!("it is disabled: {reason}"),
        },
        State::Unknown => "the log holds too much to look through at once".to_owned(),
    }
}

/// When its owner said what a state follows from, if it did.
fn said_at(gate: &Gate, state: State) -> Option<Timestamp> {
    let says = match state {
        State::Down => gate.state == GateState::Held,
        State::Paused => gate.state == GateState::Paused,
        State::Healthy | State::Failing | State::Disabled | State::Unknown => false,
    };
    Some(gate.at).filter(|at| says && *at > Timestamp::default())
}

impl From<&evidence::Owed> for Owed {
    fn from(owed: &evidence::Owed) -> Self {
        Self {
            scheduled: owed.scheduled,
            held: owed.held,
            oldest_event_at: owed.oldest.map(format_rfc3339_millis),
            next_attempt_at: owed.next.map(format_rfc3339_millis),
        }
    }
}

#[cfg(test)]
mod tests;
