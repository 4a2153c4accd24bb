//! What an owner commits of its lane partitions, and how it lets go of them.

use super::{Part, charge};
use crate::group::{CommitEnd, GroupId};
use crate::node::Node;
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::Outside;

impl Node {
    pub(in crate::node) fn commit_parts(&mut self, out: &mut Outside) {
        for partition in self.parts.keys().copied().collect::<Vec<_>>() {
            self.commit_part(partition, out);
        }
    }

    /// Commits what waits to be, if anything.
    pub(super) fn commit_part(&mut self, partition: usize, out: &mut Outside) {
        let Some(part) = self.parts.get_mut(&partition) else {
            return;
        };
        let (epoch, read_to) = (part.epoch, part.owner().map(|owner| owner.fold().next()));
        let Some(commit) = part.commit.as_mut().filter(|commit| !commit.under_way) else {
            return;
        };
        commit.under_way = true;
        let (mut upto, metadata) = (commit.upto, commit.metadata.clone());
        if out.planted(Plant::LaneCommitHighest) {
            upto = read_to.unwrap_or(upto);
        }
        let place = (GroupId::Owner, partition, epoch);
        self.commit(place, upto, metadata, out);
    }

    pub(in crate::node) fn part_committed(
        &mut self,
        partition: usize,
        epoch: u64,
        (at, end): (u64, CommitEnd),
        out: &mut Outside,
    ) {
        let planted = out.planted(Plant::LaneCommitHighest);
        let Some(part) = self.part(partition, epoch) else {
            return;
        };
        let Some(commit) = part.commit.as_mut() else {
            return;
        };
        commit.under_way = false;
        if end == CommitEnd::Done && (commit.upto == at || planted) {
            part.commit = None;
        } else {
            self.want_commit(out);
        }
        self.look(partition, out);
    }

    pub(in crate::node) fn revoke_part(&mut self, partition: usize, until: u64, out: &mut Outside) {
        if let Some(part) = self.parts.get_mut(&partition) {
            part.drain();
            part.revoking = Some(until);
        }
        self.look(partition, out);
    }

    /// The node stops.
    pub(in crate::node) fn drain_parts(&mut self, out: &mut Outside) {
        for partition in self.parts.keys().copied().collect::<Vec<_>>() {
            if let Some(part) = self.parts.get_mut(&partition) {
                part.drain();
            }
            self.look(partition, out);
        }
    }

    pub(in crate::node) fn release_parts(&mut self, out: &mut Outside) {
        let now_ms = out.now_ms;
        let done = |part: &Part| {
            let until = part.revoking?;
            (part.is_drained() || now_ms >= until).then(|| part.is_drained())
        };
        let free: Vec<_> = self
            .parts
            .iter()
            .filter_map(|(&partition, part)| Some((partition, part.epoch, done(part)?)))
            .collect();
        for (partition, epoch, drained) in free {
            if !drained {
                out.check.seen.note(Seen::ReleasedOpen);
                out.check.disrupted();
            }
            self.drop_part(partition, epoch);
            self.release(GroupId::Owner, partition, epoch, out);
        }
    }

    pub(in crate::node) fn drop_part(&mut self, partition: usize, epoch: u64) {
        let held = self.parts.get(&partition);
        if held.is_some_and(|part| part.epoch == epoch)
            && let Some(part) = self.parts.remove(&partition)
        {
            self.bodies_left += part.bodies.values().map(charge).sum::<usize>();
        }
    }
}
