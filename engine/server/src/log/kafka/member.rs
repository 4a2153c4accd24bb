//! One consumer: an OS thread that serves a `BaseConsumer`, one that commits,
//! and the handle that hears from them over a bounded queue.
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

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use rdkafka::Message as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::{mpsc, oneshot};

use super::commits::{self, COMMITS_MAX, Commit};
use super::context::{Change, Context};
use super::copy::{self, Names};
use super::place::{self, Place};
use super::{KafkaSettings, Threads, client, failure, fetch, partition, topics};
use crate::log::lease::{Lease, Reader};
use crate::log::{
    CommitError, Epoch, GroupConsumer, GroupEvent, LogError, Offset, Record, RevokeToken, Start,
    TopicPartition,
};

/// Events waiting to be heard. At the bound the thread stops reading.
const EVENTS_MAX: usize = 16;
/// Records in one batch.
const BATCH_RECORDS_MAX: usize = 256;
/// Bytes in one batch, exceeded only by a single record.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// A member that drains a revoked partition longer than this loses it.
const REVOKE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest sleep: librdkafka's wake-ups can get lost.
const PARK_MAX: Duration = Duration::from_millis(50);
/// Events of the client itself served in one round.
const SERVED_MAX: usize = 64;

/// What a consumer is for.
pub(super) enum Plan {
    Join {
        group: String,
        topics: Vec<ByteString>,
        start: Start,
    },
    Follow {
        topic: ByteString,
    },
}

type Native = BaseConsumer<Context>;

/// The end that hears. Dropping it leaves the group.
pub(super) struct Consumer {
    reader: Arc<Reader>,
    events: mpsc::Receiver<GroupEvent>,
    /// A follower commits nothing.
    commits: Option<mpsc::Sender<Commit>>,
    /// Whoever lets go of it last waits for the threads, which end when this
    /// consumer does.
    _threads: Arc<Threads>,
}

/// Starts a consumer and its threads.
pub(super) fn begin(
    settings: &KafkaSettings,
    plan: Plan,
    threads: &Arc<Threads>,
) -> Result<Consumer, LogError> {
    let reader = Arc::new(Reader::default());
    let group = match &plan {
        Plan::Join { group, .. } => group,
        Plan::Follow { .. } => fetch::READER_GROUP,
    };
    let mut native: Native = config(settings, group)
        .create_with_context(Context::default())
        .map_err(|error| failure(&error))?;
    let wakes = Arc::clone(&reader);
    native.set_nonempty_callback(move || wakes.wake());
    let native = Arc::new(native);
    let (out, events) = mpsc::channel(EVENTS_MAX);
    let commits = match plan {
        Plan::Join { .. } => {
            let (commits, asked) = mpsc::channel(COMMITS_MAX);
            let native = Arc::clone(&native);
            threads.start("kafka-commits", move || commits::run(&native, asked))?;
            Some(commits)
        }
        Plan::Follow { .. } => None,
    };
    let serving = Serving {
        native,
        reader: Arc::clone(&reader),
        plan,
        out,
        outbox: VecDeque::new(),
        slots: Vec::new(),
        revokes: VecDeque::new(),
        stopped: false,
    };
    reader.serve(threads.start("kafka-consumer", move || serving.run())?);
    Ok(Consumer {
        reader,
        events,
        commits,
        _threads: Arc::clone(threads),
    })
}

fn config(settings: &KafkaSettings, group: &str) -> rdkafka::ClientConfig {
    let mut config = client::consumer(settings, group);
    let mut or_default = |key: &str, value: String| {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    };
    or_default("queued.min.messages", "5000".to_owned());
    // A bound for each partition, since each has a queue of its own.
    or_default("queued.max.messages.kbytes", "4096".to_owned());
    or_default("fetch.wait.max.ms", "100".to_owned());
    or_default("fetch.message.max.bytes", "524288".to_owned());
    let session = settings.session_timeout.as_millis();
    or_default("max.poll.interval.ms", session.max(60_000).to_string());
    if !client::broker_assigns(settings) {
        or_default("heartbeat.interval.ms", (session / 5).max(1).to_string());
        config
            .set("session.timeout.ms", session.to_string())
            .set("partition.assignment.strategy", "cooperative-sticky");
        if let Some(instance) = &settings.instance_id {
            config.set("group.instance.id", instance);
        }
    }
    config
}

impl GroupConsumer for Consumer {
    fn next(&mut self) -> BoxFuture<'_, GroupEvent> {
        Box::pin(async {
            let event = self.events.recv().await;
            self.reader.wake();
            event.unwrap_or_else(|| {
                GroupEvent::Fatal(LogError::Other("the consumer has ended".to_owned()))
            })
        })
    }

    fn credit(&self, tp: &TopicPartition, epoch: Epoch, bytes: usize) {
        self.reader.credit(tp, epoch, bytes);
    }

    fn commit(
        &self,
        tp: &TopicPartition,
        epoch: Epoch,
        at: Offset,
        metadata: String,
    ) -> BoxFuture<'static, Result<(), CommitError>> {
        let lease = self.reader.lease(tp, epoch);
        let (Some(lease), Some(commits)) = (lease, &self.commits) else {
            return Box::pin(async { Err(CommitError::Stale) });
        };
        let (answer, answered) = oneshot::channel();
        let commit = Commit {
            lease,
            at,
            metadata,
            answer,
        };
        let asked = commits.try_send(commit);
        Box::pin(async move {
            let failed = |why: &str| Err(CommitError::Failed(why.to_owned()));
            if asked.is_err() {
                return failed("too many commits wait for the coordinator");
            }
            let gone = |_| failed("the consumer has ended");
            answered.await.unwrap_or_else(gone)
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.events.close();
        self.reader.leave();
    }
}

/// What the thread works with.
struct Serving {
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

/// One assigned partition.
struct Slot {
    lease: Arc<Lease>,
    queue: PartitionQueue<Context>,
    names: Names,
    next: Offset,
    draining: bool,
}

/// Partitions on their way out.
struct Revoke {
    partitions: Vec<TopicPartition>,
    drained: Vec<oneshot::Receiver<()>>,
    until: Instant,
}

impl Serving {
    fn run(mut self) {
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
            let (topic, number) = (&place.tp.topic, partition(place.tp.partition));
            let queue = self.native.split_partition_queue(topic, number);
            let mut queue = queue.ok_or_else(|| {
                LogError::Other(format!("{}: librdkafka has no queue for it", place.tp))
            })?;
            let wakes = Arc::clone(&self.reader);
            queue.set_nonempty_callback(move || wakes.wake());
            let lease = Arc::new(Lease::new(place.tp.clone()));
            if !self.reader.begin(&lease) {
                return Ok(());
            }
            self.outbox.push_back(GroupEvent::Assigned {
                tp: place.tp,
                epoch: lease.epoch,
                position: place.position,
                metadata: place.metadata,
            });
            self.slots.push(Slot {
                lease,
                queue,
                names: Names::default(),
                next: place.position,
                draining: false,
            });
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
        while !self.native.closed() {
            drop(self.native.poll(Duration::from_millis(100)));
        }
    }
}

impl Slot {
    /// What has come, as far as credit goes.
    fn read(&mut self) -> Result<Vec<Record>, KafkaError> {
        let Some(credit) = self.lease.credit().filter(|_| !self.draining) else {
            return Ok(Vec::new());
        };
        let bytes_max = credit.min(BATCH_BYTES_MAX);
        let mut bytes = 0;
        let mut records: Vec<Record> = Vec::new();
        while bytes < bytes_max && records.len() < BATCH_RECORDS_MAX {
            let message = match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => message,
                // It comes again if it lasts.
                Some(Err(_)) if !records.is_empty() => break,
                Some(Err(error)) => return Err(error),
            };
            let record = copy::record(&message, &mut self.names);
            bytes += record.size();
            records.push(record);
        }
        if let Some(last) = records.last() {
            self.next = last.offset + 1;
        }
        self.lease.take(bytes);
        Ok(records)
    }
}
