//! The owner: the lane partitions this instance holds. It reads them, folds
//! their facts, hands what is due to the shards, and writes what came of it.
//!
//! What it refuses to do: attempt before it has read its own claim, settle
//! before the fact is in the log, or keep every body in memory (what does not
//! fit is read again from the log when it is due).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use posthaste_core::delivery::{Delivery, Report, ReportEnd, rules_of};
use posthaste_core::lane::owner as lane;
use posthaste_core::limits::{COMMIT_EVERY, OWNER_BODY_BYTES_MAX, PROGRESS_EVERY};
use posthaste_core::registry::Registry;
use posthaste_core::retry::Policies;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Topics;
use crate::log::{CommitError, Epoch, GroupConsumer, GroupEvent, Log, LogError, TopicPartition};
use crate::telemetry::OwnerMetrics;

mod part;
#[cfg(test)]
mod tests;
mod writes;

use part::{Budget, Part};
use writes::{Writer, Written};

/// How often what is due is handed out.
const TICK_EVERY: Duration = Duration::from_millis(50);
/// How long a revoked partition may take to finish what is in flight.
const REVOKE_WAIT: Duration = Duration::from_secs(3);

/// What the owner works with.
pub struct Parts {
    /// The lane group's member.
    pub consumer: Box<dyn GroupConsumer>,
    /// For facts, dead letters and bodies.
    pub log: Arc<dyn Log>,
    /// Our topics.
    pub topics: Topics,
    /// Who this is, in claims.
    pub instance_id: String,
    /// The endpoints.
    pub registry: watch::Receiver<Arc<Registry>>,
    /// What they can name for their retries.
    pub policies: Arc<Policies>,
    /// One mailbox a shard.
    pub mailboxes: Vec<mpsc::Sender<Vec<Delivery>>>,
    /// What became of what was handed out.
    pub reports: mpsc::Receiver<Vec<Report>>,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: OwnerMetrics,
}

/// The room. [`OwnerRoom::run`] is its loop.
pub struct OwnerRoom {
    consumer: Box<dyn GroupConsumer>,
    writer: Writer,
    registry: watch::Receiver<Arc<Registry>>,
    policies: Arc<Policies>,
    mailboxes: Vec<mpsc::Sender<Vec<Delivery>>>,
    outbox: Vec<Vec<Delivery>>,
    reports: mpsc::Receiver<Vec<Report>>,
    clock: Clock,
    metrics: OwnerMetrics,
    parts: BTreeMap<u32, Part>,
    bodies: Budget,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
    commits: FuturesUnordered<BoxFuture<'static, Committed>>,
}

struct Committed {
    partition: u32,
    epoch: Epoch,
    result: Result<(), CommitError>,
}

enum Event {
    Group(GroupEvent),
    Reports(Vec<Report>),
    Written(Written),
    Committed(Committed),
    Tick,
    Flush,
    Commit,
    Stop,
}

/// The loop's clocks.
struct Tickers {
    tick: Interval,
    flush: Interval,
    commit: Interval,
}

impl Tickers {
    fn new() -> Self {
        let every = |period| {
            let mut ticker = interval(period);
            ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticker
        };
        Self {
            tick: every(TICK_EVERY),
            flush: every(PROGRESS_EVERY),
            commit: every(COMMIT_EVERY),
        }
    }
}

impl OwnerRoom {
    /// The room, ready to run.
    pub fn new(parts: Parts) -> Self {
        Self {
            consumer: parts.consumer,
            writer: Writer::new(
                parts.log,
                parts.topics,
                parts.instance_id,
                parts.clock.clone(),
            ),
            registry: parts.registry,
            policies: parts.policies,
            outbox: parts.mailboxes.iter().map(|_| Vec::new()).collect(),
            mailboxes: parts.mailboxes,
            reports: parts.reports,
            clock: parts.clock,
            metrics: parts.metrics,
            parts: BTreeMap::new(),
            bodies: Budget::new(OWNER_BODY_BYTES_MAX),
            writes: FuturesUnordered::new(),
            commits: FuturesUnordered::new(),
        }
    }

    /// Runs until `stop`, then finishes what is in flight within `deadline`. An
    /// error means the group cannot go on.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        deadline: Duration,
    ) -> Result<(), LogError> {
        let mut tickers = Tickers::new();
        let mut until: Option<Instant> = None;
        loop {
            let draining = until.is_some();
            let event = tokio::select! {
                biased;
                () = stop.cancelled(), if !draining => Event::Stop,
                Some(reports) = self.reports.recv() => Event::Reports(reports),
                Some(written) = self.writes.next() => Event::Written(written),
                Some(committed) = self.commits.next() => Event::Committed(committed),
                _ = tickers.tick.tick() => Event::Tick,
                _ = tickers.flush.tick() => Event::Flush,
                _ = tickers.commit.tick() => Event::Commit,
                event = self.consumer.next() => Event::Group(event),
            };
            if matches!(event, Event::Stop) {
                until = Some(Instant::now() + deadline);
            }
            self.handle(event)?;
            self.flush_outbox();
            if let Some(until) = until
                && (self.is_drained() || Instant::now() >= until)
            {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), LogError> {
        match event {
            Event::Group(event) => self.group_event(event)?,
            Event::Reports(reports) => reports.into_iter().for_each(|one| self.report(one)),
            Event::Written(written) => self.written(written),
            Event::Committed(committed) => self.committed(&committed),
            Event::Tick => self.tick(),
            Event::Flush => self.flush_facts(),
            Event::Commit => self.commit_all(),
            Event::Stop => self.parts.values_mut().for_each(|part| part.owner.drain()),
        }
        Ok(())
    }

    fn group_event(&mut self, event: GroupEvent) -> Result<(), LogError> {
        match event {
            GroupEvent::Assigned {
                tp,
                epoch,
                position,
                ..
            } => {
                tracing::debug!(%tp, position, "lane partition assigned");
                self.writes.push(self.writer.claim(tp.partition, epoch));
                self.parts
                    .insert(tp.partition, Part::new(tp, epoch, position));
            }
            GroupEvent::Batch {
                tp,
                epoch,
                records,
                next,
            } => {
                let Some(part) = self.parts.get_mut(&tp.partition) else {
                    return Ok(());
                };
                if part.epoch != epoch {
                    return Ok(());
                }
                let size = records.iter().map(crate::log::Record::size).sum();
                part.fold(records, next, &mut self.bodies)?;
                self.consumer.credit(&tp, epoch, size);
            }
            GroupEvent::Revoking { tp, epoch, done } => {
                if let Some(part) = self.parts.get_mut(&tp.partition)
                    && part.epoch == epoch
                {
                    part.owner.drain();
                    part.revoking = Some((done, Instant::now() + REVOKE_WAIT));
                }
            }
            GroupEvent::Lost { tp, epoch } => self.drop_part(&tp, epoch),
            GroupEvent::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    fn drop_part(&mut self, tp: &TopicPartition, epoch: Epoch) {
        if self
            .parts
            .get(&tp.partition)
            .is_some_and(|p| p.epoch == epoch)
            && let Some(part) = self.parts.remove(&tp.partition)
        {
            part.release(&mut self.bodies);
        }
    }

    fn report(&mut self, report: Report) {
        let ticket = report.ticket;
        let Some(part) = self.parts.get(&ticket.slot) else {
            return;
        };
        if part.epoch.0 != ticket.epoch {
            return;
        }
        self.came_back(ticket.slot, ticket.offset, report.end);
    }

    /// Tells a partition what became of a delivery it handed out.
    fn came_back(&mut self, partition: u32, offset: u64, end: ReportEnd) {
        let Some(part) = self.parts.get_mut(&partition) else {
            return;
        };
        let registry = Arc::clone(&self.registry.borrow());
        let known = part.owner.out_to(offset).and_then(|id| registry.index(id));
        let endpoint = known.and_then(|ix| registry.endpoint(ix));
        let rules = rules_of(endpoint.map(AsRef::as_ref), &self.policies);
        let mut actions = Vec::new();
        part.owner
            .report(offset, end, rules, self.clock.now(), &mut actions);
        self.act(partition, actions);
    }

    fn written(&mut self, written: Written) {
        match written {
            Written::Claimed {
                partition,
                epoch,
                offset,
            } => {
                if let Some(part) = self.live(partition, epoch) {
                    part.owner.claimed(offset);
                }
            }
            Written::Facts {
                partition,
                epoch,
                count,
            } => {
                self.metrics.facts.increment(count);
                if let Some(part) = self.live(partition, epoch) {
                    part.writing = false;
                }
            }
            Written::Buried {
                partition,
                epoch,
                offset,
            } => {
                if let Some(part) = self.live(partition, epoch) {
                    part.owner.buried(offset);
                }
            }
            Written::Read {
                partition,
                epoch,
                offset,
                delivery,
            } => {
                let Some(part) = self.live(partition, epoch) else {
                    return;
                };
                let Some(owed) = part.owner.fold().owed(offset).copied() else {
                    return;
                };
                match delivery {
                    Some(record) => self.hand_over(partition, offset, owed, &record),
                    None => self.bounce(partition, offset),
                }
            }
        }
    }

    fn live(&mut self, partition: u32, epoch: Epoch) -> Option<&mut Part> {
        self.parts
            .get_mut(&partition)
            .filter(|part| part.epoch == epoch)
    }

    /// It cannot be handed over just now: it comes round again.
    fn bounce(&mut self, partition: u32, offset: u64) {
        self.came_back(partition, offset, ReportEnd::Bounced);
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        for partition in self.parts.keys().copied().collect::<Vec<_>>() {
            let mut actions = Vec::new();
            if let Some(part) = self.parts.get_mut(&partition) {
                part.owner.tick(now, &mut actions);
            }
            self.act(partition, actions);
        }
        self.release_revoked();
    }

    /// Does what a partition's state machine said.
    fn act(&mut self, partition: u32, actions: Vec<lane::Action>) {
        for action in actions {
            let Some(part) = self.parts.get(&partition) else {
                return;
            };
            match action {
                lane::Action::Dispatch { offset, owed } => {
                    match part.bodies.get(&offset).cloned() {
                        Some(record) => self.hand_over(partition, offset, owed, &record),
                        None => self
                            .writes
                            .push(self.writer.read(partition, part.epoch, offset)),
                    }
                }
                lane::Action::Bury {
                    offset,
                    attempts,
                    cause,
                    last,
                } => {
                    self.metrics
                        .dead(posthaste_proto::DeadCause::from(cause).as_str_name());
                    let known = part.bodies.get(&offset).cloned();
                    let burial = writes::Burial {
                        partition,
                        epoch: part.epoch,
                        offset,
                        attempts,
                        cause,
                        last,
                    };
                    self.writes.push(self.writer.bury(burial, known));
                }
            }
        }
    }

    /// Puts a delivery into its shard's outbox.
    fn hand_over(
        &mut self,
        partition: u32,
        offset: u64,
        owed: posthaste_core::lane::fold::Owed,
        record: &posthaste_proto::Deliver,
    ) {
        let Some(part) = self.parts.get(&partition) else {
            return;
        };
        let known = self.registry.borrow().index(owed.endpoint);
        let Some(endpoint) = known else {
            // Whoever wrote the record knew it, and the index of a deleted
            // endpoint stays: the table is not read as far yet. One of which
            // even the tombstone is gone is told by its deadline.
            return self.bounce(partition, offset);
        };
        let shard = usize::try_from(endpoint.0).unwrap_or(0) % self.outbox.len();
        let delivery = part.delivery(offset, endpoint, owed.attempts, record);
        self.outbox[shard].push(delivery);
    }

    /// Bounded: at most what owners may have out.
    fn flush_outbox(&mut self) {
        for (out, mailbox) in self.outbox.iter_mut().zip(&self.mailboxes) {
            if out.is_empty() {
                continue;
            }
            if let Ok(permit) = mailbox.try_reserve() {
                permit.send(std::mem::take(out));
            }
        }
    }

    fn flush_facts(&mut self) {
        for (&partition, part) in &mut self.parts {
            if part.writing {
                continue;
            }
            if let Some(progress) = part.owner.take_facts() {
                part.writing = true;
                self.writes
                    .push(self.writer.facts(partition, part.epoch, progress));
            }
        }
    }

    fn commit_all(&mut self) {
        let mut owed = 0;
        for (&partition, part) in &mut self.parts {
            owed += part.owner.fold().len();
            let floor = part.owner.fold().floor();
            if part.committing || part.committed == Some(floor) {
                continue;
            }
            part.committing = true;
            part.committed = Some(floor);
            let epoch = part.epoch;
            let commit = self.consumer.commit(&part.tp, epoch, floor, String::new());
            let committed = move |result| Committed {
                partition,
                epoch,
                result,
            };
            self.commits.push(commit.map(committed).boxed());
        }
        self.metrics.owed(owed);
    }

    fn committed(&mut self, committed: &Committed) {
        let Some(part) = self.live(committed.partition, committed.epoch) else {
            return;
        };
        part.committing = false;
        if let Err(error) = &committed.result {
            part.committed = None;
            tracing::warn!(tp = %part.tp, %error, "lane commit failed, the next one supersedes it");
        }
    }

    /// Lets go of revoked partitions whose facts are written, or whose time is
    /// up.
    fn release_revoked(&mut self) {
        let now = Instant::now();
        let free: Vec<_> = self
            .parts
            .values()
            .filter(|part| {
                let revoking = part.revoking.as_ref();
                revoking.is_some_and(|(_, until)| part.is_drained() || now >= *until)
            })
            .map(|part| (part.tp.clone(), part.epoch))
            .collect();
        for (tp, epoch) in free {
            self.drop_part(&tp, epoch);
        }
    }

    fn is_drained(&self) -> bool {
        self.parts.values().all(Part::is_drained)
            && self.writes.is_empty()
            && self.commits.is_empty()
            && self.outbox.iter().all(Vec::is_empty)
    }
}
