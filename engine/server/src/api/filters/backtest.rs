//! A filter tried on the events of some time: the partitions of the source
//! topics, a piece of one after the other, always of the one that is furthest
//! behind, so that a run that is ended early has seen about the same time of
//! each.

use bytestring::ByteString;
use futures_util::future::try_join_all;
use posthaste_core::content::{Filter, Truth, View};
use posthaste_core::filter::TypePattern;
use posthaste_core::limits::BACKTEST_READ_BYTES;
use posthaste_core::time::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use crate::api::document::values;
use crate::config::format_rfc3339;
use crate::ingest::decode::Decoder;
use crate::log::{Log, LogError, Offset, Record, TopicPartition};

const HOUR_MS: u128 = 3_600_000;

/// From when to when, by the records' times.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Range {
    pub(in crate::api) since: Timestamp,
    pub(in crate::api) until: Timestamp,
}

/// What is tried on what.
#[derive(Debug)]
pub(in crate::api) struct Wanted {
    /// An event has to pass each of them …
    pub(in crate::api) filters: Vec<Filter>,
    pub(in crate::api) tenant: Option<String>,
    /// … and to be of a type that each of these lists has, where it is not
    /// empty.
    pub(in crate::api) event_types: Vec<Vec<TypePattern>>,
    /// How many matches to show.
    pub(in crate::api) samples: usize,
}

/// What a run may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Budget {
    pub(in crate::api) bytes: usize,
    pub(in crate::api) until: Instant,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BacktestReport)]
pub(in crate::api) struct Report {
    #[schema(value_type = values::Time)]
    since: String,
    #[schema(value_type = values::Time)]
    until: String,
    /// Events that pass …
    matched: u64,
    /// … of those of the tenant and types asked for …
    scanned: u64,
    /// … among them those whose body the filter could not read.
    undecided: u64,
    /// Records that are no events.
    malformed: u64,
    /// By the time that was read of each partition.
    estimated_per_hour: u64,
    samples: Vec<Sample>,
    /// What ended it before it had read all; `null` when it has.
    ended_by: Option<Bound>,
    partitions: Vec<Reached>,
}

/// What a backtest may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = BacktestBound)]
#[serde(rename_all = "snake_case")]
enum Bound {
    Bytes,
    Time,
}

/// An event that passes, and its place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MatchedEvent)]
struct Sample {
    id: String,
    tenant: String,
    #[serde(rename = "type")]
    event_type: String,
    #[schema(value_type = values::Time)]
    at: String,
    topic: String,
    partition: u32,
    #[schema(value_type = u64)]
    offset: Offset,
}

/// How far a partition was read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PartitionRead)]
struct Reached {
    topic: String,
    partition: u32,
    #[schema(value_type = u64)]
    from: Offset,
    /// The next one to be read.
    #[schema(value_type = u64)]
    next: Offset,
    #[schema(value_type = u64)]
    to: Offset,
}

struct Part {
    tp: TopicPartition,
    from: Offset,
    next: Offset,
    to: Offset,
    /// The time of the first record read, where the topic keeps none older.
    began: Option<Timestamp>,
    /// The time of the last record read.
    reached: Timestamp,
    matched: u64,
}

/// What a run has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct Counts {
    pub(in crate::api) matched: u64,
    pub(in crate::api) scanned: u64,
    pub(in crate::api) skipped: u64,
    /// Matches in all there is, by those in what was read.
    pub(in crate::api) estimated: u64,
    /// Whether it has read all.
    pub(in crate::api) exact: bool,
}

/// Reads as far as the budget goes.
pub(in crate::api) async fn run(
    log: &dyn Log,
    decoder: &Decoder,
    topics: &[ByteString],
    range: Range,
    wanted: &Wanted,
    budget: Budget,
) -> Result<Report, LogError> {
    let slow = || LogError::Unreachable("the log takes too long to answer".to_owned());
    let opened = timeout_at(budget.until, open(log, topics, range));
    let mut parts = opened.await.map_err(|_| slow())??;
    let mut report = Report {
        since: format_rfc3339(range.since),
        until: format_rfc3339(range.until),
        matched: 0,
        scanned: 0,
        undecided: 0,
        malformed: 0,
        estimated_per_hour: 0,
        samples: Vec::new(),
        ended_by: None,
        partitions: Vec::new(),
    };
    let mut left = budget.bytes;
    while let Some(part) = furthest_behind(&mut parts) {
        if left == 0 {
            report.ended_by = Some(Bound::Bytes);
            break;
        }
        let read = log.read(&part.tp, part.next, left.min(BACKTEST_READ_BYTES));
        let read = timeout_at(budget.until, read).await;
        // A log that always answers at once never runs into the timeout.
        let Some(read) = read.ok().filter(|_| Instant::now() < budget.until) else {
            report.ended_by = Some(Bound::Time);
            break;
        };
        let (records, next) = read?;
        let to = part.to;
        for record in records.iter().filter(|record| record.offset < to) {
            left = left.saturating_sub(record.size());
            part.reached = part.reached.max(record.timestamp);
            part.began.get_or_insert(record.timestamp);
            report.record(decoder, wanted, part, record);
        }
        part.next = next.clamp(part.next, part.to);
    }
    report.estimated_per_hour = estimate(&parts, range);
    report.partitions = parts.into_iter().map(Part::told).collect();
    Ok(report)
}

async fn open(log: &dyn Log, topics: &[ByteString], range: Range) -> Result<Vec<Part>, LogError> {
    let mut parts = Vec::new();
    for topic in topics {
        let partitions = log.describe(topic).await?.partitions;
        let opened = (0..partitions).map(|partition| async move {
            let tp = TopicPartition {
                topic: topic.clone(),
                partition,
            };
            let (start, end) = log.bounds(&tp).await?;
            let from = log.offset_at(&tp, range.since).await?.clamp(start, end);
            let to = log.offset_at(&tp, range.until).await?.clamp(from, end);
            // What was older than the first record may be gone already.
            let cut = start > 0 && from == start;
            Ok(Part {
                tp,
                from,
                next: from,
                to,
                began: (!cut).then_some(range.since),
                reached: range.since,
                matched: 0,
            })
        });
        parts.extend(try_join_all(opened).await?);
    }
    Ok(parts)
}

fn furthest_behind(parts: &mut [Part]) -> Option<&mut Part> {
    let unread = parts.iter_mut().filter(|part| part.next < part.to);
    unread.min_by_key(|part| part.reached)
}

/// Matches an hour: of each partition over the time that was read of it.
fn estimate(parts: &[Part], range: Range) -> u64 {
    let rates = parts.iter().map(|part| {
        let end = if part.next < part.to {
            part.reached
        } else {
            range.until
        };
        let span = end.since(part.began.unwrap_or(range.since)).as_millis();
        // In thousandths, so that many small ones do not round to nothing.
        (u128::from(part.matched) * HOUR_MS * 1_000).checked_div(span)
    });
    let thousandths: u128 = rates.flatten().sum();
    u64::try_from((thousandths + 500) / 1_000).unwrap_or(u64::MAX)
}

impl Report {
    /// What it comes to.
    pub(in crate::api) fn counts(&self) -> Counts {
        let sum = |of: fn(&Reached) -> u64| self.partitions.iter().map(of).sum::<u64>();
        let all = sum(|part| part.to - part.from);
        let read = sum(|part| part.next - part.from);
        let estimated = u128::from(self.matched) * u128::from(all);
        let estimated = estimated.checked_div(u128::from(read)).unwrap_or(0);
        Counts {
            matched: self.matched,
            scanned: self.scanned,
            skipped: self.undecided + self.malformed,
            estimated: u64::try_from(estimated).unwrap_or(u64::MAX),
            exact: self.ended_by.is_none(),
        }
    }

    fn record(&mut self, decoder: &Decoder, wanted: &Wanted, part: &mut Part, record: &Record) {
        let Ok(event) = decoder.decode(&part.tp, record) else {
            self.malformed += 1;
            return;
        };
        let of_tenant = wanted.tenant.as_ref().is_none_or(|t| *t == *event.tenant);
        let of_type = wanted.event_types.iter().all(|patterns| {
            patterns.is_empty() || patterns.iter().any(|p| p.matches(&event.event_type))
        });
        if !of_tenant || !of_type {
            return;
        }
        self.scanned += 1;
        let view = View {
            event_type: &event.event_type,
            headers: &record.headers,
            body: &event.body,
        };
        let truths = wanted.filters.iter().map(|filter| filter.judge(&view));
        let truth = truths.fold(Truth::Yes, |all, one| match (all, one) {
            (Truth::No, _) | (_, Truth::No) => Truth::No,
            (Truth::Unknown, _) | (_, Truth::Unknown) => Truth::Unknown,
            (Truth::Yes, Truth::Yes) => Truth::Yes,
        });
        match truth {
            Truth::No => return,
            Truth::Unknown => {
                self.undecided += 1;
                return;
            }
            Truth::Yes => {}
        }
        self.matched += 1;
        part.matched += 1;
        if self.samples.len() < wanted.samples {
            self.samples.push(Sample {
                id: event.id.to_string(),
                tenant: event.tenant.to_string(),
                event_type: event.event_type.to_string(),
                at: format_rfc3339(record.timestamp),
                topic: part.tp.topic.to_string(),
                partition: part.tp.partition,
                offset: record.offset,
            });
        }
    }
}

impl Part {
    fn told(self) -> Reached {
        Reached {
            topic: self.tp.topic.to_string(),
            partition: self.tp.partition,
            from: self.from,
            next: self.next,
            to: self.to,
        }
    }
}

#[cfg(test)]
mod tests;
