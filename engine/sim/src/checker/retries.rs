//! What is handed out, what becomes of it, and when it is due again.

use posthaste_core::delivery::{Delivery, Room};
use posthaste_core::outcome::{Outcome, Verdict};
use posthaste_proto as proto;

use super::gates::QUEUED_MS;
use super::{Checker, Key, Rule, Start, lane_key, sources, times};
use crate::seen::Seen;

impl Checker {
    /// Which delivery an attempt is of: the lane says which generation.
    pub fn key_of(&self, delivery: &Delivery, endpoint: usize) -> Key {
        let mut key = Key::of(&delivery.event.origin, endpoint);
        if delivery.ticket.room == Room::Owner {
            let (partition, offset) = place(delivery);
            let lane = self.lanes.get(partition);
            let known = lane.and_then(|lane| lane.key(offset));
            key.generation = known.map_or(0, |known| known.generation);
        }
        key
    }

    /// An owner read a command.
    pub fn command_read(&mut self, epoch: u64, offset: u64) {
        self.commands_read.insert((epoch, offset), self.now_ms);
    }

    /// Of one ordering key one attempt at a time; and none that a command
    /// settled, but for what waited in a shard.
    pub(super) fn in_line(&mut self, start: &Start<'_>, (partition, offset): (usize, u64)) {
        let epoch = start.delivery.ticket.epoch;
        let lane = &self.lanes[partition];
        let read_at = lane
            .commanded_at(offset)
            .and_then(|at| self.commands_read.get(&(epoch, at)));
        if read_at.is_some_and(|read| self.now_ms > read + QUEUED_MS + self.stands_ms) {
            let found =
                format!("lane {partition}/{offset} is sent, {read_at:?} a command settled it");
            return self.broken(Rule::CommandsHold, found);
        }
        if !self.sources.is_ordered(start.endpoint) {
            return;
        }
        let line = (start.node, epoch, start.endpoint, lane.order(offset));
        if let Some(other) = self.lines.insert(line, offset) {
            let found = format!("lane {partition}/{offset} is sent while {other} of its key is");
            self.broken(Rule::Ordered, found);
        }
    }

    pub(super) fn leaves_line(&mut self, node: usize, endpoint: usize, delivery: &Delivery) {
        let (partition, offset) = place(delivery);
        match delivery.ticket.room {
            Room::Ingest => {
                let direct = &mut self.direct[node][endpoint];
                *direct = direct.saturating_sub(1);
            }
            Room::Owner => {
                let order = self.lanes[partition].order(offset);
                let line = (node, delivery.ticket.epoch, endpoint, order);
                self.lines.remove(&line);
            }
        }
    }

    /// No first attempt is of an event too old for its endpoint.
    pub(super) fn young_enough(&mut self, start: &Start<'_>) {
        let delivery = start.delivery;
        if delivery.ticket.room != Room::Ingest {
            return;
        }
        let event_ms = delivery.event.origin.timestamp.as_millis();
        let at = times::too_old_ms(event_ms, self.sources.max_age_ms(start.endpoint));
        let begun_ms = delivery.started.as_millis();
        if at.is_some_and(|at| begun_ms >= at) {
            let found = format!("{:?} is sent at {begun_ms}, of {event_ms}", delivery.ticket);
            self.broken(Rule::OnTime, found);
        }
    }

    /// First attempts keep to the node's part of the limit.
    pub(super) fn within_share(&mut self, start: &Start<'_>) {
        if start.delivery.ticket.room != Room::Ingest {
            return;
        }
        let limit = self.sources.limit(start.endpoint);
        let (mine, all) = start.share;
        let part = (limit * mine / all.max(1)).clamp(1, limit.max(1));
        let direct = &mut self.direct[start.node][start.endpoint];
        *direct += 1;
        if *direct > part {
            let found = format!(
                "{direct} first attempts at once to endpoint {}, of {limit} for {mine} of {all}",
                start.endpoint
            );
            self.broken(Rule::InFlight, found);
        }
    }

    /// An owner hands a delivery out. `read_to`: how far it has read its
    /// partition; `claim`: where its claim stands, once it knows.
    pub fn handed_out(
        &mut self,
        (partition, offset): (usize, u64),
        epoch: u64,
        (read_to, claim): (u64, Option<u64>),
        node_now: u64,
    ) {
        if claim.is_none_or(|claim| read_to <= claim) {
            self.broken(
                Rule::ClaimFirst,
                format!("lane {partition}/{offset} before claim {claim:?}"),
            );
        }
        self.tail(partition);
        match self.lanes[partition].hand_out(offset, read_to, node_now) {
            Ok(number) => {
                self.expected
                    .insert((epoch, lane_key(partition, offset)), number);
                let lane = &self.lanes[partition];
                if let Some(found) =
                    lane.passes_over(offset, (read_to, node_now), &mut self.sources)
                {
                    self.broken(Rule::Ordered, format!("lane {partition}/{offset}: {found}"));
                }
            }
            Err((rule, found)) => self.broken(rule, format!("lane {partition}/{offset}: {found}")),
        }
    }

    /// A shard writes a lane record.
    pub fn lane_written(&mut self, record: &proto::Deliver, last: Option<&Outcome>, node_now: u64) {
        // One that failed on our side does not count, and comes round again.
        let endpoint = sources::endpoint_number(&record.endpoint_id).unwrap_or(usize::MAX);
        let max_age_ms = self.sources.max_age_ms(endpoint);
        let deadline_ms = times::deadline_ms(record, max_age_ms);
        if record.deadline_ms != deadline_ms {
            let found = format!("{record:?} has another deadline than {deadline_ms}");
            self.broken(Rule::OnTime, found);
        }
        if record.reason() != proto::Reason::Retry || record.attempt == 0 {
            return;
        }
        // What is gone is held: its owner disables the endpoint.
        if last.is_some_and(|outcome| outcome.verdict == Verdict::Gone) {
            if record.due_ms != 0 {
                let found = format!("after 410 due at {}", record.due_ms);
                self.broken(Rule::RetryTimes, found);
            }
            return;
        }
        let asked = last
            .and_then(|outcome| outcome.retry_after)
            .map_or(0, times::millis);
        let due = times::Due {
            gaps: self.gaps.get(endpoint).map_or(&[], Vec::as_slice),
            number: record.attempt,
            end_ms: (node_now, node_now),
            due_ms: record.due_ms,
            asked_ms: asked,
            deadline_ms,
            max_age_ms,
        };
        if let Err(found) = due.check() {
            self.broken(Rule::RetryTimes, found);
        }
    }

    /// An owner writes facts. What it decided it decided between the end of the
    /// attempt and now.
    pub fn facts_written(
        &mut self,
        partition: usize,
        epoch: u64,
        progress: &proto::Progress,
        node_now: u64,
    ) {
        // What is passed is a position up to which, not a delivery.
        let passed = proto::progress::Kind::Passed;
        let entries = progress.entries.iter();
        for entry in entries.filter(|entry| entry.kind() != passed) {
            let end = self
                .ends
                .remove(&(epoch, lane_key(partition, entry.offset)));
            if entry.kind() != proto::progress::Kind::Retry {
                continue;
            }
            let Some((number, end_ms, asked_ms)) = end else {
                // Behind the failing head of its key it waits as a timer.
                if self.lanes[partition].parks(entry) {
                    self.seen.note(Seen::Parked);
                    continue;
                }
                self.broken(
                    Rule::FactsTrue,
                    format!(
                        "a retry fact about lane {partition}/{} without a failure",
                        entry.offset
                    ),
                );
                continue;
            };
            let endpoint = self.lanes[partition].endpoint(entry.offset);
            let gaps = endpoint.and_then(|endpoint| self.gaps.get(endpoint));
            let due = times::Due {
                gaps: gaps.map_or(&[], Vec::as_slice),
                number,
                end_ms: (end_ms, node_now),
                due_ms: entry.due_ms,
                asked_ms,
                deadline_ms: self.lanes[partition].deadline(entry.offset),
                max_age_ms: endpoint.map_or(0, |one| self.sources.max_age_ms(one)),
            };
            if number != entry.attempt {
                self.broken(
                    Rule::NumbersRise,
                    format!("attempt {number} was told as {}", entry.attempt),
                );
            } else if let Err(found) = due.check() {
                self.broken(Rule::RetryTimes, found);
            }
        }
    }
}

/// Where a lane delivery stands.
fn place(delivery: &Delivery) -> (usize, u64) {
    let partition = usize::try_from(delivery.ticket.slot).unwrap_or(usize::MAX);
    (partition, delivery.ticket.offset)
}
