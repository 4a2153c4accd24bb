//! Where a group stands in partitions it was just given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{
    Offset as KafkaOffset, TopicPartitionList, TopicPartitionListElem,
};

use super::context::{Context, place_of};
use super::{ASK_WAIT, failure, partition, signed, topics, unsigned};
use crate::log::{LogError, Offset, Start, TopicPartition};

/// How long the brokers may fail to say where the group stands. Below
/// `max.poll.interval.ms`.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// Where to read on, and what was committed with it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) tp: TopicPartition,
    pub(super) position: Offset,
    pub(super) metadata: String,
}

/// The places of a group in `partitions`. Where it has none, `start` decides,
/// and the place is committed before this returns.
pub(super) fn of_group(
    consumer: &BaseConsumer<Context>,
    group: &str,
    partitions: &[TopicPartition],
    start: Start,
) -> Result<Vec<Place>, LogError> {
    let (mut places, fresh) = committed(consumer, partitions)?;
    for place in &places {
        check(consumer, place)?;
    }
    if fresh.is_empty() {
        return Ok(places);
    }
    let mut first = Vec::new();
    for tp in fresh {
        let position = first_position(consumer, group, &tp, start)?;
        first.push(Place {
            tp,
            position,
            metadata: String::new(),
        });
    }
    commit(consumer, &first)?;
    places.extend(first);
    Ok(places)
}

/// The first offset of every partition named.
pub(super) fn of_follower(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<Vec<Place>, LogError> {
    let mut places = Vec::new();
    for tp in partitions {
        places.push(Place {
            tp: tp.clone(),
            position: bounds(consumer, tp)?.0,
            metadata: String::new(),
        });
    }
    Ok(places)
}

/// First and next-to-be-written offset.
pub(super) fn bounds(
    consumer: &BaseConsumer<Context>,
    tp: &TopicPartition,
) -> Result<(Offset, Offset), LogError> {
    let (low, high) =
        again(|| consumer.fetch_watermarks(&tp.topic, partition(tp.partition), ASK_WAIT))?;
    Ok((unsigned(low).unwrap_or(0), unsigned(high).unwrap_or(0)))
}

type Committed = (Vec<Place>, Vec<TopicPartition>);

fn committed(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<Committed, LogError> {
    let found = again(|| {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for tp in partitions {
            list.add_partition(&tp.topic, partition(tp.partition));
        }
        let found = consumer.committed_offsets(list, ASK_WAIT)?;
        for element in found.elements() {
            element.error()?;
        }
        Ok(found)
    })?;
    let mut places = Vec::new();
    let mut fresh = Vec::new();
    for element in found.elements() {
        let Some(tp) = place_of(&element) else {
            continue;
        };
        match element.offset() {
            KafkaOffset::Offset(offset) => places.push(Place {
                tp,
                position: unsigned(offset).unwrap_or(0),
                metadata: metadata(&element),
            }),
            _ => fresh.push(tp),
        }
    }
    Ok((places, fresh))
}

/// The binding panics on metadata that is not UTF-8. Ours always is; another
/// program's is as good as none.
fn metadata(element: &TopicPartitionListElem<'_>) -> String {
    catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned())).unwrap_or_default()
}

/// A place outside the log means records are gone that nobody settled.
fn check(consumer: &BaseConsumer<Context>, place: &Place) -> Result<(), LogError> {
    let (start, end) = bounds(consumer, &place.tp)?;
    if (start..=end).contains(&place.position) {
        return Ok(());
    }
    Err(LogError::OutOfRange {
        topic_partition: place.tp.clone(),
        offset: place.position,
        start,
        end,
    })
}

fn first_position(
    consumer: &BaseConsumer<Context>,
    group: &str,
    tp: &TopicPartition,
    start: Start,
) -> Result<Offset, LogError> {
    match start {
        Start::Earliest => Ok(bounds(consumer, tp)?.0),
        Start::Latest => Ok(bounds(consumer, tp)?.1),
        Start::At(time) => {
            let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            match again(|| topics::first_at(consumer, tp, millis))? {
                Some(offset) => Ok(offset),
                None => Ok(bounds(consumer, tp)?.1),
            }
        }
        Start::Unset => Err(LogError::NoStart {
            group: group.to_owned(),
            topic_partition: tp.clone(),
        }),
    }
}

/// Commits first places, and looks whether they stand: a list's commit can
/// succeed though one of it failed.
fn commit(consumer: &BaseConsumer<Context>, places: &[Place]) -> Result<(), LogError> {
    let partitions: Vec<_> = places.iter().map(|place| place.tp.clone()).collect();
    again(|| consumer.commit(&list(places)?, CommitMode::Sync))?;
    let (_, missing) = committed(consumer, &partitions)?;
    match missing.first() {
        None => Ok(()),
        Some(tp) => Err(LogError::Other(format!(
            "{tp}: its first commit was not kept"
        ))),
    }
}

/// The places as Kafka's list.
pub(super) fn list(places: &[Place]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for place in places {
        let at = KafkaOffset::Offset(signed(place.position));
        list.add_partition_offset(&place.tp.topic, partition(place.tp.partition), at)?;
    }
    Ok(list)
}

/// Asks until the brokers answer, within [`PATIENCE`].
fn again<T>(ask: impl FnMut() -> KafkaResult<T>) -> Result<T, LogError> {
    again_within(PATIENCE, ask)
}

/// Asks until the brokers answer: a group's coordinator can be on its way.
pub(super) fn again_within<T>(
    patience: Duration,
    mut ask: impl FnMut() -> KafkaResult<T>,
) -> Result<T, LogError> {
    let until = Instant::now() + patience;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= until => return Err(failure(&error)),
            Err(error) => tracing::debug!(%error, "asking again where the group stands"),
        }
        std::thread::sleep(AGAIN);
    }
}
