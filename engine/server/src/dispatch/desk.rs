//! A shard's desk: the core state machine and the hands that do what it says.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use posthaste_core::delivery::{Closed, Delivery, Report};
use posthaste_core::id::EndpointId;
use posthaste_core::limits::{MAILBOX_BATCH, SHARD_QUEUED_MAX};
use posthaste_core::outcome::Outcome;
use posthaste_core::registry::{EndpointIx, Registry};
use posthaste_core::shard::{Action, Shard};
use posthaste_core::time::Timestamp;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use super::Parts;
use super::appender::Appender;
use super::audit::Audit;
use super::worker::{SharedLine, Worker, Workers};
use crate::clock::Clock;
use crate::send::{Egress, Prepared};
use crate::telemetry::ShardMetrics;

/// Closed tickets that leave at once; fewer wait for the next flush.
const CLOSED_BATCH: usize = 128;

/// One shard's state, shared by its loop, its connection tasks and its
/// appender: all on one thread, so a borrow is never held across an await.
pub(super) struct Desk {
    pub(super) clock: Clock,
    pub(super) egress: Arc<Egress>,
    pub(super) audit: Audit,
    pub(super) metrics: RefCell<ShardMetrics>,
    shard: RefCell<Shard>,
    actions: RefCell<Vec<Action>>,
    workers: RefCell<Workers>,
    appender: Appender,
    closed: RefCell<Outbox<Closed>>,
    reports: RefCell<Outbox<Report>>,
    moved: Notify,
    /// How few must wait before intake that was refused is offered again.
    wanted: Cell<usize>,
    draining: Cell<bool>,
}

/// What leaves the shard in batches. It holds no more than the shard has
/// deliveries, so a full channel costs no memory without bound.
struct Outbox<T> {
    waiting: Vec<T>,
    out: mpsc::Sender<Vec<T>>,
}

impl<T> Outbox<T> {
    fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        match self.out.try_reserve() {
            Ok(permit) => permit.send(std::mem::take(&mut self.waiting)),
            Err(TrySendError::Full(())) => {}
            // Its reader ended before us: the deadline has passed.
            Err(TrySendError::Closed(())) => self.waiting.clear(),
        }
    }
}

impl Desk {
    pub(super) fn open(shard: Shard, parts: &Parts, metrics: ShardMetrics) -> Rc<Self> {
        Rc::new_cyclic(|desk| Self {
            clock: parts.clock.clone(),
            egress: Arc::clone(&parts.egress),
            audit: Audit::start(parts),
            metrics: RefCell::new(metrics),
            shard: RefCell::new(shard),
            actions: RefCell::new(Vec::new()),
            workers: RefCell::new(Workers::default()),
            appender: Appender::start(parts, desk.clone()),
            closed: RefCell::new(Outbox {
                waiting: Vec::new(),
                out: parts.closed.clone(),
            }),
            reports: RefCell::new(Outbox {
                waiting: Vec::new(),
                out: parts.reports.clone(),
            }),
            moved: Notify::new(),
            wanted: Cell::new(0),
            draining: Cell::new(false),
        })
    }

    /// Offers one delivery; gives it back when the shard wants no more now:
    /// [`moved`](Self::moved) tells when to offer it again, a flush at the
    /// latest. [`apply`](Self::apply) follows.
    pub(super) fn offer(&self, delivery: Delivery, others_hungry: bool) -> Result<(), Delivery> {
        let now = self.clock.now();
        let mut shard = self.shard.borrow_mut();
        let actions = &mut self.actions.borrow_mut();
        if self.draining.get() {
            shard.refuse(delivery, now, actions);
            return Ok(());
        }
        let offered = shard.offer(delivery, now, others_hungry, actions);
        if offered.is_err() {
            // In a full shard, one place that comes free is not worth a turn of
            // the loop. Elsewhere one endpoint holds intake up, at the cost of
            // the others: every end may change that.
            let queued = shard.queued();
            self.wanted.set(if queued >= SHARD_QUEUED_MAX {
                queued - MAILBOX_BATCH
            } else {
                usize::MAX
            });
        }
        offered
    }

    /// Takes what an owner hands over; what has no room goes back to it.
    pub(super) fn take_all(self: &Rc<Self>, batch: Vec<Delivery>) {
        for delivery in batch {
            let taken = self.offer(delivery, true);
            assert!(taken.is_ok(), "an owner's delivery is taken or bounced");
        }
        self.apply();
    }

    /// An attempt ended. `worker` is free again. Answers when the next one is due,
    /// where the shard decides that.
    pub(super) fn finished(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        delivery: Delivery,
        outcome: Outcome,
        now: Timestamp,
    ) -> Option<Timestamp> {
        // First, so that the endpoint's next delivery goes to the warm one.
        self.workers.borrow_mut().free(worker, now);
        let (due, queued) = {
            let mut shard = self.shard.borrow_mut();
            let due = shard.finished(delivery, outcome, now, &mut self.actions.borrow_mut());
            (due, shard.queued())
        };
        self.apply();
        if queued <= self.wanted.get() {
            self.moved.notify_one();
        }
        due
    }

    /// The log has taken records of so many bytes.
    pub(super) fn acknowledged(self: &Rc<Self>, bytes: usize) {
        self.shard.borrow_mut().acknowledged(
            bytes,
            self.clock.now(),
            &mut self.actions.borrow_mut(),
        );
        self.apply();
        self.moved.notify_one();
    }

    /// A source position is settled.
    pub(super) fn close_ticket(&self, closed: Closed) {
        let mut outbox = self.closed.borrow_mut();
        outbox.waiting.push(closed);
        if outbox.waiting.len() >= CLOSED_BATCH {
            outbox.flush();
        }
    }

    /// Does what the shard said.
    pub(super) fn apply(self: &Rc<Self>) {
        let mut actions = self.actions.take();
        for action in actions.drain(..) {
            match action {
                Action::Send(delivery) => self.send(delivery),
                Action::Append(append) => self.appender.push(append),
                Action::Close(ticket) => self.close_ticket(ticket.into()),
                Action::Report(report) => self.reports.borrow_mut().waiting.push(report),
            }
        }
        // Keeps the buffer unless something was added meanwhile.
        let mut slot = self.actions.borrow_mut();
        if slot.is_empty() {
            *slot = actions;
        }
    }

    fn send(self: &Rc<Self>, delivery: Delivery) {
        let worker = self.workers.borrow_mut().hire(delivery.endpoint);
        match worker {
            Some(idle) => idle.assign(delivery),
            None => super::worker::spawn(Rc::clone(self), delivery),
        }
    }

    /// The endpoint as it is now, ready to be sent to.
    pub(super) fn prepared(
        &self,
        ix: EndpointIx,
        now: Timestamp,
    ) -> Result<Rc<Prepared>, crate::send::Failure> {
        let shard = self.shard.borrow();
        self.workers
            .borrow_mut()
            .prepared(ix, shard.registry(), &self.egress, now)
    }

    /// The connection that an endpoint's tasks share.
    pub(super) fn shared_line(&self, ix: EndpointIx) -> SharedLine {
        self.workers.borrow_mut().shared_line(ix)
    }

    /// The id behind an index. Nothing is counted: all shards share the
    /// registry.
    pub(super) fn endpoint_id(&self, ix: EndpointIx) -> Option<EndpointId> {
        self.shard.borrow().registry().id(ix)
    }

    pub(super) fn set_registry(&self, registry: Arc<Registry>) {
        self.shard.borrow_mut().set_registry(registry);
    }

    /// A worker ends.
    pub(super) fn dismiss(&self, worker: &Rc<Worker>) {
        self.workers.borrow_mut().dismiss(worker);
    }

    /// Resolves when something moved since the last call.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Moves on what waited too long, closes idle connections and shows levels.
    /// Answers whether some endpoint here is hungry. `share` is the process's of
    /// the source partitions.
    pub(super) fn sweep(self: &Rc<Self>, share: (u32, u32)) -> bool {
        let now = self.clock.now();
        let hungry = {
            let mut shard = self.shard.borrow_mut();
            shard.set_share(share.0, share.1);
            shard.sweep(now, &mut self.actions.borrow_mut());
            self.metrics.borrow_mut().levels(&shard);
            shard.somebody_is_hungry(now)
        };
        self.workers.borrow().sweep(now);
        self.apply();
        self.audit.flush();
        hungry
    }

    /// Starts what may start by now, and lets closed tickets and reports go.
    pub(super) fn flush(self: &Rc<Self>) {
        let now = self.clock.now();
        self.shard
            .borrow_mut()
            .tick(now, &mut self.actions.borrow_mut());
        self.apply();
        self.closed.borrow_mut().flush();
        self.reports.borrow_mut().flush();
    }

    /// The process stops: what waits goes to the lane, what is in flight ends.
    pub(super) fn drain(self: &Rc<Self>) {
        self.draining.set(true);
        let now = self.clock.now();
        self.shard
            .borrow_mut()
            .evacuate(now, &mut self.actions.borrow_mut());
        self.apply();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Nothing is in flight, nothing waits for the log, nothing waits to leave.
    pub(super) fn is_idle(&self) -> bool {
        let shard = self.shard.borrow();
        shard.in_flight() == 0
            && shard.unacked_bytes() == 0
            && self.closed.borrow().waiting.is_empty()
            && self.reports.borrow().waiting.is_empty()
    }

    /// The last attempts are written.
    pub(super) async fn close(&self) {
        self.audit.flush();
        self.audit.close().await;
    }
}
