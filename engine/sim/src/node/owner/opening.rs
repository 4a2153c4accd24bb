//! From a committed position to the state as of it, as the server's owner does:
//! by the snapshot that the commit names, else by a fold of the log from its
//! start.

use posthaste_core::lane::fold::Fold;
use posthaste_core::lane::owner::Owner;
use posthaste_core::lane::snapshot::{Assembly, Loaded, SnapshotRef};
use posthaste_core::rng::Rng;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::{Stage, lane};
use crate::group::GroupId;
use crate::log::{Topic, Value};
use crate::node::lines::{as_read, caps};
use crate::node::{Happening, Node, Purpose};
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::Outside;

impl Node {
    /// The log answered: the state is read, what came meanwhile is folded, and
    /// the partition is claimed.
    pub(in crate::node) fn open(
        &mut self,
        (partition, epoch): (usize, u64),
        position: u64,
        metadata: String,
        out: &mut Outside,
    ) {
        if self.part(partition, epoch).is_none() {
            return;
        }
        let cut = out.cut_until(self.id);
        if cut.is_some() || out.strikes(out.plan.log.read_fail_permille) {
            let wait = cut.map_or(50, |until| until - out.now_ms) + out.fetch_ms();
            let again = Happening::Open(partition, epoch, position, metadata);
            return out.tell(wait, self.id, again);
        }
        let mut loaded = load(partition, position, &metadata, out);
        if out.planted(Plant::ResumeAtSnapshot)
            && let Ok(place) = metadata.parse::<SnapshotRef>()
        {
            loaded.fold.skip_to(place.part0);
        }
        let registry = self.endpoints(out);
        let rng = Rng::new(self.shards_seed ^ epoch);
        let mut owner = Owner::load(loaded, registry, rng);
        owner.set_caps(caps(&out.plan));
        if out.planted(Plant::BeforeClaim) {
            owner.claimed(0);
        }
        let stopping = self.stopping.is_some();
        let Some(part) = self.part(partition, epoch) else {
            return;
        };
        part.draining |= stopping;
        if part.draining {
            owner.drain();
        }
        let opened = Stage::Open(Box::new(owner));
        let Stage::Opening(early) = std::mem::replace(&mut part.stage, opened) else {
            return;
        };
        for (records, next) in early {
            self.part_batch((partition, epoch), records, next, out);
        }
        self.tell_operations(partition, out);
        let claim = proto::Claim {
            instance_id: format!("n{}", self.id),
            at_ms: self.clock(out).as_millis(),
        };
        let record = lane(partition, claim.to_value());
        out.append(self.id, vec![record], Purpose::Claim(partition, epoch), 0);
    }

    /// Where a partition is read from: where it was committed, were it not for
    /// a planted bug.
    pub(super) fn resume_at_snapshot(&mut self, partition: usize, metadata: &str, out: &Outside) {
        if out.planted(Plant::ResumeAtSnapshot)
            && let Ok(place) = metadata.parse::<SnapshotRef>()
            && let Some(lease) = self.leases.get_mut(&(GroupId::Owner, partition))
        {
            lease.skip_to(place.part0);
        }
    }
}

/// The state before the record at `position`.
fn load(partition: usize, position: u64, metadata: &str, out: &mut Outside) -> Loaded {
    // Sometimes it cannot be read: it only saves time.
    let unreadable = out.strikes(out.plan.log.read_fail_permille);
    if let Ok(place) = metadata.parse::<SnapshotRef>()
        && !unreadable
    {
        let mut assembly = Assembly::new(place);
        let (records, _) = out
            .log
            .read((Topic::Lane, partition), place.part0, usize::MAX);
        for record in records {
            if let Value::Bytes(value) = &record.value
                && assembly.push(record.offset, value)
            {
                break;
            }
        }
        let loaded = assembly.load().ok();
        if let Some(loaded) = loaded.filter(|one| one.fold.next() == position) {
            out.check.seen.note(Seen::SnapshotLoaded);
            if place.parts > 1 {
                out.check.seen.note(Seen::SnapshotInParts);
            }
            if out.planted(Plant::ForgetSnapshot) {
                return Loaded {
                    fold: Fold::new(position),
                    standings: loaded.standings,
                };
            }
            return loaded;
        }
    }
    if position > 0 {
        out.check.seen.note(Seen::SnapshotMissing);
    }
    let mut fold = Fold::new(0);
    let (records, _) = out.log.read((Topic::Lane, partition), 0, usize::MAX);
    for record in records.iter().take_while(|one| one.offset < position) {
        if let Value::Bytes(value) = &record.value {
            let value = as_read(out.plant, &fold, record.offset, value);
            let folded = fold.apply(record.offset, &value);
            assert!(folded.is_ok(), "the lane is well formed: {folded:?}");
        }
    }
    fold.skip_to(position);
    Loaded {
        fold,
        standings: Vec::new(),
    }
}
