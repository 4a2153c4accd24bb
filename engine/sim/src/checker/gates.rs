//! Gates: who closed them, and that nobody sends past them.

use posthaste_core::delivery::Room;
use posthaste_core::limits::QUEUE_WAIT_MAX;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use proto::gate::State;

use super::{Checker, Rule, Start, sources};
use crate::seen::Seen;

/// What waits in a shard when an operator pauses its endpoint may begin for so
/// long: then the shard moves on what waits, every 100 ms.
pub(super) const QUEUED_MS: u64 = QUEUE_WAIT_MAX.as_secs() * 1_000 + 200;

/// One endpoint's gate, as it went.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Where in the table it became what, by whom, and when.
    turns: Vec<Turn>,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    offset: u64,
    state: State,
    owner_epoch: u64,
    at_ms: u64,
}

impl Gate {
    /// Of two the one of the higher epoch stands.
    fn turn(&mut self, record: &proto::Gate, offset: u64, at_ms: u64) {
        if record.owner_epoch >= self.epoch() {
            self.turns.push(Turn {
                offset,
                state: record.state(),
                owner_epoch: record.owner_epoch,
                at_ms,
            });
        }
    }

    /// The epoch of the one that stands.
    pub(super) fn epoch(&self) -> u64 {
        self.turns.last().map_or(0, |turn| turn.owner_epoch)
    }

    /// What one sees who read the table up to there.
    fn seen_from(&self, table_next: u64) -> Option<Turn> {
        let read = self.turns.iter().rev();
        read.copied().find(|turn| turn.offset < table_next)
    }
}

impl Checker {
    /// The epoch of the gate that stands.
    pub fn gate_epoch(&self, endpoint: usize) -> u64 {
        self.gates[endpoint].epoch()
    }

    /// First attempts begin only through an open gate as the node sees it; an
    /// owner's not long after an operator paused it.
    pub(super) fn through_gate(&mut self, start: &Start<'_>) {
        let Some(turn) = self.gates[start.endpoint].seen_from(start.table_next) else {
            return;
        };
        let first = start.delivery.ticket.room == Room::Ingest;
        let late = self.now_ms > turn.at_ms.max(start.table_at_ms) + QUEUED_MS + self.stands_ms;
        let barred = match turn.state {
            State::Open => false,
            State::Held => first,
            State::Paused | State::Unspecified => first || late,
        };
        if barred {
            let found = format!(
                "to endpoint {} though its gate was read as {:?}",
                start.endpoint, turn.state
            );
            self.broken(Rule::GateHolds, found);
        }
    }

    /// An owner writes a gate, having read its partition up to there.
    pub fn gate_written(&mut self, record: &proto::Gate, (partition, read_to): (usize, u64)) {
        let endpoint = sources::endpoint_number(&record.endpoint_id).unwrap_or(usize::MAX);
        if record.state() != State::Open || !self.sources.is_fifo(endpoint) {
            return;
        }
        if let Some(offset) = self.lanes[partition].owes(endpoint, read_to) {
            let found =
                format!("endpoint {endpoint} is opened while lane {partition}/{offset} waits");
            self.broken(Rule::FifoDrains, found);
        } else {
            self.seen.note(Seen::FifoOpened);
        }
    }

    /// The endpoints table has a new record, of a node or an operator.
    pub fn table_stored(&mut self, value: &bytes::Bytes, offset: u64) {
        if let Ok(gate) = proto::Gate::from_value(value) {
            let endpoint = sources::endpoint_number(&gate.endpoint_id).unwrap_or(usize::MAX);
            let now_ms = self.now_ms;
            return self.gates[endpoint].turn(&gate, offset, now_ms);
        }
        if let Ok(told) = proto::OperationProgress::from_value(value) {
            if let Err((rule, found)) = self.replays.told(told) {
                self.broken(rule, found);
            }
            return;
        }
        let Ok(record) = proto::Endpoint::from_value(value) else {
            return;
        };
        self.seen.note(Seen::AutoDisabled);
        let endpoint = sources::endpoint_number(&record.id).unwrap_or(usize::MAX);
        let reason = record.disabled_reason.as_str();
        if !record.disabled || !self.sources.may_disable(endpoint, reason, self.now_ms) {
            let found = format!("endpoint {endpoint} is written as disabled: `{reason}`");
            self.broken(Rule::FactsTrue, found);
        }
        let disabled = crate::plan::ChangeKind::Disable;
        self.sources.changed(endpoint, disabled, offset);
    }
}
