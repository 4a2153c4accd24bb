//! Who of a group's members reads which partition. Kept in memory: all members
//! of an embedded log's groups live in this process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;

use super::super::{CREDIT_BYTES, Epoch, TopicPartition};
use super::catalog::Topic;
use super::thread::lock;

/// One assignment of one partition.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) tp: TopicPartition,
    pub(super) epoch: Epoch,
    live: AtomicBool,
    credit: AtomicI64,
}

impl Lease {
    pub(super) fn new(tp: TopicPartition) -> Self {
        static EPOCHS: AtomicU64 = AtomicU64::new(1);
        Self {
            tp,
            epoch: Epoch(EPOCHS.fetch_add(1, Ordering::Relaxed)),
            live: AtomicBool::new(true),
            credit: AtomicI64::new(signed(CREDIT_BYTES)),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// From here on nothing is committed under this lease.
    pub(super) fn end(&self) {
        self.live.store(false, Ordering::Release);
    }

    /// Bytes that may be handed over; nothing when there is no credit.
    pub(super) fn credit(&self) -> Option<usize> {
        let credit = usize::try_from(self.credit.load(Ordering::Acquire)).ok()?;
        (credit > 0).then_some(credit)
    }

    pub(super) fn give(&self, bytes: usize) {
        self.credit.fetch_add(signed(bytes), Ordering::AcqRel);
    }

    pub(super) fn take(&self, bytes: usize) {
        self.credit.fetch_sub(signed(bytes), Ordering::AcqRel);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What a member is told to do.
#[derive(Debug)]
pub(super) enum Order {
    Take(TopicPartition),
    Release(TopicPartition),
}

/// One reader of one or several topics: what its thread, its consumer and the
/// group share. Orders are bounded by the number of partitions.
#[derive(Debug, Default)]
pub(super) struct Member {
    thread: OnceLock<Thread>,
    left: AtomicBool,
    orders: Mutex<Vec<Order>>,
    leases: Mutex<BTreeMap<TopicPartition, Arc<Lease>>>,
}

impl Member {
    /// Names the thread that serves this member.
    pub(super) fn serve(&self, thread: Thread) {
        // Set once, where the member is made.
        let _ = self.thread.set(thread);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(super) fn order(&self, order: Order) {
        lock(&self.orders).push(order);
        self.wake();
    }

    pub(super) fn orders(&self) -> Vec<Order> {
        std::mem::take(&mut *lock(&self.orders))
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Ends every lease; none begins any more.
    pub(super) fn leave(&self) {
        let mut leases = lock(&self.leases);
        self.left.store(true, Ordering::Release);
        for lease in leases.values() {
            lease.end();
        }
        leases.clear();
        drop(leases);
        self.wake();
    }

    /// Begins a lease, unless the member has left.
    pub(super) fn begin(&self, lease: &Arc<Lease>) -> bool {
        let mut leases = lock(&self.leases);
        if self.has_left() {
            return false;
        }
        leases.insert(lease.tp.clone(), Arc::clone(lease));
        true
    }

    pub(super) fn end(&self, lease: &Lease) {
        lock(&self.leases).remove(&lease.tp);
        lease.end();
    }

    /// The lease of that epoch, if it still lasts.
    pub(super) fn lease(&self, tp: &TopicPartition, epoch: Epoch) -> Option<Arc<Lease>> {
        let leases = lock(&self.leases);
        let lease = leases.get(tp).filter(|lease| lease.epoch == epoch);
        lease.cloned()
    }
}

/// Number of a member within its log.
pub(super) type MemberId = u64;

/// Every group of a log.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, Group>,
    members: MemberId,
}

#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<MemberId, Seat>,
    /// Who reads a partition, or still drains it.
    readers: BTreeMap<TopicPartition, MemberId>,
}

#[derive(Debug)]
struct Seat {
    member: Arc<Member>,
    topics: Vec<Arc<Topic>>,
}

impl Groups {
    pub(super) fn join(
        &mut self,
        group: &str,
        member: Arc<Member>,
        topics: Vec<Arc<Topic>>,
    ) -> MemberId {
        self.members += 1;
        let group = self.groups.entry(group.into()).or_default();
        group.members.insert(self.members, Seat { member, topics });
        group.share();
        self.members
    }

    /// Takes a member out; what it read goes to the others at once.
    pub(super) fn leave(&mut self, name: &str, id: MemberId) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        group.members.remove(&id);
        group.readers.retain(|_, reader| *reader != id);
        if group.members.is_empty() {
            self.groups.remove(name);
        } else {
            group.share();
        }
    }

    /// A member has drained a partition it was told to release.
    pub(super) fn released(&mut self, name: &str, id: MemberId, tp: &TopicPartition) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        if group.readers.get(tp) == Some(&id) {
            group.readers.remove(tp);
            group.share();
        }
    }
}

impl Group {
    /// Deals the partitions out in turn among those who want them. A partition
    /// that somebody reads is asked back first.
    fn share(&mut self) {
        let mut wanted: BTreeMap<TopicPartition, Vec<MemberId>> = BTreeMap::new();
        for (id, seat) in &self.members {
            for topic in &seat.topics {
                for partition in 0..topic.partitions() {
                    wanted.entry(topic.place(partition)).or_default().push(*id);
                }
            }
        }
        for (turn, (tp, takers)) in wanted.into_iter().enumerate() {
            let taker = takers[turn % takers.len()];
            match self.readers.get(&tp) {
                Some(reader) if *reader == taker => {}
                Some(reader) => self.tell(*reader, Order::Release(tp)),
                None => {
                    self.readers.insert(tp.clone(), taker);
                    self.tell(taker, Order::Take(tp));
                }
            }
        }
    }

    fn tell(&self, id: MemberId, order: Order) {
        if let Some(seat) = self.members.get(&id) {
            seat.member.order(order);
        }
    }
}
