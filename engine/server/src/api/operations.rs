//! Operations: what was asked of endpoints' owners, how far it is, and how it is
//! steered.
//!
//! Every instance shows them from its own fold of the endpoints table; what they
//! do, they do in the owner of the endpoint's lane.

use std::sync::Arc;
use std::time::Duration;

use posthaste_core::operation::{Known, Operation, Operations, Progress, State, Wanted, kind_name};
use posthaste_core::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::document::values;
use crate::config::format_rfc3339;

pub mod lane;
pub mod replay;
pub mod resend;
pub mod routes;
mod span;
mod start;

pub(super) use start::{Accepted, accepted, begin, check_room, new, put, unheard};

/// Where an operation stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// Its owner has not said anything yet.
    Pending,
    Running,
    Paused,
    /// To be cancelled, which its owner has not said that it is.
    Cancelling,
    Succeeded,
    Cancelled,
    Failed,
}

/// An operation as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operation)]
pub(super) struct Shown {
    id: String,
    /// `replay`, `redrive`, `cancel`, `retry_now` or `probe`.
    kind: &'static str,
    tenant: String,
    /// The endpoint's id.
    endpoint: String,
    /// `pending` until the endpoint's owner has said anything, `running`,
    /// `paused`, `cancelling`; at its end `succeeded`, `cancelled` or `failed`.
    state: &'static str,
    #[schema(value_type = values::Time)]
    created_at: String,
    /// Who asked: a key's id, or `local`.
    actor: String,
    asked: What,
    progress: Done,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    detail: String,
    /// Rises by one with each change of what is wanted.
    version: u64,
}

/// What was asked for; `null` where nothing was.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperationAsked)]
struct What {
    #[schema(value_type = Option<values::Time>, required = true)]
    since: Option<String>,
    #[schema(value_type = Option<values::Time>, required = true)]
    until: Option<String>,
    event_types: Vec<String>,
    #[schema(value_type = Option<values::Filter>, required = true)]
    filter: Option<Box<RawValue>>,
    #[schema(required = true)]
    rate_per_second: Option<u32>,
    /// Of dead letters.
    #[schema(required = true)]
    cause: Option<String>,
    /// How many were named.
    #[schema(required = true)]
    deliveries: Option<usize>,
}

/// How far it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperationProgress)]
struct Done {
    /// To be read.
    records: u64,
    scanned: u64,
    /// Written, cancelled or made due.
    deliveries: u64,
    /// Records that could not be read, or go to nobody.
    skipped: u64,
    /// Of the records; `null` for what reads none, and before it has begun.
    #[schema(required = true)]
    percent: Option<u64>,
    /// Deliveries a second, since it was asked for.
    #[schema(required = true)]
    rate: Option<f64>,
    /// When it ends, if it goes on as it did.
    #[schema(value_type = Option<values::Time>, required = true)]
    eta: Option<String>,
    /// When its owner said so.
    #[schema(value_type = Option<values::Time>, required = true)]
    at: Option<String>,
}

const STATES: [(Stands, &str); 7] = [
    (Stands::Pending, "pending"),
    (Stands::Running, "running"),
    (Stands::Paused, "paused"),
    (Stands::Cancelling, "cancelling"),
    (Stands::Succeeded, "succeeded"),
    (Stands::Cancelled, "cancelled"),
    (Stands::Failed, "failed"),
];

fn operations(api: &Api) -> Arc<Operations> {
    Arc::clone(&api.endpoints.operations().borrow())
}

impl Stands {
    fn of(known: &Known) -> Self {
        match (&known.progress, known.operation.wanted) {
            (Some(progress), wanted) => match (progress.state, wanted) {
                (State::Succeeded, _) => Self::Succeeded,
                (State::Cancelled, _) => Self::Cancelled,
                (State::Failed, _) => Self::Failed,
                (_, Wanted::Cancel) => Self::Cancelling,
                (_, Wanted::Pause) => Self::Paused,
                (_, Wanted::Unspecified) => Self::Running,
            },
            (None, Wanted::Cancel) => Self::Cancelling,
            (None, Wanted::Pause) => Self::Paused,
            (None, Wanted::Unspecified) => Self::Pending,
        }
    }
}

fn name_of<T: PartialEq>(one: T, all: &[(T, &'static str)]) -> &'static str {
    let found = all.iter().find(|(known, _)| *known == one);
    found.map_or("unknown", |(_, name)| name)
}

impl Shown {
    pub(super) fn of(known: &Known) -> Self {
        let of = &known.operation;
        let progress = known.progress.as_deref();
        Self {
            id: of.id.to_string(),
            kind: kind_name(of.kind),
            tenant: of.tenant.clone(),
            endpoint: of.endpoint.to_string(),
            state: name_of(Stands::of(known), &STATES),
            created_at: format_rfc3339(of.created_at),
            actor: of.actor.clone(),
            asked: What::of(of),
            progress: Done::of(of, progress),
            detail: progress.map_or_else(String::new, |progress| progress.detail.clone()),
            version: of.version,
        }
    }
}

impl What {
    fn of(operation: &Operation) -> Self {
        let time = |at: Timestamp| (at > Timestamp::default()).then(|| format_rfc3339(at));
        let filter = operation.filter.as_ref();
        let types = operation.event_types.iter();
        Self {
            since: time(operation.span.0),
            until: time(operation.span.1),
            event_types: types.map(ToString::to_string).collect(),
            filter: filter.and_then(|filter| RawValue::from_string(filter.text().to_owned()).ok()),
            rate_per_second: Some(operation.rate_per_second).filter(|rate| *rate > 0),
            cause: Some(operation.dead_cause.clone()).filter(|cause| !cause.is_empty()),
            deliveries: Some(operation.offsets.len()).filter(|count| *count > 0),
        }
    }
}

impl Done {
    fn of(operation: &Operation, progress: Option<&Progress>) -> Self {
        let records = operation.records();
        let Some(progress) = progress else {
            return Self {
                records,
                scanned: 0,
                deliveries: 0,
                skipped: 0,
                percent: None,
                rate: None,
                eta: None,
                at: None,
            };
        };
        let took = progress.at.since(operation.created_at);
        let read = read_of(operation, progress);
        let per_second = |count: u64| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let rate = f64::from(count) / took.as_secs_f64();
            rate.is_finite().then_some((rate * 10.0).round() / 10.0)
        };
        Self {
            records,
            scanned: progress.scanned,
            deliveries: progress.count,
            skipped: progress.skipped,
            percent: match progress.state {
                State::Succeeded => Some(100),
                _ => (read.saturating_mul(100)).checked_div(records),
            },
            rate: per_second(progress.count),
            eta: match progress.state {
                State::Running => ends_at(progress.at, took, read, records),
                _ => None,
            },
            at: Some(format_rfc3339(progress.at)),
        }
    }
}

/// Records that lie behind its places.
fn read_of(operation: &Operation, progress: &Progress) -> u64 {
    let ranges = operation.ranges.iter().zip(&progress.next);
    let read = ranges.map(|(range, &next)| next.clamp(range.from, range.to) - range.from);
    read.fold(0, u64::saturating_add)
}

/// When the rest is read, at the pace so far.
fn ends_at(at: Timestamp, took: Duration, read: u64, records: u64) -> Option<String> {
    let left = u128::from(records.saturating_sub(read));
    let millis = (took.as_millis() * left).checked_div(u128::from(read))?;
    let millis = u64::try_from(millis).ok()?;
    Some(format_rfc3339(at.after(Duration::from_millis(millis))))
}

#[cfg(test)]
mod tests;
