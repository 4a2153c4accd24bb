//! Dead letters for many: the lane has their deliveries, for as long as it keeps
//! them.

use std::collections::BTreeMap;

use posthaste_core::id::EndpointId;
use posthaste_core::limits::DEAD_PAGES_MAX;
use posthaste_core::operation::Range;
use posthaste_core::replay::Buried;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use serde::Serialize;
use utoipa::ToSchema;

use super::filter::Wanted;
use super::scan::{Cursor, Scan, Told};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::log::{LogError, Offset, TopicPartition};

/// Held deliveries that were given up at once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadRange)]
pub(super) struct Many {
    /// How many.
    count: u64,
    /// … of which so many can still be brought again, at most.
    kept: u64,
    /// `null` where it was not known.
    tenant: Option<String>,
    endpoint: Option<String>,
    /// Their records stand in this partition of the lane …
    partition: u32,
    /// … from here …
    from: u64,
    /// … to before here, others' among them.
    to: u64,
}

/// How far back the lane goes.
pub(super) struct Lane<'a> {
    api: &'a Api,
    starts: BTreeMap<u32, Offset>,
}

impl<'a> Lane<'a> {
    pub(super) fn of(api: &'a Api) -> Self {
        Self {
            api,
            starts: BTreeMap::new(),
        }
    }

    /// How many of a letter's deliveries it keeps, at most.
    pub(super) async fn kept(&mut self, letter: &proto::DeadRange) -> Result<u64, LogError> {
        let partition = letter.partition;
        let start = match self.starts.get(&partition) {
            Some(&start) => start,
            None => {
                let tp = TopicPartition {
                    topic: self.api.config.topics.lane(),
                    partition,
                };
                let (start, _) = self.api.log.bounds(&tp).await?;
                self.starts.insert(partition, start);
                start
            }
        };
        let records = letter.to.saturating_sub(letter.from.max(start));
        Ok(letter.count.min(records))
    }

    pub(super) async fn shown(&mut self, letter: &proto::DeadRange) -> Result<Many, LogError> {
        Ok(Many {
            count: letter.count,
            kept: self.kept(letter).await?,
            tenant: Some(letter.tenant.clone()).filter(|tenant| !tenant.is_empty()),
            endpoint: endpoint_of(letter).map(|id| id.to_string()),
            partition: letter.partition,
            from: letter.from,
            to: letter.to,
        })
    }
}

impl Many {
    pub(super) fn is_kept(&self) -> bool {
        self.kept > 0
    }
}

fn endpoint_of(letter: &proto::DeadRange) -> Option<EndpointId> {
    let id = <[u8; 16]>::try_from(letter.endpoint_id.as_ref()).ok()?;
    Some(EndpointId::from_bytes(id))
}

/// Where in the lane an endpoint's held deliveries stand that were given up at
/// once in some time.
///
/// # Errors
/// When there are more letters, of whomever, or more stretches than one operation
/// can be about.
pub(in crate::api) async fn in_lane(
    api: &Api,
    endpoint: EndpointId,
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<Range>, Problem> {
    let wanted = Wanted {
        endpoint: Some(endpoint),
        since: Some(since),
        until: Some(until),
        ..Wanted::default()
    };
    let (log, topic) = (&*api.log, api.config.topics.dead());
    let (only, from, now) = (wanted.partition(), wanted.read_from(), api.clock.now());
    let mut rest = Some(Cursor::open(log, &topic, now, only, from).await?);
    let (mut buried, mut lane) = (Buried::default(), Lane::of(api));
    for _ in 0..DEAD_PAGES_MAX {
        let Some(cursor) = rest.take() else { break };
        let mut scan = Scan::from(log, &topic, cursor).await?;
        while !buried.is_full()
            && let Some(letter) = scan.next().await?
        {
            if let Told::Many(many) = &letter.told
                && wanted.matches(&letter.told)
                && lane.kept(many).await? > 0
            {
                buried.add(many);
            }
        }
        rest = scan.rest();
    }
    if rest.is_some() {
        let wanted = "more was given up since than is looked through at once: expected a shorter \
                      time, or `POST /v1/dead_letters/redrive`, which goes on page by page";
        return Err(Problem::invalid("since", wanted));
    }
    Ok(buried.ranges(&api.config.topics.lane()))
}
