//! What the lane says of one delivery, by the rules of its fold: owed at a time,
//! held until its endpoint takes it, or settled.

use std::collections::BTreeMap;

use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::lane::fold::{Change, Fold, Owed};
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordType};
use proto::progress::Kind;

use super::Found;
use crate::api::Api;
use crate::api::look::{Ahead, Budget, CLOCKS_APART, before, lane_of};
use crate::log::{LogError, Offset, Record};

/// How a delivery stands in the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was never put there.
    Absent,
    /// The next attempt is due.
    Owed(Owed),
    /// As soon as its endpoint takes it.
    Held,
    /// It needs nothing more.
    Settled(Kind),
    /// The lane holds too much since its time.
    Unknown,
}

/// One delivery in its lane.
#[derive(Debug)]
pub(super) struct InLane {
    pub(super) standing: Standing,
    pub(super) partition: u32,
    /// Where it stands there, the last place first.
    pub(super) places: Vec<Offset>,
    /// Why it is there.
    pub(super) reason: Option<proto::Reason>,
    /// When it came there.
    pub(super) since: Option<Timestamp>,
}

/// Follows the lane of its endpoint from its event's time on.
pub(super) async fn look(
    api: &Api,
    found: &Found,
    budget: &mut Budget,
) -> Result<InLane, LogError> {
    let tp = lane_of(api, found.endpoint);
    let partition = tp.partition;
    let since = before(found.begins(api.clock.now()), CLOCKS_APART);
    let mut ahead = Ahead::open(&*api.log, vec![tp], since, None).await?;
    let mut follower = Follower::new(found.id, found.endpoint);
    while let Some(pieces) = ahead.next(budget).await? {
        for record in pieces.iter().flat_map(|piece| &piece.records) {
            follower.record(record);
        }
    }
    let standing = match ahead.ended_by {
        Some(_) => Standing::Unknown,
        None => follower.standing(),
    };
    Ok(InLane {
        standing,
        partition,
        places: follower.places.into_keys().rev().collect(),
        reason: follower.reason,
        since: follower.since,
    })
}

/// A fold of one endpoint's records, with an eye on one delivery.
struct Follower {
    fold: Fold,
    delivery: DeliveryId,
    endpoint: EndpointId,
    places: BTreeMap<Offset, Place>,
    reason: Option<proto::Reason>,
    since: Option<Timestamp>,
}

/// Where the delivery stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Whether it was held there first: around what waited for a time others may
    /// be held, of which the fold does not tell it.
    held: bool,
    /// How it was settled there.
    end: Option<Kind>,
}

impl Follower {
    fn new(delivery: DeliveryId, endpoint: EndpointId) -> Self {
        Self {
            fold: Fold::new(0),
            delivery,
            endpoint,
            places: BTreeMap::new(),
            reason: None,
            since: None,
        }
    }

    /// A record that this version does not know says nothing here.
    fn record(&mut self, record: &Record) {
        match RecordType::of(&record.value) {
            Ok(RecordType::Deliver) => self.deliver(record),
            Ok(RecordType::Progress) => {
                let read = proto::Progress::from_value(&record.value).unwrap_or_default();
                let told = |offset: Offset| {
                    let mut of_it = read.entries.iter().filter(|e| e.offset == offset);
                    // A cursor that passes it says that it expired with others.
                    of_it.find_map(|entry| Some(entry.kind()).filter(|k| *k != Kind::Passed))
                };
                self.fold(record, |offset| told(offset).unwrap_or(Kind::Expired));
            }
            Ok(RecordType::Command) => {
                let read = proto::Command::from_value(&record.value).unwrap_or_default();
                if read.endpoint_id[..] == self.endpoint.as_bytes()[..] {
                    self.fold(record, |_| Kind::Cancelled);
                }
            }
            _ => {}
        }
    }

    fn deliver(&mut self, record: &Record) {
        let Ok(read) = proto::DeliverHead::from_value(&record.value) else {
            return;
        };
        if read.endpoint_id[..] != self.endpoint.as_bytes()[..] {
            return;
        }
        let change = self.fold.apply(record.offset, &record.value);
        let (held, delivery) = match change {
            Ok(Change::Owed(owed)) => (false, owed.delivery),
            Ok(Change::Held(head)) => (true, head.owed.delivery),
            _ => return,
        };
        if delivery == self.delivery {
            self.places.insert(record.offset, Place { held, end: None });
            self.reason = Some(read.reason());
            self.since.get_or_insert(record.timestamp);
        }
    }

    /// Folds a record, and notes how it settled what it settled.
    fn fold(&mut self, record: &Record, how: impl Fn(Offset) -> Kind) {
        let places = self.places.iter();
        let owed = places.filter(|(at, place)| self.is_owed(**at, **place));
        let owed: Vec<_> = owed.map(|(&at, &place)| (at, place)).collect();
        if self.fold.apply(record.offset, &record.value).is_err() {
            return;
        }
        for (at, place) in owed {
            if !self.is_owed(at, place) {
                let end = Some(how(at));
                self.places.insert(at, Place { end, ..place });
            }
        }
    }

    fn is_owed(&self, at: Offset, place: Place) -> bool {
        self.fold.owed(at).is_some() || (place.held && self.fold.is_owed(self.endpoint, at))
    }

    /// Where it stands twice, what is owed counts.
    fn standing(&self) -> Standing {
        let mut places = self.places.iter().rev();
        if let Some(owed) = places.clone().find_map(|(&at, _)| self.fold.owed(at)) {
            return Standing::Owed(owed);
        }
        if places.any(|(&at, &place)| self.is_owed(at, place)) {
            return Standing::Held;
        }
        let ends: Vec<_> = self.places.values().filter_map(|place| place.end).collect();
        // That it was moved says only that it stands elsewhere.
        let end = ends.iter().rev().find(|kind| **kind != Kind::Moved);
        match end.or(ends.last()) {
            Some(kind) => Standing::Settled(*kind),
            None => Standing::Absent,
        }
    }
}

#[cfg(test)]
mod tests;
