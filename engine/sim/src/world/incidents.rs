//! What befalls nodes and endpoints, and what the coordinator makes of it.

use super::{Event, World, index};
use crate::group::{GroupId, Seat};
use crate::log::{Topic, Value};
use crate::node::{Happening, Node, endpoint_record};
use crate::plan::IncidentKind;
use crate::seen::Seen;

/// A member that is not heard of for so long is put out.
const SESSION_MS: u64 = 10_000;

impl World {
    pub(super) fn start(&mut self, node: usize) {
        let reach = &mut self.out.reach[node];
        if reach.alive {
            return;
        }
        reach.alive = true;
        reach.life += 1;
        self.out.note(&[7, index(node)]);
        self.nodes[node] = Node::new(node, &self.out.plan);
        self.out.tell(0, node, Happening::Boot);
    }

    pub(super) fn change(&mut self, number: usize) {
        let change = self.out.plan.changes[number];
        let (key, value) = endpoint_record(&self.out.plan, change.endpoint, Some(change.kind));
        let offset = self.out.put((Topic::Table, 0), key, Value::Bytes(value));
        if change.kind == crate::plan::ChangeKind::Delete {
            self.out.check.seen.note(Seen::Deleted);
        }
        self.out.note(&[8, index(change.endpoint)]);
        self.out
            .check
            .sources
            .changed(change.endpoint, change.kind, offset);
    }

    pub(super) fn incident(&mut self, number: usize) {
        let incident = self.out.plan.incidents[number];
        let node = incident.node;
        self.out.note(&[9, index(node), index(number)]);
        let now_ms = self.out.now_ms;
        match incident.kind {
            IncidentKind::Kill(down_ms) => self.kill(node, down_ms),
            IncidentKind::Outage(down_ms) | IncidentKind::Amnesia(down_ms) => {
                for node in 0..self.nodes.len() {
                    self.kill(node, down_ms);
                }
                if matches!(incident.kind, IncidentKind::Amnesia(_)) {
                    self.out.after(down_ms.saturating_sub(1), Event::Forget);
                }
            }
            IncidentKind::Pause(ms) if self.out.reach[node].alive => {
                self.out.check.seen.note(Seen::Paused);
                self.out.reach[node].paused_until = now_ms + ms;
                self.silent(node, ms);
            }
            IncidentKind::Cut(ms) if self.out.reach[node].alive => {
                self.out.check.seen.note(Seen::Cut);
                self.out.reach[node].cut_until = now_ms + ms;
                self.silent(node, ms);
            }
            IncidentKind::Drain(down_ms) if self.out.reach[node].alive => {
                self.out.tell(0, node, Happening::Stop(down_ms));
            }
            IncidentKind::Jump(by) => {
                self.out.check.seen.note(Seen::Jumped);
                self.out.reach[node].jumped_ms += by;
                self.out.tell(0, node, Happening::Jumped);
            }
            IncidentKind::Pause(_) | IncidentKind::Cut(_) | IncidentKind::Drain(_) => {}
        }
    }

    fn kill(&mut self, node: usize, down_ms: u64) {
        if !self.out.reach[node].alive {
            return;
        }
        self.out.check.seen.note(Seen::Killed);
        if self.nodes[node].in_flight() > 0 {
            self.out.check.seen.note(Seen::KilledInFlight);
        }
        self.out.check.died(node);
        self.down(node, down_ms);
        if let Some(seat) = self.nodes[node].seat() {
            self.out.after(SESSION_MS, Event::Expire(seat));
        }
    }

    fn down(&mut self, node: usize, down_ms: u64) {
        let reach = &mut self.out.reach[node];
        reach.alive = false;
        reach.paused_until = 0;
        reach.cut_until = 0;
        self.out.after(down_ms.max(1), Event::Start(node));
    }

    /// A node stopped of itself.
    pub(super) fn stopped(&mut self, node: usize) {
        let Some(down_ms) = self.nodes[node].stop_for() else {
            return;
        };
        if let Some(seat) = self.nodes[node].seat() {
            self.out.after(1, Event::Leave(seat));
        }
        if self.nodes[node].in_flight() > 0 {
            self.out.check.died(node);
        }
        self.down(node, down_ms);
    }

    /// The coordinator does not hear of a node for so long.
    fn silent(&mut self, node: usize, ms: u64) {
        if let Some(seat) = self.nodes[node].seat().filter(|_| ms > SESSION_MS) {
            self.out.after(SESSION_MS, Event::Expire(seat));
        }
    }

    /// Puts a member out, unless it is back.
    pub(super) fn expire(&mut self, seat: Seat) {
        let reach = self.out.reach[seat.node];
        let same = reach.alive && self.nodes[seat.node].seat() == Some(seat);
        let silent_until = reach.paused_until.max(reach.cut_until);
        if same && silent_until <= self.out.now_ms {
            return;
        }
        let mut put_out = false;
        for id in GroupId::ALL {
            put_out |= self.out.group(id).has(seat);
            let orders = self.out.group(id).leave(seat);
            self.out.give(id, orders);
        }
        if !put_out {
            return;
        }
        self.out.note(&[10, index(seat.node)]);
        self.out.check.seen.note(Seen::PutOut);
        self.out.check.disrupted();
        if same {
            // It hears of it with a heartbeat once it is back: until then it
            // goes on as if nothing had happened.
            let wait = self.out.rng.below(3_000);
            let life = reach.life;
            let lost = Event::Node(seat.node, life, Happening::Lost(seat));
            self.out.at(silent_until + wait, lost);
        }
    }

    /// A member joins or leaves, once the coordinator hears of it.
    pub(super) fn membership(&mut self, seat: Seat, joins: bool) {
        if let Some(until) = self.out.cut_until(seat.node) {
            let again = if joins {
                Event::Join(seat)
            } else {
                Event::Leave(seat)
            };
            self.out.at(until + 10, again);
            return;
        }
        // It may have died on the way.
        let current = self.out.reach[seat.node].alive && self.nodes[seat.node].seat() == Some(seat);
        for id in GroupId::ALL {
            let orders = if joins && current {
                self.out.group(id).join(seat)
            } else if joins {
                Vec::new()
            } else {
                self.out.group(id).leave(seat)
            };
            self.out.give(id, orders);
        }
    }
}
