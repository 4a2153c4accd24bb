//! One core's endpoints: many queues, taking turns.
//!
//! ```text
//!  offer(delivery) -> started | queued | refused (blocked) | sent to the lane
//!  finished(delivery, outcome) -> Close | Append | Report, then the next Send
//! ```
//!
//! A shard never waits and never fails: it answers with [`Action`]s. What it
//! refuses to do: hold a delivery longer than [`limits::QUEUE_WAIT_MAX`] while
//! the log takes records, start one past a window or a budget, or settle one
//! whose record is not yet acknowledged.
//!
//! [`limits::QUEUE_WAIT_MAX`]: crate::limits::QUEUE_WAIT_MAX
//!
//! When a queue is full the shard must choose between stopping intake and
//! paying for a lane record. Stopping hurts no one while everybody is busy; it
//! hurts the *hungry*: endpoints with recent traffic that stand idle for want of
//! intake. So the shard stops intake as long as its patience lasts, which
//! the hungry use up. Then the endpoint that held intake up is *slow*: until it
//! has caught up, or for a second, it may queue only a fair few, and the rest
//! goes to the lane at once.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_proto as proto;

use crate::delivery::{Delivery, Report, Room, Ticket};
use crate::id::EndpointId;
use crate::limits::{SHARD_IN_FLIGHT_MAX, SHARD_QUEUED_MAX, SHARD_UNACKED_BYTES_MAX};
use crate::outcome::Outcome;
use crate::queue::Queue;
use crate::registry::{EndpointIx, Registry};
use crate::retry::Policies;
use crate::rng::Rng;
use crate::time::Timestamp;

mod pace;
mod patience;
mod settle;
#[cfg(test)]
mod tests;

use pace::Pace;
use patience::{Hunger, Patience};
pub use settle::dead_letter;

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
    policies: Arc<Policies>,
    rng: Rng,
    queues: Vec<Option<Box<Queue>>>,
    ring: VecDeque<EndpointIx>,
    queued: usize,
    in_flight: usize,
    pace: Pace,
    unacked_bytes: usize,
    hunger: Hunger,
    patience: Patience,
    /// When something was last taken in.
    taken_at: Timestamp,
}

impl Shard {
    /// An empty shard.
    pub fn new(registry: Arc<Registry>, policies: Arc<Policies>, rng: Rng) -> Self {
        Self {
            registry,
            policies,
            rng,
            queues: Vec::new(),
            ring: VecDeque::new(),
            queued: 0,
            in_flight: 0,
            pace: Pace::default(),
            unacked_bytes: 0,
            hunger: Hunger::default(),
            patience: Patience::default(),
            taken_at: Timestamp::default(),
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
        let from_source = delivery.ticket.room == Room::Ingest;
        if endpoint.owned && from_source {
            if self.log_lags() {
                return Err(delivery);
            }
            self.taken(now);
            self.put_in_lane(delivery, proto::Reason::Owned, now, actions);
            return Ok(());
        }
        let ix = delivery.endpoint;
        let shard_full = self.queued >= SHARD_QUEUED_MAX;
        let queue = self.queue(ix);
        queue.arrived(now);
        let slow = from_source && queue.is_slow(now);
        if queue.has_room(shard_full || slow) {
            queue.push(delivery, now);
            self.queued += 1;
            self.taken(now);
            self.enter_ring(ix);
            self.turn(now, actions);
            return Ok(());
        }
        if from_source {
            if self.log_lags() || !slow && self.may_wait(now, others_hungry) {
                return Err(delivery);
            }
            self.queue(ix).mark_slow(now);
            self.taken(now);
        }
        self.overflow(delivery, now, actions);
        Ok(())
    }

    fn taken(&mut self, now: Timestamp) {
        self.taken_at = now;
        self.patience.go_on(now);
    }

    /// Whether intake may wait for a full queue.
    fn may_wait(&mut self, now: Timestamp, others_hungry: bool) -> bool {
        let mut hunger = self.hunger(now);
        if others_hungry {
            // How many they are is not known here.
            hunger = hunger.or(Hunger::new(1, 2, now));
        }
        self.patience.may_wait(now, hunger)
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
        let answered = outcome.status.is_some();
        if answered {
            self.queue(ix).answered(now.since(delivery.started));
        }
        self.pace.end(delivery.started, answered, now);
        self.settle(delivery, outcome, now, actions);
        self.enter_ring(ix);
        self.turn(now, actions);
    }

    /// The log acknowledged records of so many bytes.
    pub fn acknowledged(&mut self, bytes: usize, now: Timestamp, actions: &mut Vec<Action>) {
        assert!(
            bytes <= self.unacked_bytes,
            "more acknowledged than written"
        );
        self.unacked_bytes -= bytes;
        self.turn(now, actions);
    }

    /// Starts what may start now that attempts in flight have grown older. Call
    /// it every few milliseconds.
    pub fn tick(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.turn(now, actions);
    }

    /// Moves on what has waited too long, unless the log lags behind, and
    /// cancels what waits for endpoints that take nothing any more. Call it
    /// about every 100 ms.
    pub fn sweep(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for place in 0..self.queues.len() {
            let waiting = self.queues[place]
                .as_ref()
                .is_some_and(|queue| !queue.is_empty());
            let Some(ix) = index(place).filter(|_| waiting) else {
                continue;
            };
            if self.window(ix).is_none() {
                self.cancel_queue(ix, actions);
            }
            while !self.log_lags() {
                let Some(stale) = self.queue(ix).pop_stale(now) else {
                    break;
                };
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

    /// Whether at least half of the endpoints with traffic within the last
    /// second stand idle for want of intake.
    pub fn somebody_is_hungry(&mut self, now: Timestamp) -> bool {
        now.since(self.taken_at).as_secs() < 1 && self.hunger(now).is_general()
    }

    /// How many are hungry, of those that had traffic when intake last went on.
    /// Nobody is while the shard can start nothing: more intake would not help.
    fn hunger(&mut self, now: Timestamp) -> Hunger {
        if !self.may_start(now) {
            return Hunger::default();
        }
        if !self.hunger.is_fresh(now) {
            let (mut hungry, mut active) = (0, 0);
            for (place, queue) in self.queues.iter().enumerate() {
                let Some(queue) = queue
                    .as_ref()
                    .filter(|q| q.had_traffic(self.taken_at) && !q.is_slow(now))
                else {
                    continue;
                };
                let window = index(place).and_then(|ix| self.window(ix));
                active += 1;
                hungry += u32::from(window.is_some_and(|window| queue.is_hungry(window)));
            }
            self.hunger = Hunger::new(hungry, active, now);
        }
        self.hunger
    }

    fn may_start(&mut self, now: Timestamp) -> bool {
        self.in_flight < SHARD_IN_FLIGHT_MAX && !self.log_lags() && self.pace.has_room(now)
    }

    fn log_lags(&self) -> bool {
        self.unacked_bytes >= SHARD_UNACKED_BYTES_MAX
    }

    /// An endpoint's window; `None` when it takes no deliveries. One that
    /// answers within moments has its part of the pace.
    fn window(&self, ix: EndpointIx) -> Option<u32> {
        let endpoint = self.registry.endpoint(ix).filter(|e| !e.disabled)?;
        let place = usize::try_from(ix.0).ok()?;
        let queue = self.queues.get(place).and_then(Option::as_ref);
        Some(if queue.is_none_or(|queue| queue.is_quick()) {
            self.pace.part_of(endpoint.max_in_flight)
        } else {
            endpoint.max_in_flight
        })
    }

    /// Starts what may start, one of each endpoint in turn.
    fn turn(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        while self.may_start(now) {
            let Some(ix) = self.ring.pop_front() else {
                return;
            };
            self.queue(ix).leave_ring();
            match self.window(ix) {
                Some(window) => self.start_one(ix, window, now, actions),
                None => self.cancel_queue(ix, actions),
            }
        }
    }

    fn start_one(
        &mut self,
        ix: EndpointIx,
        window: u32,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let queue = self.queue(ix);
        if !queue.is_ready(window) {
            return;
        }
        if let Some(mut delivery) = queue.start() {
            delivery.started = now;
            self.pace.begin(now);
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
