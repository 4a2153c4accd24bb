//! Pages over what a look backwards gathered. A look covers a stretch of the log;
//! what it gathered is shown page by page, newest first, and only then the
//! stretch before it is looked at. A cursor names the stretch and the last item
//! shown of it, so that a page asked for again is the same.

use std::fmt;
use std::str::FromStr;

use futures_util::future::try_join_all;
use posthaste_core::time::Timestamp;

use super::back::{self, Back};
use crate::api::problem::Problem;
use crate::log::{Log, LogError, Offset, TopicPartition};

/// Of what an item is, and when it was: its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::api) struct Key {
    pub(in crate::api) at: Timestamp,
    pub(in crate::api) id: u128,
}

/// A stretch of the partitions, and how much of it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct Cursor {
    /// When the first page was asked for: "two hours ago" stays what it was.
    pub(in crate::api) asked_at: Timestamp,
    /// The last item shown; without one, the stretch is still to be looked at.
    after: Option<Key>,
    spans: Vec<Span>,
}

/// Of one partition: where looking back ends, and the stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: Offset,
    pub(super) low: Offset,
    pub(super) high: Offset,
}

/// Text that is no cursor.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::api) struct NoCursor;

impl Cursor {
    /// Over what these partitions hold between two times.
    pub(in crate::api) async fn open(
        log: &dyn Log,
        places: &[TopicPartition],
        asked_at: Timestamp,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Self, LogError> {
        let spans = places.iter().map(|tp| back::span(log, tp, since, until));
        Ok(Self {
            asked_at,
            after: None,
            spans: try_join_all(spans).await?,
        })
    }

    /// Looks at its stretch. Partitions that came later are none of it.
    pub(in crate::api) fn look<'a>(&self, log: &'a dyn Log, places: &[TopicPartition]) -> Back<'a> {
        let fixed = self.after.is_some();
        let floor = |span: &Span| if fixed { span.low } else { span.start };
        Back::over(log, places, &self.spans, floor)
    }

    /// Whether the stretch ends where it ended before.
    pub(in crate::api) fn is_fixed(&self) -> bool {
        self.after.is_some()
    }

    /// The stretch reaches down to where the look came. One that is asked for
    /// again has to be seen whole: its page would lose what was not.
    pub(in crate::api) fn looked(&mut self, back: &Back<'_>) -> Result<(), Problem> {
        if self.is_fixed() {
            let slow = "the log answers too slowly for the next page: try again later";
            return match back.ended_by {
                Some(_) => Err(Problem::unavailable(slow)),
                None => Ok(()),
            };
        }
        for (span, low) in self.spans.iter_mut().zip(back.lows()) {
            span.low = low;
        }
        Ok(())
    }

    /// What follows the stretch; `None` at the end.
    fn before(mut self) -> Option<Self> {
        for span in &mut self.spans {
            span.high = span.low;
        }
        self.after = None;
        let more = self.spans.iter().any(|span| span.start < span.high);
        more.then_some(self)
    }
}

/// The page of a stretch's items that a cursor stands for, newest first, and
/// where to go on.
pub(in crate::api) fn cut<T>(
    mut items: Vec<(Key, T)>,
    mut cursor: Cursor,
    limit: usize,
) -> (Vec<T>, Option<Cursor>) {
    items.retain(|(key, _)| cursor.after.is_none_or(|after| *key < after));
    items.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().map(|(key, _)| *key);
    let next = match more {
        true => {
            cursor.after = last;
            Some(cursor)
        }
        false => cursor.before(),
    };
    (items.into_iter().map(|(_, item)| item).collect(), next)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.asked_at.as_millis())?;
        if let Some(Key { at, id }) = self.after {
            write!(f, "~{}~{id:x}", at.as_millis())?;
        }
        for Span { start, low, high } in &self.spans {
            // Most partitions of a quiet topic have nothing to say.
            match start == high {
                true => write!(f, ".{start}")?,
                false => write!(f, ".{start}-{}-{}", low - start, high - low)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoCursor);
        let span = |text: &str| {
            let mut fields = text.split('-').map(number);
            let mut next = || fields.next().transpose();
            let (start, low, high) = (next()?, next()?, next()?);
            let add = |a: u64, b: u64| a.checked_add(b).ok_or(NoCursor);
            let start = start.ok_or(NoCursor)?;
            let low = add(start, low.unwrap_or(0))?;
            let high = add(low, high.unwrap_or(0))?;
            Ok(Span { start, low, high })
        };
        let mut parts = text.split('.');
        let mut head = parts.next().ok_or(NoCursor)?.split('~');
        let asked_at = number(head.next().ok_or(NoCursor)?)?;
        let after = match (head.next(), head.next()) {
            (None, _) => None,
            (Some(at), Some(id)) => Some(Key {
                at: Timestamp::from_millis(number(at)?),
                id: u128::from_str_radix(id, 16).map_err(|_| NoCursor)?,
            }),
            (Some(_), None) => return Err(NoCursor),
        };
        Ok(Self {
            asked_at: Timestamp::from_millis(asked_at),
            after,
            spans: parts.map(span).collect::<Result<_, _>>()?,
        })
    }
}
