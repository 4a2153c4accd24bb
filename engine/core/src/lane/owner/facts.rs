//! Facts: told, and read back.

use posthaste_proto as proto;
use proto::progress::{Entry, Kind};

use super::{Fact, Outgoing, Overlay, Owner, Stage};
use crate::id::EndpointId;
use crate::lane::fold::Commanded;
use crate::time::Timestamp;

impl Owner {
    /// Tells what became of something that was handed out.
    pub(super) fn tell(
        &mut self,
        kind: Kind,
        offset: u64,
        out: Outgoing,
        attempts: u32,
        due: Option<Timestamp>,
    ) {
        let stage = Stage::Told((kind == Kind::Retry).then_some(attempts));
        self.overlay.insert(offset, Overlay { stage, out });
        let mut entry = Entry {
            kind: kind.into(),
            offset,
            attempt: attempts,
            due_ms: due.map_or(0, Timestamp::as_millis),
            ..Entry::default()
        };
        if out.held {
            entry.endpoint_id = out.owed.endpoint.as_bytes().to_vec().into();
            if kind == Kind::Retry {
                entry.delivery_id = out.owed.delivery.as_bytes().to_vec().into();
                entry.deadline_ms = out.owed.deadline.as_millis();
                entry.order = out.order;
            }
        }
        self.facts.push_back(entry);
    }

    /// Tells that nothing an endpoint held below `to` is held any longer, `count`
    /// of it for this reason alone.
    pub(super) fn tell_passed(&mut self, endpoint: EndpointId, to: u64, count: u64) {
        self.facts.push_back(Entry {
            kind: Kind::Passed.into(),
            offset: to,
            endpoint_id: endpoint.as_bytes().to_vec().into(),
            count,
            ..Entry::default()
        });
    }

    /// A fact was read.
    pub(super) fn learned(&mut self, fact: &Fact, own: bool) {
        match *fact {
            Fact::Settled(offset, endpoint) => {
                self.forget_told(offset);
                self.closed(offset, endpoint);
                self.touch(endpoint);
            }
            // Of another owner's retry only the due time matters: what we told
            // is still on its way.
            Fact::Retry(offset, owed) => {
                if own && self.is_heard(offset) {
                    self.forget_told(offset);
                }
                self.closed(offset, owed.endpoint);
                self.order_timer(offset, owed.endpoint);
                self.touch(owed.endpoint);
            }
            // Another owner knew more: our own fact about it came to nothing,
            // and the fold's time stands.
            Fact::Absorbed(offset) => {
                if own
                    && self.is_heard(offset)
                    && let Some(out) = self.forget_told(offset)
                {
                    self.fold.timers_mut().wait(offset);
                    self.touch(out.owed.endpoint);
                }
            }
            Fact::Kept(offset) => {
                let moving = self.overlay.get(&offset).is_some_and(|it| it.out.moving);
                if own
                    && moving
                    && let Some(out) = self.forget_told(offset)
                {
                    self.fold.timers_mut().wait(offset);
                    self.touch(out.owed.endpoint);
                }
            }
            Fact::Passed(_, endpoint, _) => {
                let hold = self.fold.hold_of(endpoint);
                if let Some(line) = self.lines.get_mut(&endpoint) {
                    line.page.follow(hold);
                }
                self.touch(endpoint);
            }
        }
    }

    /// A command took effect: what was handed out comes back to nothing.
    pub(super) fn commanded(&mut self, command: &Commanded) {
        let endpoint = command.endpoint;
        let hold = self.fold.hold_of(endpoint);
        if let Some(line) = self.lines.get_mut(&endpoint) {
            line.page.follow(hold);
            line.order = None;
            line.probe |= command.kind == proto::command::Kind::Probe;
        }
        self.touch(endpoint);
    }

    /// A timer stands there: an ordered line wants to know its key.
    pub(super) fn order_timer(&mut self, offset: u64, endpoint: EndpointId) {
        let key = self.fold.order(offset);
        if let Some(line) = self.lines.get_mut(&endpoint)
            && let Some(order) = &mut line.order
        {
            order.insert(offset, key);
        }
    }

    /// It is settled, or it waits for a time from now on.
    fn closed(&mut self, offset: u64, endpoint: EndpointId) {
        if let Some(line) = self.lines.get_mut(&endpoint) {
            line.page.open.remove(&offset);
            if let Some(order) = &mut line.order {
                order.remove(offset);
            }
        }
    }

    /// Whether the fold knows what we told last: a fact can stand twice, and the
    /// copy of an earlier one says nothing of it.
    fn is_heard(&self, offset: u64) -> bool {
        let Some(overlay) = self.overlay.get(&offset) else {
            return false;
        };
        let endpoint = overlay.out.owed.endpoint;
        match overlay.stage {
            Stage::Told(Some(attempts)) => {
                let known = self.fold.owed(offset).map(|owed| owed.attempts);
                known.is_some_and(|known| known >= attempts) || !self.fold.is_owed(endpoint, offset)
            }
            Stage::Told(None) => !self.fold.is_owed(endpoint, offset),
            Stage::Out | Stage::Burying(_) | Stage::Moving => false,
        }
    }

    fn forget_told(&mut self, offset: u64) -> Option<Outgoing> {
        let overlay = self.overlay.get(&offset)?;
        if !matches!(overlay.stage, Stage::Told(_)) {
            return None;
        }
        let out = overlay.out;
        self.overlay.remove(&offset);
        if let Some(line) = self.lines.get_mut(&out.owed.endpoint) {
            line.release(out.order, offset);
            line.moving -= usize::from(out.moving);
        }
        self.moves -= usize::from(out.moving);
        Some(out)
    }
}
