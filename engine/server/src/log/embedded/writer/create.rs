//! Making topics, and comparing those that exist.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use rusqlite::params;

use super::super::super::{Cleanup, LogError, TopicSpec};
use super::super::catalog::{Part, Topic};
use super::super::store::{STREAMS_MAX, integer};
use super::Writer;

impl Writer<'_> {
    /// Makes the topics that do not exist. With `verify` those that do are
    /// compared: what may change is changed, the rest is an error.
    pub(super) fn create(
        &mut self,
        topics: Vec<TopicSpec>,
        verify: bool,
    ) -> rusqlite::Result<Result<Vec<ByteString>, LogError>> {
        let mut made = Vec::new();
        for spec in topics {
            if let Some(topic) = self.known(&spec.name) {
                if verify && let Err(error) = self.compare(&topic, &spec)? {
                    return Ok(Err(error));
                }
                continue;
            }
            made.push(spec.name.clone());
            if let Err(error) = self.make(spec)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(made))
    }

    fn known(&self, name: &ByteString) -> Option<Arc<Topic>> {
        let made = self.made.iter().find(|topic| topic.name == *name);
        made.cloned().or_else(|| self.shared.topic(name))
    }

    fn compare(&self, topic: &Topic, spec: &TopicSpec) -> rusqlite::Result<Result<(), LogError>> {
        let wrong = |setting, found: String, wanted: String, why| LogError::WrongSetting {
            topic: spec.name.clone(),
            setting,
            found,
            wanted,
            why,
        };
        if topic.partitions() != spec.partitions {
            return Ok(Err(wrong(
                "partitions",
                topic.partitions().to_string(),
                spec.partitions.to_string(),
                "a key's records would be spread over two partitions",
            )));
        }
        let wants_compaction = spec.cleanup == Cleanup::Compact;
        if topic.is_compacted() != wants_compaction {
            let policy = |compacted| if compacted { "compact" } else { "delete" };
            return Ok(Err(wrong(
                "cleanup.policy",
                policy(topic.is_compacted()).into(),
                policy(wants_compaction).into(),
                "records that are still needed would go",
            )));
        }
        self.db.execute(
            "UPDATE topics SET retention_ms = ?2, record_bytes_max = ?3 WHERE id = ?1",
            params![topic.id, retention_ms(spec.cleanup), bytes_max(spec)],
        )?;
        topic.set(spec.cleanup, spec.record_bytes_max);
        Ok(Ok(()))
    }

    fn make(&mut self, spec: TopicSpec) -> rusqlite::Result<Result<(), LogError>> {
        let last: i64 = self.db.query_row(
            "SELECT coalesce(max(stream), 0) FROM partitions",
            [],
            |row| row.get(0),
        )?;
        if spec.partitions == 0 || i64::from(spec.partitions) > STREAMS_MAX - last - 1 {
            return Ok(Err(LogError::Other(format!(
                "topic `{}`: {} partitions are not possible, {} can be made",
                spec.name,
                spec.partitions,
                STREAMS_MAX - last - 1
            ))));
        }
        self.db.execute(
            "INSERT INTO topics (name, compacted, retention_ms, record_bytes_max) \
             VALUES (?1, ?2, ?3, ?4)",
            params![
                &*spec.name,
                spec.cleanup == Cleanup::Compact,
                retention_ms(spec.cleanup),
                bytes_max(&spec)
            ],
        )?;
        let id = self.db.last_insert_rowid();
        let mut insert = self
            .db
            .prepare("INSERT INTO partitions VALUES (?1, ?2, ?3, 0, 0)")?;
        let mut parts = Vec::new();
        for partition in 0..spec.partitions {
            let stream = last + 1 + i64::from(partition);
            insert.execute(params![stream, id, partition])?;
            parts.push(Part::new(stream, 0, 0));
        }
        self.made.push(Arc::new(Topic::new(
            id,
            spec.name,
            spec.cleanup,
            spec.record_bytes_max,
            parts,
        )));
        Ok(Ok(()))
    }
}

fn retention_ms(cleanup: Cleanup) -> i64 {
    let retention = match cleanup {
        Cleanup::Delete { retention } => retention,
        Cleanup::Compact => Duration::MAX,
    };
    i64::try_from(retention.as_millis()).unwrap_or(i64::MAX)
}

fn bytes_max(spec: &TopicSpec) -> i64 {
    integer(u64::try_from(spec.record_bytes_max).unwrap_or(u64::MAX))
}
