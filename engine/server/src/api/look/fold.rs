//! The state of a lane partition, as its owner has it: the last snapshot that
//! stands there whole, and what was written since; where there is none, all of
//! it. Each is a fold of the same log, so every instance comes to the same.
//!
//! ```text
//!  ..|  snapshot  |  upto ..  | part 0 | .. | part 1 | .. end
//!                 |           <------- looked for, back from the end
//!                 |-------------------------------------> folded
//! ```
//!
//! Which snapshot an owner goes on from, its commit says. Here any will do: also
//! that of an owner which was replaced is the fold of what stands below its
//! `upto`, and of nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::lane::fold::{Fold, Head};
use posthaste_core::lane::hold::Hold;
use posthaste_core::lane::snapshot::{Assembly, SnapshotRef};
use posthaste_core::limits::LOOK_READ_BYTES;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordType};

use super::{Bound, Budget, Cursor};
use crate::log::{Log, LogError, Offset, Record, TopicPartition};

/// What a look came to.
#[derive(Debug)]
pub(in crate::api) enum Folded {
    /// The state.
    Known(Box<Fold>),
    /// The partition holds too much since the last snapshot.
    EndedBy(Bound),
    /// A record is of a newer version: what it settles or owes is not known.
    Unreadable,
}

/// Folds a partition up to where it ends now. The way back to the snapshot and
/// the way on from it may each take a whole budget.
pub(in crate::api) async fn folded(
    log: &dyn Log,
    tp: &TopicPartition,
    now: Timestamp,
) -> Result<Folded, LogError> {
    within(log, tp, now, [Budget::new(), Budget::new()]).await
}

async fn within(
    log: &dyn Log,
    tp: &TopicPartition,
    now: Timestamp,
    [mut behind, mut budget]: [Budget; 2],
) -> Result<Folded, LogError> {
    let (start, end) = log.bounds(tp).await?;
    let mut fold = match last_snapshot(log, tp, now, &mut behind).await? {
        Ok(Some(fold)) => fold,
        Ok(None) => Fold::new(start),
        Err(bound) => return Ok(Folded::EndedBy(bound)),
    };
    while fold.next() < end {
        if let Some(bound) = budget.spent() {
            return Ok(Folded::EndedBy(bound));
        }
        let from = fold.next();
        let Some((records, next)) = budget.within(read(log, tp, from)).await? else {
            return Ok(Folded::EndedBy(Bound::Time));
        };
        budget.charge(&records);
        for record in &records {
            if fold.apply(record.offset, &record.value).is_err() {
                return Ok(Folded::Unreadable);
            }
        }
        fold.skip_to(next.max(from + 1));
    }
    Ok(Folded::Known(Box::new(fold)))
}

async fn read(
    log: &dyn Log,
    tp: &TopicPartition,
    from: Offset,
) -> Result<(Vec<Record>, Offset), LogError> {
    match log.read(tp, from, LOOK_READ_BYTES).await {
        // Its records grew too old meanwhile.
        Err(LogError::OutOfRange { start, .. }) if start > from => Ok((Vec::new(), start)),
        read => read,
    }
}

/// The state as of the last snapshot; `None` where the partition has none.
async fn last_snapshot(
    log: &dyn Log,
    tp: &TopicPartition,
    now: Timestamp,
    budget: &mut Budget,
) -> Result<Result<Option<Fold>, Bound>, LogError> {
    let places = [tp.clone()];
    let cursor = Cursor::open(log, &places, now, None, None).await?;
    let mut back = cursor.look(log, &places);
    let mut parts = BTreeMap::new();
    while let Some(pieces) = back.next(budget).await? {
        let records = pieces.into_iter().flat_map(|piece| piece.records);
        let found = records.filter(|r| RecordType::of(&r.value) == Ok(RecordType::Snapshot));
        let found: Vec<_> = found.map(|r| (r.offset, r.value)).collect();
        let offsets: Vec<_> = found.iter().map(|(offset, _)| *offset).collect();
        parts.extend(found);
        let loaded = offsets.iter().rev().find_map(|at| whole(&parts, *at));
        if loaded.is_some() {
            return Ok(Ok(loaded));
        }
    }
    Ok(back.ended_by.map_or(Ok(None), Err))
}

/// The state of the snapshot whose first part stands at `part0`, if it is one and
/// its others follow.
fn whole(parts: &BTreeMap<Offset, Bytes>, part0: Offset) -> Option<Fold> {
    let first = proto::Snapshot::from_value(parts.get(&part0)?).ok()?;
    if first.part != 0 {
        return None;
    }
    let mut assembly = Assembly::new(SnapshotRef {
        owner_epoch: first.owner_epoch,
        part0,
        parts: first.parts,
    });
    for (offset, value) in parts.range(part0..) {
        if assembly.push(*offset, value) {
            break;
        }
    }
    assembly.load().ok().map(|loaded| loaded.fold)
}

/// The first delivery in line of what an endpoint holds; `None` where nothing is
/// held, or its record was not found within a budget.
pub(in crate::api) async fn first_held(
    log: &dyn Log,
    tp: &TopicPartition,
    endpoint: EndpointId,
    hold: &Hold,
) -> Result<Option<DeliveryId>, LogError> {
    let mut budget = Budget::new();
    let mut from = hold.cursor();
    while let Some(stretch) = hold.stretch(from) {
        if budget.spent().is_some() {
            return Ok(None);
        }
        let Some((records, next)) = budget.within(read(log, tp, stretch.start)).await? else {
            return Ok(None);
        };
        budget.charge(&records);
        let mut held = records.iter().filter(|record| hold.contains(record.offset));
        let found = held.find_map(|record| held_by(endpoint, record));
        if found.is_some() {
            return Ok(found);
        }
        from = next.max(stretch.start + 1);
    }
    Ok(None)
}

/// Which delivery a record holds for that endpoint, if it does.
fn held_by(endpoint: EndpointId, record: &Record) -> Option<DeliveryId> {
    let head = Head::read(&record.value).ok()?;
    let held = head.is_held() && head.owed.endpoint == endpoint;
    held.then_some(head.owed.delivery)
}

#[cfg(test)]
mod tests;
