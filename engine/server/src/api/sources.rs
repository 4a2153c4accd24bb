//! Where events come from, for those who ask why one did not come in: how far
//! each source topic is read, and what its last records are taken for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use futures_util::future::{try_join, try_join_all};
use futures_util::stream::{StreamExt as _, iter};
use posthaste_core::limits::{LOOK_READS_MAX, LOOK_TIME_MAX};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::Api;
use super::document::{codes, values};
use super::look::{partitions, turn};
use super::page::Page;
use super::problem::Problem;
use crate::config::format_rfc3339_millis;
use crate::log::{Log, LogError, Offset, TopicPartition};

pub(super) mod preview;

/// A source topic, and how far it is read.
#[derive(Debug, Serialize, ToSchema)]
struct Source {
    topic: String,
    /// The consumer group that reads it.
    group: String,
    /// Records that are not settled, of all partitions together.
    lag: u64,
    partitions: Vec<Part>,
}

/// How far a partition is read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SourcePartition)]
struct Part {
    partition: u32,
    /// The first offset kept.
    #[schema(value_type = u64)]
    start: Offset,
    /// One past the last.
    #[schema(value_type = u64)]
    end: Offset,
    /// All before it is settled: delivered, or safe in the log elsewhere; `null` where nothing
    /// was read yet.
    #[schema(value_type = Option<u64>, required = true)]
    committed: Option<Offset>,
    /// Records from there to the end.
    lag: u64,
    /// The time of the first of them; `null` where there is none, and when the log is slow.
    #[schema(value_type = Option<values::Time>, required = true)]
    oldest_unsettled: Option<String>,
}

type Sources = Page<Source>;

/// Lists the source topics, and how far each of their partitions is read.
#[utoipa::path(
    get,
    path = "/v1/sources",
    operation_id = "list_sources",
    tag = "Sources",
    responses(
        (status = 200, description = "All of them.", body = Sources),
        codes::Unavailable,
    ),
)]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let _turn = turn(&api)?;
    let group = api.config.topics.ingest_group();
    let until = Instant::now() + LOOK_TIME_MAX;
    let mut data = Vec::new();
    for topic in topics(&api) {
        let source = source(&*api.log, &group, &topic, until);
        data.push(source.await?);
    }
    let all = Page {
        data,
        has_more: false,
        next_cursor: None,
    };
    Ok(Json(all).into_response())
}

/// The topics that are configured.
fn topics(api: &Api) -> Vec<ByteString> {
    let names = api.config.ingest.topics.iter();
    names.map(|name| ByteString::from(name.as_str())).collect()
}

async fn source(
    log: &dyn Log,
    group: &str,
    topic: &ByteString,
    until: Instant,
) -> Result<Source, LogError> {
    let slow = || LogError::Unreachable("the log takes too long to answer".to_owned());
    let places = partitions(log, std::slice::from_ref(topic)).await?;
    let asked = async {
        let bounds = try_join_all(places.iter().map(|tp| log.bounds(tp)));
        try_join(bounds, log.committed(group, topic)).await
    };
    let (bounds, committed) = timeout_at(until, asked).await.map_err(|_| slow())??;
    let committed = committed.into_iter().chain(std::iter::repeat(None));
    let places = places.into_iter().zip(bounds).zip(committed);
    let parts: Vec<_> = places
        .map(|((tp, bounds), committed)| part(log, tp, bounds, committed, until))
        .collect();
    let partitions: Vec<_> = iter(parts).buffered(LOOK_READS_MAX).collect().await;
    Ok(Source {
        topic: topic.to_string(),
        group: group.to_owned(),
        lag: partitions.iter().map(|part| part.lag).sum(),
        partitions,
    })
}

async fn part(
    log: &dyn Log,
    tp: TopicPartition,
    (start, end): (Offset, Offset),
    committed: Option<Offset>,
    until: Instant,
) -> Part {
    // What is no longer kept does not wait.
    let from = committed.unwrap_or(start).max(start);
    let lag = end.saturating_sub(from);
    let mut oldest = None;
    if lag > 0
        && let Ok(Ok((records, _))) = timeout_at(until, log.read(&tp, from, 1)).await
    {
        oldest = records.first().map(|record| record.timestamp);
    }
    Part {
        partition: tp.partition,
        start,
        end,
        committed,
        lag,
        oldest_unsettled: oldest.map(format_rfc3339_millis),
    }
}
