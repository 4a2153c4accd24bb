//! Reads dead letters: the partitions of their topic as one stream, oldest
//! first, from where a cursor stands to where the topic ended when it was made.
//! Letters written meanwhile are not met, so that what is redriven and given up
//! again is not redriven for ever.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use bytestring::ByteString;
use futures_util::future::try_join_all;
use posthaste_core::limits::{DEAD_READ_BYTES, DEAD_SCAN_BYTES_MAX};
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use crate::log::{Log, LogError, Offset, Record, TopicPartition};

/// Where a reader stands in each partition, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// When the first page was asked for: "two hours ago" stays what it was.
    pub(super) asked_at: Timestamp,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    next: Offset,
    end: Offset,
}

/// Text that is no cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoCursor;

/// A dead letter and its place in the topic.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) partition: u32,
    pub(super) offset: Offset,
    pub(super) told: Told,
}

/// What it tells of.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// One delivery, or a record that never became one.
    One(Box<proto::Dead>),
    /// Held deliveries that were given up at once.
    Many(proto::DeadRange),
}

/// The stream.
pub(super) struct Scan<'a> {
    log: &'a dyn Log,
    asked_at: Timestamp,
    parts: Vec<Part>,
    /// Bytes it may still read; then it stops where it is.
    left: usize,
}

struct Part {
    tp: TopicPartition,
    span: Span,
    waiting: VecDeque<Letter>,
    /// The position after what waits.
    read_to: Offset,
}

impl Cursor {
    /// Over whole partitions, from the first letter that can be as young as
    /// `since`; with `only`, over that one alone.
    pub(super) async fn open(
        log: &dyn Log,
        topic: &ByteString,
        asked_at: Timestamp,
        only: Option<u32>,
        since: Option<Timestamp>,
    ) -> Result<Self, LogError> {
        let partitions = log.describe(topic).await?.partitions;
        let spans = (0..partitions).map(|partition| async move {
            let tp = TopicPartition {
                topic: topic.clone(),
                partition,
            };
            let (start, end) = log.bounds(&tp).await?;
            if only.is_some_and(|only| only != partition) {
                return Ok(Span { next: end, end });
            }
            let next = match since {
                Some(time) => log.offset_at(&tp, time).await?.clamp(start, end),
                None => start,
            };
            Ok(Span { next, end })
        });
        let spans = try_join_all(spans).await?;
        Ok(Self { asked_at, spans })
    }

    /// What is to be read of a partition.
    pub(super) fn range(&self, partition: u32) -> std::ops::Range<Offset> {
        let place = usize::try_from(partition).unwrap_or(usize::MAX);
        self.spans
            .get(place)
            .map_or(0..0, |span| span.next..span.end)
    }

    /// How many records are to be read at most.
    pub(super) fn records(&self) -> u64 {
        let spans = self.spans.iter().map(|span| span.end - span.next);
        spans.fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.asked_at.as_millis())?;
        for span in &self.spans {
            write!(f, ".{}-{}", span.next, span.end)?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let span = |text: &str| {
            let (next, end) = text.split_once('-').ok_or(NoCursor)?;
            let next: Offset = next.parse().map_err(|_| NoCursor)?;
            let end = end.parse().map_err(|_| NoCursor)?;
            let in_order = next <= end;
            in_order.then_some(Span { next, end }).ok_or(NoCursor)
        };
        let (asked_at, spans) = text.split_once('.').ok_or(NoCursor)?;
        let asked_at = asked_at.parse().map_err(|_| NoCursor)?;
        Ok(Self {
            asked_at: Timestamp::from_millis(asked_at),
            spans: spans.split('.').map(span).collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> Scan<'a> {
    /// Goes on where the cursor stands. What is older than the topic keeps is
    /// passed over.
    pub(super) async fn from(
        log: &'a dyn Log,
        topic: &ByteString,
        cursor: Cursor,
    ) -> Result<Self, LogError> {
        let parts = cursor
            .spans
            .into_iter()
            .zip(0..)
            .map(|(span, partition)| async move {
                let tp = TopicPartition {
                    topic: topic.clone(),
                    partition,
                };
                let (start, end) = log.bounds(&tp).await?;
                let end = span.end.clamp(start, end);
                let next = span.next.clamp(start, end);
                Ok(Part {
                    tp,
                    span: Span { next, end },
                    waiting: VecDeque::new(),
                    read_to: next,
                })
            });
        Ok(Self {
            log,
            asked_at: cursor.asked_at,
            parts: try_join_all(parts).await?,
            left: DEAD_SCAN_BYTES_MAX,
        })
    }

    /// The next letter; `None` at the end, and when enough was read for once:
    /// [`rest`](Self::rest) tells which.
    pub(super) async fn next(&mut self) -> Result<Option<Letter>, LogError> {
        while self.parts.iter().any(Part::is_hungry) {
            if self.left == 0 {
                return Ok(None);
            }
            let log = self.log;
            let hungry = self.parts.iter_mut().filter(|part| part.is_hungry());
            let read = try_join_all(hungry.map(|part| part.read(log))).await?;
            self.left = self.left.saturating_sub(read.iter().sum());
        }
        let at = |part: &&mut Part| {
            part.waiting
                .front()
                .map_or(u64::MAX, |l| l.told.at().as_millis())
        };
        let oldest = self.parts.iter_mut().min_by_key(at);
        Ok(oldest.and_then(Part::take))
    }

    /// Where to go on; `None` at the end.
    pub(super) fn rest(&self) -> Option<Cursor> {
        let spans: Vec<_> = self.parts.iter().map(|part| part.span).collect();
        let more = spans.iter().any(|span| span.next < span.end);
        let asked_at = self.asked_at;
        more.then_some(Cursor { asked_at, spans })
    }
}

impl Part {
    fn is_hungry(&self) -> bool {
        self.waiting.is_empty() && self.span.next < self.span.end
    }

    /// Reads on; answers how many bytes.
    async fn read(&mut self, log: &dyn Log) -> Result<usize, LogError> {
        let read = log.read(&self.tp, self.span.next, DEAD_READ_BYTES).await?;
        let (records, next) = read;
        let bytes = records.iter().map(Record::size).sum();
        let within = records.iter().filter(|r| r.offset < self.span.end);
        let partition = self.tp.partition;
        self.waiting.extend(within.map(|record| Letter {
            partition,
            offset: record.offset,
            told: Told::read(record),
        }));
        self.read_to = next.min(self.span.end);
        if self.waiting.is_empty() {
            self.span.next = self.read_to;
        }
        Ok(bytes)
    }

    fn take(&mut self) -> Option<Letter> {
        let letter = self.waiting.pop_front()?;
        self.span.next = match self.waiting.is_empty() {
            true => self.read_to,
            false => letter.offset + 1,
        };
        Some(letter)
    }
}

impl Told {
    /// What cannot be read, since a newer version wrote it, is there all the same.
    fn read(record: &Record) -> Self {
        let at_ms = |at_ms| match at_ms {
            0 => record.timestamp.as_millis(),
            at_ms => at_ms,
        };
        if let Ok(mut many) = proto::DeadRange::from_value(&record.value) {
            many.at_ms = at_ms(many.at_ms);
            return Self::Many(many);
        }
        let read = proto::Dead::from_value(&record.value);
        let mut dead = read.unwrap_or_else(|error| proto::Dead {
            detail: error.to_string(),
            ..proto::Dead::default()
        });
        dead.at_ms = at_ms(dead.at_ms);
        Self::One(Box::new(dead))
    }

    /// When it was written.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_millis(match self {
            Self::One(dead) => dead.at_ms,
            Self::Many(many) => many.at_ms,
        })
    }

    pub(super) fn cause(&self) -> proto::DeadCause {
        match self {
            Self::One(dead) => dead.cause(),
            Self::Many(many) => many.cause(),
        }
    }

    /// The tenant, and the endpoint's id; nothing of a record that never became
    /// an event.
    pub(super) fn whose(&self) -> Option<(&str, &[u8])> {
        match self {
            Self::One(dead) => {
                let delivery = dead.delivery.as_ref()?;
                Some((&delivery.tenant, &delivery.endpoint_id))
            }
            Self::Many(many) => Some((&many.tenant, &many.endpoint_id)),
        }
    }
}

#[cfg(test)]
mod tests;
