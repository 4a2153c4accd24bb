//! What starts next, and what leaves a queue otherwise.

use std::cmp::Reverse;

use posthaste_proto as proto;

use super::{Action, Shard, queue_at};
use crate::delivery::{Delivery, Room, too_old_at};
use crate::queue::{Choice, Limits};
use crate::registry::EndpointIx;
use crate::retry::GiveUpCause;
use crate::time::Timestamp;

impl Shard {
    /// Starts what may start, tenants and their endpoints in turn.
    pub(super) fn turn(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.wake(now);
        while self.may_start(now) {
            let Some((tenant, ix)) = self.ring.next() else {
                return;
            };
            self.queue(ix).leave_ring();
            match self.limits(ix) {
                Some(limits) => self.start_one(tenant, ix, &limits, now, actions),
                None => self.cancel_queue(ix, actions),
            }
        }
    }

    /// Lets those back into the ring for which there may be room again.
    fn wake(&mut self, now: Timestamp) {
        while let Some(&Reverse((when, ix))) = self.wakes.peek()
            && when <= now
        {
            self.wakes.pop();
            self.queue(ix).wake();
            self.enter_ring(ix);
        }
        let mut tried = 0;
        while let Some(ix) = self.quota.woken(self.fresh, tried) {
            tried += 1;
            self.queue(ix).leave_line();
            self.enter_ring(ix);
        }
    }

    fn start_one(
        &mut self,
        tenant: u32,
        ix: EndpointIx,
        limits: &Limits,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let held = self.is_held(ix, now);
        if held {
            self.hold(ix, now, actions);
        }
        if let Some(late) = self.pop_too_old(ix, now) {
            self.left(&late);
            self.append_dead(late, GiveUpCause::Expired, None, now, actions);
            self.enter_ring(ix);
            return;
        }
        let retry_room = self.quota.has_retry_room(self.fresh);
        let queue = queue_at(&mut self.queues, ix);
        let class = queue.class();
        match queue.choose(limits, !held, retry_room, now) {
            Choice::Start(_) if !self.quota.has_room(class) => {
                if queue.line_up() {
                    self.quota.wait(ix, class);
                }
            }
            Choice::Start(room) => {
                self.start(tenant, room, ix, limits, now, actions);
                self.enter_ring(ix);
            }
            Choice::RetriesFull => {
                if queue.line_up() {
                    self.quota.wait_retry(ix);
                }
            }
            Choice::At(when) => {
                if queue.sleep() {
                    self.wakes.push(Reverse((when, ix)));
                }
            }
            Choice::Nothing => {}
        }
    }

    /// Takes the oldest first attempt if its event is too old for its endpoint.
    /// What its owner hands over has a deadline, which the owner keeps to.
    fn pop_too_old(&mut self, ix: EndpointIx, now: Timestamp) -> Option<Delivery> {
        let max_age = Some(self.registry.endpoint(ix)?.max_age?);
        self.queue(ix).pop_fresh_if(|delivery| {
            too_old_at(&delivery.event.origin, max_age).is_some_and(|at| now >= at)
        })
    }

    fn start(
        &mut self,
        tenant: u32,
        room: Room,
        ix: EndpointIx,
        limits: &Limits,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let queue = self.queue(ix);
        let Some(delivery) = queue.start(room, limits, now) else {
            return;
        };
        let debt = queue.debt;
        self.ring.began(tenant, debt + 1);
        self.quota.begin(delivery.flight.class, room == Room::Owner);
        if delivery.flight.prompt {
            self.pace.begin(now);
        }
        self.in_flight += 1;
        self.left(&delivery);
        actions.push(Action::Send(delivery));
    }

    /// Lets an endpoint for which something waits take part in the turns.
    pub(super) fn enter_ring(&mut self, ix: EndpointIx) {
        let queue = self.queue(ix);
        if !queue.is_empty()
            && let Some(tenant) = queue.tenant
            && queue.enter_ring()
        {
            let debt = std::mem::take(&mut queue.debt);
            self.ring.enter(tenant, ix, debt);
        }
    }

    /// What left its queue waits no more.
    pub(super) fn left(&mut self, delivery: &Delivery) {
        self.queued -= 1;
        self.fresh -= usize::from(delivery.ticket.room == Room::Ingest);
        self.queued_bytes -= delivery.event.body.len();
    }

    /// Sends first attempts that wait to the lane if they may not be made now,
    /// as far as the log keeps up. Of a paused endpoint what its owner handed
    /// over goes back.
    pub(super) fn hold(&mut self, ix: EndpointIx, now: Timestamp, actions: &mut Vec<Action>) {
        if self.is_paused(ix) {
            while let Some(delivery) = self.queue(ix).pop_of(Room::Owner) {
                self.left(&delivery);
                self.overflow(delivery, now, actions);
            }
        }
        if !self.queue(ix).fresh_waits() || !self.is_held(ix, now) {
            return;
        }
        while !self.log_lags()
            && let Some(delivery) = self.queue(ix).pop_of(Room::Ingest)
        {
            self.left(&delivery);
            self.put_in_lane(delivery, proto::Reason::Gate, now, actions);
        }
    }

    pub(super) fn cancel_queue(&mut self, ix: EndpointIx, actions: &mut Vec<Action>) {
        while let Some(delivery) = self.queue(ix).pop() {
            self.left(&delivery);
            self.cancel(delivery, actions);
        }
    }
}
