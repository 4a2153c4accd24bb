//! One reader of partitions: a thread with a connection of its own, and the
//! consumer that hears from it over a bounded queue.
//!
//! The thread goes round the partitions it holds, and reads of each that has
//! credit one batch at a time. Without credit nothing is read: unread data
//! stays on disk.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread as os;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rusqlite::Statement;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::super::lease::{Lease, lock};
use super::super::{
    CommitError, Epoch, GroupConsumer, GroupEvent, LogError, Offset, Record, RevokeToken, Start,
    TopicPartition,
};
use super::catalog::Topic;
use super::group::{Member, MemberId, Order};
use super::reader::{self, Want};
use super::thread::{self, Shared};
use super::writer::Op;
use super::{closed, store};

/// Events waiting to be heard. At the bound the thread stops reading.
const EVENTS_MAX: usize = 16;
/// Records in one batch.
const BATCH_RECORDS_MAX: usize = 256;
/// Bytes in one batch, exceeded only by a single record.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// A member that drains a revoked partition longer than this loses it.
const REVOKE_WAIT_MAX: Duration = Duration::from_secs(5);

/// A member's place in its group.
#[derive(Debug, Clone)]
struct Place {
    group: String,
    id: MemberId,
}

/// Joins a group.
pub(super) fn join(
    shared: &Arc<Shared>,
    group: &str,
    topics: Vec<Arc<Topic>>,
    start: Start,
) -> Result<Box<dyn GroupConsumer>, LogError> {
    let (member, events, place) = begin(shared, &topics, start)?;
    let id = lock(&shared.groups).join(group, Arc::clone(&member), topics);
    let joined = Place {
        group: group.into(),
        id,
    };
    // The thread learns its place before any order: it waits for it.
    let _ = place.send(Some(joined.clone()));
    Ok(Box::new(Consumer {
        shared: Arc::clone(shared),
        member,
        place: Some(joined),
        events,
    }))
}

/// Reads a topic outside any group.
pub(super) fn follow(
    shared: &Arc<Shared>,
    topic: Arc<Topic>,
) -> Result<Box<dyn GroupConsumer>, LogError> {
    let (member, events, place) = begin(shared, std::slice::from_ref(&topic), Start::Earliest)?;
    for partition in 0..topic.partitions() {
        member.order(Order::Take(topic.place(partition)));
    }
    let _ = place.send(None);
    Ok(Box::new(Consumer {
        shared: Arc::clone(shared),
        member,
        place: None,
        events,
    }))
}

type Begun = (
    Arc<Member>,
    mpsc::Receiver<GroupEvent>,
    oneshot::Sender<Option<Place>>,
);

fn begin(shared: &Arc<Shared>, topics: &[Arc<Topic>], start: Start) -> Result<Begun, LogError> {
    let member = Arc::new(Member::default());
    let (out, events) = mpsc::channel(EVENTS_MAX);
    let (place, placed) = oneshot::channel();
    let reading = {
        let (shared, member, topics) = (Arc::clone(shared), Arc::clone(&member), topics.to_vec());
        move || {
            let Ok(place) = placed.blocking_recv() else {
                return;
            };
            run(&shared, &member, &topics, place, start, out);
        }
    };
    member.reader.serve(shared.start("log-consumer", reading)?);
    Ok((member, events, place))
}

struct Consumer {
    shared: Arc<Shared>,
    member: Arc<Member>,
    place: Option<Place>,
    events: mpsc::Receiver<GroupEvent>,
}

impl GroupConsumer for Consumer {
    fn next(&mut self) -> BoxFuture<'_, GroupEvent> {
        Box::pin(async {
            let Some(event) = self.events.recv().await else {
                return GroupEvent::Fatal(closed());
            };
            self.member.reader.wake();
            event
        })
    }

    fn credit(&self, tp: &TopicPartition, epoch: Epoch, bytes: usize) {
        self.member.reader.credit(tp, epoch, bytes);
    }

    fn commit(
        &self,
        tp: &TopicPartition,
        epoch: Epoch,
        at: Offset,
        metadata: String,
    ) -> BoxFuture<'static, Result<(), CommitError>> {
        let lease = self.member.reader.lease(tp, epoch);
        let (Some(place), Some(lease)) = (&self.place, lease) else {
            return Box::pin(async { Err(CommitError::Stale) });
        };
        let (reply, answer) = oneshot::channel();
        let op = Op::Commit {
            group: place.group.clone(),
            lease,
            at,
            metadata,
            reply,
        };
        let ops = self.shared.ops.clone();
        Box::pin(async move {
            if ops.send(op).await.is_ok()
                && let Ok(done) = answer.await
            {
                return done;
            }
            Err(CommitError::Failed(closed().to_string()))
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.events.close();
        leave(&self.shared, &self.member, self.place.as_ref());
    }
}

/// Ends the member's leases, then lets others have its partitions.
fn leave(shared: &Shared, member: &Member, place: Option<&Place>) {
    member.reader.leave();
    if let Some(place) = place {
        lock(&shared.groups).leave(&place.group, place.id);
    }
}

fn run(
    shared: &Shared,
    member: &Member,
    topics: &[Arc<Topic>],
    place: Option<Place>,
    start: Start,
    out: mpsc::Sender<GroupEvent>,
) {
    let here = os::current();
    for topic in topics {
        topic.watch(here.clone());
    }
    let opened = store::open_reader(&shared.file);
    let select = opened.as_ref().map_err(|error| shared.trouble(error));
    let select = select.and_then(|db| {
        let select = db.prepare(store::SELECT);
        select.map_err(|error| shared.trouble(&error))
    });
    let mut feed = Feed {
        shared,
        member,
        place,
        start,
        out,
        waiting: VecDeque::new(),
        held: Vec::new(),
        turn: 0,
        waker: thread::waker(),
    };
    if let Err(error) = select.and_then(|mut select| feed.serve(&mut select)) {
        feed.end_with(error);
    }
    for topic in topics {
        topic.unwatch(&here);
    }
}

/// A partition being read.
struct Held {
    topic: Arc<Topic>,
    lease: Arc<Lease>,
    position: Offset,
    draining: Option<Draining>,
}

/// A partition asked back: until the token is dropped, or time is up.
struct Draining {
    done: oneshot::Receiver<()>,
    until: Instant,
}

struct Feed<'a> {
    shared: &'a Shared,
    member: &'a Member,
    place: Option<Place>,
    start: Start,
    out: mpsc::Sender<GroupEvent>,
    /// Events for which the queue had no room yet: one batch, and what happens
    /// to partitions.
    waiting: VecDeque<GroupEvent>,
    held: Vec<Held>,
    turn: usize,
    waker: Waker,
}

impl Feed<'_> {
    fn is_over(&self) -> bool {
        self.shared.is_closing() || self.member.reader.has_left()
    }

    /// Serves the member until it leaves or the log closes.
    fn serve(&mut self, select: &mut Statement<'_>) -> Result<(), LogError> {
        while !self.is_over() {
            self.obey()?;
            self.let_go();
            self.hand_over();
            if self.waiting.is_empty() && self.read_one(select)? {
                continue;
            }
            self.rest();
        }
        Ok(())
    }

    /// Sleeps until somebody has something for this thread.
    fn rest(&self) {
        let draining = self.held.iter().filter_map(|held| held.draining.as_ref());
        match draining.map(|draining| draining.until).min() {
            Some(until) => os::park_timeout(until.saturating_duration_since(Instant::now())),
            None => os::park(),
        }
    }

    /// Follows orders in the order they came: a partition may be given and
    /// asked back before this thread looks.
    fn obey(&mut self) -> Result<(), LogError> {
        let mut given = Vec::new();
        for order in self.member.orders() {
            match order {
                Order::Take(tp) => given.push(tp),
                Order::Release(tp) => {
                    if given.contains(&tp) {
                        self.take_all(std::mem::take(&mut given))?;
                    }
                    self.drain(&tp);
                }
            }
        }
        self.take_all(given)
    }

    fn take_all(&mut self, given: Vec<TopicPartition>) -> Result<(), LogError> {
        // All are asked for before the first is waited for: one transaction.
        let asked: Result<Vec<_>, _> = given.into_iter().map(|tp| self.ask(tp)).collect();
        for (topic, tp, answer) in asked? {
            let (position, metadata) = match answer {
                None => {
                    let start = topic.part(tp.partition).map_or(0, |part| part.start());
                    (start, String::new())
                }
                Some(answer) => answer.blocking_recv().unwrap_or_else(|_| Err(closed()))?,
            };
            self.take(topic, tp, position, metadata);
        }
        Ok(())
    }

    /// Asks the writer where the group stands; a follower stands at the start.
    fn ask(&self, tp: TopicPartition) -> Result<Asked, LogError> {
        let topic = self.shared.topic(&tp.topic);
        let topic = topic.ok_or_else(|| LogError::NoSuchTopic(tp.topic.clone()))?;
        let Some(place) = &self.place else {
            return Ok((topic, tp, None));
        };
        let (reply, answer) = oneshot::channel();
        let op = Op::Assign {
            group: place.group.clone(),
            tp: tp.clone(),
            start: self.start,
            reply,
        };
        let sent = self.shared.ops.blocking_send(op);
        sent.map_err(|_| closed())?;
        Ok((topic, tp, Some(answer)))
    }

    fn take(&mut self, topic: Arc<Topic>, tp: TopicPartition, position: Offset, metadata: String) {
        let lease = Arc::new(Lease::new(tp));
        if !self.member.reader.begin(&lease) {
            return;
        }
        self.waiting.push_back(GroupEvent::Assigned {
            tp: lease.tp.clone(),
            epoch: lease.epoch,
            position,
            metadata,
        });
        self.held.push(Held {
            topic,
            lease,
            position,
            draining: None,
        });
    }

    fn drain(&mut self, tp: &TopicPartition) {
        let mut held = self.held.iter_mut();
        let Some(held) = held.find(|held| held.lease.tp == *tp && held.draining.is_none()) else {
            return;
        };
        let (token, done) = RevokeToken::new();
        held.draining = Some(Draining {
            done,
            until: Instant::now() + REVOKE_WAIT_MAX,
        });
        self.waiting.push_back(GroupEvent::Revoking {
            tp: tp.clone(),
            epoch: held.lease.epoch,
            done: token,
        });
    }

    /// Gives up the partitions that have drained.
    fn let_go(&mut self) {
        let now = Instant::now();
        let mut context = Context::from_waker(&self.waker);
        let drained = self.held.extract_if(.., |held| {
            held.draining.as_mut().is_some_and(|draining| {
                Pin::new(&mut draining.done).poll(&mut context).is_ready() || now >= draining.until
            })
        });
        for held in drained {
            self.member.reader.end(&held.lease);
            if let Some(place) = &self.place {
                lock(&self.shared.groups).released(&place.group, place.id, &held.lease.tp);
            }
        }
    }

    /// Puts waiting events into the queue, as far as it has room.
    fn hand_over(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            if let Err(TrySendError::Full(event)) = self.out.try_send(event) {
                self.waiting.push_front(event);
                return;
            }
        }
    }

    /// Reads a batch of the next partition that has credit and records.
    fn read_one(&mut self, select: &mut Statement<'_>) -> Result<bool, LogError> {
        for step in 0..self.held.len() {
            let turn = (self.turn + step) % self.held.len();
            let held = &mut self.held[turn];
            let Some(want) = held.wants() else { continue };
            let partition = held.lease.tp.partition;
            let (records, next) = reader::read(self.shared, select, &held.topic, partition, want)?;
            held.position = next;
            held.lease.take(records.iter().map(Record::size).sum());
            self.waiting.push_back(GroupEvent::Batch {
                tp: held.lease.tp.clone(),
                epoch: held.lease.epoch,
                records,
                next,
            });
            self.turn = turn + 1;
            return Ok(true);
        }
        Ok(false)
    }

    /// Leaves the group at once, and says why, however long that takes to be
    /// heard.
    fn end_with(&mut self, error: LogError) {
        leave(self.shared, self.member, self.place.as_ref());
        self.waiting.push_back(GroupEvent::Fatal(error));
        while !self.shared.is_closing() && !self.out.is_closed() {
            self.hand_over();
            if self.waiting.is_empty() {
                return;
            }
            os::park();
        }
    }
}

type Asked = (
    Arc<Topic>,
    TopicPartition,
    Option<oneshot::Receiver<Result<(Offset, String), LogError>>>,
);

impl Held {
    /// What may be read now, if anything. A position outside the partition is
    /// for the read to report.
    fn wants(&self) -> Option<Want> {
        let part = self.topic.part(self.lease.tp.partition)?;
        if self.draining.is_some() || self.position == part.end() && self.position >= part.start() {
            return None;
        }
        Some(Want {
            from: self.position,
            bytes_max: self.lease.credit()?.min(BATCH_BYTES_MAX),
            records_max: BATCH_RECORDS_MAX,
        })
    }
}
