//! Who of a group's members reads which partition. Kept in memory: all members
//! of an embedded log's groups live in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::super::TopicPartition;
use super::super::lease::{Reader, lock};
use super::catalog::Topic;

/// What a member is told to do.
#[derive(Debug)]
pub(super) enum Order {
    Take(TopicPartition),
    Release(TopicPartition),
}

/// One reader of one or several topics, and what its group tells it.
/// Orders are bounded by the number of partitions.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) reader: Reader,
    orders: Mutex<Vec<Order>>,
}

impl Member {
    pub(super) fn order(&self, order: Order) {
        lock(&self.orders).push(order);
        self.reader.wake();
    }

    pub(super) fn orders(&self) -> Vec<Order> {
        std::mem::take(&mut *lock(&self.orders))
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
