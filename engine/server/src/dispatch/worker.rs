//! Connection tasks: each holds one connection to one endpoint and makes the
//! attempts the desk assigns to it. The task is the pool's slot: no checkout,
//! no spawn a delivery.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use posthaste_core::delivery::Delivery;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::limits::CONNECTION_IDLE_MAX;
use posthaste_core::outcome::Outcome;
use posthaste_core::registry::{EndpointIx, Registry};
use posthaste_core::time::Timestamp;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout_at};

use super::audit::Made;
use super::desk::Desk;
use crate::send::{Attempt, Attempted, Connection, Egress, Failure, Prepared};

/// One connection task's place at the desk.
pub(super) struct Worker {
    endpoint: EndpointIx,
    assigned: RefCell<Option<Delivery>>,
    wake: Notify,
    idle_since: Cell<Timestamp>,
    leaving: Cell<bool>,
}

/// The connection tasks of a shard, by endpoint, the warmest idle one last.
#[derive(Default)]
pub(super) struct Workers {
    by_endpoint: Vec<Option<Box<Station>>>,
}

/// One endpoint's connections and what they send with.
#[derive(Default)]
struct Station {
    idle: VecDeque<Rc<Worker>>,
    prepared: Option<(Arc<Endpoint>, Rc<Prepared>)>,
    shared: SharedLine,
}

/// A connection that several tasks use at once, and what it was opened for.
pub(super) type SharedLine = Rc<Mutex<Option<(Rc<Prepared>, Connection)>>>;

impl Worker {
    pub(super) fn assign(&self, delivery: Delivery) {
        let before = self.assigned.replace(Some(delivery));
        assert!(before.is_none(), "a worker makes one attempt at a time");
        self.wake.notify_one();
    }

    /// The next delivery, or `None` when the task should end.
    async fn next(&self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.assigned.take() {
                return Some(delivery);
            }
            if self.leaving.get() {
                return None;
            }
            self.wake.notified().await;
        }
    }
}

impl Workers {
    fn station(&mut self, ix: EndpointIx) -> &mut Station {
        let place = usize::try_from(ix.0).expect("an index fits the address space");
        if place >= self.by_endpoint.len() {
            self.by_endpoint.resize_with(place + 1, || None);
        }
        self.by_endpoint[place].get_or_insert_default()
    }

    /// An idle connection task of the endpoint, the one used last.
    pub(super) fn hire(&mut self, ix: EndpointIx) -> Option<Rc<Worker>> {
        self.station(ix).idle.pop_back()
    }

    /// The task is idle from now on.
    pub(super) fn free(&mut self, worker: &Rc<Worker>, now: Timestamp) {
        worker.idle_since.set(now);
        let station = self.station(worker.endpoint);
        station.idle.push_back(Rc::clone(worker));
    }

    /// The task ends.
    pub(super) fn dismiss(&mut self, worker: &Rc<Worker>) {
        let station = self.station(worker.endpoint);
        station.idle.retain(|idle| !Rc::ptr_eq(idle, worker));
        // Other tasks keep their parts of it.
        station.shared = SharedLine::default();
    }

    /// The connection that the endpoint's tasks share.
    pub(super) fn shared_line(&mut self, ix: EndpointIx) -> SharedLine {
        Rc::clone(&self.station(ix).shared)
    }

    /// Sends home who has been idle too long.
    pub(super) fn sweep(&self, now: Timestamp) {
        for station in self.by_endpoint.iter().flatten() {
            let stale =
                |worker: &&Rc<Worker>| now.since(worker.idle_since.get()) >= CONNECTION_IDLE_MAX;
            for worker in station.idle.iter().take_while(stale) {
                worker.leaving.set(true);
                worker.wake.notify_one();
            }
        }
    }

    /// The endpoint's request parts, rebuilt when it or its live secrets
    /// changed.
    pub(super) fn prepared(
        &mut self,
        ix: EndpointIx,
        registry: &Registry,
        egress: &Egress,
        now: Timestamp,
    ) -> Result<Rc<Prepared>, Failure> {
        let Some(endpoint) = registry.endpoint(ix) else {
            return Err(Failure::endpoint_gone());
        };
        let station = self.station(ix);
        if let Some((of, prepared)) = &station.prepared
            && Arc::ptr_eq(of, endpoint)
            && prepared.valid_until().is_none_or(|end| now < end)
        {
            return Ok(Rc::clone(prepared));
        }
        let prepared = Rc::new(Prepared::new(endpoint, egress, now)?);
        station.prepared = Some((Arc::clone(endpoint), Rc::clone(&prepared)));
        Ok(prepared)
    }
}

/// Starts a connection task with its first delivery.
pub(super) fn spawn(desk: Rc<Desk>, first: Delivery) {
    let worker = Rc::new(Worker {
        endpoint: first.endpoint,
        assigned: RefCell::new(Some(first)),
        wake: Notify::new(),
        idle_since: Cell::new(Timestamp::default()),
        leaving: Cell::new(false),
    });
    tokio::task::spawn_local(run(desk, worker));
}

async fn run(desk: Rc<Desk>, worker: Rc<Worker>) {
    let mut line = Line {
        connection: None,
        prepared: None,
    };
    while let Some(delivery) = line.next(&worker).await {
        let started = Started {
            at: Instant::now(),
            clock: desk.clock.now(),
        };
        let attempted = line.attempt(&desk, &delivery, started).await;
        let took = started.at.elapsed();
        desk.metrics
            .borrow_mut()
            .attempt(&attempted.outcome, took.as_secs_f64());
        let outcome: Outcome = attempted.outcome;
        let mut made = Made::of(&delivery, started.clock, took);
        made.next_due = desk.finished(&worker, delivery, outcome, desk.clock.now());
        desk.audit.record(&desk, &made, &attempted);
    }
    desk.dismiss(&worker);
}

/// When an attempt began, by both clocks: each is read once an attempt.
#[derive(Clone, Copy)]
struct Started {
    at: Instant,
    clock: Timestamp,
}

/// One connection, opened when it is needed.
struct Line {
    connection: Option<Connection>,
    prepared: Option<Rc<Prepared>>,
}

impl Line {
    /// The next delivery, or `None` when the task should end. An idle
    /// connection that its peer closes is let go at once.
    async fn next(&mut self, worker: &Worker) -> Option<Delivery> {
        if let Some(connection) = &mut self.connection {
            tokio::select! {
                biased;
                next = worker.next() => return next,
                () = connection.closed() => self.connection = None,
            }
        }
        worker.next().await
    }

    async fn attempt(&mut self, desk: &Desk, delivery: &Delivery, started: Started) -> Attempted {
        let now = started.clock;
        let prepared = match desk.prepared(delivery.endpoint, now) {
            Ok(prepared) => prepared,
            Err(failure) => return failure.into(),
        };
        // A changed endpoint may mean another address or another identity.
        let same = self
            .prepared
            .as_ref()
            .is_some_and(|before| Rc::ptr_eq(before, &prepared));
        let reusable = |connection: &Connection| connection.reusable(started.at);
        if !same || !self.connection.as_ref().is_some_and(reusable) {
            self.connection = None;
        }
        self.prepared = Some(Rc::clone(&prepared));
        let deadline = started.at + prepared.timeout();
        loop {
            let fresh = self.connection.is_none();
            let connection = match &mut self.connection {
                Some(connection) => connection,
                closed => match open(desk, delivery.endpoint, &prepared, deadline).await {
                    Ok(open) => closed.insert(open),
                    Err(failure) => return failure.into(),
                },
            };
            let attempt = Attempt {
                event: &delivery.event,
                retries: delivery.attempts,
                last_cause: delivery.last_cause,
                now,
            };
            match connection.attempt(&prepared, attempt, deadline).await {
                // The receiver had closed it before anything was sent.
                None if !fresh => self.connection = None,
                None => return Failure::never_sent().into(),
                Some(attempted) => return attempted,
            }
        }
    }
}

/// A connection for one task: its own, or its part of one that all tasks of an
/// endpoint share where the receiver speaks HTTP/2.
async fn open(
    desk: &Desk,
    ix: EndpointIx,
    prepared: &Rc<Prepared>,
    deadline: Instant,
) -> Result<Connection, Failure> {
    if !prepared.wants_http2() {
        desk.metrics.borrow().connections.increment(1);
        return Connection::open(&desk.egress, prepared, deadline).await;
    }
    let shared = desk.shared_line(ix);
    // Whoever comes first opens it; the others wait for that.
    let Ok(mut line) = timeout_at(deadline, shared.lock()).await else {
        return Err(Failure::no_connection_in_time());
    };
    if let Some((of, connection)) = &*line
        && Rc::ptr_eq(of, prepared)
        && connection.reusable(Instant::now())
        && let Some(part) = connection.share()
    {
        return Ok(part);
    }
    desk.metrics.borrow().connections.increment(1);
    let connection = Connection::open(&desk.egress, prepared, deadline).await?;
    *line = connection.share().map(|part| (Rc::clone(prepared), part));
    Ok(connection)
}
