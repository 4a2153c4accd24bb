//! The shards: a thread each, with a current-thread runtime, its own endpoints,
//! queues and connections. Nothing on the way of a delivery takes a lock or
//! spawns: connection tasks wait for their endpoint's next delivery.
//!
//! ```text
//!  mailboxes ---> core shard ---> Send ---> a connection task ---> finished --+
//!                     ^   \                                                   |
//!                     |    +---> Append ---> appender ---> acknowledged ---+  |
//!                     |    +---> Close  ---> ingest                        |  |
//!                     |    +---> Report ---> owner                         |  |
//!                     +----------------------------------------------------+--+
//! ```

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use posthaste_core::delivery::{Closed, Delivery, Report};
use posthaste_core::limits::{MAILBOX_BATCHES_MAX, REPORT_BATCHES_MAX};
use posthaste_core::registry::Registry;
use posthaste_core::rng::Rng;
use posthaste_core::shard::Shard;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, random_seed};
use crate::config::{AuditLevel, Topics};
use crate::log::Log;
use crate::send::Egress;
use crate::telemetry::ShardMetrics;

mod appender;
mod audit;
mod desk;
mod worker;

use desk::Desk;

/// How often what waited too long is moved on, and levels are shown.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// How often closed tickets and reports leave a shard that is not busy.
const FLUSH_EVERY: Duration = Duration::from_millis(5);

/// What all shards work with.
#[derive(Clone)]
pub struct Parts {
    /// Lane, dead letters and attempts go there.
    pub log: Arc<dyn Log>,
    /// Our topics.
    pub topics: Topics,
    /// The endpoints.
    pub registry: watch::Receiver<Arc<Registry>>,
    /// The way out.
    pub egress: Arc<Egress>,
    /// How many source partitions this process reads, of how many.
    pub share: watch::Receiver<(u32, u32)>,
    /// The time.
    pub clock: Clock,
    /// Which attempts are recorded.
    pub audit: AuditLevel,
    /// Settled source positions go there.
    pub closed: mpsc::Sender<Vec<Closed>>,
    /// Reports to owners go there.
    pub reports: mpsc::Sender<Vec<Report>>,
    /// Cancelled when the process stops: what waits goes to the lane.
    pub drain: CancellationToken,
    /// Cancelled when nobody hands anything over any more: shards end.
    pub end: CancellationToken,
}

/// The shards' doors.
pub struct Doors {
    /// From ingest, one a shard.
    pub ingest: Vec<mpsc::Sender<Vec<Delivery>>>,
    /// From owners, one a shard.
    pub owner: Vec<mpsc::Sender<Vec<Delivery>>>,
    /// The threads.
    pub threads: Vec<std::thread::JoinHandle<()>>,
}

/// Bound of the channels from shards, in batches.
pub const REPORTS_MAX: usize = REPORT_BATCHES_MAX;

/// Starts so many shards.
pub fn start(count: usize, parts: &Parts) -> std::io::Result<Doors> {
    let hungry: Arc<[AtomicBool]> = (0..count).map(|_| AtomicBool::new(false)).collect();
    let mut doors = Doors {
        ingest: Vec::new(),
        owner: Vec::new(),
        threads: Vec::new(),
    };
    for number in 0..count {
        let (ingest, from_ingest) = mpsc::channel(MAILBOX_BATCHES_MAX);
        let (owner, from_owner) = mpsc::channel(MAILBOX_BATCHES_MAX);
        let room = Room {
            number,
            parts: parts.clone(),
            from_ingest,
            from_owner,
            hungry: Arc::clone(&hungry),
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || room.thread())?;
        doors.ingest.push(ingest);
        doors.owner.push(owner);
        doors.threads.push(thread);
    }
    Ok(doors)
}

/// One shard's loop and what it reads from.
struct Room {
    number: usize,
    parts: Parts,
    from_ingest: mpsc::Receiver<Vec<Delivery>>,
    from_owner: mpsc::Receiver<Vec<Delivery>>,
    hungry: Arc<[AtomicBool]>,
}

enum Event {
    FromIngest(Vec<Delivery>),
    FromOwner(Vec<Delivery>),
    Moved,
    Registry,
    Sweep,
    Flush,
    Drain,
    End,
}

impl Room {
    fn thread(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs only file descriptors");
        let local = LocalSet::new();
        local.block_on(&runtime, self.run());
    }

    async fn run(mut self) {
        let registry = Arc::clone(&self.parts.registry.borrow_and_update());
        let shard = Shard::new(registry, Rng::new(random_seed()));
        let desk = Desk::open(shard, &self.parts, ShardMetrics::new(self.number));
        let mut sweep = interval(SWEEP_EVERY);
        let mut flush = interval(FLUSH_EVERY);
        for ticker in [&mut sweep, &mut flush] {
            ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut held = Held::default();
        loop {
            let draining = desk.is_draining();
            let event = tokio::select! {
                biased;
                () = self.parts.drain.cancelled(), if !draining => Event::Drain,
                _ = flush.tick() => Event::Flush,
                _ = sweep.tick() => Event::Sweep,
                Ok(()) = self.parts.registry.changed() => Event::Registry,
                Some(batch) = self.from_owner.recv() => Event::FromOwner(batch),
                () = desk.moved(), if !held.is_empty() => Event::Moved,
                Some(batch) = self.from_ingest.recv(), if held.is_empty() => Event::FromIngest(batch),
                () = self.parts.end.cancelled(), if draining && desk.is_idle() => Event::End,
            };
            match event {
                Event::FromIngest(batch) => {
                    self.catch_up(&desk);
                    held.deliveries = batch.into();
                }
                Event::FromOwner(batch) => {
                    self.catch_up(&desk);
                    desk.take_all(batch);
                }
                Event::Moved => {}
                Event::Registry => self.read_registry(&desk),
                Event::Sweep => self.sweep(&desk),
                Event::Flush => desk.flush(),
                Event::Drain => desk.drain(),
                Event::End => return desk.close().await,
            }
            self.offer(&desk, &mut held);
        }
    }

    /// Knows at least the endpoints that who sent the batch knew: an unknown one
    /// would be taken for deleted, and its deliveries for settled.
    fn catch_up(&mut self, desk: &Desk) {
        if self.parts.registry.has_changed().unwrap_or(false) {
            self.read_registry(desk);
        }
    }

    fn read_registry(&mut self, desk: &Desk) {
        desk.set_registry(Arc::clone(&self.parts.registry.borrow_and_update()));
    }

    /// Offers what came from ingest until the shard wants no more.
    fn offer(&self, desk: &Rc<Desk>, held: &mut Held) {
        if held.is_empty() {
            return;
        }
        let others = self.hungry.iter().enumerate();
        let others_hungry = others
            .filter(|(number, _)| *number != self.number)
            .any(|(_, hungry)| hungry.load(Ordering::Relaxed));
        while let Some(delivery) = held.deliveries.pop_front() {
            if let Err(blocked) = desk.offer(delivery, others_hungry) {
                held.deliveries.push_front(blocked);
                break;
            }
        }
        desk.apply();
    }

    fn sweep(&self, desk: &Rc<Desk>) {
        let hungry = desk.sweep(*self.parts.share.borrow());
        self.hungry[self.number].store(hungry, Ordering::Relaxed);
    }
}

/// What came from ingest and is not yet taken.
#[derive(Default)]
struct Held {
    deliveries: std::collections::VecDeque<Delivery>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }
}
