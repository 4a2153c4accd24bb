//! What an endpoint did lately, by the attempts on record: how many there were,
//! what they came to, and how long they took.
//!
//! Attempts stand in the order they were made, by nobody's name, so a look goes
//! back over all of them and takes the endpoint's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::limits::{STATS_BUCKETS, STATS_SPAN_DEFAULT};
use posthaste_core::outcome::{Blame, Cause};
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::find;
use crate::api::Api;
use crate::api::dead_letters::read_time;
use crate::api::deliveries::record::recorded;
use crate::api::document::{codes, values};
use crate::api::look::{Bound, Budget, CLOCKS_APART, Cursor, before, partitions, turn};
use crate::api::problem::{Asked, Problem, Segments};
use crate::config::{AuditLevel, format_rfc3339_millis};

/// Of which stretch.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Since {
    /// Attempts made since then; `24h` when it is absent.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    since: Option<String>,
}

/// What attempts of a stretch came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointStats)]
struct Stats {
    #[schema(value_type = values::Time)]
    since: String,
    #[schema(value_type = values::Time)]
    until: String,
    #[serde(flatten)]
    figures: Figures,
    scanned: Scanned,
}

/// The figures.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointFigures)]
struct Figures {
    attempts: u64,
    delivered: u64,
    failed: u64,
    /// Deliveries whose first attempt was one of these. One that failed on our
    /// side is not counted as an attempt of theirs.
    first_attempts: u64,
    /// How many failed for each reason.
    errors: BTreeMap<&'static str, u64>,
    statuses: Statuses,
    /// `null` without attempts.
    #[schema(required = true)]
    duration_us: Option<Durations>,
    /// Equal parts of the stretch, the oldest first.
    buckets: Vec<Bucket>,
}

/// How many were answered with a status of each class.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EndpointStatuses)]
struct Statuses {
    #[serde(rename = "2xx")]
    success: u64,
    #[serde(rename = "3xx")]
    redirect: u64,
    #[serde(rename = "4xx")]
    client_error: u64,
    #[serde(rename = "5xx")]
    server_error: u64,
    /// With any other.
    other: u64,
    /// Not at all.
    none: u64,
}

/// Of all attempts looked at, whatever they came to. A percentile is the
/// shortest time that so many of a hundred did not exceed (nearest rank).
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EndpointDurations)]
struct Durations {
    p50: u64,
    p95: u64,
    p99: u64,
    max: u64,
}

/// What the attempts of a part of the stretch came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EndpointBucket)]
struct Bucket {
    /// Its beginning.
    #[schema(value_type = values::Time)]
    at: String,
    delivered: u64,
    failed: u64,
    /// Whether all attempts of it were looked at.
    complete: bool,
}

/// How far a look came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointScanned)]
pub(super) struct Scanned {
    /// The attempts made since then were looked at; `null` when all.
    #[schema(value_type = Option<values::Time>, required = true)]
    pub(super) since: Option<String>,
    /// What ended the look before it had seen all.
    #[schema(required = true)]
    pub(super) ended_by: Option<Bound>,
    pub(super) recorded: Recorded,
}

/// Which attempts are recorded (`audit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RecordedAttempts)]
#[serde(rename_all = "snake_case")]
pub(super) enum Recorded {
    All,
    Failures,
    None,
}

/// Tells what an endpoint did lately, by its attempts.
///
/// The attempts are looked at from the newest back, those of all endpoints,
/// within bounds of bytes and time: `scanned` says how far, and `complete` of
/// which parts all were seen.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/stats",
    operation_id = "get_endpoint_stats",
    tag = "Endpoints",
    params(Since),
    responses(
        (status = 200, description = "Its figures.", body = Stats),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn stats(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    Asked(asked): Asked<Since>,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let now = api.clock.now();
    let since = match asked.since {
        None => before(now, STATS_SPAN_DEFAULT),
        Some(text) => read_time(&text, now).map_err(|wrong| Problem::invalid("since", wrong))?,
    };
    if since >= now {
        return Err(Problem::invalid("since", "expected a time in the past"));
    }
    let _turn = turn(&api)?;
    let stats = look(&api, &endpoint, since, now).await?;
    Ok(Json(stats).into_response())
}

async fn look(
    api: &Api,
    endpoint: &Endpoint,
    since: Timestamp,
    until: Timestamp,
) -> Result<Stats, Problem> {
    let log = &*api.log;
    let places = partitions(log, &[api.config.topics.attempts()]).await?;
    let from = before(since, CLOCKS_APART);
    let cursor = Cursor::open(log, &places, until, Some(from), None).await?;
    let mut back = cursor.look(log, &places);
    let mut budget = Budget::new();
    let mut tally = Tally::new(since, until);
    let id = &endpoint.id.as_bytes()[..];
    while let Some(pieces) = back.next(&mut budget).await? {
        for piece in &pieces {
            for found in recorded(piece, |attempt| attempt.endpoint_id[..] == *id) {
                tally.add(&found.attempt);
            }
        }
    }
    let reached = back.reached().map(|at| at.min(until));
    Ok(Stats {
        since: format_rfc3339_millis(since),
        until: format_rfc3339_millis(until),
        figures: tally.figures(reached),
        scanned: Scanned {
            since: reached.map(format_rfc3339_millis),
            ended_by: back.ended_by,
            recorded: Recorded::from(api.config.audit),
        },
    })
}

/// Attempts of a stretch, counted. What it keeps of each is a number; how many
/// those are, the bytes of a look bound.
#[derive(Debug)]
struct Tally {
    since: Timestamp,
    until: Timestamp,
    first_attempts: u64,
    errors: BTreeMap<&'static str, u64>,
    statuses: Statuses,
    durations: Vec<u64>,
    /// Delivered and failed.
    buckets: [(u64, u64); STATS_BUCKETS],
}

impl Tally {
    fn new(since: Timestamp, until: Timestamp) -> Self {
        Self {
            since,
            until,
            first_attempts: 0,
            errors: BTreeMap::new(),
            statuses: Statuses::default(),
            durations: Vec::new(),
            buckets: [(0, 0); STATS_BUCKETS],
        }
    }

    fn add(&mut self, attempt: &proto::Attempt) {
        let at = Timestamp::from_millis(attempt.started_ms);
        if !(self.since..self.until).contains(&at) {
            return;
        }
        let failed = !attempt.cause.is_empty();
        let cause = Cause::from_code(&attempt.cause);
        let counts = cause.is_none_or(|c| matches!(c.blame(), Blame::Receiver | Blame::Network));
        self.first_attempts += u64::from(attempt.number <= 1 && counts);
        let statuses = &mut self.statuses;
        *match attempt.status {
            0 => &mut statuses.none,
            200..=299 => &mut statuses.success,
            300..=399 => &mut statuses.redirect,
            400..=499 => &mut statuses.client_error,
            500..=599 => &mut statuses.server_error,
            _ => &mut statuses.other,
        } += 1;
        if failed {
            // One of a newer version has no name here.
            let code = cause.map_or("unknown", Cause::code);
            *self.errors.entry(code).or_default() += 1;
        }
        let bucket = &mut self.buckets[self.place(at)];
        *if failed { &mut bucket.1 } else { &mut bucket.0 } += 1;
        self.durations.push(attempt.duration_us);
    }

    /// In which bucket a time of the stretch lies.
    fn place(&self, at: Timestamp) -> usize {
        let (since, until) = (self.since.as_millis(), self.until.as_millis());
        let buckets = u128::try_from(STATS_BUCKETS).unwrap_or(1);
        let place = u128::from(at.as_millis() - since) * buckets / u128::from(until - since);
        usize::try_from(place).map_or(0, |place| place.min(STATS_BUCKETS - 1))
    }

    /// Where a bucket begins: the first millisecond that lies in it.
    fn begin(&self, place: usize) -> Timestamp {
        let span = u128::from(self.until.as_millis() - self.since.as_millis());
        let (place, buckets) = (place as u128, STATS_BUCKETS as u128);
        let behind = (span * place).div_ceil(buckets);
        let behind = u64::try_from(behind).unwrap_or(u64::MAX);
        self.since.after(Duration::from_millis(behind))
    }

    /// All there is to say, where attempts made since `reached` were seen; all
    /// where there is none.
    fn figures(mut self, reached: Option<Timestamp>) -> Figures {
        let bucket = |place: usize| {
            let ((delivered, failed), at) = (self.buckets[place], self.begin(place));
            Bucket {
                at: format_rfc3339_millis(at),
                delivered,
                failed,
                complete: reached.is_none_or(|reached| at >= reached),
            }
        };
        let buckets = (0..STATS_BUCKETS).map(bucket).collect();
        let delivered = self.buckets.iter().map(|(delivered, _)| delivered).sum();
        let failed = self.buckets.iter().map(|(_, failed)| failed).sum();
        self.durations.sort_unstable();
        Figures {
            attempts: delivered + failed,
            delivered,
            failed,
            first_attempts: self.first_attempts,
            errors: self.errors,
            statuses: self.statuses,
            duration_us: Durations::of(&self.durations),
            buckets,
        }
    }
}

impl Durations {
    fn of(sorted: &[u64]) -> Option<Self> {
        let max = *sorted.last()?;
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(max)
        };
        Some(Self {
            p50: rank(50),
            p95: rank(95),
            p99: rank(99),
            max,
        })
    }
}

impl From<AuditLevel> for Recorded {
    fn from(level: AuditLevel) -> Self {
        match level {
            AuditLevel::All => Self::All,
            AuditLevel::Failures => Self::Failures,
            AuditLevel::None => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: Timestamp = Timestamp::from_millis(1_000_000);
    const HOUR: u64 = 3_600_000;

    fn tally(span_ms: u64) -> Tally {
        Tally::new(SINCE, SINCE.after(Duration::from_millis(span_ms)))
    }

    fn attempt(after_ms: u64, number: u32, status: u32, cause: &str, us: u64) -> proto::Attempt {
        proto::Attempt {
            started_ms: SINCE.as_millis() + after_ms,
            number,
            status,
            cause: cause.to_owned(),
            duration_us: us,
            ..Default::default()
        }
    }

    #[test]
    fn attempts_are_counted_by_what_they_came_to_and_when() {
        let mut tally = tally(24 * HOUR);
        for attempt in [
            attempt(0, 1, 200, "", 10),
            attempt(HOUR - 1, 2, 204, "", 20),
            attempt(HOUR, 1, 503, "http_5xx", 30),
            attempt(24 * HOUR - 1, 1, 0, "dns_error", 40),
            // On our side: its number comes again.
            attempt(5 * HOUR, 1, 0, "egress_error", 50),
            attempt(5 * HOUR, 1, 301, "redirect_not_followed", 60),
            attempt(5 * HOUR, 1, 999, "of_a_newer_version", 70),
            // Not of the stretch.
            attempt(24 * HOUR, 1, 200, "", 80),
            proto::Attempt::default(),
        ] {
            tally.add(&attempt);
        }
        let reached = SINCE.after(Duration::from_millis(HOUR + 1));
        let figures = tally.figures(Some(reached));
        assert_eq!(
            (figures.attempts, figures.delivered, figures.failed),
            (7, 2, 5)
        );
        assert_eq!(figures.first_attempts, 5);
        let errors: Vec<_> = figures.errors.into_iter().collect();
        let once = [
            "dns_error",
            "egress_error",
            "http_5xx",
            "redirect_not_followed",
            "unknown",
        ];
        assert_eq!(errors, once.map(|code| (code, 1)));
        let statuses = Statuses {
            success: 2,
            redirect: 1,
            client_error: 0,
            server_error: 1,
            other: 1,
            none: 2,
        };
        assert_eq!(figures.statuses, statuses);
        let seen: Vec<_> = figures
            .buckets
            .iter()
            .map(|b| (b.delivered, b.failed))
            .collect();
        assert_eq!(
            (seen.len(), seen[0], seen[1], seen[5], seen[23]),
            (24, (2, 0), (0, 1), (0, 3), (0, 1))
        );
        let complete: Vec<_> = figures.buckets.iter().map(|b| b.complete).collect();
        assert!(!complete[0] && !complete[1] && complete[2..].iter().all(|c| *c));
    }

    #[test]
    fn each_time_of_a_stretch_is_in_the_bucket_that_begins_before_it() {
        for span_ms in [1, 7, 24, 25, 1_000, 24 * HOUR + 1] {
            let tally = tally(span_ms);
            for after_ms in (0..span_ms).step_by(usize::try_from(span_ms / 500 + 1).unwrap()) {
                let at = SINCE.after(Duration::from_millis(after_ms));
                let place = tally.place(at);
                assert!(tally.begin(place) <= at, "{span_ms} {after_ms}");
                let next = place + 1;
                assert!(
                    next == STATS_BUCKETS || at < tally.begin(next),
                    "{span_ms} {after_ms}"
                );
            }
        }
    }

    #[test]
    fn a_percentile_is_a_duration_that_there_was() {
        assert_eq!(Durations::of(&[]), None);
        let of = |p50, p95, p99, max| Some(Durations { p50, p95, p99, max });
        assert_eq!(Durations::of(&[7]), of(7, 7, 7, 7));
        assert_eq!(Durations::of(&[1, 2]), of(1, 2, 2, 2));
        let hundred: Vec<_> = (1..=100).collect();
        assert_eq!(Durations::of(&hundred), of(50, 95, 99, 100));
        let many: Vec<_> = (1..=1_001).collect();
        assert_eq!(Durations::of(&many), of(501, 951, 991, 1_001));
    }
}
