//! What an owner has to know of an endpoint.

use std::time::Duration;

use crate::gate::GateState;
use crate::id::EndpointId;
use crate::limits::{DISABLE_AFTER, OWNER_OUTSTANDING};
use crate::registry::Registry;
use crate::retry::Rules;
use crate::time::Timestamp;

/// Whether an endpoint takes deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not heard of yet. Whoever wrote to its lane knew it: the table is not
    /// read as far.
    Unknown,
    /// It does.
    Active,
    /// Not now, for an operator holds it: what is owed stays owed, and what
    /// comes is held.
    Paused,
    /// Not now: what is owed stays owed.
    Disabled,
    /// Never again: what is owed is cancelled.
    Deleted,
}

/// What an owner has to know of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether it takes deliveries.
    pub standing: Standing,
    /// One attempt at a time per ordering key, in the order of the lane.
    pub ordered: bool,
    /// After an outage the backlog goes before first attempts.
    pub fifo: bool,
    /// Attempts at once.
    pub in_flight: u32,
    /// After how long of nothing but failures it is disabled; `None` for never.
    pub disable_after: Option<Duration>,
    /// What is published of its gate, and since when.
    pub gate: (GateState, Timestamp),
}

impl Settings {
    /// How many of its deliveries its shard has at once.
    pub fn outstanding(&self) -> usize {
        let twice = usize::try_from(self.in_flight).unwrap_or(0) * 2;
        twice.max(OWNER_OUTSTANDING)
    }
}

/// Where settings are looked up.
pub trait Endpoints: std::fmt::Debug + Send + Sync {
    /// Of one endpoint, as they are now.
    fn settings(&self, endpoint: EndpointId) -> Settings;

    /// What follows its failures; the standard where nothing else is known.
    fn rules(&self, _: EndpointId) -> Rules<'_> {
        Rules::STANDARD
    }
}

impl Endpoints for Registry {
    fn rules(&self, endpoint: EndpointId) -> Rules<'_> {
        let known = self.index(endpoint);
        known.map_or(Rules::STANDARD, |ix| Self::rules(self, ix))
    }

    fn settings(&self, endpoint: EndpointId) -> Settings {
        let Some(ix) = self.index(endpoint) else {
            return Settings {
                standing: Standing::Unknown,
                ordered: false,
                fifo: false,
                in_flight: 1,
                disable_after: Some(DISABLE_AFTER),
                gate: (GateState::Open, Timestamp::default()),
            };
        };
        let found = self.endpoint(ix);
        let gate = self.gate(ix);
        Settings {
            standing: match found {
                None => Standing::Deleted,
                Some(found) if found.disabled => Standing::Disabled,
                Some(found) if found.paused => Standing::Paused,
                Some(_) => Standing::Active,
            },
            ordered: found.is_some_and(|found| found.ordered),
            fifo: found.is_some_and(|found| found.fifo || found.ordered),
            in_flight: found.map_or(1, |found| found.max_in_flight),
            disable_after: found.map_or(Some(DISABLE_AFTER), |found| found.disable_after),
            gate: (gate.state, gate.at),
        }
    }
}
