//! Attempts on record: what was sent to whom, when, and what came back. Kept
//! for people; nothing depends on it, so a slow log costs records, counted,
//! and never a delivery.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste_core::delivery::{Delivery, Generation};
use posthaste_core::event::Event;
use posthaste_core::limits::{AUDIT_BATCH, AUDIT_BATCHES_MAX};
use posthaste_core::outcome::Cause;
use posthaste_core::registry::EndpointIx;
use posthaste_core::time::Timestamp;
use posthaste_proto::{AttemptRef, AttemptWriter};
use tokio::sync::mpsc;

use super::Parts;
use super::desk::Desk;
use crate::config::AuditLevel;
use crate::log::{NewRecord, TopicPartition};
use crate::send::Attempted;

/// A shard's attempts on their way to the attempts topic.
pub(super) struct Audit {
    level: AuditLevel,
    waiting: RefCell<AttemptWriter>,
    /// Values of whole batches.
    out: mpsc::Sender<Bytes>,
}

/// An attempt that was made, kept while what follows from it is decided.
pub(super) struct Made {
    event: Arc<Event>,
    endpoint: EndpointIx,
    generation: Generation,
    /// From 1.
    number: u32,
    started: Timestamp,
    took: Duration,
    /// When the next one is due, where that is known.
    pub(super) next_due: Option<Timestamp>,
}

impl Made {
    pub(super) fn of(delivery: &Delivery, started: Timestamp, took: Duration) -> Self {
        Self {
            event: Arc::clone(&delivery.event),
            endpoint: delivery.endpoint,
            generation: delivery.generation,
            number: delivery.attempts + 1,
            started,
            took,
            next_due: None,
        }
    }
}

impl Audit {
    /// Starts the task that appends them.
    pub(super) fn start(parts: &Parts) -> Self {
        let (out, mut batches) = mpsc::channel(AUDIT_BATCHES_MAX);
        let log = Arc::clone(&parts.log);
        let topic = parts.topics.attempts();
        let partitions = parts.topics.lane_partitions;
        tokio::task::spawn_local(async move {
            let mut turn = 0;
            let mut waiting = Vec::new();
            // What came while the log was busy goes together.
            while batches.recv_many(&mut waiting, AUDIT_BATCHES_MAX).await > 0 {
                let records = waiting.drain(..).map(|value| {
                    turn = (turn + 1) % partitions;
                    NewRecord {
                        to: TopicPartition {
                            topic: topic.clone(),
                            partition: turn,
                        },
                        key: Bytes::new(),
                        value,
                        headers: Vec::new(),
                    }
                });
                for result in log.append_audit(records.collect()).await {
                    if let Err(error) = result {
                        tracing::warn!(%error, "attempts were not recorded");
                    }
                }
            }
        });
        Self {
            level: parts.audit,
            waiting: RefCell::default(),
            out,
        }
    }

    /// Notes one attempt.
    pub(super) fn record(&self, desk: &Desk, made: &Made, attempted: &Attempted) {
        let failed = attempted.outcome.cause.is_some();
        let wanted = match self.level {
            AuditLevel::All => true,
            AuditLevel::Failures => failed,
            AuditLevel::None => false,
        };
        if !wanted {
            return;
        }
        let Some(endpoint) = desk.endpoint_id(made.endpoint) else {
            return;
        };
        let (event, origin) = (&made.event, &made.event.origin);
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(&AttemptRef {
            endpoint_id: endpoint.as_bytes(),
            tenant: &event.tenant,
            event_id: &event.id,
            event_type: &event.event_type,
            number: made.number,
            started_ms: made.started.as_millis(),
            duration_us: u64::try_from(made.took.as_micros()).unwrap_or(u64::MAX),
            status: attempted.outcome.status.map_or(0, u32::from),
            cause: attempted.outcome.cause.map_or("", Cause::code),
            next_due_ms: made.next_due.map_or(0, Timestamp::as_millis),
            response_excerpt: &attempted.excerpt,
            origin_topic: &origin.topic,
            origin_partition: origin.partition,
            origin_offset: origin.offset,
            origin_ms: origin.timestamp.as_millis(),
            generation: made.generation.as_bytes(),
        });
        if waiting.len() >= AUDIT_BATCH {
            let count = waiting.len();
            if self.out.try_send(waiting.take()).is_err() {
                let count = u64::try_from(count).unwrap_or(0);
                desk.metrics.borrow().audit_dropped.increment(count);
            }
        }
    }

    /// Lets go of what waits, if there is room.
    pub(super) fn flush(&self) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.is_empty()
            && let Ok(permit) = self.out.try_reserve()
        {
            permit.send(waiting.take());
        }
    }

    /// Resolves when everything handed over is on its way to the log.
    pub(super) async fn close(&self) {
        let _all = self.out.reserve_many(AUDIT_BATCHES_MAX).await;
    }
}
