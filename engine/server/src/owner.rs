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
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use posthaste_core::delivery::{Delivery, Report, ReportEnd};
use posthaste_core::limits::{
    COMMIT_EVERY, OWNER_BODY_BYTES_MAX, PROGRESS_ENTRIES_MAX, PROGRESS_EVERY,
};
use posthaste_core::operation::Operations;
use posthaste_core::registry::Registry;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Topics;
use crate::control::Endpoints;
use crate::log::{Epoch, GroupConsumer, GroupEvent, Log, LogError};
use crate::telemetry::OwnerMetrics;

mod act;
mod bodies;
mod commits;
mod opening;
mod operations;
mod part;
#[cfg(test)]
mod tests;
mod writes;

use bodies::Budget;
use commits::Committed;
pub use operations::Decode;
use part::{Batch, Part};
use writes::{Done, OPENINGS_MAX, Place, Writer, Writing, Written};

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
    /// How a source's record is read.
    pub decode: Decode,
    /// Who this is, in claims.
    pub instance_id: String,
    /// The endpoints.
    pub registry: watch::Receiver<Arc<Registry>>,
    /// … and the way to change them.
    pub endpoints: Endpoints,
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
    operations: watch::Receiver<Arc<Operations>>,
    mailboxes: Vec<mpsc::Sender<Vec<Delivery>>>,
    outbox: Vec<Vec<Delivery>>,
    reports: mpsc::Receiver<Vec<Report>>,
    clock: Clock,
    metrics: OwnerMetrics,
    parts: BTreeMap<u32, Part>,
    bodies: Budget,
    writes: FuturesUnordered<Writing>,
    commits: FuturesUnordered<BoxFuture<'static, Committed>>,
    /// Since it was told to stop: until then all is to be written.
    until: Option<Instant>,
}

enum Event {
    Group(GroupEvent),
    Endpoints,
    Operations,
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
            operations: parts.endpoints.operations(),
            writer: Writer {
                log: parts.log,
                topics: parts.topics,
                decode: parts.decode,
                instance_id: parts.instance_id,
                clock: parts.clock.clone(),
                openings: Arc::new(Semaphore::new(OPENINGS_MAX)),
                endpoints: parts.endpoints,
            },
            registry: parts.registry,
            outbox: parts.mailboxes.iter().map(|_| Vec::new()).collect(),
            mailboxes: parts.mailboxes,
            reports: parts.reports,
            clock: parts.clock,
            metrics: parts.metrics,
            parts: BTreeMap::new(),
            bodies: Budget::new(OWNER_BODY_BYTES_MAX),
            writes: FuturesUnordered::new(),
            commits: FuturesUnordered::new(),
            until: None,
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
        loop {
            let draining = self.until.is_some();
            let event = tokio::select! {
                biased;
                () = stop.cancelled(), if !draining => Event::Stop,
                Some(reports) = self.reports.recv() => Event::Reports(reports),
                Some(written) = self.writes.next() => Event::Written(written),
                Some(committed) = self.commits.next() => Event::Committed(committed),
                Ok(()) = self.registry.changed() => Event::Endpoints,
                Ok(()) = self.operations.changed() => Event::Operations,
                _ = tickers.tick.tick() => Event::Tick,
                _ = tickers.flush.tick() => Event::Flush,
                _ = tickers.commit.tick() => Event::Commit,
                event = self.consumer.next() => Event::Group(event),
            };
            if matches!(event, Event::Stop) {
                self.until = Some(Instant::now() + deadline);
            }
            self.handle(event)?;
            self.flush_outbox();
            let Some(until) = self.until else { continue };
            if self.is_drained() {
                return Ok(());
            }
            if Instant::now() >= until {
                tracing::warn!("not everything was written in time: it will be sent again");
                return Ok(());
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), LogError> {
        match event {
            Event::Group(event) => self.group_event(event)?,
            Event::Endpoints => self.endpoints_changed(),
            Event::Operations => self.operations_changed(),
            Event::Reports(reports) => reports.into_iter().for_each(|one| self.report(one)),
            Event::Written(written) => self.written(written)?,
            Event::Committed(committed) => self.committed(&committed),
            Event::Tick => self.tick(),
            Event::Flush => self.flush_facts(),
            Event::Commit => self.commit_all(),
            Event::Stop => self.drain(),
        }
        Ok(())
    }

    fn group_event(&mut self, event: GroupEvent) -> Result<(), LogError> {
        match event {
            // Another will have it in a moment.
            GroupEvent::Assigned { .. } if self.until.is_some() => {}
            GroupEvent::Assigned {
                tp,
                epoch,
                position,
                metadata,
            } => {
                tracing::debug!(%tp, position, metadata, "lane partition assigned");
                let part = Part::new(tp, epoch);
                self.writes
                    .push(self.writer.open(part.place(), position, metadata));
                self.drop_part_of(part.tp.partition);
                self.parts.insert(part.tp.partition, part);
            }
            GroupEvent::Batch {
                tp,
                epoch,
                records,
                next,
            } => {
                let partition = tp.partition;
                return self.fold(Place { partition, epoch }, Batch { records, next });
            }
            GroupEvent::Revoking { tp, epoch, done } => {
                let partition = tp.partition;
                if let Some(part) = self.live(Place { partition, epoch }) {
                    if let Some(owner) = part.owner() {
                        owner.drain();
                    }
                    part.revoking = Some((done, Instant::now() + REVOKE_WAIT));
                }
            }
            GroupEvent::Lost { tp, epoch } => self.drop_part(Place {
                partition: tp.partition,
                epoch,
            }),
            GroupEvent::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    fn fold(&mut self, place: Place, batch: Batch) -> Result<(), LogError> {
        let now = self.clock.now();
        let part = self.parts.get_mut(&place.partition);
        let Some(part) = part.filter(|part| part.epoch == place.epoch) else {
            return Ok(());
        };
        let bytes = part.fold(batch, now, &mut self.bodies)?;
        if bytes > 0 {
            self.consumer.credit(&part.tp, part.epoch, bytes);
        }
        self.operate(place);
        Ok(())
    }

    fn endpoints_changed(&mut self) {
        let registry = Arc::clone(&self.registry.borrow_and_update());
        for owner in self.parts.values_mut().filter_map(Part::owner) {
            let endpoints = Arc::clone(&registry);
            owner.set_endpoints(endpoints);
        }
    }

    fn drain(&mut self) {
        let owners = self.parts.values_mut().filter_map(Part::owner);
        owners.for_each(posthaste_core::lane::owner::Owner::drain);
    }

    fn live(&mut self, place: Place) -> Option<&mut Part> {
        let part = self.parts.get_mut(&place.partition);
        part.filter(|part| part.epoch == place.epoch)
    }

    fn drop_part(&mut self, place: Place) {
        if self.live(place).is_some() {
            self.drop_part_of(place.partition);
        }
    }

    fn drop_part_of(&mut self, partition: u32) {
        if let Some(part) = self.parts.remove(&partition) {
            part.release(&mut self.bodies);
        }
    }

    fn report(&mut self, report: Report) {
        let ticket = report.ticket;
        let place = Place {
            partition: ticket.slot,
            epoch: Epoch(ticket.epoch),
        };
        self.came_back(place, ticket.offset, report.end);
    }

    /// What was handed out, or was to be, is back.
    fn came_back(&mut self, place: Place, offset: u64, end: ReportEnd) {
        let now = self.clock.now();
        let mut actions = Vec::new();
        if let Some(owner) = self.live(place).and_then(Part::owner) {
            owner.report(offset, end, now, &mut actions);
        }
        self.act(place, actions);
        self.write_facts(place, PROGRESS_ENTRIES_MAX);
    }

    fn written(&mut self, Written { place, done }: Written) -> Result<(), LogError> {
        let now = self.clock.now();
        let mut actions = Vec::new();
        match done {
            Done::Opened(opened) => return self.opened(place, *opened?),
            Done::Page(endpoint, records, next) => {
                let part = self.parts.get_mut(&place.partition);
                if let Some(part) = part.filter(|part| part.epoch == place.epoch) {
                    actions = part.page(endpoint, &records, next, now, &mut self.bodies);
                }
            }
            Done::Read(offset, owed, Some(record)) => {
                self.hand_over(place, offset, owed, &record);
            }
            Done::Read(offset, _, None) => self.came_back(place, offset, ReportEnd::Bounced),
            Done::Facts(count) => {
                self.metrics.facts.increment(count);
                if let Some(part) = self.live(place) {
                    part.writing = false;
                }
                self.write_facts(place, PROGRESS_ENTRIES_MAX);
            }
            Done::Operated(id, came) => self.operated(place, id, came),
            Done::Told => {}
            done => {
                if let Some(owner) = self.live(place).and_then(Part::owner) {
                    match done {
                        Done::Claimed(offset) => owner.claimed(offset),
                        Done::Buried(offset) => owner.buried(offset),
                        Done::RangeBuried(endpoint) => owner.range_buried(endpoint),
                        Done::Moved(offset, to) => owner.moved(offset, to),
                        Done::Snapshot(part0) => owner.snapshot_written(part0, &mut actions),
                        _ => {}
                    }
                }
            }
        }
        self.act(place, actions);
        Ok(())
    }

    /// The state is read: what came meanwhile is folded, then claimed.
    fn opened(
        &mut self,
        place: Place,
        loaded: posthaste_core::lane::snapshot::Loaded,
    ) -> Result<(), LogError> {
        let registry = Arc::clone(&self.registry.borrow());
        let draining = self.until.is_some();
        let Some(part) = self.live(place) else {
            return Ok(());
        };
        if draining {
            // It attempted nothing, and nothing of it need be saved.
            self.drop_part(place);
            return Ok(());
        }
        for batch in part.open(loaded, registry) {
            self.fold(place, batch)?;
        }
        self.operations_changed();
        self.writes.push(self.writer.claim(place));
        Ok(())
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        for place in self.parts.values().map(Part::place).collect::<Vec<_>>() {
            let mut actions = Vec::new();
            if let Some(owner) = self.live(place).and_then(Part::owner) {
                owner.tick(now, &mut actions);
            }
            self.act(place, actions);
        }
        self.release_revoked();
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
        for place in self.parts.values().map(Part::place).collect::<Vec<_>>() {
            self.write_facts(place, 1);
        }
    }

    /// Writes facts, if at least so many wait and none are on their way: they are
    /// read in the order they are told.
    fn write_facts(&mut self, place: Place, least: usize) {
        let Some(part) = self.live(place).filter(|part| !part.writing) else {
            return;
        };
        let waiting = part.owner().filter(|owner| owner.facts_waiting() >= least);
        if let Some(progress) = waiting.and_then(|owner| owner.take_facts()) {
            part.writing = true;
            self.writes.push(self.writer.facts(place, progress));
        }
    }

    /// Lets go of revoked partitions whose state is saved, or whose time is up.
    fn release_revoked(&mut self) {
        let now = Instant::now();
        let free: Vec<_> = self
            .parts
            .values()
            .filter(|part| {
                let revoking = part.revoking.as_ref();
                revoking.is_some_and(|(_, until)| part.is_drained() || now >= *until)
            })
            .map(Part::place)
            .collect();
        for place in free {
            self.drop_part(place);
        }
    }

    fn is_drained(&self) -> bool {
        self.parts.values().all(Part::is_drained)
            && self.writes.is_empty()
            && self.commits.is_empty()
            && self.outbox.iter().all(Vec::is_empty)
    }
}
