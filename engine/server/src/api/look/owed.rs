//! What an endpoint is owed: the fold of its lane's partition as it is now.
//!
//! ```text
//!  ..  upto ......... snapshot ......... end
//!       |                 <---- back ----|    to the last one that is whole
//!       |------------- ahead ----------->|    what came since
//! ```
//!
//! Any snapshot will do, whoever wrote it: each says what the records before its
//! `upto` add up to. Without one the partition is folded from its start.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::lane::fold::{Fold, Head, Owed};
use posthaste_core::lane::hold::Hold;
use posthaste_core::lane::snapshot::{Assembly, SnapshotRef};
use posthaste_core::limits::LOOK_READ_BYTES;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::ahead::{Ahead, Stretch};
use super::back::{self, Back};
use super::{Bound, Budget, lane_of, parts};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::log::{Log, LogError, Offset, Record, TopicPartition};

/// What a delivery that is owed waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Waits {
    /// Its time.
    Scheduled,
    /// Its endpoint.
    Held,
}

/// What one endpoint is owed.
pub(in crate::api) struct Owing<'a> {
    log: &'a dyn Log,
    tp: TopicPartition,
    endpoint: EndpointId,
    scheduled: BTreeMap<Offset, Owed>,
    hold: Option<Hold>,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct Rest {
    pub(in crate::api) from: Offset,
    /// What ended the look there, if nobody did.
    pub(in crate::api) ended_by: Option<Bound>,
}

impl<'a> Owing<'a> {
    /// Folds the endpoint's lane.
    ///
    /// # Errors
    /// 503 when the log does not answer, or the lane holds too much since the
    /// last snapshot.
    pub(in crate::api) async fn open(api: &'a Api, endpoint: EndpointId) -> Result<Self, Problem> {
        let tp = lane_of(api, endpoint);
        let owing = Self::of(&*api.log, tp, endpoint, &mut Budget::of_lane()).await?;
        owing.map_err(|_| {
            let much = "the lane holds too much since its owner's last snapshot to look through \
                        at once: try again later";
            Problem::unavailable(much)
        })
    }

    /// … or answers what ended the fold before it was done.
    pub(in crate::api) async fn of(
        log: &'a dyn Log,
        tp: TopicPartition,
        endpoint: EndpointId,
        budget: &mut Budget,
    ) -> Result<Result<Self, Bound>, LogError> {
        let fold = fold(log, &tp, budget).await?;
        Ok(fold.map(|fold| Self {
            log,
            tp,
            endpoint,
            scheduled: fold.timers().waiting(endpoint).collect(),
            hold: fold.hold_of(endpoint).cloned(),
        }))
    }

    /// What waits for its time, and where it stands.
    pub(in crate::api) fn scheduled(&self) -> impl Iterator<Item = (&Owed, Offset)> {
        self.scheduled.iter().map(|(&at, owed)| (owed, at))
    }

    /// How much is held.
    pub(in crate::api) fn held(&self) -> u64 {
        self.hold.as_ref().map_or(0, Hold::count)
    }

    /// The first in line of what is held; `None` also where its record was not
    /// found within the budget.
    pub(in crate::api) async fn first_held(
        &self,
        budget: &mut Budget,
    ) -> Result<Option<DeliveryId>, LogError> {
        let mut first = None;
        let take = |_: &Record, owed: Owed| {
            first = Some(owed.delivery);
            ControlFlow::Break(())
        };
        self.each(Waits::Held, 0, budget, take).await?;
        Ok(first)
    }

    /// The first record of the lane of that time or later.
    pub(in crate::api) async fn offset_at(&self, time: Timestamp) -> Result<Offset, LogError> {
        self.log.offset_at(&self.tp, time).await
    }

    /// Hands over the records of what waits, in the order of the lane, from an
    /// offset on, until one is not taken or the budget is spent: `None` when
    /// there are no more.
    pub(in crate::api) async fn each(
        &self,
        waits: Waits,
        from: Offset,
        budget: &mut Budget,
        mut take: impl FnMut(&Record, Owed) -> ControlFlow<()>,
    ) -> Result<Option<Rest>, LogError> {
        let mut at = from;
        while let Some(place) = self.place(waits, at) {
            at = place;
            let bytes = match waits {
                // The next one may stand far behind it.
                Waits::Scheduled => 1,
                Waits::Held => LOOK_READ_BYTES,
            };
            let rest = |from, ended_by| Ok(Some(Rest { from, ended_by }));
            if let Some(bound) = budget.spent() {
                return rest(at, Some(bound));
            }
            let reading = parts::read(self.log, &self.tp, at, bytes);
            let Some((records, next, _)) = budget.within(reading).await? else {
                return rest(at, Some(Bound::Time));
            };
            budget.charge(&records);
            for record in &records {
                if let Some(owed) = self.owed(waits, record)
                    && take(record, owed).is_break()
                {
                    return rest(record.offset, None);
                }
            }
            at = next.max(at + 1);
        }
        Ok(None)
    }

    /// Where the next record may stand.
    fn place(&self, waits: Waits, from: Offset) -> Option<Offset> {
        match waits {
            Waits::Scheduled => self.scheduled.range(from..).next().map(|(&at, _)| at),
            Waits::Held => self.hold.as_ref()?.stretch(from).map(|it| it.start),
        }
    }

    /// What a record says that is owed, where it is.
    fn owed(&self, waits: Waits, record: &Record) -> Option<Owed> {
        match waits {
            Waits::Scheduled => self.scheduled.get(&record.offset).copied(),
            Waits::Held => {
                let is_held = self.hold.as_ref()?.contains(record.offset);
                let head = is_held.then(|| Head::read(&record.value).ok())??;
                let ours = head.is_held() && head.owed.endpoint == self.endpoint;
                ours.then_some(head.owed)
            }
        }
    }
}

/// The fold of all there is, if the budget allows.
async fn fold(
    log: &dyn Log,
    tp: &TopicPartition,
    budget: &mut Budget,
) -> Result<Result<Fold, Bound>, LogError> {
    let span = back::span(log, tp, None, None).await?;
    let places = [tp.clone()];
    let mut back = Back::over(log, &places, &[span], |span| span.start);
    let mut snapshots = Snapshots::default();
    let mut found = None;
    while found.is_none()
        && let Some(pieces) = back.next(budget).await?
    {
        let mut records = pieces.iter().flat_map(|piece| piece.records.iter().rev());
        found = records.find_map(|record| snapshots.push(record));
    }
    if let Some(bound) = back.ended_by {
        return Ok(Err(bound));
    }
    let mut fold = found.unwrap_or_else(|| Fold::new(span.start));
    let mut ahead = Ahead::over(
        log,
        [Stretch {
            tp: tp.clone(),
            next: fold.next(),
            to: span.high,
        }],
    );
    while let Some(pieces) = ahead.next(budget).await? {
        for record in pieces.iter().flat_map(|piece| &piece.records) {
            // One that this version does not know says nothing here.
            let _ = fold.apply(record.offset, &record.value);
        }
    }
    Ok(ahead.ended_by.map_or(Ok(fold), Err))
}

/// Parts of snapshots, met from the end of the log back.
#[derive(Default)]
struct Snapshots {
    parts: BTreeMap<Offset, Bytes>,
}

impl Snapshots {
    /// The state, once a snapshot's first part is met and the others were.
    fn push(&mut self, record: &Record) -> Option<Fold> {
        let part = proto::Snapshot::from_value(&record.value).ok()?;
        self.parts.insert(record.offset, record.value.clone());
        if part.part > 0 {
            return None;
        }
        let mut assembly = Assembly::new(SnapshotRef {
            owner_epoch: part.owner_epoch,
            part0: record.offset,
            parts: part.parts,
        });
        for (&offset, value) in &self.parts {
            assembly.push(offset, value);
        }
        assembly.load().ok().map(|loaded| loaded.fold)
    }
}

#[cfg(test)]
mod tests;
