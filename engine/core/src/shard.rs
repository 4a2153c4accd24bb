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
//!
//! First attempts also go there at once, none spent, while their endpoint is
//! down, its gate is not open, or it asked to be left alone. What an owner hands
//! over passes, for the owner knows better and sends the probes, unless the
//! endpoint is paused: then it goes back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_proto as proto;

use crate::delivery::{Delivery, Report, Room, Ticket};
use crate::gate::GateState;
use crate::id::EndpointId;
use crate::limits::{
    PANIC_IN_FLIGHT_MAX, SHARD_IN_FLIGHT_MAX, SHARD_QUEUED_BYTES_MAX, SHARD_QUEUED_MAX,
    SHARD_UNACKED_BYTES_MAX,
};
use crate::outcome::{Cause, Outcome, Verdict};
use crate::queue::{Limits, Queue};
use crate::registry::{EndpointIx, Registry};
use crate::rng::Rng;
use crate::time::Timestamp;

mod pace;
mod panic;
mod patience;
mod quota;
mod ring;
mod settle;
mod start;
#[cfg(test)]
mod tests;

use pace::Pace;
use panic::{Census, Panic, is_lost, is_unanswered};
use patience::{Hunger, Patience};
use quota::Quota;
use ring::Ring;
pub use settle::{DEAD_CAUSES, dead_cause_name, dead_letter};

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
    rng: Rng,
    queues: Vec<Option<Box<Queue>>>,
    ring: Ring,
    quota: Quota,
    /// Endpoints whose rate is used up, by when they may go on.
    wakes: BinaryHeap<Reverse<(Timestamp, EndpointIx)>>,
    /// Deliveries that wait, first attempts among them, and bytes of all bodies.
    queued: usize,
    fresh: usize,
    queued_bytes: usize,
    in_flight: usize,
    panic: Panic,
    /// Source partitions read here, of how many.
    share: (u32, u32),
    pace: Pace,
    unacked_bytes: usize,
    hunger: Hunger,
    patience: Patience,
    /// When something was last taken in.
    taken_at: Timestamp,
}

impl Shard {
    /// An empty shard.
    pub fn new(registry: Arc<Registry>, rng: Rng) -> Self {
        Self {
            registry,
            rng,
            queues: Vec::new(),
            ring: Ring::default(),
            quota: Quota::default(),
            wakes: BinaryHeap::new(),
            queued: 0,
            fresh: 0,
            queued_bytes: 0,
            in_flight: 0,
            panic: Panic::default(),
            share: (1, 1),
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

    /// So many of `all` source partitions are read by this process: first attempts
    /// get the same part of an endpoint's window and rate, so that all processes
    /// together keep within them. Every endpoint gets one at least.
    pub fn set_share(&mut self, mine: u32, all: u32) {
        self.share = if mine < all { (mine, all) } else { (1, 1) };
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
        let ix = delivery.endpoint;
        let owned = endpoint.is_owned();
        let queue = queue_at(&mut self.queues, ix);
        if queue.tenant.is_none() {
            queue.tenant = Some(self.ring.tenant(&endpoint.tenant));
        }
        if from_source && (owned || self.is_held(ix, now)) {
            if self.log_lags() {
                return Err(delivery);
            }
            self.taken(now);
            let reason = if owned {
                proto::Reason::Owned
            } else {
                proto::Reason::Gate
            };
            self.put_in_lane(delivery, reason, now, actions);
            return Ok(());
        }
        let bytes = self.queued_bytes + delivery.event.body.len();
        if bytes > SHARD_QUEUED_BYTES_MAX || self.is_paused(ix) {
            if from_source {
                return Err(delivery);
            }
            self.overflow(delivery, now, actions);
            return Ok(());
        }
        let shard_full = self.queued >= SHARD_QUEUED_MAX;
        let queue = queue_at(&mut self.queues, ix);
        queue.arrived(now);
        let slow = from_source && queue.is_slow(now);
        if queue.has_room(shard_full || slow) {
            self.queued += 1;
            self.fresh += usize::from(from_source);
            self.queued_bytes += delivery.event.body.len();
            queue.push(delivery, now);
            self.taken(now);
            self.enter_ring(ix);
            self.turn(now, actions);
            return Ok(());
        }
        if from_source {
            if self.log_lags() || !slow && self.may_wait(now, others_hungry) {
                return Err(delivery);
            }
            queue_at(&mut self.queues, ix).mark_slow(now);
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

    /// An attempt ended. Answers when the next one is due, where that is decided
    /// here: for a retry its owner decides it.
    pub fn finished(
        &mut self,
        delivery: Delivery,
        outcome: Outcome,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Option<Timestamp> {
        let ix = delivery.endpoint;
        let lost = is_lost(&outcome);
        let suspect = self.panic.is_on() && outcome.verdict != Verdict::Delivered;
        let most = self.registry.endpoint(ix).map_or(1, |e| e.max_in_flight);
        let queue = queue_at(&mut self.queues, ix);
        queue.ended(&delivery, &outcome, most, suspect, now, &mut self.rng);
        queue.health.ended(lost, now);
        let base = queue.base_rtt.lowest();
        if let Some(tenant) = queue.tenant {
            self.ring.ended(tenant);
        }
        let retry = delivery.ticket.room == Room::Owner;
        self.quota.end(delivery.flight.class, retry);
        self.in_flight -= 1;
        if delivery.flight.prompt {
            self.pace.end(delivery.started, now);
            if outcome.verdict == Verdict::Delivered {
                let took = now.since(delivery.started);
                self.pace.answered(took, base, now);
            }
        }
        let due = match delivery.ticket.room {
            // It was our own fault: as if it had not been made.
            Room::Ingest if suspect && is_unanswered(&outcome) => {
                self.put_in_lane(delivery, proto::Reason::Gate, now, actions);
                None
            }
            Room::Owner if suspect && is_unanswered(&outcome) => {
                self.settle(delivery, Outcome::failed(Cause::EgressError), now, actions)
            }
            _ => self.settle(delivery, outcome, now, actions),
        };
        self.hold(ix, now, actions);
        self.enter_ring(ix);
        self.turn(now, actions);
        due
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
    /// cancels what waits for endpoints that take nothing any more. Judges
    /// whether the way out is broken. Call it about every 100 ms.
    pub fn sweep(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let mut census = Census::default();
        for place in 0..self.queues.len() {
            let Some(queue) = self.queues[place].as_ref() else {
                continue;
            };
            self.panic.count(&queue.health, now, &mut census);
            let Some(ix) = index(place).filter(|_| !queue.is_empty()) else {
                continue;
            };
            if self.limits(ix).is_none() {
                self.cancel_queue(ix, actions);
            }
            self.hold(ix, now, actions);
            while !self.log_lags() {
                let Some(stale) = self.queue(ix).pop_stale(now) else {
                    break;
                };
                self.left(&stale);
                self.overflow(stale, now, actions);
            }
            self.enter_ring(ix);
        }
        self.panic = self.panic.judged(census, now);
        self.turn(now, actions);
    }

    /// Sends everything that waits to the lane, or back to its owner: the
    /// process stops and takes nothing new.
    pub fn evacuate(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for place in 0..self.queues.len() {
            while let Some(waiting) = self.queues[place].as_mut().and_then(|queue| queue.pop()) {
                self.left(&waiting);
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

    /// Bytes of bodies waiting, an event's counted for each of its deliveries.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether so many endpoints cannot be reached that the fault is taken to be
    /// on this side: nothing is counted against anybody, and only a tenth of the
    /// slots is used.
    pub fn suspects_itself(&self) -> bool {
        self.panic.is_on()
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
                let limits = index(place).and_then(|ix| self.limits(ix));
                active += 1;
                hungry += u32::from(limits.is_some_and(|limits| queue.is_hungry(&limits)));
            }
            self.hunger = Hunger::new(hungry, active, now);
        }
        self.hunger
    }

    fn may_start(&mut self, now: Timestamp) -> bool {
        let most = if self.panic.is_on() {
            PANIC_IN_FLIGHT_MAX
        } else {
            SHARD_IN_FLIGHT_MAX
        };
        self.in_flight < most && !self.log_lags() && self.pace.has_room(now)
    }

    fn log_lags(&self) -> bool {
        self.unacked_bytes >= SHARD_UNACKED_BYTES_MAX
    }

    /// What an endpoint may have at once and a second; `None` when it takes no
    /// deliveries. One that answers at once has its part of the pace.
    fn limits(&self, ix: EndpointIx) -> Option<Limits> {
        let endpoint = self.registry.endpoint(ix).filter(|e| !e.disabled)?;
        let place = usize::try_from(ix.0).ok()?;
        let queue = self.queues.get(place).and_then(Option::as_ref);
        let prompt = queue.is_none_or(|queue| queue.is_prompt());
        let (in_flight, rate) = (endpoint.max_in_flight, endpoint.rate_per_second);
        Some(Limits {
            in_flight: if prompt {
                self.pace.part_of(in_flight)
            } else {
                in_flight
            },
            direct_in_flight: self.part_of(in_flight).max(1),
            rate,
            direct_rate: self.part_of(rate).max(rate.min(1)),
        })
    }

    /// This process' part of what all may have.
    fn part_of(&self, limit: u32) -> u32 {
        let (mine, all) = self.share;
        if mine == all {
            return limit;
        }
        let part = u64::from(limit) * u64::from(mine) / u64::from(all.max(1));
        u32::try_from(part).unwrap_or(limit)
    }

    /// Whether first attempts of an endpoint go to the lane.
    fn is_held(&self, ix: EndpointIx, now: Timestamp) -> bool {
        let place = usize::try_from(ix.0).unwrap_or(usize::MAX);
        let queue = self.queues.get(place).and_then(Option::as_ref);
        queue.is_some_and(|queue| queue.is_held(now))
            || self.registry.gate(ix).state != GateState::Open
    }

    /// Whether nothing of an endpoint may start.
    fn is_paused(&self, ix: EndpointIx) -> bool {
        self.registry.gate(ix).state == GateState::Paused
    }

    fn queue(&mut self, ix: EndpointIx) -> &mut Queue {
        queue_at(&mut self.queues, ix)
    }
}

fn queue_at(queues: &mut Vec<Option<Box<Queue>>>, ix: EndpointIx) -> &mut Queue {
    let place = usize::try_from(ix.0).expect("an index fits the address space");
    if place >= queues.len() {
        queues.resize_with(place + 1, || None);
    }
    queues[place].get_or_insert_default()
}

fn index(place: usize) -> Option<EndpointIx> {
    u32::try_from(place).ok().map(EndpointIx)
}
