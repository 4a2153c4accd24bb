//! Bounded looks through the log for what people ask of it. Nothing there has an
//! index, so a look takes so many bytes and so much time, and then says how far
//! it came.

use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::try_join_all;
use posthaste_core::id::EndpointId;
use posthaste_core::lane::partition_of;
use posthaste_core::limits::{LOOK_BYTES_MAX, LOOK_LANE_BYTES_MAX, LOOK_TIME_MAX, LOOKS_MAX};
use posthaste_core::time::Timestamp;
use serde::Serialize;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::log::{Log, LogError, Record, TopicPartition};

mod ahead;
mod back;
mod cursor;
pub(super) mod owed;
mod parts;

pub(super) use ahead::{Ahead, Stretch};
pub(super) use cursor::{Cursor, Key, NoCursor, cut};

/// Instances' clocks differ, and a record is written some time after what it
/// tells of: what lies so far beyond a time is looked at too.
pub(super) const CLOCKS_APART: Duration = Duration::from_secs(60);

/// What a look may still take.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    until: Instant,
}

/// What ended a look before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LookBound)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// It read so many bytes.
    Bytes,
    /// It took so long.
    Time,
    /// It found so much.
    Found,
}

/// Records of one partition, in offset order.
pub(super) struct Piece {
    pub(super) tp: TopicPartition,
    pub(super) records: Vec<Record>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            bytes: LOOK_BYTES_MAX,
            until: Instant::now() + LOOK_TIME_MAX,
        }
    }

    /// For a look at a lane as it is now.
    pub(super) fn of_lane() -> Self {
        Self {
            bytes: LOOK_LANE_BYTES_MAX,
            ..Self::new()
        }
    }

    /// What has run out.
    fn spent(&self) -> Option<Bound> {
        if self.bytes == 0 {
            return Some(Bound::Bytes);
        }
        // A log that always answers at once never runs into the timeout.
        (Instant::now() >= self.until).then_some(Bound::Time)
    }

    fn charge(&mut self, records: &[Record]) {
        let bytes = records.iter().map(Record::size).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// An answer of the log, or `None` when it takes too long.
    async fn within<T>(
        &self,
        ask: impl Future<Output = Result<T, LogError>>,
    ) -> Result<Option<T>, LogError> {
        timeout_at(self.until, ask).await.ok().transpose()
    }
}

/// A look's turn: few go on at once.
pub(super) fn turn(api: &Api) -> Result<SemaphorePermit<'_>, Problem> {
    api.looks.try_acquire().map_err(|_| {
        let busy = format!("{LOOKS_MAX} look through the log already: try again later");
        Problem::unavailable(busy)
    })
}

/// All partitions of these topics.
pub(super) async fn partitions(
    log: &dyn Log,
    topics: &[ByteString],
) -> Result<Vec<TopicPartition>, LogError> {
    let described = topics.iter().map(|topic| async move {
        let count = log.describe(topic).await?.partitions;
        let of = |partition| TopicPartition {
            topic: topic.clone(),
            partition,
        };
        Ok((0..count).map(of).collect::<Vec<_>>())
    });
    Ok(try_join_all(described).await?.concat())
}

/// Where events come from.
pub(super) fn sources(api: &Api) -> Vec<ByteString> {
    let topics = &api.config.ingest.topics;
    let named = topics.iter().map(|name| ByteString::from(name.as_str()));
    named.chain([api.config.topics.operational()]).collect()
}

/// Where an endpoint's deliveries are in the lane.
pub(super) fn lane_of(api: &Api, endpoint: EndpointId) -> TopicPartition {
    let topics = &api.config.topics;
    TopicPartition {
        topic: topics.lane(),
        partition: partition_of(endpoint, topics.lane_partitions),
    }
}

/// So much earlier.
pub(super) fn before(time: Timestamp, span: Duration) -> Timestamp {
    let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(time.as_millis().saturating_sub(span))
}

#[cfg(test)]
mod tests;
