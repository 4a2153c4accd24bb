//! What the log says of one endpoint: its attempts, its lane, its changes.

use std::collections::BTreeSet;

use bytes::Bytes;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::EndpointId;
use posthaste_core::limits::LOOK_FOUND_MAX;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use crate::api::Api;
use crate::api::deliveries::record::{Recorded, recorded};
use crate::api::look::owed::Owing;
use crate::api::look::{Bound, Budget, CLOCKS_APART, Cursor, before, lane_of, partitions};
use crate::log::{LogError, TopicPartition};

/// The attempts of an endpoint, from the newest back to where both kinds were
/// seen.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) last_success: Option<Recorded>,
    pub(super) last_failure: Option<Recorded>,
    /// When each was made, and whether it was delivered.
    made: Vec<(Timestamp, bool)>,
    /// All made since then were seen; all there are where there is none.
    pub(super) reached: Option<Timestamp>,
    pub(super) ended_by: Option<Bound>,
}

/// What an endpoint is owed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) scheduled: u64,
    /// … of which so many failed before.
    pub(super) failing: u64,
    pub(super) held: u64,
    pub(super) oldest: Option<Timestamp>,
    pub(super) next: Option<Timestamp>,
}

/// What its lane partition says.
#[derive(Debug)]
pub(super) struct Lane {
    /// `None` where it says too much.
    pub(super) owed: Option<Owed>,
    pub(super) ended_by: Option<Bound>,
}

/// Looks back over the attempts.
pub(super) async fn trail(
    api: &Api,
    endpoint: EndpointId,
    now: Timestamp,
) -> Result<Trail, LogError> {
    let log = &*api.log;
    let places = partitions(log, &[api.config.topics.attempts()]).await?;
    let cursor = Cursor::open(log, &places, now, None, None).await?;
    let mut back = cursor.look(log, &places);
    let mut budget = Budget::new();
    let mut trail = Trail::default();
    let id = &endpoint.as_bytes()[..];
    while let Some(pieces) = back.next(&mut budget).await? {
        for piece in &pieces {
            for found in recorded(piece, |attempt| attempt.endpoint_id[..] == *id) {
                trail.add(found);
            }
        }
        trail.reached = back.reached();
        if trail.is_enough() {
            break;
        }
        if trail.made.len() >= LOOK_FOUND_MAX {
            back.stop();
            break;
        }
    }
    trail.reached = back.reached();
    trail.ended_by = back.ended_by;
    Ok(trail)
}

impl Trail {
    pub(super) fn add(&mut self, found: Recorded) {
        let (at, delivered) = (found.at(), found.is_delivered());
        self.made.push((at, delivered));
        let last = match delivered {
            true => &mut self.last_success,
            false => &mut self.last_failure,
        };
        if last.as_ref().is_none_or(|last| at > last.at()) {
            *last = Some(found);
        }
    }

    /// Whether both kinds were seen, and all that is younger than the older one.
    fn is_enough(&self) -> bool {
        let (Some(success), Some(failure)) = (&self.last_success, &self.last_failure) else {
            return false;
        };
        let older = before(success.at().min(failure.at()), CLOCKS_APART);
        self.reached.is_none_or(|reached| reached <= older)
    }

    /// When the first attempt was made that came to what all later ones did;
    /// `None` where that lies further back than was looked.
    pub(super) fn turned(&self) -> Option<Timestamp> {
        let (last, delivered) = self.made.iter().max()?;
        let others = self.made.iter().filter(|(_, other)| other != delivered);
        let other = others.map(|(at, _)| *at).max();
        if other.is_none() && self.reached.is_some() {
            return None;
        }
        let alike = self.made.iter().map(|(at, _)| *at);
        let alike = alike.filter(|at| other.is_none_or(|other| *at > other));
        Some(alike.min().unwrap_or(*last))
    }

    /// How many failed since the last one that was delivered.
    pub(super) fn failed_in_a_row(&self) -> usize {
        let success = self.last_success.as_ref().map(Recorded::at);
        let failed = self.made.iter().filter(|(_, delivered)| !delivered);
        failed.filter(|(at, _)| Some(*at) > success).count()
    }
}

/// Folds the endpoint's lane partition.
pub(super) async fn lane(api: &Api, endpoint: EndpointId) -> Result<Lane, LogError> {
    let tp = lane_of(api, endpoint);
    let owing = Owing::of(&*api.log, tp, endpoint, &mut Budget::of_lane()).await?;
    let owing = match owing {
        Ok(owing) => owing,
        Err(bound) => {
            return Ok(Lane {
                owed: None,
                ended_by: Some(bound),
            });
        }
    };
    let mut owed = Owed::scheduled(&owing);
    owed.held = owing.held();
    let first = owing.first_held(&mut Budget::new()).await?;
    let first = first.map(|delivery| delivery.time());
    owed.oldest = owed.oldest.into_iter().chain(first).min();
    Ok(Lane {
        owed: Some(owed),
        ended_by: None,
    })
}

impl Owed {
    /// What waits for its time.
    fn scheduled(owing: &Owing<'_>) -> Self {
        let mut all = Self::default();
        for (owed, _) in owing.scheduled() {
            all.scheduled += 1;
            all.failing += u64::from(owed.attempts > 0);
            all.oldest = all.oldest.into_iter().chain([owed.delivery.time()]).min();
            all.next = all.next.into_iter().chain([owed.due]).min();
        }
        all
    }
}

/// When it was paused or disabled, if it is; `None` where the change lies too far
/// back, or was forgotten.
pub(super) async fn changed(
    api: &Api,
    endpoint: &Endpoint,
    now: Timestamp,
) -> Result<Option<Timestamp>, LogError> {
    let wanted: &[&str] = match (endpoint.disabled, endpoint.paused) {
        // One that has to be verified first begins so.
        (true, _) => &["endpoint.disabled", "endpoint.created"],
        (false, true) => &["endpoint.paused"],
        (false, false) => return Ok(None),
    };
    let places = [TopicPartition {
        topic: api.config.topics.changes(),
        partition: 0,
    }];
    let cursor = Cursor::open(&*api.log, &places, now, None, None).await?;
    let mut back = cursor.look(&*api.log, &places);
    let (mut budget, mut refused) = (Budget::new(), Refused::default());
    let subject = endpoint.id.to_string();
    while let Some(pieces) = back.next(&mut budget).await? {
        let records = pieces.iter().flat_map(|piece| piece.records.iter().rev());
        let changes = records.filter_map(|record| proto::Change::from_value(&record.value).ok());
        let mut made = changes.filter(|change| change.subject == subject && refused.lets(change));
        if let Some(found) = made.find(|change| wanted.contains(&&*change.action)) {
            return Ok(Some(Timestamp::from_millis(found.at_ms)));
        }
    }
    Ok(None)
}

/// Requests whose changes came too late. What says so stands behind them.
#[derive(Debug, Default)]
struct Refused(BTreeSet<Bytes>);

impl Refused {
    /// Whether a change was made, which is read after all that stand behind it.
    fn lets(&mut self, change: &proto::Change) -> bool {
        if change.action == "change.refused" {
            self.0.insert(change.request_id.clone());
            return false;
        }
        !self.0.remove(&change.request_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_refused_was_none() {
        let change = |action: &str, request: u8| proto::Change {
            action: action.to_owned(),
            request_id: vec![request; 16].into(),
            ..Default::default()
        };
        let mut refused = Refused::default();
        // The newest first.
        assert!(refused.lets(&change("endpoint.updated", 3)));
        assert!(!refused.lets(&change("change.refused", 2)));
        assert!(!refused.lets(&change("endpoint.paused", 2)));
        assert!(refused.lets(&change("endpoint.paused", 1)));
    }

    #[test]
    fn enough_is_seen_once_both_kinds_surely_are_the_last() {
        let found = |at_ms: u64, cause: &str| Recorded {
            id: posthaste_core::id::AttemptId::at(0, at_ms, 0),
            delivery: posthaste_core::id::DeliveryId::from_bytes([1; 16]),
            attempt: proto::Attempt {
                started_ms: at_ms,
                cause: cause.to_owned(),
                ..Default::default()
            },
        };
        let mut trail = Trail {
            reached: Some(Timestamp::from_millis(50_000)),
            ..Trail::default()
        };
        trail.add(found(200_000, ""));
        assert!(!trail.is_enough());
        trail.add(found(120_000, "dns_error"));
        trail.add(found(100_000, "http_5xx"));
        let last = trail.last_failure.as_ref().map(Recorded::at);
        assert_eq!(last, Some(Timestamp::from_millis(120_000)));
        assert!(trail.is_enough());
        trail.reached = Some(Timestamp::from_millis(60_001));
        assert!(!trail.is_enough(), "clocks may be a minute apart");
    }
}
