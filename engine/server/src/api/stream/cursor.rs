//! Where somebody who pulls stands: a position in each partition of the source
//! topics. Nothing of it is kept here; whoever pulls brings it again.
//!
//! A partition that came since begins at its first record, a topic that became a
//! source since at the cursor's time: what came meanwhile is not skipped.

use std::fmt;
use std::str::FromStr;

use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use posthaste_core::limits::{PULL_ASKS_MAX, PULL_CURSOR_BYTES_MAX, PULL_PARTITIONS_MAX};
use posthaste_core::time::Timestamp;

use super::ends::Topic;
use crate::api::look::{CLOCKS_APART, NoCursor, Stretch, before};
use crate::api::problem::Problem;
use crate::log::{Log, LogError, Offset, TopicPartition};

/// What a cursor of this form begins with.
const FORM: &str = "1";

/// A position in each partition, as an answer carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// When it was made.
    at: Timestamp,
    /// Which partition is read first, so that each has its turn.
    turn: usize,
    topics: Vec<Positions>,
}

/// The positions in one topic, which is known by a hash of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Positions {
    topic: u64,
    next: Vec<Offset>,
}

/// What is to be read of each partition as the topics are now.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) turn: usize,
    pub(super) stretches: Vec<Stretch>,
    /// Records were gone before they were read.
    pub(super) truncated: bool,
}

impl Standing {
    /// Behind everything that stands there.
    pub(super) fn at_the_end(topics: &[Topic]) -> Self {
        let ends = topics.iter().flat_map(|topic| {
            let ends = topic.parts.iter().map(|(_, end)| *end);
            topic.places().zip(ends)
        });
        let stretch = |(tp, end)| Stretch {
            tp,
            next: end,
            to: end,
        };
        Self {
            turn: 0,
            stretches: ends.map(stretch).collect(),
            truncated: false,
        }
    }

    /// At the first records of a time.
    pub(super) async fn since(
        log: &dyn Log,
        topics: &[Topic],
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Self, LogError> {
        let mut standing = Self::at_the_end(&[]);
        for topic in topics {
            let positions = first_at(log, topic, since).await?;
            // Whether all that came since then is surely kept.
            let reaches_back = topic.retention.is_none_or(|kept| now.since(since) > kept);
            let mut parts = topic.parts.iter().zip(&positions);
            standing.truncated |=
                reaches_back && parts.any(|((start, _), position)| *start > 0 && position == start);
            standing.add(topic, &positions);
        }
        Ok(standing)
    }

    fn add(&mut self, topic: &Topic, positions: &[Offset]) {
        for (number, (tp, (start, end))) in topic.places().zip(&topic.parts).enumerate() {
            let mut next = positions.get(number).copied().unwrap_or(0);
            // Those before are gone; or the topic was made anew.
            if !(start..=end).contains(&&next) {
                self.truncated = true;
                next = *start;
            }
            let to = *end;
            self.stretches.push(Stretch { tp, next, to });
        }
    }

    /// Whether something is left to be read.
    pub(super) fn is_behind(&self) -> bool {
        self.stretches.iter().any(|part| part.next < part.to)
    }

    /// As it is carried on.
    pub(super) fn cursor(&self, at: Timestamp) -> Result<Cursor, Problem> {
        let count = self.stretches.len();
        if count > PULL_PARTITIONS_MAX {
            return Err(Problem::unavailable(format!(
                "the source topics have {count} partitions; events in at most \
                 {PULL_PARTITIONS_MAX} can be pulled"
            )));
        }
        let mut topics: Vec<Positions> = Vec::new();
        for Stretch { tp, next, .. } in &self.stretches {
            let topic = name_of(&tp.topic);
            match topics.last_mut().filter(|last| last.topic == topic) {
                Some(last) => last.next.push(*next),
                None => topics.push(Positions {
                    topic,
                    next: vec![*next],
                }),
            }
        }
        let turn = self.turn % count.max(1);
        Ok(Cursor { at, turn, topics })
    }
}

impl Cursor {
    /// What is to be read from here on.
    pub(super) async fn stand(
        &self,
        log: &dyn Log,
        topics: &[Topic],
    ) -> Result<Standing, LogError> {
        let mut standing = Standing::at_the_end(&[]);
        standing.turn = self.turn;
        for topic in topics {
            let name = name_of(&topic.name);
            match self.topics.iter().find(|known| known.topic == name) {
                Some(known) => standing.add(topic, &known.next),
                None => {
                    let came = before(self.at, CLOCKS_APART);
                    let positions = first_at(log, topic, came).await?;
                    standing.add(topic, &positions);
                }
            }
        }
        Ok(standing)
    }
}

/// The first offsets of a time.
async fn first_at(log: &dyn Log, topic: &Topic, time: Timestamp) -> Result<Vec<Offset>, LogError> {
    let places: Vec<_> = topic.places().zip(topic.parts.iter().copied()).collect();
    let asked = places
        .into_iter()
        .map(|(tp, bounds)| first_in(log, tp, bounds, time));
    iter(asked).buffered(PULL_ASKS_MAX).try_collect().await
}

async fn first_in(
    log: &dyn Log,
    tp: TopicPartition,
    (start, end): (Offset, Offset),
    time: Timestamp,
) -> Result<Offset, LogError> {
    if start == end {
        return Ok(end);
    }
    Ok(log.offset_at(&tp, time).await?.clamp(start, end))
}

fn name_of(topic: &str) -> u64 {
    let hash = blake3::hash(topic.as_bytes());
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
}

fn check(text: &str) -> u32 {
    let hash = blake3::hash(text.as_bytes());
    u32::from_be_bytes(hash.as_bytes()[..4].try_into().unwrap_or_default())
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{FORM}.{}.{}", self.at.as_millis(), self.turn);
        for Positions { topic, next } in &self.topics {
            text.push_str(&format!("~{topic:x}"));
            for offset in next {
                text.push_str(&format!(".{offset}"));
            }
        }
        write!(f, "{text}~{:x}", check(&text))
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        if text.len() > PULL_CURSOR_BYTES_MAX {
            return Err(NoCursor);
        }
        let (text, sum) = text.rsplit_once('~').ok_or(NoCursor)?;
        if u32::from_str_radix(sum, 16).ok() != Some(check(text)) {
            return Err(NoCursor);
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoCursor);
        let mut parts = text.split('~');
        let mut head = parts.next().unwrap_or_default().split('.');
        if head.next() != Some(FORM) {
            return Err(NoCursor);
        }
        let at = number(head.next().ok_or(NoCursor)?)?;
        let turn = number(head.next().ok_or(NoCursor)?)?;
        let positions = |part: &str| {
            let mut fields = part.split('.');
            let topic = u64::from_str_radix(fields.next().unwrap_or_default(), 16);
            Ok(Positions {
                topic: topic.map_err(|_| NoCursor)?,
                next: fields.map(number).collect::<Result<_, _>>()?,
            })
        };
        Ok(Self {
            at: Timestamp::from_millis(at),
            turn: usize::try_from(turn).map_err(|_| NoCursor)?,
            topics: parts.map(positions).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn topic(name: &'static str, parts: &[(Offset, Offset)]) -> Topic {
        Topic {
            name: name.into(),
            retention: Some(Duration::from_secs(3_600)),
            parts: parts.to_vec(),
        }
    }

    /// A log that nobody asks.
    fn log() -> (tempfile::TempDir, crate::log::embedded::EmbeddedLog) {
        let dir = tempfile::tempdir().unwrap();
        let clock = crate::clock::Clock::start();
        let stamps = std::sync::Arc::new(move || clock.now());
        let log = crate::log::embedded::EmbeddedLog::open(dir.path(), stamps).unwrap();
        (dir, log)
    }

    fn nexts(standing: &Standing) -> Vec<Offset> {
        standing.stretches.iter().map(|part| part.next).collect()
    }

    #[tokio::test]
    async fn a_cursor_is_where_it_was_and_new_partitions_begin_at_their_first_record() {
        let (_dir, log) = log();
        let before = [topic("a", &[(0, 5), (2, 9)]), topic("b", &[(0, 1)])];
        let mut standing = Standing::at_the_end(&before);
        standing.turn = 1;
        let now = Timestamp::from_millis(1_700_000_000_000);
        let text = standing.cursor(now).unwrap().to_string();
        let read: Cursor = text.parse().unwrap();
        assert_eq!(read.to_string(), text);
        // More came, and a partition, and the topics are named in another order.
        let after = [topic("b", &[(0, 1)]), topic("a", &[(0, 7), (9, 9), (0, 3)])];
        let stands = read.stand(&log, &after).await.unwrap();
        assert_eq!(nexts(&stands), [1, 5, 9, 0]);
        assert!(!stands.truncated && stands.is_behind());
        assert_eq!(stands.turn, 1);
        log.close();
    }

    #[tokio::test]
    async fn what_is_gone_is_told() {
        let (_dir, log) = log();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let cursor = Standing::at_the_end(&[topic("a", &[(0, 5), (0, 5)])]);
        let cursor = cursor.cursor(now).unwrap();
        for (parts, next, truncated) in [
            // Too old; made anew with fewer records; a new one that lost some.
            ([(6, 8), (0, 5), (0, 0)], [6, 5, 0], true),
            ([(0, 5), (0, 3), (0, 0)], [5, 0, 0], true),
            ([(0, 5), (0, 5), (2, 4)], [5, 5, 2], true),
            ([(5, 5), (4, 9), (0, 4)], [5, 5, 0], false),
        ] {
            let stands = cursor.stand(&log, &[topic("a", &parts)]).await.unwrap();
            assert_eq!(nexts(&stands), next, "{parts:?}");
            assert_eq!(stands.truncated, truncated, "{parts:?}");
        }
        log.close();
    }

    #[test]
    fn two_hundred_partitions_fit_and_too_many_are_refused() {
        let now = Timestamp::from_millis(u64::MAX);
        let many = |count| {
            let parts = vec![(0, u64::MAX); count];
            Standing::at_the_end(&[topic("a", &parts)]).cursor(now)
        };
        let text = many(200).unwrap().to_string();
        assert!(text.len() < 5 * 1_024, "{}", text.len());
        let most = many(PULL_PARTITIONS_MAX).unwrap();
        assert_eq!(most.to_string().parse(), Ok(most));
        assert_eq!(
            many(PULL_PARTITIONS_MAX + 1).unwrap_err().code(),
            "unavailable"
        );
    }

    #[test]
    fn what_was_changed_is_no_cursor() {
        let now = Timestamp::from_millis(17);
        let good = Standing::at_the_end(&[topic("a", &[(0, 5), (2, 9)])]);
        let good = good.cursor(now).unwrap().to_string();
        assert!(good.parse::<Cursor>().is_ok());
        for (at, _) in good.char_indices() {
            let cut = format!("{}{}", &good[..at], &good[at + 1..]);
            assert!(cut.parse::<Cursor>().is_err(), "{cut}");
        }
        let signed = |text: &str| format!("{text}~{:x}", check(text));
        for bad in [
            "",
            "2.1.1",
            "1",
            "1.1",
            "1.x.0",
            "1.1.0~",
            "1.1.0~zz",
            "1.1.0~a.-1",
        ] {
            assert!(signed(bad).parse::<Cursor>().is_err(), "{bad}");
        }
        let long = signed(&format!("1.1.0~a{}", ".0".repeat(PULL_CURSOR_BYTES_MAX)));
        assert!(long.parse::<Cursor>().is_err());
        assert!(signed("1.1.0~a.0").parse::<Cursor>().is_ok());
    }
}
