//! What an owner thinks of an endpoint: its gate, and whether it is past hope.

use std::time::Duration;

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::line::Line;
use super::{Action, DisableReason, Notice, NoticeKind, Owner, Standing};
use crate::breaker::Sign;
use crate::gate::{Gate, GateState};
use crate::id::EndpointId;
use crate::lane::settings::Settings;
use crate::limits::{DISABLE_FAILURES_MIN, DISABLE_SPAN_MIN, EXPIRE_EVERY, GATE_DWELL};
use crate::outcome::Cause;
use crate::time::Timestamp;

/// Failures since the last sign of life.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Health {
    failures: u32,
    first: Timestamp,
    last: Timestamp,
}

impl Health {
    pub(super) fn note(&mut self, sign: Sign, now: Timestamp) {
        match sign {
            Sign::Alive => *self = Self::default(),
            Sign::Failing => {
                if self.failures == 0 {
                    self.first = now;
                }
                self.failures = self.failures.saturating_add(1);
                self.last = now;
            }
            Sign::Unknown => {}
        }
    }

    /// Nothing but failures, for long, and not seen by chance.
    pub(super) fn is_hopeless(&self, after: Duration, now: Timestamp) -> bool {
        self.failures >= DISABLE_FAILURES_MIN
            && now.since(self.first) >= after
            && self.last.since(self.first) >= DISABLE_SPAN_MIN
    }

    pub(super) fn is_well(&self) -> bool {
        self.failures == 0
    }

    pub(super) fn restore(standing: &proto::snapshot::Standing) -> Self {
        Self {
            failures: standing.failures,
            first: Timestamp::from_millis(standing.failing_since_ms),
            last: Timestamp::from_millis(standing.last_failure_ms),
        }
    }

    pub(super) fn save(&self) -> proto::snapshot::Standing {
        proto::snapshot::Standing {
            failures: self.failures,
            failing_since_ms: self.first.as_millis(),
            last_failure_ms: self.last.as_millis(),
            ..Default::default()
        }
    }
}

impl Owner {
    /// A retry in the lane is an attempt that failed elsewhere; of those read
    /// while catching up, nobody knows when.
    pub(super) fn failed_elsewhere(&mut self, endpoint: EndpointId, value: &Bytes, now: Timestamp) {
        if !self.ready {
            return;
        }
        let Ok(record) = proto::DeliverHead::from_value(value) else {
            return;
        };
        if record.reason() != proto::Reason::Retry || sign_of(&record) != Sign::Failing {
            return;
        }
        self.touch(endpoint);
        if let Some(line) = self.lines.get_mut(&endpoint) {
            line.breaker.failed_elsewhere(now, &mut self.rng);
            line.health.note(Sign::Failing, now);
        }
    }

    pub(super) fn disable(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        reason: DisableReason,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        // Once is enough, unless it came to nothing.
        if line
            .disabling
            .is_some_and(|since| now.since(since) < EXPIRE_EVERY)
        {
            return;
        }
        line.disabling = Some(now);
        line.health = Health::default();
        actions.push(Action::Disable { endpoint, reason });
        actions.push(Action::Notify(Notice {
            endpoint,
            at: now,
            kind: NoticeKind::Disabled(reason),
        }));
    }

    /// Publishes the gate as it should be, no sooner than it may change. Answers
    /// when to look again.
    pub(super) fn gate(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        settings: &Settings,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Option<Timestamp> {
        let active = settings.standing == Standing::Active;
        let (published, at) = settings.gate;
        if !active || published == GateState::Paused {
            return None;
        }
        // What others see can be newer than what we published: an operator's.
        let (is, since) = match line.gate {
            Some((state, since)) if since >= at => (state, since),
            _ => (published, at),
        };
        let down = !line.breaker.is_closed();
        let behind = self.owes(endpoint);
        let held = down || (settings.fifo && is == GateState::Held && behind);
        let wanted = if held {
            GateState::Held
        } else {
            GateState::Open
        };
        if wanted == is {
            return None;
        }
        let at = since.after(GATE_DWELL);
        if now < at {
            return Some(at);
        }
        line.gate = Some((wanted, now));
        if wanted == GateState::Held
            && let Some(since) = line.breaker.down_since()
        {
            actions.push(Action::Notify(Notice {
                endpoint,
                at: now,
                kind: NoticeKind::Down { since },
            }));
        }
        let reason = match (wanted, down) {
            (GateState::Open, _) | (_, false) => "",
            (_, true) => "the endpoint fails",
        };
        actions.push(Action::Gate {
            endpoint,
            gate: Gate {
                state: wanted,
                reason: reason.to_owned(),
                owner_epoch: self.claimed.unwrap_or(0),
                at: now,
            },
        });
        None
    }
}

/// What a failed first attempt says about its receiver, as [`Sign::of`] would.
fn sign_of(record: &proto::DeliverHead) -> Sign {
    const OURS: [Cause; 3] = [
        Cause::BlockedAddress,
        Cause::InvalidEndpoint,
        Cause::EgressError,
    ];
    const ALIVE: [Cause; 2] = [Cause::RateLimited, Cause::Gone];
    let is = |cause: &Cause| cause.code() == record.last_cause;
    if OURS.iter().any(is) {
        Sign::Unknown
    } else if ALIVE.iter().any(is) {
        Sign::Alive
    } else {
        Sign::Failing
    }
}
