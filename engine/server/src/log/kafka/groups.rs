//! Where a group stands, asked by somebody who is no member of it.

use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::context::Context;
use super::place::again_within;
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
    answer.unwrap_or_else(|error| Err(LogError::Other(error.to_string())))
}

fn ask(
    settings: &KafkaSettings,
    group: &str,
    topic: &str,
    partitions: u32,
) -> Result<Vec<Option<Offset>>, LogError> {
    // It never subscribes, so it never joins.
    let consumer: BaseConsumer<Context> = client::consumer(settings, group)
        .create_with_context(Context::default())
        .map_err(|error| failure(&error))?;
    again_within(ASK_WAIT, || {
        let mut list = TopicPartitionList::new();
        for number in 0..partitions {
            list.add_partition(topic, partition(number));
        }
        let found = consumer.committed_offsets(list, ASK_WAIT)?;
        let committed = (0..partitions).map(|number| {
            let Some(element) = found.find_partition(topic, partition(number)) else {
                return Ok(None);
            };
            element.error()?;
            Ok(match element.offset() {
                KafkaOffset::Offset(offset) => unsigned(offset),
                _ => None,
            })
        });
        committed.collect()
    })
}
