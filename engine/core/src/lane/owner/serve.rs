//! A line's turn: what bars it, what goes out of it, and when it is looked at
//! next.

use posthaste_proto as proto;
use proto::progress::Kind;

use super::line::{Line, Order};
use super::watch::Health;
use super::{Action, Outgoing, Overlay, Owner, Stage, Standing};
use crate::breaker::Pass;
use crate::gate::GateState;
use crate::id::{DeliveryId, EndpointId};
use crate::lane::fold::Head;
use crate::lane::settings::Settings;
use crate::limits::{EXPIRE_EVERY, MOVES_MAX, PAGE_MAX, TIMERS_PER_ENDPOINT_MAX};
use crate::retry::GiveUpCause;
use crate::time::Timestamp;

/// How soon to look again where nothing is known of an endpoint yet.
const UNKNOWN_WAIT: std::time::Duration = std::time::Duration::from_secs(1);
/// A line barred for longer keeps nothing in memory of what it holds.
const BAR_LONG: std::time::Duration = std::time::Duration::from_secs(10);

impl Owner {
    /// Does what one endpoint's line has to do now.
    pub(super) fn serve(
        &mut self,
        endpoint: EndpointId,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        if !self.ready || self.draining {
            return;
        }
        let mut line = self.take(endpoint);
        let settings = self.endpoints.settings(endpoint);
        let work = self.work(endpoint, &mut line, &settings, now, actions);
        let gate = self.gate(endpoint, &mut line, &settings, now, actions);
        // What is thought of a deleted endpoint is of no use to anybody.
        let idle = match settings.standing {
            Standing::Deleted => line.is_quiet(),
            Standing::Unknown | Standing::Active | Standing::Paused | Standing::Disabled => {
                line.is_idle()
            }
        };
        if !self.owes(endpoint) && idle {
            return;
        }
        let soon = now.after(std::time::Duration::from_millis(1));
        let wake = work.into_iter().chain(gate).min();
        self.put(endpoint, line, wake.map(|at| at.max(soon)));
    }

    pub(super) fn owes(&self, endpoint: EndpointId) -> bool {
        self.fold.timers().count(endpoint) > 0 || self.fold.hold_of(endpoint).is_some()
    }

    fn work(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        settings: &Settings,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Option<Timestamp> {
        line.most = settings.outstanding();
        match settings.standing {
            // One of which even the tombstone is gone is told by its deadlines.
            Standing::Unknown => {
                let until = Some(now.after(UNKNOWN_WAIT));
                return self.wait(endpoint, line, until, now, actions);
            }
            Standing::Deleted => {
                self.cancel_all(endpoint, line);
                return None;
            }
            Standing::Disabled => line.disabling = None,
            // No sign of life can come: the time does not count against it.
            Standing::Paused => line.health = Health::default(),
            Standing::Active => {}
        }
        if settings.ordered {
            line.order
                .get_or_insert_with(|| Order::of(&self.fold, endpoint));
        } else {
            line.order = None;
            line.busy.clear();
            self.move_late(endpoint, line, actions);
        }
        self.pass(endpoint, line);
        if let Some(Bar { until }) = bar(line, settings, now) {
            return self.wait(endpoint, line, until, now, actions);
        }
        self.expire_held(endpoint, line, now, actions);
        self.hand_out(endpoint, line, now, actions);
        self.park(line, now);
        self.read_on(endpoint, line, actions);
        self.next_turn(endpoint, line, now)
    }

    /// When a line that is not barred has something to do that nothing else will
    /// remind it of.
    fn next_turn(&self, endpoint: EndpointId, line: &Line, now: Timestamp) -> Option<Timestamp> {
        if !line.has_room() {
            return None;
        }
        if line.breaker.refuses(now) {
            let expires = now.after(EXPIRE_EVERY);
            return Some(
                line.breaker
                    .next_probe()
                    .map_or(expires, |at| at.min(expires)),
            );
        }
        let Some(order) = &line.order else {
            return self.fold.timers().next_due(endpoint);
        };
        let free = order
            .heads()
            .filter(|(key, _)| !line.busy.contains_key(key));
        free.filter_map(|(_, offset)| self.fold.owed(offset))
            .map(|owed| owed.due)
            .min()
    }

    fn hand_out(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        while line.has_room() {
            if line.breaker.refuses(now) && !line.probe {
                break;
            }
            let next = if line.order.is_some() {
                self.next_in_order(endpoint, line, now)
            } else {
                self.next(endpoint, line, now)
            };
            let Some((offset, mut out)) = next else {
                break;
            };
            if line.order.is_some() {
                line.busy.insert(out.order, offset);
            }
            if now >= out.owed.deadline {
                self.bury(offset, out, line, GiveUpCause::Expired, None, actions);
                continue;
            }
            out.pass = if std::mem::take(&mut line.probe) {
                line.breaker.admit_always()
            } else {
                line.breaker.admit(now).unwrap_or_default()
            };
            line.out += 1;
            let stage = Stage::Out;
            self.overlay.insert(offset, Overlay { stage, out });
            let owed = out.owed;
            actions.push(Action::Dispatch { offset, owed });
        }
    }

    /// What goes next: what is due and what is held take turns, but a probe is
    /// the oldest.
    fn next(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        now: Timestamp,
    ) -> Option<(u64, Outgoing)> {
        let hold = self.fold.hold_of(endpoint);
        while let Some(&(offset, _)) = line.page.items.front()
            && (hold.is_none_or(|hold| !hold.contains(offset))
                || self.overlay.contains_key(&offset))
        {
            line.page.items.pop_front();
        }
        loop {
            let first = self.fold.timers().first(endpoint);
            let timer = first.filter(|(_, owed)| owed.due <= now);
            let free = |(_, head): &(u64, Head)| !self.is_moving(head.owed.delivery);
            let place = line.page.items.iter().position(free);
            let held = place.and_then(|place| line.page.items.get(place));
            let held = held.map(|(offset, _)| *offset);
            let takes_held = match (held, timer) {
                (None, None) => return None,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(held), Some((timer, _))) => {
                    line.held_next = !line.held_next;
                    if line.breaker.is_closed() {
                        line.held_next
                    } else {
                        held < timer
                    }
                }
            };
            if takes_held {
                let (offset, head) = line.page.items.remove(place?)?;
                return Some((offset, outgoing(head.owed, head.order, true)));
            }
            let (offset, owed) = timer?;
            self.fold.timers_mut().take(offset);
            // One that is out already comes back by itself.
            if !self.overlay.contains_key(&offset) {
                return Some((offset, outgoing(owed, self.fold.order(offset), false)));
            }
        }
    }

    /// Whether the timer of a delivery is being moved: its copy waits until that
    /// is a fact.
    fn is_moving(&self, delivery: DeliveryId) -> bool {
        let timer = || self.fold.timers().offset_of(delivery);
        self.moves > 0
            && timer()
                .and_then(|offset| self.overlay.get(&offset))
                .is_some_and(|overlay| overlay.out.moving)
    }

    /// Of the keys that are free, the first that can go: what waits for a time
    /// stands before what is held of its key.
    fn next_in_order(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        now: Timestamp,
    ) -> Option<(u64, Outgoing)> {
        let order = line.order.as_ref()?;
        let free = |key: u64| !line.busy.contains_key(&key);
        let timer = order
            .heads()
            .filter(|&(key, offset)| free(key) && !self.overlay.contains_key(&offset))
            .filter_map(|(key, offset)| Some((offset, self.fold.owed(offset)?, key)))
            .filter(|(_, owed, _)| owed.due <= now)
            .min_by_key(|(offset, ..)| *offset);
        if let Some((offset, owed, key)) = timer {
            self.fold.timers_mut().take(offset);
            return Some((offset, outgoing(owed, key, false)));
        }
        let hold = self.fold.hold_of(endpoint)?;
        let place = line.page.items.iter().position(|(offset, head)| {
            free(head.order)
                && !order.has(head.order)
                && hold.contains(*offset)
                && !self.overlay.contains_key(offset)
        })?;
        let (offset, head) = line.page.items.remove(place)?;
        Some((offset, outgoing(head.owed, head.order, true)))
    }

    /// Lets what stands behind the failing head of its key wait as a timer, so
    /// that other keys' deliveries behind it can be read. Once the timers are too
    /// many, all wait for the head.
    fn park(&mut self, line: &mut Line, now: Timestamp) {
        let Some(order) = &line.order else {
            return;
        };
        let Some((_, first)) = line.page.items.front() else {
            return;
        };
        let timers = self.fold.timers().count(first.owed.endpoint);
        let crowded = timers + PAGE_MAX > TIMERS_PER_ENDPOINT_MAX;
        if crowded || !line.page.behind || line.page.items.len() < line.most {
            return;
        }
        // Without a key of its own nothing can pass it anyhow.
        let barred: Vec<_> = line
            .page
            .items
            .iter()
            .filter(|(_, head)| head.order != 0 && order.has(head.order))
            .filter(|(_, head)| !line.busy.contains_key(&head.order))
            .copied()
            .collect();
        for (offset, head) in barred {
            line.page.items.retain(|(other, _)| *other != offset);
            // Until the last of them is read back nothing of the key goes.
            line.busy.insert(head.order, offset);
            let out = outgoing(head.owed, head.order, true);
            self.tell(Kind::Retry, offset, out, head.owed.attempts, Some(now));
        }
    }

    /// A barred line: nothing goes out of it but what expired. One that owes
    /// nothing is not looked at again before something happens to it.
    fn wait(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        until: Option<Timestamp>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Option<Timestamp> {
        if !self.owes(endpoint) {
            return None;
        }
        if now >= line.expire_at {
            line.expire_at = now.after(EXPIRE_EVERY);
            self.expire_timers(endpoint, line, now, actions);
        }
        let mut wake = until.map_or(line.expire_at, |at| at.min(line.expire_at));
        if self.fold.hold_of(endpoint).is_some() {
            self.expire_held(endpoint, line, now, actions);
            self.expire_items(line, now, actions);
            match line.page.items.front() {
                Some((_, head)) => line.page.expires = head.owed.deadline,
                None if now >= line.page.expires => self.read_on(endpoint, line, actions),
                None => {}
            }
            if line.page.expires > now {
                wake = wake.min(line.page.expires);
            }
        }
        if until.is_none_or(|at| at.since(now) > BAR_LONG) {
            line.page.fold_up();
        }
        Some(wake)
    }

    fn expire_timers(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let room = line.most.saturating_sub(line.out);
        let waiting = self.fold.timers().waiting(endpoint);
        let expired: Vec<_> = waiting
            .filter(|(offset, owed)| now >= owed.deadline && !self.overlay.contains_key(offset))
            .take(room)
            .collect();
        for (offset, owed) in expired {
            self.fold.timers_mut().take(offset);
            let out = outgoing(owed, self.fold.order(offset), false);
            self.bury(offset, out, line, GiveUpCause::Expired, None, actions);
        }
    }

    fn expire_items(&mut self, line: &mut Line, now: Timestamp, actions: &mut Vec<Action>) {
        while line.out < line.most
            && line
                .page
                .items
                .front()
                .is_some_and(|(_, head)| now >= head.owed.deadline)
        {
            let Some((offset, head)) = line.page.items.pop_front() else {
                return;
            };
            if !self.overlay.contains_key(&offset) {
                let out = outgoing(head.owed, head.order, true);
                self.bury(offset, out, line, GiveUpCause::Expired, None, actions);
            }
        }
    }

    /// Timers over the caps: moved behind the lane's end, where they are held.
    fn move_late(&mut self, endpoint: EndpointId, line: &mut Line, actions: &mut Vec<Action>) {
        while self.moves < MOVES_MAX {
            // Another owner can have settled what is being moved.
            let own = self
                .fold
                .timers()
                .count(endpoint)
                .saturating_sub(line.moving);
            let all = self.fold.timers().len().saturating_sub(self.moves);
            if own <= self.caps.timers_per_endpoint && all <= self.caps.timers {
                return;
            }
            let Some(offset) = self.fold.timers_mut().take_late(endpoint) else {
                return;
            };
            let Some(owed) = self.fold.owed(offset) else {
                return;
            };
            // One that is out already comes back by itself.
            if self.overlay.contains_key(&offset) {
                continue;
            }
            line.moving += 1;
            self.moves += 1;
            let stage = Stage::Moving;
            let mut out = outgoing(owed, 0, false);
            out.moving = true;
            self.overlay.insert(offset, Overlay { stage, out });
            actions.push(Action::Move { offset, owed });
        }
    }

    /// The endpoint is deleted: nobody waits for anything any more.
    fn cancel_all(&mut self, endpoint: EndpointId, line: &mut Line) {
        let waiting: Vec<_> = self.fold.timers().waiting(endpoint).collect();
        for (offset, owed) in waiting {
            self.fold.timers_mut().take(offset);
            if !self.overlay.contains_key(&offset) {
                let out = outgoing(owed, self.fold.order(offset), false);
                self.tell(Kind::Cancelled, offset, out, owed.attempts, None);
            }
        }
        if let Some(hold) = self.fold.hold_of(endpoint) {
            let (to, count) = (hold.last() + 1, hold.count());
            if to > line.page.told {
                line.page.told = to;
                line.page.items.clear();
                self.tell_passed(endpoint, to, count);
            }
        }
    }
}

fn outgoing(owed: crate::timers::Owed, order: u64, held: bool) -> Outgoing {
    Outgoing {
        owed,
        order,
        held,
        moving: false,
        pass: Pass::default(),
    }
}

/// Nothing may go out.
struct Bar {
    /// Until then, where that is known.
    until: Option<Timestamp>,
}

fn bar(line: &Line, settings: &Settings, now: Timestamp) -> Option<Bar> {
    let disabling = line
        .disabling
        .is_some_and(|since| now.since(since) < EXPIRE_EVERY);
    let off = match settings.standing {
        Standing::Disabled | Standing::Paused => true,
        Standing::Unknown | Standing::Active | Standing::Deleted => disabling,
    };
    if off || settings.gate.0 == GateState::Paused {
        Some(Bar { until: None })
    } else if line.probe {
        None
    } else if now < line.paused_until {
        Some(Bar {
            until: Some(line.paused_until),
        })
    } else if line.breaker.refuses(now) {
        Some(Bar {
            until: line.breaker.next_probe(),
        })
    } else {
        None
    }
}
