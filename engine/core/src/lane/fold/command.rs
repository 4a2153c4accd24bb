//! What an operator's command does to the state, where it is read.

use posthaste_proto as proto;
use posthaste_proto::RecordError;
use proto::command::Kind;

use super::{Change, Fold, bytes16};
use crate::id::EndpointId;
use crate::limits::COMMANDS_REMEMBERED_MAX;
use crate::time::Timestamp;

/// A command that took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commanded {
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// What was asked for.
    pub kind: Kind,
    /// Deliveries it cancelled or made due.
    pub count: u64,
}

impl Fold {
    /// A command whose id took effect before does nothing, nor does one of a
    /// kind that this version does not know.
    pub(super) fn command(
        &mut self,
        offset: u64,
        record: &proto::Command,
    ) -> Result<Change, RecordError> {
        let id = bytes16(&record.id)?;
        let endpoint = EndpointId::from_bytes(bytes16(&record.endpoint_id)?);
        if !self.remember(id, 0) {
            return Ok(Change::Nothing);
        }
        let listed = (!record.offsets.is_empty()).then_some(&record.offsets);
        let kind = record.kind();
        let count = match (kind, listed) {
            (Kind::Cancel, Some(offsets)) => self.cancel_listed(endpoint, offsets),
            (Kind::Cancel, None) => self.cancel_before(endpoint, offset),
            (Kind::SkipTo, _) => self.cancel_before(endpoint, record.before.min(offset)),
            (Kind::RetryNow, listed) => {
                self.make_due(endpoint, listed, Timestamp::from_millis(record.at_ms))
            }
            (Kind::Probe, _) => 0,
            (Kind::Unspecified, _) => return Ok(Change::Nothing),
        };
        self.counts.insert(id, count);
        Ok(Change::Commanded(Commanded {
            endpoint,
            kind,
            count,
        }))
    }

    /// Answers whether the id is new.
    pub(in crate::lane) fn remember(&mut self, id: [u8; 16], count: u64) -> bool {
        if self.counts.contains_key(&id) {
            return false;
        }
        self.counts.insert(id, count);
        self.commands.push_back(id);
        if self.commands.len() > COMMANDS_REMEMBERED_MAX
            && let Some(oldest) = self.commands.pop_front()
        {
            self.counts.remove(&oldest);
        }
        true
    }

    /// Ids of commands that took effect, the oldest first.
    pub(in crate::lane) fn commands(&self) -> impl Iterator<Item = &[u8; 16]> {
        self.commands.iter()
    }

    /// What a command came to; `None` where none of this id took effect, or so
    /// many others did since.
    pub fn commanded(&self, id: &[u8; 16]) -> Option<u64> {
        self.counts.get(id).copied()
    }

    fn cancel_listed(&mut self, endpoint: EndpointId, offsets: &[u64]) -> u64 {
        let mut count = 0;
        for &offset in offsets {
            let settled = match self.timers.get(offset) {
                Some(owed) if owed.endpoint == endpoint => self.settle_timer(offset).is_some(),
                Some(_) => false,
                None => self.take_held(endpoint, offset),
            };
            count += u64::from(settled);
        }
        count
    }

    fn cancel_before(&mut self, endpoint: EndpointId, before: u64) -> u64 {
        let timers = self.offsets_of(endpoint);
        let mut count = 0;
        for offset in timers.into_iter().filter(|&offset| offset < before) {
            count += u64::from(self.settle_timer(offset).is_some());
        }
        // How many of the held ones lie below, only the records know: all, where
        // nothing is left.
        let Some(hold) = self.holds.get(&endpoint) else {
            return count;
        };
        if before > hold.last() {
            count += hold.count();
        }
        self.pass(endpoint, before, 0);
        count
    }

    fn make_due(&mut self, endpoint: EndpointId, listed: Option<&Vec<u64>>, at: Timestamp) -> u64 {
        let offsets = listed.map_or_else(|| self.offsets_of(endpoint), Clone::clone);
        let mut count = 0;
        for offset in offsets {
            if let Some(owed) = self.timers.get(offset)
                && owed.endpoint == endpoint
                && owed.due > at
            {
                self.timers.hasten(offset, at);
                count += 1;
            }
        }
        count
    }

    fn offsets_of(&self, endpoint: EndpointId) -> Vec<u64> {
        if self.timers.count(endpoint) == 0 {
            return Vec::new();
        }
        self.timers
            .iter()
            .filter(|(_, owed)| owed.endpoint == endpoint)
            .map(|(offset, _)| offset)
            .collect()
    }
}
