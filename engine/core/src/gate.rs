//! Whether an endpoint takes first attempts now.
//!
//! Its owner decides, for all instances, and publishes it in the endpoints
//! table: whoever reads anything but [`GateState::Open`] there writes deliveries
//! to the lane instead of attempting them. Of two gates the one with the higher
//! owner epoch stands, so an owner that was replaced cannot flap it.

use posthaste_proto as proto;
use proto::gate::State;

use crate::id::EndpointId;
use crate::time::Timestamp;

/// Whether first attempts may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GateState {
    /// They may.
    #[default]
    Open,
    /// The endpoint takes nothing, or has to catch up first: deliveries wait in
    /// the lane.
    Held,
    /// An operator holds the endpoint, whatever its owner says: the same, and
    /// its owner starts nothing either.
    Paused,
}

/// What the endpoints table says about one endpoint's gate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gate {
    /// Whether first attempts may be made.
    pub state: GateState,
    /// Why, for people.
    pub reason: String,
    /// Of the owner that wrote it.
    pub owner_epoch: u64,
    /// When.
    pub at: Timestamp,
}

impl Gate {
    /// What stands where nobody wrote any.
    pub const OPEN: Self = Self {
        state: GateState::Open,
        reason: String::new(),
        owner_epoch: 0,
        at: Timestamp::from_millis(0),
    };

    /// What stands for an endpoint that is paused.
    pub const PAUSED: Self = Self {
        state: GateState::Paused,
        reason: String::new(),
        owner_epoch: 0,
        at: Timestamp::from_millis(0),
    };

    /// From its record. A state of a newer version holds: what is owed waits in
    /// the lane, where it is safe.
    pub fn from_proto(record: proto::Gate) -> Self {
        Self {
            state: match record.state() {
                State::Open => GateState::Open,
                State::Held | State::Unspecified => GateState::Held,
                State::Paused => GateState::Paused,
            },
            reason: record.reason,
            owner_epoch: record.owner_epoch,
            at: Timestamp::from_millis(record.at_ms),
        }
    }

    /// As its record.
    pub fn to_proto(&self, endpoint: EndpointId) -> proto::Gate {
        let state = match self.state {
            GateState::Open => State::Open,
            GateState::Held => State::Held,
            GateState::Paused => State::Paused,
        };
        proto::Gate {
            endpoint_id: endpoint.as_bytes().to_vec().into(),
            state: state.into(),
            reason: self.reason.clone(),
            owner_epoch: self.owner_epoch,
            at_ms: self.at.as_millis(),
        }
    }

    /// The one of the two that stands, `self` having been read first.
    pub fn then(self, later: Self) -> Self {
        if later.owner_epoch >= self.owner_epoch {
            later
        } else {
            self
        }
    }
}
