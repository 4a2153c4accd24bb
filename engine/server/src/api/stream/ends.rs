//! Who pulls now, and where the source topics end: asked once for all of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use posthaste_core::limits::{
    LOOK_TIME_MAX, PULL_ASKS_MAX, PULL_READS_MAX, PULL_TOPICS_EVERY, PULLS_MAX, PULLS_TENANT_MAX,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::api::Api;
use crate::api::look::sources;
use crate::api::problem::Problem;
use crate::log::{Log, LogError, Offset, TopicPartition};

/// What all calls that pull share.
pub(in crate::api) struct Pulls {
    /// How many of each tenant there are.
    calls: Mutex<BTreeMap<String, usize>>,
    /// Those that may read.
    pub(super) reads: Semaphore,
    seen: tokio::sync::Mutex<Option<Seen>>,
}

/// A call among those that pull, until it is dropped.
pub(super) struct Call<'a> {
    pulls: &'a Pulls,
    tenant: String,
}

/// A source topic as it stood.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) name: ByteString,
    pub(super) retention: Option<Duration>,
    /// First and next-to-be-written offset of each partition.
    pub(super) parts: Vec<(Offset, Offset)>,
}

/// All source topics, and since when that holds.
#[derive(Debug)]
struct Seen {
    topics: Vec<Topic>,
    /// Their partitions were counted then …
    counted: Instant,
    /// … and their ends asked for.
    asked: Instant,
}

impl Pulls {
    pub(in crate::api) fn new() -> Self {
        Self {
            calls: Mutex::default(),
            reads: Semaphore::new(PULL_READS_MAX),
            seen: tokio::sync::Mutex::default(),
        }
    }

    /// One more call of a tenant.
    pub(super) fn enter(&self, tenant: &str) -> Result<Call<'_>, Problem> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.values().sum::<usize>() >= PULLS_MAX {
            let most = format!("{PULLS_MAX} calls pull here already: try again later");
            return Err(Problem::too_many_pulls(most));
        }
        let own = calls.get(tenant).copied().unwrap_or(0);
        if own >= PULLS_TENANT_MAX {
            let most = format!("{PULLS_TENANT_MAX} calls of the tenant pull here already");
            return Err(Problem::too_many_pulls(most));
        }
        calls.insert(tenant.to_owned(), own + 1);
        Ok(Call {
            pulls: self,
            tenant: tenant.to_owned(),
        })
    }

    /// These topics as they stood at that time or later. Whoever asks meanwhile
    /// waits for the same answer.
    pub(super) async fn topics(
        &self,
        api: &Api,
        names: &[ByteString],
        not_before: Instant,
    ) -> Result<Vec<Topic>, LogError> {
        let asked = async {
            let mut seen = self.seen.lock().await;
            if seen.as_ref().is_none_or(|seen| seen.asked < not_before) {
                let before = seen.take();
                *seen = Some(look(api, before).await?);
            }
            let topics = seen.iter().flat_map(|seen| &seen.topics);
            let wanted = topics.filter(|topic| names.contains(&topic.name));
            Ok(wanted.cloned().collect())
        };
        let slow = || LogError::Unreachable("the log takes too long to answer".to_owned());
        timeout(LOOK_TIME_MAX, asked).await.map_err(|_| slow())?
    }
}

async fn look(api: &Api, before: Option<Seen>) -> Result<Seen, LogError> {
    let log = &*api.log;
    let asked = Instant::now();
    let known = before.filter(|seen| asked.duration_since(seen.counted) < PULL_TOPICS_EVERY);
    let (mut topics, counted) = match known {
        Some(seen) => (seen.topics, seen.counted),
        None => (count(log, sources(api)).await?, asked),
    };
    for topic in &mut topics {
        let places: Vec<_> = topic.places().collect();
        let bounds: Vec<_> = places.iter().map(|tp| log.bounds(tp)).collect();
        topic.parts = iter(bounds).buffered(PULL_ASKS_MAX).try_collect().await?;
    }
    Ok(Seen {
        topics,
        counted,
        asked,
    })
}

async fn count(log: &dyn Log, names: Vec<ByteString>) -> Result<Vec<Topic>, LogError> {
    let mut topics = Vec::new();
    for name in names {
        let described = log.describe(&name).await?;
        let partitions = usize::try_from(described.partitions).unwrap_or(usize::MAX);
        topics.push(Topic {
            name,
            retention: described.retention,
            parts: vec![(0, 0); partitions],
        });
    }
    Ok(topics)
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let calls = self.pulls.calls.lock();
        let mut calls = calls.unwrap_or_else(PoisonError::into_inner);
        match calls.get_mut(&self.tenant) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                calls.remove(&self.tenant);
            }
        }
    }
}

impl Topic {
    pub(super) fn places(&self) -> impl Iterator<Item = TopicPartition> {
        (0..).zip(&self.parts).map(|(partition, _)| TopicPartition {
            topic: self.name.clone(),
            partition,
        })
    }
}
