//! From records to deliveries in the shards' mailboxes.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use posthaste_core::content::View;
use posthaste_core::delivery::{Closed, Delivery, Room, Ticket};
use posthaste_core::event::EventError;
use posthaste_core::limits::{BURIALS_MAX, MAILBOX_BATCH};
use posthaste_core::registry::{EndpointIx, Registry};
use tokio::sync::mpsc;

use super::decode::Decoder;
use super::poison::Undertaker;
use super::source::Source;
use crate::log::Record;
use crate::telemetry::IngestMetrics;

/// Decodes, matches, and fills the mailboxes as far as they take it.
pub(super) struct Router {
    pub(super) decoder: Decoder,
    pub(super) undertaker: Undertaker,
    pub(super) metrics: IngestMetrics,
    pub(super) burials: FuturesUnordered<BoxFuture<'static, Closed>>,
    mailboxes: Vec<mpsc::Sender<Vec<Delivery>>>,
    outbox: Vec<Vec<Delivery>>,
    matched: Vec<EndpointIx>,
}

impl Router {
    pub(super) fn new(
        decoder: Decoder,
        undertaker: Undertaker,
        metrics: IngestMetrics,
        mailboxes: Vec<mpsc::Sender<Vec<Delivery>>>,
    ) -> Self {
        Self {
            decoder,
            undertaker,
            metrics,
            burials: FuturesUnordered::new(),
            outbox: mailboxes.iter().map(|_| Vec::new()).collect(),
            mailboxes,
            matched: Vec::new(),
        }
    }

    /// Routes what a source has read, as far as there is room. Answers how many
    /// bytes of records it took.
    pub(super) fn route(
        &mut self,
        registry: &Arc<Registry>,
        slot: u32,
        source: &mut Source,
    ) -> usize {
        let mut bytes = 0;
        while let Some(batch) = source.backlog.front_mut() {
            let Some(record) = batch.records.pop_front() else {
                let next = batch.next;
                source.backlog.pop_front();
                source.tracker.skip_to(next);
                continue;
            };
            if source.is_full() || !self.has_room() {
                // `source` was borrowed anew by `is_full`: put it back.
                if let Some(batch) = source.backlog.front_mut() {
                    batch.records.push_front(record);
                }
                break;
            }
            bytes += record.size();
            self.record(registry, slot, source, &record);
        }
        bytes
    }

    fn has_room(&mut self) -> bool {
        if self.burials.len() >= BURIALS_MAX {
            return false;
        }
        if self.outbox.iter().any(|out| out.len() >= MAILBOX_BATCH) {
            self.flush();
        }
        self.outbox.iter().all(|out| out.len() < MAILBOX_BATCH)
    }

    fn record(&mut self, registry: &Registry, slot: u32, source: &mut Source, record: &Record) {
        self.metrics.records.increment(1);
        let offset = record.offset;
        if source.tracker.is_done(offset) {
            source.tracker.seen(offset, 0);
            return;
        }
        let event = match self.decoder.decode(&source.tp, record) {
            Ok(event) => event,
            Err(error) => {
                source.tracker.seen(offset, 1);
                self.bury(slot, source, record, &error);
                return;
            }
        };
        self.matched.clear();
        registry.matching(&event.tenant, &event.event_type, &mut self.matched);
        let view = View {
            event_type: &event.event_type,
            headers: &record.headers,
            body: &event.body,
        };
        if registry.sift(&event.tenant, &view, &mut self.matched) {
            self.metrics.undecided.increment(1);
        }
        let count = u32::try_from(self.matched.len()).expect("fewer than 2^32 endpoints");
        source.tracker.seen(offset, count);
        if count == 0 {
            self.metrics.unmatched.increment(1);
        }
        let event = Arc::new(event);
        for &endpoint in &self.matched {
            let shard = usize::try_from(endpoint.0).unwrap_or(0) % self.outbox.len();
            self.outbox[shard].push(Delivery::new(
                Arc::clone(&event),
                endpoint,
                0,
                Ticket {
                    room: Room::Ingest,
                    slot,
                    epoch: source.epoch.0,
                    offset,
                },
            ));
        }
    }

    fn bury(&self, slot: u32, source: &Source, record: &Record, error: &EventError) {
        self.metrics.poison.increment(1);
        tracing::warn!(tp = %source.tp, offset = record.offset, %error, "record became a dead letter");
        let closed = Closed {
            slot,
            epoch: source.epoch.0,
            offset: record.offset,
        };
        let burial = self.undertaker.bury(&source.tp, record, error);
        self.burials.push(burial.map(move |()| closed).boxed());
    }

    /// Hands over what the mailboxes take.
    pub(super) fn flush(&mut self) {
        for (out, mailbox) in self.outbox.iter_mut().zip(&self.mailboxes) {
            if out.is_empty() {
                continue;
            }
            if let Ok(permit) = mailbox.try_reserve() {
                permit.send(std::mem::replace(out, Vec::with_capacity(MAILBOX_BATCH)));
            }
        }
    }

    /// Whether deliveries wait for a mailbox.
    pub(super) fn waits(&self) -> bool {
        self.outbox.iter().any(|out| !out.is_empty())
    }

    /// A full mailbox that deliveries wait for.
    pub(super) fn stalled(&self) -> Option<mpsc::Sender<Vec<Delivery>>> {
        let shard = self.outbox.iter().position(|out| !out.is_empty())?;
        Some(self.mailboxes[shard].clone())
    }
}
