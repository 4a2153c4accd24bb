//! Where a group stands, asked by somebody who is no member of it.

use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::context::Context;
use super::{ASK_WAIT, KafkaSettings, client, failure, partition, unsigned};
use crate::log::{LogError, Offset};

/// What a group committed last in each of a topic's first `partitions`.
pub(super) async fn committed(
    settings: Arc<KafkaSettings>,
    group: &str,
    topic: &str,
    partitions: u32,
) -> Result<Vec<Option<Offset>>, LogError> {
    let (group, topic) = (group.to_owned(), topic.to_owned());
    let asked = tokio::task::spawn_blocking(move || ask(&settings, &group, &topic, partitions));
    let answer = asked.await;
    let answer = answer.map_err(|error| LogError::Other(error.to_string()))?;
    answer.map_err(|error| failure(&error))
}

fn ask(
    settings: &KafkaSettings,
    group: &str,
    topic: &str,
    partitions: u32,
) -> KafkaResult<Vec<Option<Offset>>> {
    // It never subscribes, so it never joins.
    let consumer: BaseConsumer<Context> =
        client::consumer(settings, group).create_with_context(Context::default())?;
    let mut list = TopicPartitionList::new();
    for number in 0..partitions {
        list.add_partition(topic, partition(number));
    }
    let found = consumer.committed_offsets(list, ASK_WAIT)?;
    let mut committed = Vec::new();
    for number in 0..partitions {
        let Some(element) = found.find_partition(topic, partition(number)) else {
            committed.push(None);
            continue;
        };
        element.error()?;
        committed.push(match element.offset() {
            KafkaOffset::Offset(offset) => unsigned(offset),
            _ => None,
        });
    }
    Ok(committed)
}
