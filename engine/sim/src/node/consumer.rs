//! The node as a member of its groups: what it is given to read, what it reads,
//! what it gives back, and what it commits.

use super::{Happening, Node};
use crate::group::{CommitEnd, GroupId, Order, Seat};
use crate::log::Waiter;
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::{Commit, Event, Outside};

/// Records of one partition a node has asked for and not yet routed.
const CREDIT: usize = 256;
/// How long a revoked partition may take, as in the server.
const REVOKE_MS: u64 = 3_000;

/// One assignment as the log's consumer has it.
#[derive(Debug)]
pub(super) struct Lease {
    epoch: u64,
    position: u64,
    credit: usize,
    /// A fetch is under way, or the partition is waited for.
    fetching: bool,
    draining: bool,
}

impl Lease {
    /// What stands before is not read.
    pub(super) fn skip_to(&mut self, position: u64) {
        self.position = self.position.max(position);
    }
}

impl Node {
    pub(super) fn join(&mut self, out: &mut Outside) {
        let seat = Seat {
            node: self.id,
            number: out.number(),
        };
        self.seat = Some(seat);
        let wait = 1 + out.rng.below(100);
        out.after(wait, Event::Join(seat));
    }

    pub(super) fn order(&mut self, seat: Seat, group: GroupId, order: Order, out: &mut Outside) {
        if self.seat != Some(seat) {
            return;
        }
        if let Some(until) = out.cut_until(self.id) {
            let wait = until - out.now_ms + 10;
            return out.tell(wait, self.id, Happening::Order(seat, group, order));
        }
        match order {
            Order::Take(partition) => self.take(group, partition, out),
            Order::Release(partition) => {
                let Some(lease) = self.leases.get_mut(&(group, partition)) else {
                    return;
                };
                if std::mem::replace(&mut lease.draining, true) {
                    return;
                }
                let until = out.now_ms + REVOKE_MS;
                out.tell(REVOKE_MS, self.id, Happening::Check);
                match group {
                    GroupId::Ingest => self.revoke_source(partition, until, out),
                    GroupId::Owner => self.revoke_part(partition, until, out),
                }
            }
        }
    }

    pub(super) fn take(&mut self, group: GroupId, partition: usize, out: &mut Outside) {
        // Without a commit it begins at the first record.
        let committed = out.group(group).committed(partition).cloned();
        let (position, metadata) = committed.unwrap_or_default();
        let epoch = out.number();
        out.group(group).taken(partition, epoch);
        let lease = Lease {
            epoch,
            position,
            credit: CREDIT,
            fetching: true,
            draining: false,
        };
        self.leases.insert((group, partition), lease);
        self.share_out(out);
        let wait = out.fetch_ms();
        out.tell(wait, self.id, Happening::Fetch(group, partition, epoch));
        match group {
            GroupId::Ingest => self.take_source(partition, epoch, position, &metadata),
            GroupId::Owner => {
                self.take_part((partition, epoch), position, metadata, out);
            }
        }
    }

    pub(super) fn fetch(
        &mut self,
        group: GroupId,
        partition: usize,
        epoch: u64,
        out: &mut Outside,
    ) {
        let stopping = self.stopping.is_some();
        let Some(lease) = self.leases.get_mut(&(group, partition)) else {
            return;
        };
        if lease.epoch != epoch {
            return;
        }
        if let Some(until) = out.cut_until(self.id) {
            let wait = until - out.now_ms + out.fetch_ms();
            return out.tell(wait, self.id, Happening::Fetch(group, partition, epoch));
        }
        lease.fetching = false;
        let ends = group == GroupId::Ingest && (stopping || lease.draining);
        if lease.credit == 0 || ends {
            return;
        }
        let tp = (group.topic(), partition);
        let most = 1 + crate::plan::below(&mut out.rng, 2 * CREDIT).min(lease.credit);
        let (records, next) = out.log.read(tp, lease.position, most);
        lease.fetching = true;
        if next == lease.position {
            let life = out.reach[self.id].life;
            let waiter = Waiter {
                node: self.id,
                life,
                epoch,
            };
            return out.log.wait(tp, waiter);
        }
        lease.position = next;
        lease.credit = lease.credit.saturating_sub(records.len());
        let records = records.to_vec();
        let wait = out.fetch_ms();
        out.tell(wait, self.id, Happening::Fetch(group, partition, epoch));
        match group {
            GroupId::Ingest => self.source_batch(partition, epoch, records, next, out),
            GroupId::Owner => self.part_batch((partition, epoch), records, next, out),
        }
    }

    /// So many records of a partition were taken.
    pub(super) fn credit(
        &mut self,
        group: GroupId,
        partition: usize,
        epoch: u64,
        by: usize,
        out: &mut Outside,
    ) {
        let lease = self.leases.get_mut(&(group, partition));
        let Some(lease) = lease.filter(|lease| lease.epoch == epoch && by > 0) else {
            return;
        };
        lease.credit += by;
        if !std::mem::replace(&mut lease.fetching, true) {
            let wait = out.fetch_ms();
            out.tell(wait, self.id, Happening::Fetch(group, partition, epoch));
        }
    }

    /// The consumer knows at once that its assignments are gone; the rooms hear
    /// of it a little later.
    pub(super) fn lost(&mut self, seat: Seat, out: &mut Outside) {
        if self.seat != Some(seat) {
            return;
        }
        out.check.seen.note(Seen::Lost);
        out.check.disrupted();
        let leases = std::mem::take(&mut self.leases);
        let gone = leases
            .into_iter()
            .map(|((group, partition), lease)| (group, partition, lease.epoch));
        let gone = Happening::RoomsLost(gone.collect());
        let wait = out.rng.below(1_500);
        out.tell(wait, self.id, gone);
        self.share_out(out);
        self.seat = None;
        if self.stopping.is_none() {
            self.join(out);
        }
    }

    pub(super) fn rooms_lost(&mut self, gone: &[(GroupId, usize, u64)]) {
        for &(group, partition, epoch) in gone {
            match group {
                GroupId::Ingest => self.drop_source(partition, epoch),
                GroupId::Owner => self.drop_part(partition, epoch),
            }
        }
    }

    /// Gives a partition back.
    pub(super) fn release(
        &mut self,
        group: GroupId,
        partition: usize,
        epoch: u64,
        out: &mut Outside,
    ) {
        let lease = self.leases.get(&(group, partition));
        if lease.is_none_or(|lease| lease.epoch != epoch) {
            return;
        }
        self.leases.remove(&(group, partition));
        self.share_out(out);
        if let Some(seat) = self.seat {
            let wait = 1 + out.rng.below(50);
            out.after(wait, Event::Released(seat, group, partition));
        }
        if out.planted(Plant::CommitDeadEpoch) && group == GroupId::Ingest {
            self.send_commit(group, partition, epoch, 0, String::new(), out);
        }
    }

    /// Commits; refused here when the assignment is gone.
    pub(super) fn commit(
        &mut self,
        (group, partition, epoch): (GroupId, usize, u64),
        at: u64,
        metadata: String,
        out: &mut Outside,
    ) {
        let lease = self.leases.get(&(group, partition));
        if lease.is_none_or(|lease| lease.epoch != epoch) {
            out.check.seen.note(Seen::CommitStale);
            let failed = Happening::Committed(group, partition, epoch, (at, CommitEnd::Failed));
            return out.tell(1, self.id, failed);
        }
        self.send_commit(group, partition, epoch, at, metadata, out);
    }

    pub(super) fn send_commit(
        &self,
        group: GroupId,
        partition: usize,
        epoch: u64,
        at: u64,
        metadata: String,
        out: &mut Outside,
    ) {
        let Some(seat) = self.seat else { return };
        let lease = self.leases.get(&(group, partition));
        let live = lease.is_some_and(|lease| lease.epoch == epoch);
        out.check.commits(epoch, at, live);
        let wait = out.commit_ms();
        let life = out.reach[self.id].life;
        let commit = Commit {
            seat,
            life,
            group,
            partition,
            epoch,
            at,
            metadata,
        };
        out.after(wait, Event::Commit(commit));
    }

    pub(super) fn committed(
        &mut self,
        group: GroupId,
        partition: usize,
        epoch: u64,
        end: (u64, CommitEnd),
        out: &mut Outside,
    ) {
        match group {
            GroupId::Ingest => self.source_committed(partition, epoch, end.1, out),
            GroupId::Owner => self.part_committed(partition, epoch, end, out),
        }
    }
}
