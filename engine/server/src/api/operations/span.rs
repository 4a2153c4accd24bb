//! From a range of time to ranges of the log.

use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::try_join_all;
use posthaste_core::limits::OPERATION_RANGES_MAX;
use posthaste_core::operation::Range;
use posthaste_core::time::Timestamp;

use crate::api::Api;
use crate::api::dead_letters::read_time;
use crate::api::look::before;
use crate::api::problem::Problem;
use crate::config::format_rfc3339;
use crate::log::{LogError, Offset, TopicPartition};

/// A range of time in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

/// Where its records are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Those that are not empty.
    pub(super) ranges: Vec<Range>,
    /// It began before what a topic still keeps.
    pub(super) truncated: bool,
}

/// One partition.
struct Part {
    tp: TopicPartition,
    /// Its first record, where records of the time asked for can have stood
    /// before it.
    cut: Option<Offset>,
    from: Offset,
    to: Offset,
}

impl Span {
    /// Reads it as it was meant at `now`: without `until`, up to now.
    pub(super) fn read(since: &str, until: Option<&str>, now: Timestamp) -> Result<Self, Problem> {
        let read = |param, text| {
            let time = read_time(text, now).map_err(|problem| Problem::invalid(param, problem))?;
            if time > now {
                let (then, now) = (format_rfc3339(time), format_rfc3339(now));
                let wanted = format!("{then} is in the future: expected a time before {now}");
                return Err(Problem::invalid(param, wanted));
            }
            Ok(time)
        };
        let since = read("since", since)?;
        // What came in this millisecond has come.
        let end = now.after(Duration::from_millis(1));
        let until = until.map_or(Ok(end), |text| read("until", text))?;
        if since >= until {
            let wanted = format!(
                "it ends at {}: expected a time before that",
                format_rfc3339(until)
            );
            return Err(Problem::invalid("since", wanted));
        }
        Ok(Self { since, until })
    }

    /// The same, and a while before and after it.
    pub(super) fn widened(self, by: Duration) -> Self {
        Self {
            since: before(self.since, by),
            until: self.until.after(by),
        }
    }

    /// Its records in all partitions of these topics, as far as they are kept.
    ///
    /// # Errors
    /// When nothing is kept that is so old, or it is in too many partitions.
    pub(super) async fn find(self, api: &Api, topics: &[ByteString]) -> Result<Found, Problem> {
        let mut parts = Vec::new();
        for topic in topics {
            let kept = api.log.describe(topic).await?;
            let cut = self.reaches_back(api, kept.retention);
            let all = (0..kept.partitions).map(|number| self.part(api, topic, number, cut));
            parts.extend(try_join_all(all).await?);
        }
        Self::found(parts)
    }

    /// Its records in one partition.
    pub(super) async fn find_in(
        self,
        api: &Api,
        topic: &ByteString,
        partition: u32,
    ) -> Result<Found, Problem> {
        let cut = self.reaches_back(api, api.log.describe(topic).await?.retention);
        Self::found(vec![self.part(api, topic, partition, cut).await?])
    }

    /// Whether it began before what a topic with this retention surely keeps.
    fn reaches_back(self, api: &Api, retention: Option<Duration>) -> bool {
        retention.is_none_or(|kept| api.clock.now().since(self.since) > kept)
    }

    async fn part(
        self,
        api: &Api,
        topic: &ByteString,
        partition: u32,
        reaches_back: bool,
    ) -> Result<Part, LogError> {
        let tp = TopicPartition {
            topic: topic.clone(),
            partition,
        };
        let (start, end) = api.log.bounds(&tp).await?;
        let from = api.log.offset_at(&tp, self.since).await?.clamp(start, end);
        let to = api.log.offset_at(&tp, self.until).await?.clamp(from, end);
        let cut = (reaches_back && start > 0 && from == start).then_some(start);
        Ok(Part { tp, cut, from, to })
    }

    fn found(parts: Vec<Part>) -> Result<Found, Problem> {
        let truncated = parts.iter().any(|part| part.cut.is_some());
        let gone = |part: &Part| part.cut.is_some_and(|start| part.to == start);
        if !parts.is_empty() && parts.iter().all(gone) {
            let wanted = "nothing of that time is in the log any more: expected a later one";
            return Err(Problem::invalid("since", wanted));
        }
        let ranges = parts.into_iter().filter(|part| part.from < part.to);
        let ranges: Vec<_> = ranges
            .map(|part| Range {
                topic: part.tp.topic.to_string(),
                partition: part.tp.partition,
                from: part.from,
                to: part.to,
                ..Range::default()
            })
            .collect();
        if ranges.len() > OPERATION_RANGES_MAX {
            let most = format!(
                "it is in {} partitions; an operation reads at most {OPERATION_RANGES_MAX}",
                ranges.len()
            );
            return Err(Problem::invalid("since", most));
        }
        Ok(Found { ranges, truncated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn part(cut: Option<Offset>, from: Offset, to: Offset) -> Part {
        Part {
            tp: TopicPartition {
                topic: ByteString::from_static("events"),
                partition: 3,
            },
            cut,
            from,
            to,
        }
    }

    #[test]
    fn a_span_lies_in_the_past() {
        let read = |since, until| Span::read(since, until, NOW);
        let hour = read("1h", None).ok().unwrap();
        assert!(hour.since < NOW && hour.until > NOW);
        for (since, until) in [
            ("2h", Some("3h")),
            ("2h", Some("2h")),
            ("2999-01-01T00:00:00Z", None),
            ("1h", Some("2999-01-01T00:00:00Z")),
            ("yesterday", None),
        ] {
            assert!(read(since, until).is_err(), "{since} {until:?}");
        }
    }

    #[test]
    fn what_is_no_longer_kept_is_told() {
        let found = |parts| Span::found(parts).ok();
        let whole = found(vec![part(None, 0, 5), part(None, 9, 9)]).unwrap();
        assert!(!whole.truncated);
        assert_eq!((whole.ranges.len(), whole.ranges[0].partition), (1, 3));
        let cut = found(vec![part(Some(7), 7, 9), part(None, 0, 0)]).unwrap();
        assert!(cut.truncated);
        assert!(found(vec![part(Some(7), 7, 7), part(Some(3), 3, 3)]).is_none());
        assert!(found(vec![part(None, 0, 0)]).is_some(), "nothing came yet");
    }
}
