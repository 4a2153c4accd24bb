//! One core's endpoints: many queues, taking turns.
//!
//! ```text
//!  offer(delivery) -> started | queued | refused (blocked) | sent to the lane
//!  finished(delivery, outcome) -> Close | Append | Report, then the next Send
//! ```
//!
//! A shard never waits and never fails: it answers with [`Action`]s. What it
//! refuses to do: hold a delivery longer than [`limits::QUEUE_WAIT_MAX`], start
//! one past a window or a budget, or settle one whose record is not yet
//! acknowledged.
//!
//! When a queue is full the shard must choose between stopping intake and
//! paying for a lane record. It stops intake only while nobody is *hungry*,
//! that is, while no endpoint with recent traffic stands idle for want of
//! intake: then everybody is busy and waiting hurts no one. Otherwise the
//! endpoint that cannot keep up goes to the lane.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use crate::delivery::{Delivery, Report, ReportEnd, Room, Ticket, Waiting, lane_record};
use crate::id::EndpointId;
use crate::limits::{SHARD_IN_FLIGHT_MAX, SHARD_QUEUED_MAX, SHARD_UNACKED_BYTES_MAX};
use crate::outcome::{Outcome, Verdict};
use crate::queue::Queue;
use crate::registry::{EndpointIx, Registry};
use crate::retry::{Decision, GiveUpCause, Policy};
use crate::rng::Rng;
use crate::time::Timestamp;

/// What a shard wants done.
#[derive(Debug)]
pub enum Action {
    /// Make an attempt, then call [`Shard::finished`].
    Send(Delivery),
    /// Append, and once the log has acknowledged it, close the ticket and call
    /// [`Shard::acknowledged`]. Never give up.
    Append(Append),
    /// The source position is settled.
    Close(Ticket),
    /// Tell the owner.
    Report(Report),
}

/// A record that settles a delivery once the log has it.
#[derive(Debug)]
pub struct Append {
    /// Lane or dead letters.
    pub kind: AppendKind,
    /// The endpoint: key and partition follow from it.
    pub endpoint: EndpointId,
    /// The record's value.
    pub value: Bytes,
    /// Closed on acknowledgement.
    pub ticket: Ticket,
    /// Bytes to give to [`Shard::acknowledged`] then.
    pub charge: usize,
}

/// Which of our topics a record goes to, and why, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendKind {
    /// The lane.
    Lane(proto::Reason),
    /// Dead letters.
    Dead(proto::DeadCause),
}

/// The state of one shard.
#[derive(Debug)]
pub struct Shard {
    registry: Arc<Registry>,
    policy: Policy,
    rng: Rng,
    queues: Vec<Option<Box<Queue>>>,
    ring: VecDeque<EndpointIx>,
    queued: usize,
    in_flight: usize,
    unacked_bytes: usize,
    hunger: Hunger,
}

/// Whether somebody is hungry, looked up at most every few milliseconds.
#[derive(Debug, Default)]
struct Hunger {
    found: bool,
    at: Timestamp,
}

impl Shard {
    /// An empty shard.
    pub fn new(registry: Arc<Registry>, policy: Policy, rng: Rng) -> Self {
        Self {
            registry,
            policy,
            rng,
            queues: Vec::new(),
            ring: VecDeque::new(),
            queued: 0,
            in_flight: 0,
            unacked_bytes: 0,
            hunger: Hunger::default(),
        }
    }

    /// The endpoints changed. What waits follows the new settings.
    pub fn set_registry(&mut self, registry: Arc<Registry>) {
        self.registry = registry;
    }

    /// The endpoints as this shard sees them.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Takes a delivery in: starts it, queues it, sends it to the lane or
    /// bounces it. Gives it back when the caller should stop intake and offer
    /// it again later. `others_hungry`: some other shard has a hungry endpoint.
    #[expect(
        clippy::result_large_err,
        reason = "the error is the delivery, given back: a box would cost every blocked offer an \
                  allocation"
    )]
    pub fn offer(
        &mut self,
        delivery: Delivery,
        now: Timestamp,
        others_hungry: bool,
        actions: &mut Vec<Action>,
    ) -> Result<(), Delivery> {
        let Some(endpoint) = self.registry.endpoint(delivery.endpoint) else {
            self.cancel(delivery, actions);
            return Ok(());
        };
        if endpoint.disabled {
            self.cancel(delivery, actions);
            return Ok(());
        }
        if endpoint.owned && delivery.ticket.room == Room::Ingest {
            self.put_in_lane(delivery, proto::Reason::Owned, now, actions);
            return Ok(());
        }
        let shard_full = self.queued >= SHARD_QUEUED_MAX;
        let ix = delivery.endpoint;
        let queue = self.queue(ix);
        queue.arrived(now);
        if queue.has_room(shard_full) {
            queue.push(delivery, now);
            self.queued += 1;
            self.enter_ring(ix);
            self.turn(actions);
            return Ok(());
        }
        if delivery.ticket.room == Room::Ingest && !others_hungry && !self.somebody_is_hungry(now) {
            return Err(delivery);
        }
        self.overflow(delivery, now, actions);
        Ok(())
    }

    /// An attempt ended.
    pub fn finished(
        &mut self,
        delivery: Delivery,
        outcome: Outcome,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let ix = delivery.endpoint;
        self.queue(ix).finish();
        self.in_flight -= 1;
        self.settle(delivery, outcome, now, actions);
        self.enter_ring(ix);
        self.turn(actions);
    }

    /// The log acknowledged records of so many bytes.
    pub fn acknowledged(&mut self, bytes: usize, actions: &mut Vec<Action>) {
        assert!(
            bytes <= self.unacked_bytes,
            "more acknowledged than written"
        );
        self.unacked_bytes -= bytes;
        self.turn(actions);
    }

    /// Moves on what has waited too long. Call it about every 100 ms.
    pub fn sweep(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for place in 0..self.queues.len() {
            while let Some(stale) = self.queues[place]
                .as_mut()
                .and_then(|queue| queue.pop_stale(now))
            {
                self.queued -= 1;
                self.overflow(stale, now, actions);
            }
        }
    }

    /// Sends everything that waits to the lane, or back to its owner: the
    /// process stops and takes nothing new.
    pub fn evacuate(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for place in 0..self.queues.len() {
            while let Some(waiting) = self.queues[place].as_mut().and_then(|queue| queue.pop()) {
                self.queued -= 1;
                self.refuse(waiting, now, actions);
            }
        }
    }

    /// Sends one delivery that was never taken in to the lane, or back to its
    /// owner: the process stops.
    pub fn refuse(&mut self, delivery: Delivery, now: Timestamp, actions: &mut Vec<Action>) {
        self.aside(delivery, proto::Reason::Drain, now, actions);
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries waiting.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes of records not yet acknowledged.
    pub fn unacked_bytes(&self) -> usize {
        self.unacked_bytes
    }

    /// Whether an endpoint with recent traffic stands idle for want of intake.
    pub fn somebody_is_hungry(&mut self, now: Timestamp) -> bool {
        if now.since(self.hunger.at).as_millis() >= 5 || self.hunger.at == Timestamp::default() {
            let registry = &self.registry;
            let found = self.queues.iter().enumerate().any(|(place, queue)| {
                let window = index(place).and_then(|ix| registry.endpoint(ix));
                let window = window.map_or(0, |endpoint| endpoint.max_in_flight);
                queue.as_ref().is_some_and(|q| q.is_hungry(window, now))
            });
            self.hunger = Hunger { found, at: now };
        }
        self.hunger.found
    }

    /// Starts what may start, one of each endpoint in turn.
    fn turn(&mut self, actions: &mut Vec<Action>) {
        while self.in_flight < SHARD_IN_FLIGHT_MAX && self.unacked_bytes < SHARD_UNACKED_BYTES_MAX {
            let Some(ix) = self.ring.pop_front() else {
                return;
            };
            self.queue(ix).leave_ring();
            match self.registry.endpoint(ix).filter(|e| !e.disabled) {
                Some(endpoint) => {
                    let window = endpoint.max_in_flight;
                    self.start_one(ix, window, actions);
                }
                None => self.cancel_queue(ix, actions),
            }
        }
    }

    fn start_one(&mut self, ix: EndpointIx, window: u32, actions: &mut Vec<Action>) {
        let queue = self.queue(ix);
        if !queue.is_ready(window) {
            return;
        }
        if let Some(delivery) = queue.start() {
            self.queued -= 1;
            self.in_flight += 1;
            actions.push(Action::Send(delivery));
        }
        self.enter_ring(ix);
    }

    fn enter_ring(&mut self, ix: EndpointIx) {
        let queue = self.queue(ix);
        if !queue.is_empty() && queue.enter_ring() {
            self.ring.push_back(ix);
        }
    }

    fn settle(
        &mut self,
        delivery: Delivery,
        outcome: Outcome,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        if delivery.ticket.room == Room::Owner {
            actions.push(Action::Report(Report {
                ticket: delivery.ticket,
                end: ReportEnd::Attempted(outcome),
            }));
            return;
        }
        if outcome.verdict == Verdict::Delivered {
            actions.push(Action::Close(delivery.ticket));
            return;
        }
        let attempts = delivery.attempts + 1;
        let deadline = now.after(crate::limits::DELIVERY_AGE_MAX);
        let decision = self
            .policy
            .decide(attempts, &outcome, now, deadline, &mut self.rng);
        match decision {
            Decision::RetryAt(due) => {
                let waiting = Waiting {
                    reason: proto::Reason::Retry,
                    attempts,
                    first_at: now,
                    due: Some(due),
                };
                self.append_lane(delivery, waiting, Some(&outcome), actions);
            }
            Decision::GiveUp(cause) => {
                self.append_dead(delivery, cause, &outcome, now, actions);
            }
        }
    }

    /// No room for it here and now.
    fn overflow(&mut self, delivery: Delivery, now: Timestamp, actions: &mut Vec<Action>) {
        self.aside(delivery, proto::Reason::Overflow, now, actions);
    }

    /// To the lane if it came from the source, back if it came from the lane.
    fn aside(
        &mut self,
        delivery: Delivery,
        reason: proto::Reason,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        match delivery.ticket.room {
            Room::Ingest => self.put_in_lane(delivery, reason, now, actions),
            Room::Owner => actions.push(Action::Report(Report {
                ticket: delivery.ticket,
                end: ReportEnd::Bounced,
            })),
        }
    }

    fn put_in_lane(
        &mut self,
        delivery: Delivery,
        reason: proto::Reason,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let waiting = Waiting {
            reason,
            attempts: delivery.attempts,
            first_at: now,
            due: None,
        };
        self.append_lane(delivery, waiting, None, actions);
    }

    fn append_lane(
        &mut self,
        delivery: Delivery,
        waiting: Waiting,
        last: Option<&Outcome>,
        actions: &mut Vec<Action>,
    ) {
        let Some(endpoint) = self.registry.id(delivery.endpoint) else {
            unreachable!("an index is never taken back");
        };
        let record = lane_record(&delivery.event, endpoint, waiting, last);
        self.append(
            AppendKind::Lane(waiting.reason),
            endpoint,
            record.to_value(),
            delivery.ticket,
            actions,
        );
    }

    fn append_dead(
        &mut self,
        delivery: Delivery,
        cause: GiveUpCause,
        outcome: &Outcome,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(endpoint) = self.registry.id(delivery.endpoint) else {
            unreachable!("an index is never taken back");
        };
        let waiting = Waiting {
            reason: proto::Reason::Retry,
            attempts: delivery.attempts + 1,
            first_at: now,
            due: None,
        };
        let record = lane_record(&delivery.event, endpoint, waiting, Some(outcome));
        let dead = dead_letter(record, cause, now);
        let kind = AppendKind::Dead(cause.into());
        self.append(kind, endpoint, dead.to_value(), delivery.ticket, actions);
    }

    fn append(
        &mut self,
        kind: AppendKind,
        endpoint: EndpointId,
        value: Bytes,
        ticket: Ticket,
        actions: &mut Vec<Action>,
    ) {
        let charge = value.len();
        self.unacked_bytes += charge;
        actions.push(Action::Append(Append {
            kind,
            endpoint,
            value,
            ticket,
            charge,
        }));
    }

    /// The endpoint takes no deliveries any more.
    fn cancel(&self, delivery: Delivery, actions: &mut Vec<Action>) {
        actions.push(match delivery.ticket.room {
            Room::Ingest => Action::Close(delivery.ticket),
            Room::Owner => Action::Report(Report {
                ticket: delivery.ticket,
                end: ReportEnd::Cancelled,
            }),
        });
    }

    fn cancel_queue(&mut self, ix: EndpointIx, actions: &mut Vec<Action>) {
        while let Some(delivery) = self.queue(ix).pop() {
            self.queued -= 1;
            self.cancel(delivery, actions);
        }
    }

    fn queue(&mut self, ix: EndpointIx) -> &mut Queue {
        let place = usize::try_from(ix.0).expect("an index fits the address space");
        if place >= self.queues.len() {
            self.queues.resize_with(place + 1, || None);
        }
        self.queues[place].get_or_insert_default()
    }
}

fn index(place: usize) -> Option<EndpointIx> {
    u32::try_from(place).ok().map(EndpointIx)
}

/// The dead letter of a delivery that is given up.
pub fn dead_letter(record: proto::Deliver, cause: GiveUpCause, now: Timestamp) -> proto::Dead {
    proto::Dead {
        cause: proto::DeadCause::from(cause).into(),
        detail: cause.text().to_owned(),
        origin: record.origin.clone(),
        delivery: Some(record),
        record: Bytes::new(),
        at_ms: now.as_millis(),
    }
}

impl From<GiveUpCause> for proto::DeadCause {
    fn from(cause: GiveUpCause) -> Self {
        match cause {
            GiveUpCause::Exhausted => Self::Exhausted,
            GiveUpCause::Expired => Self::Expired,
            GiveUpCause::Gone => Self::Gone,
        }
    }
}

#[cfg(test)]
mod tests;
