//! The thread that serves a consumer.
//!
//! Each partition has a queue of its own, read only while it has credit: unread
//! data stays in the log. The thread parks when there is nothing to do;
//! librdkafka, the handle and a timer wake it.
//!
//! Changes of the assignment are not carried out in librdkafka's callback but
//! here, between two reads. So a revoked partition can drain, and commit, while
//! the others go on; librdkafka waits for us, and goes on with its heartbeats.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::{mpsc, oneshot};

use super::slot::Slot;
use super::{Native, Plan};
use crate::log::kafka::context::Change;
use crate::log::kafka::place::{self, Place};
use crate::log::kafka::{failure, partition, topics};
use crate::log::lease::Reader;
use crate::log::{GroupEvent, LogError, RevokeToken, TopicPartition};

/// A member that drains a revoked partition longer than this loses it.
const REVOKE_WAIT_MAX: Duration = Duration::from_secs(5);
/// A group that cannot be left within this time is left by its session's end.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest sleep: librdkafka's wake-ups can get lost.
const PARK_MAX: Duration = Duration::from_millis(50);
/// Events of the client itself served in one round.
const SERVED_MAX: usize = 64;

/// What the thread works with.
pub(super) struct Serving {
    native: Arc<Native>,
    reader: Arc<Reader>,
    plan: Plan,
    out: mpsc::Sender<GroupEvent>,
    /// Said before anything else; bounded by the number of partitions.
    outbox: VecDeque<GroupEvent>,
    slots: Vec<Slot>,
    revokes: VecDeque<Revoke>,
    /// A fatal error was told: nothing is read any more.
    stopped: bool,
}

/// Partitions on their way out.
struct Revoke {
    partitions: Vec<TopicPartition>,
    drained: Vec<oneshot::Receiver<()>>,
    until: Instant,
}

impl Serving {
    pub(super) fn new(
        native: Arc<Native>,
        reader: Arc<Reader>,
        plan: Plan,
        out: mpsc::Sender<GroupEvent>,
    ) -> Self {
        Self {
            native,
            reader,
            plan,
            out,
            outbox: VecDeque::new(),
            slots: Vec::new(),
            revokes: VecDeque::new(),
            stopped: false,
        }
    }

    /// Until the handle is dropped.
    pub(super) fn run(mut self) {
        if let Err(error) = self.open() {
            self.fail(error);
        }
        while !self.reader.has_left() {
            let mut busy = self.serve();
            busy |= self.change();
            busy |= self.let_go();
            busy |= self.tell();
            if self.outbox.is_empty() && !self.stopped {
                busy |= self.read_all();
            }
            if !busy {
                std::thread::park_timeout(PARK_MAX);
            }
        }
        self.close();
    }

    fn open(&mut self) -> Result<(), LogError> {
        let topics = match &self.plan {
            Plan::Join { topics, .. } => topics.clone(),
            Plan::Follow { topic } => vec![topic.clone()],
        };
        let mut partitions = Vec::new();
        for topic in &topics {
            let count = topics::count(&self.native, topic).map_err(|error| failure(&error))?;
            let count = count.ok_or_else(|| LogError::NoSuchTopic(topic.clone()))?;
            partitions.extend((0..count).map(|partition| TopicPartition {
                topic: topic.clone(),
                partition,
            }));
        }
        match &self.plan {
            Plan::Join { .. } => {
                let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
                let subscribed = self.native.subscribe(&names);
                subscribed.map_err(|error| failure(&error))
            }
            Plan::Follow { .. } => {
                let places = place::of_follower(&self.native, &partitions)?;
                self.assign(places)
            }
        }
    }

    /// Serves the client's own events. What belongs to a partition comes by its
    /// queue.
    fn serve(&mut self) -> bool {
        let native = Arc::clone(&self.native);
        for _ in 0..SERVED_MAX {
            match native.poll(Duration::ZERO) {
                None => return false,
                Some(Ok(message)) => {
                    let place = format!("{}/{}", message.topic(), message.partition());
                    self.fail(LogError::Other(format!(
                        "{place}: a record by the wrong queue"
                    )));
                }
                Some(Err(error)) => self.trouble(&error, None),
            }
        }
        true
    }

    fn change(&mut self) -> bool {
        if !self.revokes.is_empty() {
            return false;
        }
        let Some(change) = self.native.context().take_change() else {
            return false;
        };
        match change {
            Change::Assign(partitions) => {
                if let Err(error) = self.assigned(&partitions) {
                    self.fail(error);
                }
            }
            Change::Revoke { partitions, lost } => self.revoked(partitions, lost),
        }
        true
    }

    fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let places = match &self.plan {
            Plan::Join { group, start, .. } if !partitions.is_empty() => {
                place::of_group(&self.native, group, partitions, *start)?
            }
            _ => Vec::new(),
        };
        self.assign(places)
    }

    fn assign(&mut self, places: Vec<Place>) -> Result<(), LogError> {
        let list = place::list(&places).map_err(|error| failure(&error))?;
        for place in places {
            let slot = Slot::open(&self.native, &place, &self.reader)?;
            if !self.reader.begin(&slot.lease) {
                return Ok(());
            }
            self.outbox.push_back(GroupEvent::Assigned {
                tp: place.tp,
                epoch: slot.lease.epoch,
                position: place.position,
                metadata: place.metadata,
            });
            self.slots.push(slot);
        }
        self.native
            .incremental_assign(&list)
            .map_err(|error| failure(&error))
    }

    fn revoked(&mut self, partitions: Vec<TopicPartition>, lost: bool) {
        let mut drained = Vec::new();
        for slot in &mut self.slots {
            if !partitions.contains(&slot.lease.tp) {
                continue;
            }
            let (tp, epoch) = (slot.lease.tp.clone(), slot.lease.epoch);
            slot.draining = true;
            if lost {
                self.reader.end(&slot.lease);
                self.outbox.push_back(GroupEvent::Lost { tp, epoch });
            } else {
                let (done, when_done) = RevokeToken::new();
                drained.push(when_done);
                self.outbox
                    .push_back(GroupEvent::Revoking { tp, epoch, done });
            }
        }
        self.revokes.push_back(Revoke {
            partitions,
            drained,
            until: Instant::now() + REVOKE_WAIT_MAX,
        });
    }

    /// Lets drained partitions go, or those whose time is up.
    fn let_go(&mut self) -> bool {
        let Some(revoke) = self.revokes.front_mut() else {
            return false;
        };
        let waits = |done: &mut oneshot::Receiver<()>| {
            matches!(done.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        };
        revoke.drained.retain_mut(waits);
        if !revoke.drained.is_empty() && Instant::now() < revoke.until {
            return false;
        }
        if let Some(revoke) = self.revokes.pop_front() {
            self.unassign(&revoke.partitions);
        }
        true
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for tp in partitions {
            list.add_partition(&tp.topic, partition(tp.partition));
        }
        for slot in self
            .slots
            .iter()
            .filter(|s| partitions.contains(&s.lease.tp))
        {
            self.reader.end(&slot.lease);
        }
        if let Err(error) = self.native.incremental_unassign(&list) {
            tracing::warn!(%error, "cannot give partitions back");
        }
        // Dropping a queue silences its partition, so only now.
        self.slots
            .retain(|slot| !partitions.contains(&slot.lease.tp));
    }

    /// Says what waits to be said.
    fn tell(&mut self) -> bool {
        let mut told = false;
        while !self.outbox.is_empty() {
            let Ok(permit) = self.out.try_reserve() else {
                return told;
            };
            if let Some(event) = self.outbox.pop_front() {
                permit.send(event);
                told = true;
            }
        }
        told
    }

    /// Reads one batch of each partition that has credit.
    fn read_all(&mut self) -> bool {
        let mut busy = false;
        let mut troubles = Vec::new();
        for slot in &mut self.slots {
            let Ok(permit) = self.out.try_reserve() else {
                break;
            };
            match slot.read() {
                Ok(records) if records.is_empty() => {}
                Ok(records) => {
                    permit.send(GroupEvent::Batch {
                        tp: slot.lease.tp.clone(),
                        epoch: slot.lease.epoch,
                        records,
                        next: slot.next,
                    });
                    busy = true;
                }
                Err(error) => troubles.push((slot.lease.tp.clone(), error)),
            }
        }
        for (tp, error) in troubles {
            self.trouble(&error, Some(tp));
        }
        // The first partition is not always the first to be read.
        if busy && self.slots.len() > 1 {
            self.slots.rotate_left(1);
        }
        busy
    }

    /// Most trouble passes by itself; this ends the group for what does not.
    fn trouble(&mut self, error: &KafkaError, tp: Option<TopicPartition>) {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        let fatal = match (code, tp) {
            (Some(Code::AutoOffsetReset | Code::OffsetOutOfRange), Some(tp)) => {
                Some(self.out_of_range(tp))
            }
            (
                Some(
                    Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::UnknownTopicOrPartition
                    | Code::FencedInstanceId
                    | Code::Fatal,
                ),
                _,
            ) => Some(failure(error)),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Some(failure(error)),
            _ => None,
        };
        match fatal {
            Some(fatal) => self.fail(fatal),
            None => tracing::debug!(target: "librdkafka", %error, "passing trouble"),
        }
    }

    fn out_of_range(&self, tp: TopicPartition) -> LogError {
        let next = self.slots.iter().find(|slot| slot.lease.tp == tp);
        let offset = next.map_or(0, |slot| slot.next);
        match place::bounds(&self.native, &tp) {
            Ok((start, end)) => LogError::OutOfRange {
                topic_partition: tp,
                offset,
                start,
                end,
            },
            Err(error) => error,
        }
    }

    fn fail(&mut self, error: LogError) {
        if !self.stopped {
            self.stopped = true;
            self.outbox.push_back(GroupEvent::Fatal(error));
        }
    }

    /// Leaves the group. What librdkafka still waits for is carried out at
    /// once.
    fn close(mut self) {
        let context = self.native.context();
        context.close();
        let mut pending: Vec<_> = self.revokes.drain(..).map(|r| r.partitions).collect();
        while let Some(change) = context.take_change() {
            match change {
                Change::Revoke { partitions, .. } => pending.push(partitions),
                Change::Assign(_) => {
                    let nothing = TopicPartitionList::new();
                    drop(self.native.incremental_assign(&nothing));
                }
            }
        }
        for partitions in pending {
            self.unassign(&partitions);
        }
        self.slots.clear();
        // Not left to `Drop`: a commit that waits for a lost coordinator still
        // holds the consumer, and this is what ends its wait.
        if let Err(error) = self.native.close_queue() {
            tracing::warn!(%error, "cannot leave the group");
            return;
        }
        let until = Instant::now() + CLOSE_WAIT_MAX;
        while !self.native.closed() {
            if Instant::now() >= until {
                tracing::warn!("left the group without its leave: its session ends it");
                return;
            }
            drop(self.native.poll(Duration::from_millis(100)));
        }
    }
}
