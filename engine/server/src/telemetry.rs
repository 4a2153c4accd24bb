//! Metrics and logs. Every metric's name stands in [`NAMES`], with what it
//! counts; handles are made once and handed down, so that counting costs a few
//! nanoseconds and no label grows with customers.

use std::io::IsTerminal as _;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use posthaste_core::outcome::{Cause, Outcome, Verdict};
use posthaste_core::shard::Shard;
use posthaste_proto::DeadCause;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A metric: its name and what it counts.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// `posthaste_<room>_<noun>_<unit>[_total]`.
    pub name: &'static str,
    kind: Kind,
    help: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Seconds,
}

const fn counted(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
    }
}

const fn gauged(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        help,
    }
}

const fn timed(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Seconds,
        help,
    }
}

/// Records read from the source topics.
pub const INGEST_RECORDS: Metric = counted(
    "posthaste_ingest_records_total",
    "Records read from the source topics.",
);
/// Records no endpoint wanted.
pub const INGEST_UNMATCHED: Metric = counted(
    "posthaste_ingest_unmatched_records_total",
    "Records that no endpoint wanted.",
);
/// Records that could not be read.
pub const INGEST_POISON: Metric = counted(
    "posthaste_ingest_poison_records_total",
    "Records that could not be read and became dead letters.",
);
/// Events whose body kept a filter from a decision.
pub const INGEST_UNDECIDED: Metric = counted(
    "posthaste_ingest_undecided_events_total",
    "Events an endpoint did not get because its filter could not read their body.",
);
/// Source commits that the log took.
pub const INGEST_COMMITS: Metric = counted(
    "posthaste_ingest_commits_total",
    "Commits of source positions that the log took.",
);
/// Source commits that failed.
pub const INGEST_COMMIT_FAILURES: Metric = counted(
    "posthaste_ingest_commit_failures_total",
    "Commits of source positions that failed; the next one supersedes each.",
);
/// Source positions read and not settled.
pub const INGEST_OPEN: Metric = gauged(
    "posthaste_ingest_open_offsets",
    "Source positions read and not yet settled.",
);
/// Attempts by outcome and cause.
pub const SEND_ATTEMPTS: Metric = counted(
    "posthaste_send_attempts_total",
    "Attempts ended, by outcome (delivered, retry, gone) and cause.",
);
/// How long attempts took.
pub const SEND_DURATION: Metric = timed(
    "posthaste_send_attempt_duration_seconds",
    "From the start of an attempt to its verdict.",
);
/// Connections opened.
pub const SEND_CONNECTIONS: Metric = counted(
    "posthaste_send_connections_opened_total",
    "Connections opened to receivers.",
);
/// Attempts in flight.
pub const DISPATCH_IN_FLIGHT: Metric = gauged(
    "posthaste_dispatch_in_flight_attempts",
    "Attempts in flight, by shard.",
);
/// Deliveries waiting in memory.
pub const DISPATCH_QUEUED: Metric = gauged(
    "posthaste_dispatch_queued_deliveries",
    "Deliveries waiting in memory, by shard.",
);
/// … and the bytes of their bodies.
pub const DISPATCH_QUEUED_BYTES: Metric = gauged(
    "posthaste_dispatch_queued_bytes",
    "Bytes of bodies waiting in memory, by shard.",
);
/// Whether a shard takes the fault to be its own.
pub const DISPATCH_SUSPECTS_ITSELF: Metric = gauged(
    "posthaste_dispatch_suspects_itself",
    "1 while so many endpoints cannot be reached that a shard takes the fault to be on this side.",
);
/// Lane and dead-letter records written by shards.
pub const DISPATCH_APPENDS: Metric = counted(
    "posthaste_dispatch_appends_total",
    "Records a shard wrote to the lane or to dead letters, by kind and reason.",
);
/// Bytes of records not yet acknowledged.
pub const DISPATCH_UNACKED: Metric = gauged(
    "posthaste_dispatch_unacked_bytes",
    "Bytes of lane and dead-letter records the log has not yet acknowledged, by shard.",
);
/// Attempt records the audit could not take.
pub const AUDIT_DROPPED: Metric = counted(
    "posthaste_audit_dropped_attempts_total",
    "Attempt records dropped because the attempts topic was too slow.",
);
/// Deliveries owed by the lane.
pub const OWNER_OWED: Metric = gauged(
    "posthaste_owner_owed_deliveries",
    "Deliveries in the lane that are not settled.",
);
/// … that wait for their endpoint.
pub const OWNER_HELD: Metric = gauged(
    "posthaste_owner_held_deliveries",
    "Deliveries in the lane that wait for their endpoint, not for a time.",
);
/// Facts written to the lane.
pub const OWNER_FACTS: Metric =
    counted("posthaste_owner_facts_total", "Facts written to the lane.");
/// Dead letters written by owners.
pub const OWNER_DEAD: Metric = counted(
    "posthaste_owner_dead_letters_total",
    "Deliveries given up by owners, by cause.",
);
/// Pages of held deliveries that the lane's retention had passed.
pub const OWNER_LANE_PASSED: Metric = counted(
    "posthaste_owner_lane_passed_total",
    "Pages of held deliveries lost because the lane's retention had passed them.",
);
/// Endpoints in the registry.
pub const CONTROL_ENDPOINTS: Metric =
    gauged("posthaste_control_endpoints", "Endpoints in the registry.");
/// Endpoints that name a retry policy this instance's configuration lacks.
pub const CONTROL_UNKNOWN_POLICIES: Metric = gauged(
    "posthaste_control_unknown_policy_endpoints",
    "Endpoints whose retry policy is not defined; `standard` serves them.",
);
/// Operations that were asked for.
pub const API_OPERATIONS: Metric = counted(
    "posthaste_api_operations_total",
    "Operations that endpoints' owners were asked for.",
);
/// Events taken by HTTP.
pub const API_EVENTS: Metric = counted(
    "posthaste_api_events_total",
    "Events taken by HTTP and made durable.",
);

/// Every metric there is; dashboards and alerts are checked against it.
pub const NAMES: &[Metric] = &[
    INGEST_RECORDS,
    INGEST_UNMATCHED,
    INGEST_POISON,
    INGEST_UNDECIDED,
    INGEST_COMMITS,
    INGEST_COMMIT_FAILURES,
    INGEST_OPEN,
    SEND_ATTEMPTS,
    SEND_DURATION,
    SEND_CONNECTIONS,
    DISPATCH_IN_FLIGHT,
    DISPATCH_QUEUED,
    DISPATCH_QUEUED_BYTES,
    DISPATCH_SUSPECTS_ITSELF,
    DISPATCH_APPENDS,
    DISPATCH_UNACKED,
    AUDIT_DROPPED,
    OWNER_OWED,
    OWNER_HELD,
    OWNER_FACTS,
    OWNER_DEAD,
    CONTROL_ENDPOINTS,
    OWNER_LANE_PASSED,
    CONTROL_UNKNOWN_POLICIES,
    API_EVENTS,
    API_OPERATIONS,
];

/// Bounds of the duration histograms, in seconds.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0,
];

/// Sends metrics to a Prometheus registry of this process and describes them.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets(SECONDS)?
        .install_recorder()?;
    for metric in NAMES {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Seconds => describe_histogram!(metric.name, Unit::Seconds, metric.help),
        }
    }
    Ok(handle)
}

/// Sends logs to standard error: `POSTHASTE_LOG` filters, `json` for machines.
pub fn install_logs(json: bool) {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = std::io::stderr().is_terminal() && !plain;
    install_logs_to(std::io::stderr, ansi, json);
}

/// Sends logs to `writer`, with colours if `ansi`.
pub fn install_logs_to<W>(writer: W, ansi: bool, json: bool)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_env("POSTHASTE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,librdkafka=warn"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(writer);
    if json {
        logs.json().init();
    } else {
        logs.with_target(false).init();
    }
}

/// Counts within 2^53 are exact as a float, and ours are bounded far below.
#[expect(clippy::cast_precision_loss, reason = "bounded far below 2^53")]
fn level(count: usize) -> f64 {
    count as f64
}

/// What ingest counts.
pub struct IngestMetrics {
    /// Records read.
    pub records: Counter,
    /// Records nobody wanted.
    pub unmatched: Counter,
    /// Records that could not be read.
    pub poison: Counter,
    /// Events whose body kept a filter from a decision.
    pub undecided: Counter,
    /// Commits taken.
    pub commits: Counter,
    /// Commits failed.
    pub commit_failures: Counter,
    open: Gauge,
}

impl Default for IngestMetrics {
    fn default() -> Self {
        Self {
            records: counter!(INGEST_RECORDS.name),
            unmatched: counter!(INGEST_UNMATCHED.name),
            poison: counter!(INGEST_POISON.name),
            undecided: counter!(INGEST_UNDECIDED.name),
            commits: counter!(INGEST_COMMITS.name),
            commit_failures: counter!(INGEST_COMMIT_FAILURES.name),
            open: gauge!(INGEST_OPEN.name),
        }
    }
}

impl IngestMetrics {
    /// So many positions are read and not settled.
    pub fn open(&self, count: usize) {
        self.open.set(level(count));
    }
}

/// Attempts a shard counts before it passes them on.
const ATTEMPTS_HELD_MAX: usize = 256;

/// What one shard counts.
pub struct ShardMetrics {
    delivered: Counter,
    delivered_held: u64,
    failed: Vec<(Verdict, Cause, Counter)>,
    seconds: Vec<f64>,
    duration: Histogram,
    /// Connections opened.
    pub connections: Counter,
    /// Attempt records dropped.
    pub audit_dropped: Counter,
    in_flight: Gauge,
    queued: Gauge,
    queued_bytes: Gauge,
    suspects_itself: Gauge,
    unacked: Gauge,
}

impl ShardMetrics {
    /// For the shard of this number.
    pub fn new(shard: usize) -> Self {
        let shard = shard.to_string();
        Self {
            delivered: counter!(SEND_ATTEMPTS.name, "outcome" => "delivered", "cause" => ""),
            delivered_held: 0,
            failed: Vec::new(),
            seconds: Vec::with_capacity(ATTEMPTS_HELD_MAX),
            duration: histogram!(SEND_DURATION.name),
            connections: counter!(SEND_CONNECTIONS.name),
            audit_dropped: counter!(AUDIT_DROPPED.name),
            in_flight: gauge!(DISPATCH_IN_FLIGHT.name, "shard" => shard.clone()),
            queued: gauge!(DISPATCH_QUEUED.name, "shard" => shard.clone()),
            queued_bytes: gauge!(DISPATCH_QUEUED_BYTES.name, "shard" => shard.clone()),
            suspects_itself: gauge!(DISPATCH_SUSPECTS_ITSELF.name, "shard" => shard.clone()),
            unacked: gauge!(DISPATCH_UNACKED.name, "shard" => shard),
        }
    }

    /// An attempt ended.
    pub fn attempt(&mut self, outcome: &Outcome, seconds: f64) {
        self.seconds.push(seconds);
        if self.seconds.len() >= ATTEMPTS_HELD_MAX {
            self.pass_on();
        }
        let Some(cause) = outcome.cause else {
            self.delivered_held += 1;
            return;
        };
        let verdict = outcome.verdict;
        let known = |entry: &&(Verdict, Cause, Counter)| entry.0 == verdict && entry.1 == cause;
        if let Some((_, _, counter)) = self.failed.iter().find(known) {
            counter.increment(1);
            return;
        }
        let label = match verdict {
            Verdict::Delivered => "delivered",
            Verdict::Retry => "retry",
            Verdict::Gone => "gone",
        };
        let counter = counter!(SEND_ATTEMPTS.name, "outcome" => label, "cause" => cause.code());
        counter.increment(1);
        self.failed.push((verdict, cause, counter));
    }

    /// Passes on what was counted here. All shards share the registry's cells,
    /// so one attempt at a time would cost more than the counting.
    fn pass_on(&mut self) {
        self.delivered
            .increment(std::mem::take(&mut self.delivered_held));
        for seconds in self.seconds.drain(..) {
            self.duration.record(seconds);
        }
    }

    /// How much is in the shard. Passes on what was counted since the last
    /// time.
    pub fn levels(&mut self, shard: &Shard) {
        self.pass_on();
        self.in_flight.set(level(shard.in_flight()));
        self.queued.set(level(shard.queued()));
        self.queued_bytes.set(level(shard.queued_bytes()));
        self.suspects_itself
            .set(level(usize::from(shard.suspects_itself())));
        self.unacked.set(level(shard.unacked_bytes()));
    }
}

/// A record went to the lane or to dead letters.
pub fn appended(kind: &'static str, reason: &'static str) {
    counter!(DISPATCH_APPENDS.name, "kind" => kind, "reason" => reason).increment(1);
}

/// What owners count.
pub struct OwnerMetrics {
    /// Facts written.
    pub facts: Counter,
    owed: Gauge,
    held: Gauge,
}

impl Default for OwnerMetrics {
    fn default() -> Self {
        Self {
            facts: counter!(OWNER_FACTS.name),
            owed: gauge!(OWNER_OWED.name),
            held: gauge!(OWNER_HELD.name),
        }
    }
}

impl OwnerMetrics {
    /// So many deliveries wait for a time, so many for their endpoint.
    pub fn owed(&self, waiting: usize, held: usize) {
        self.owed.set(level(waiting + held));
        self.held.set(level(held));
    }

    /// So many are given up.
    pub fn dead(&self, cause: DeadCause, count: u64) {
        counter!(OWNER_DEAD.name, "cause" => cause.as_str_name()).increment(count);
    }
}

/// Held deliveries are lost to the lane's retention.
pub fn lane_passed() {
    counter!(OWNER_LANE_PASSED.name).increment(1);
}

/// So many endpoints name a retry policy that is not known.
pub fn unknown_policies(count: usize) {
    gauge!(CONTROL_UNKNOWN_POLICIES.name).set(level(count));
}

/// So many endpoints exist.
pub fn endpoints(count: usize) {
    gauge!(CONTROL_ENDPOINTS.name).set(level(count));
}

/// An operation was asked for.
pub fn api_operation() {
    counter!(API_OPERATIONS.name).increment(1);
}

/// An event came by HTTP.
pub fn api_event() {
    counter!(API_EVENTS.name).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_form_and_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in NAMES {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            assert!(metric.name.starts_with("posthaste_"), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(
                total,
                matches!(metric.kind, Kind::Counter),
                "{}",
                metric.name
            );
        }
    }
}
