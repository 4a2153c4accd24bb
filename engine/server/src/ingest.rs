//! Events in: from the source partitions to the shards' mailboxes, and back as
//! closed tickets to committed offsets.
//!
//! ```text
//!  group ---> source ---> router: decode, match ---> mailboxes
//!    ^                                                   |
//!    +------ commit <------ tracker <--- closed tickets -+
//! ```
//!
//! What it refuses to do: commit past anything unsettled, skip a record it
//! cannot read (it becomes a dead letter), or run before the endpoints table
//! has caught up (everything would match nothing and be committed).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use posthaste_core::delivery::{Closed, Delivery};
use posthaste_core::limits::{COMMIT_COMPLETIONS_MAX, COMMIT_EVERY, COMMIT_METADATA_MAX};
use posthaste_core::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::log::{CommitError, Epoch, GroupConsumer, GroupEvent, LogError, TopicPartition};
use crate::telemetry::IngestMetrics;

pub mod decode;
mod envelope;
pub mod poison;
mod router;
mod source;

use decode::Decoder;
use poison::Undertaker;
use router::Router;
use source::{Batch, Source};

/// How long a revoked partition may take to finish what is in flight.
const REVOKE_WAIT: Duration = Duration::from_secs(3);

/// What ingest works with.
pub struct Parts {
    /// The group's member.
    pub consumer: Box<dyn GroupConsumer>,
    /// Reads events out of records.
    pub decoder: Decoder,
    /// The endpoints.
    pub registry: watch::Receiver<Arc<Registry>>,
    /// One mailbox a shard.
    pub mailboxes: Vec<mpsc::Sender<Vec<Delivery>>>,
    /// Settled positions.
    pub closed: mpsc::Receiver<Vec<Closed>>,
    /// Buries what cannot be read.
    pub undertaker: Undertaker,
    /// Counters.
    pub metrics: IngestMetrics,
    /// Told how many source partitions are read here.
    pub share: watch::Sender<(u32, u32)>,
}

/// The room. [`Ingest::run`] is its loop.
pub struct Ingest {
    consumer: Box<dyn GroupConsumer>,
    registry: watch::Receiver<Arc<Registry>>,
    closed: mpsc::Receiver<Vec<Closed>>,
    router: Router,
    sources: Vec<Option<Source>>,
    commits: FuturesUnordered<BoxFuture<'static, Committed>>,
    metadata_max: usize,
    completions: usize,
    share: watch::Sender<(u32, u32)>,
}

struct Committed {
    slot: usize,
    epoch: Epoch,
    result: Result<(), CommitError>,
}

enum Event {
    Group(GroupEvent),
    Closed(Vec<Closed>),
    Committed(Committed),
    Room,
    Tick,
    Stop,
}

impl Ingest {
    /// The room, ready to run.
    pub fn new(parts: Parts) -> Self {
        Self {
            consumer: parts.consumer,
            registry: parts.registry,
            closed: parts.closed,
            router: Router::new(
                parts.decoder,
                parts.undertaker,
                parts.metrics,
                parts.mailboxes,
            ),
            sources: Vec::new(),
            commits: FuturesUnordered::new(),
            metadata_max: COMMIT_METADATA_MAX,
            completions: 0,
            share: parts.share,
        }
    }

    /// Runs until `stop`, then finishes: intake ends, what the shards hold
    /// settles, and the last positions are committed, all within `deadline` of
    /// `stop`. An error means the group cannot go on.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        deadline: Duration,
    ) -> Result<(), LogError> {
        let mut tick = interval(COMMIT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = self.next_event(&stop, &mut tick).await;
            if matches!(event, Event::Stop) {
                return self.finish(Instant::now() + deadline).await;
            }
            self.handle(event)?;
            self.route();
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken, tick: &mut Interval) -> Event {
        let stalled = self.router.stalled();
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            Some(closed) = self.closed.recv() => Event::Closed(closed),
            Some(committed) = self.commits.next() => Event::Committed(committed),
            Some(buried) = self.router.burials.next() => Event::Closed(vec![buried]),
            _ = tick.tick() => Event::Tick,
            () = room_in(stalled) => Event::Room,
            event = self.consumer.next() => Event::Group(event),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), LogError> {
        match event {
            Event::Group(event) => self.group_event(event)?,
            Event::Closed(closed) => closed.into_iter().for_each(|one| self.close(one)),
            Event::Committed(committed) => self.committed(&committed),
            Event::Tick => self.commit_dirty(),
            Event::Room | Event::Stop => {}
        }
        if self.completions >= COMMIT_COMPLETIONS_MAX {
            self.commit_dirty();
        }
        self.release_revoked();
        Ok(())
    }

    fn group_event(&mut self, event: GroupEvent) -> Result<(), LogError> {
        let moved = !matches!(event, GroupEvent::Batch { .. });
        self.take(event)?;
        if moved {
            let read = self.sources.iter().flatten();
            let read = read.filter(|source| source.revoking.is_none()).count();
            let mine = u32::try_from(read).unwrap_or(u32::MAX);
            self.share.send_modify(|share| share.0 = mine);
        }
        Ok(())
    }

    fn take(&mut self, event: GroupEvent) -> Result<(), LogError> {
        match event {
            GroupEvent::Assigned {
                tp,
                epoch,
                position,
                metadata,
            } => {
                tracing::info!(%tp, position, "source partition assigned");
                let source = Source::new(tp, epoch, position, &metadata);
                match self.sources.iter_mut().find(|slot| slot.is_none()) {
                    Some(free) => *free = Some(source),
                    None => self.sources.push(Some(source)),
                }
            }
            GroupEvent::Batch {
                tp,
                epoch,
                records,
                next,
            } => {
                if let Some(source) = self.source(&tp, epoch)
                    && source.revoking.is_none()
                {
                    source.backlog.push_back(Batch {
                        records: records.into(),
                        next,
                    });
                }
            }
            GroupEvent::Revoking { tp, epoch, done } => {
                if let Some(source) = self.source(&tp, epoch) {
                    source.revoke(done, Instant::now() + REVOKE_WAIT);
                }
            }
            GroupEvent::Lost { tp, epoch } => {
                self.sources
                    .iter_mut()
                    .filter(|slot| is(slot.as_ref(), &tp, epoch))
                    .for_each(|slot| *slot = None);
            }
            GroupEvent::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    /// Routes what was read until a mailbox is full.
    fn route(&mut self) {
        let registry = Arc::clone(&self.registry.borrow_and_update());
        for (slot, source) in self.sources.iter_mut().enumerate() {
            let Some(source) = source else { continue };
            let slot = u32::try_from(slot).expect("fewer than 2^32 partitions");
            let bytes = self.router.route(&registry, slot, source);
            if bytes > 0 {
                self.consumer.credit(&source.tp, source.epoch, bytes);
            }
        }
        self.router.flush();
    }

    fn close(&mut self, closed: Closed) {
        let slot = usize::try_from(closed.slot).unwrap_or(usize::MAX);
        let Some(Some(source)) = self.sources.get_mut(slot) else {
            return;
        };
        if source.epoch.0 == closed.epoch && source.tracker.done(closed.offset) {
            self.completions += 1;
        }
    }

    fn commit_dirty(&mut self) {
        self.completions = 0;
        for slot in 0..self.sources.len() {
            self.commit(slot);
        }
        let open = self.sources.iter().flatten();
        let open: usize = open.map(|source| source.tracker.incomplete()).sum();
        self.router.metrics.open(open);
    }

    fn commit(&mut self, slot: usize) {
        let Some(source) = self.sources[slot].as_mut() else {
            return;
        };
        if source.committing || !source.tracker.dirty() {
            return;
        }
        source.committing = true;
        let epoch = source.epoch;
        let at = source.tracker.committable();
        let metadata = source.tracker.metadata(self.metadata_max);
        source.tracker.mark_committed();
        let commit = self.consumer.commit(&source.tp, epoch, at, metadata);
        let committed = move |result| Committed {
            slot,
            epoch,
            result,
        };
        self.commits.push(commit.map(committed).boxed());
    }

    fn committed(&mut self, committed: &Committed) {
        let Some(Some(source)) = self.sources.get_mut(committed.slot) else {
            return;
        };
        if source.epoch != committed.epoch {
            return;
        }
        source.committing = false;
        let Err(error) = &committed.result else {
            self.router.metrics.commits.increment(1);
            return;
        };
        self.router.metrics.commit_failures.increment(1);
        source.tracker.mark_dirty();
        if *error == CommitError::MetadataTooLarge {
            self.metadata_max /= 2;
        }
        tracing::warn!(tp = %source.tp, %error, "commit failed, the next one supersedes it");
    }

    /// Lets go of revoked partitions that are settled and committed, or whose
    /// time is up.
    fn release_revoked(&mut self) {
        let now = Instant::now();
        for slot in 0..self.sources.len() {
            let Some(source) = self.sources[slot].as_ref() else {
                continue;
            };
            let Some(revoking) = &source.revoking else {
                continue;
            };
            if !source.is_open() || now >= revoking.until {
                self.sources[slot] = None;
            } else if source.tracker.incomplete() == 0 {
                self.commit(slot);
            }
        }
    }

    /// Intake has ended: settle and commit what can be.
    async fn finish(mut self, deadline: Instant) -> Result<(), LogError> {
        for source in self.sources.iter_mut().flatten() {
            source.backlog.clear();
        }
        let mut tick = interval(Duration::from_millis(20));
        loop {
            self.router.flush();
            self.commit_dirty();
            if !self.router.waits() && !self.sources.iter().flatten().any(Source::is_open) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                tracing::warn!("not everything in flight settled in time: it will be sent again");
                return Ok(());
            }
            let event = tokio::select! {
                Some(closed) = self.closed.recv() => Event::Closed(closed),
                Some(committed) = self.commits.next() => Event::Committed(committed),
                Some(buried) = self.router.burials.next() => Event::Closed(vec![buried]),
                _ = tick.tick() => Event::Tick,
                event = self.consumer.next() => Event::Group(event),
            };
            // What still comes in is another's; what is lost or given back here
            // need not be waited for.
            let comes = matches!(
                event,
                Event::Group(GroupEvent::Assigned { .. } | GroupEvent::Batch { .. })
            );
            if !comes {
                self.handle(event)?;
            }
        }
    }

    fn source(&mut self, tp: &TopicPartition, epoch: Epoch) -> Option<&mut Source> {
        self.sources
            .iter_mut()
            .flatten()
            .find(|source| source.tp == *tp && source.epoch == epoch)
    }
}

fn is(source: Option<&Source>, tp: &TopicPartition, epoch: Epoch) -> bool {
    source.is_some_and(|source| source.tp == *tp && source.epoch == epoch)
}

/// Resolves when the mailbox takes one more; never without a mailbox.
async fn room_in(mailbox: Option<mpsc::Sender<Vec<Delivery>>>) {
    match mailbox {
        Some(mailbox) => drop(mailbox.reserve().await),
        None => std::future::pending().await,
    }
}
