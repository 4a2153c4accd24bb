//! The group coordinator: who reads which partition, and what is committed.
//!
//! It does what a broker does, no more: partitions are handed over
//! cooperatively, a member that is not heard of is put out, and a commit is
//! refused only of someone who is no member. That the committer still reads the
//! partition is not its business (delivery-log.md, 3.3).

use std::collections::{BTreeMap, BTreeSet};

use crate::log::Topic;

/// Which group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupId {
    /// Reads the source partitions.
    Ingest,
    /// Reads the lane.
    Owner,
}

impl GroupId {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingest, Self::Owner];

    /// What it reads.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Ingest => Topic::Events,
            Self::Owner => Topic::Lane,
        }
    }
}

/// One membership of one node: a new one each time it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// The node.
    pub node: usize,
    /// Which of its memberships.
    pub number: u64,
}

/// What a member is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Read this partition.
    Take(usize),
    /// Finish with this partition and give it back.
    Release(usize),
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitEnd {
    /// It stands.
    Done,
    /// Not a member, or it failed on the way.
    Failed,
    /// The metadata is too long.
    MetadataTooLarge,
}

/// One group.
#[derive(Debug)]
pub struct Group {
    partitions: usize,
    members: BTreeSet<Seat>,
    readers: BTreeMap<usize, Seat>,
    committed: BTreeMap<usize, (u64, String)>,
    /// The newest assignment of each partition that was taken up.
    newest: BTreeMap<usize, u64>,
    /// Partitions whose last commit came from an earlier assignment.
    late: BTreeSet<usize>,
}

impl Group {
    /// An empty group over so many partitions.
    pub fn new(partitions: usize) -> Self {
        Self {
            partitions,
            members: BTreeSet::new(),
            readers: BTreeMap::new(),
            committed: BTreeMap::new(),
            newest: BTreeMap::new(),
            late: BTreeSet::new(),
        }
    }

    /// A member joins.
    pub fn join(&mut self, seat: Seat) -> Vec<(Seat, Order)> {
        self.members.insert(seat);
        self.share()
    }

    /// A member leaves or is put out: what it read goes to the others at once.
    pub fn leave(&mut self, seat: Seat) -> Vec<(Seat, Order)> {
        if !self.members.remove(&seat) {
            return Vec::new();
        }
        self.readers.retain(|_, reader| *reader != seat);
        self.share()
    }

    /// A member gave a partition back.
    pub fn released(&mut self, seat: Seat, partition: usize) -> Vec<(Seat, Order)> {
        if self.readers.get(&partition) != Some(&seat) {
            return Vec::new();
        }
        self.readers.remove(&partition);
        self.share()
    }

    /// Deals the partitions out in turn; one that somebody reads is asked back
    /// first.
    fn share(&mut self) -> Vec<(Seat, Order)> {
        let mut orders = Vec::new();
        let members: Vec<Seat> = self.members.iter().copied().collect();
        if members.is_empty() {
            return orders;
        }
        for partition in 0..self.partitions {
            let taker = members[partition % members.len()];
            match self.readers.get(&partition) {
                Some(reader) if *reader == taker => {}
                Some(reader) => orders.push((*reader, Order::Release(partition))),
                None => {
                    self.readers.insert(partition, taker);
                    orders.push((taker, Order::Take(partition)));
                }
            }
        }
        orders
    }

    /// A member takes a partition up under this assignment.
    pub fn taken(&mut self, partition: usize, epoch: u64) {
        self.newest.insert(partition, epoch);
    }

    /// Commits. The assignment is not the coordinator's business: it is kept for
    /// the checker.
    pub fn commit(
        &mut self,
        seat: Seat,
        (partition, epoch): (usize, u64),
        at: u64,
        metadata: &str,
        metadata_max: usize,
    ) -> CommitEnd {
        if !self.members.contains(&seat) {
            return CommitEnd::Failed;
        }
        if metadata.len() > metadata_max {
            return CommitEnd::MetadataTooLarge;
        }
        if self
            .newest
            .get(&partition)
            .is_none_or(|&newest| epoch >= newest)
        {
            self.late.remove(&partition);
        } else {
            self.late.insert(partition);
        }
        self.committed.insert(partition, (at, metadata.to_owned()));
        CommitEnd::Done
    }

    /// What is committed, if anything.
    pub fn committed(&self, partition: usize) -> Option<&(u64, String)> {
        self.committed.get(&partition)
    }

    /// Whether the last commit came from an earlier assignment: it stands until
    /// the reader has something new to commit.
    pub fn is_late(&self, partition: usize) -> bool {
        self.late.contains(&partition)
    }

    /// All committed offsets are gone.
    pub fn forget(&mut self) {
        self.committed.clear();
    }

    /// Whether it is a member.
    pub fn has(&self, seat: Seat) -> bool {
        self.members.contains(&seat)
    }

    /// Who reads a partition.
    pub fn reader(&self, partition: usize) -> Option<Seat> {
        self.readers.get(&partition).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Seat = Seat { node: 0, number: 1 };
    const B: Seat = Seat { node: 1, number: 2 };

    #[test]
    fn a_partition_changes_hands_only_once_it_is_given_back() {
        let mut group = Group::new(2);
        assert_eq!(group.join(A).len(), 2);
        assert_eq!(group.join(B), [(A, Order::Release(1))]);
        assert_eq!(group.reader(1), Some(A));
        assert_eq!(group.released(A, 1), [(B, Order::Take(1))]);
        assert_eq!(group.leave(A), [(B, Order::Take(0))]);
    }

    #[test]
    fn a_commit_needs_a_member_and_no_more() {
        let mut group = Group::new(1);
        group.join(A);
        group.join(B);
        assert_eq!(group.commit(B, (0, 1), 7, "", 9), CommitEnd::Done);
        assert_eq!(group.committed(0), Some(&(7, String::new())));
        assert_eq!(
            group.commit(A, (0, 1), 8, "0123456789", 9),
            CommitEnd::MetadataTooLarge
        );
        group.leave(A);
        assert_eq!(group.commit(A, (0, 1), 9, "", 9), CommitEnd::Failed);
        assert_eq!(group.committed(0), Some(&(7, String::new())));
    }
}
