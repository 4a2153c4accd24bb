//! Committing positions whose state is saved, one commit of a partition at a
//! time, again until it is done.

use futures_util::future::FutureExt as _;

use super::OwnerRoom;
use super::part::Part;
use super::writes::Place;
use crate::log::CommitError;

/// What a commit came to.
pub(super) struct Committed {
    place: Place,
    upto: u64,
    result: Result<(), CommitError>,
}

impl OwnerRoom {
    /// Commits what could not be committed before, and counts.
    pub(super) fn commit_all(&mut self) {
        let (mut waiting, mut held) = (0, 0);
        for place in self.parts.values().map(Part::place).collect::<Vec<_>>() {
            self.commit(place);
            if let Some(owner) = self.live(place).and_then(Part::owner) {
                let timers = owner.fold().timers().len();
                waiting += timers;
                held += owner.fold().len() - timers;
            }
        }
        self.metrics.owed(waiting, held);
    }

    pub(super) fn commit(&mut self, place: Place) {
        let part = self.parts.get_mut(&place.partition);
        let Some(part) = part.filter(|part| part.epoch == place.epoch) else {
            return;
        };
        let Some(commit) = part.commit.as_mut().filter(|commit| !commit.under_way) else {
            return;
        };
        commit.under_way = true;
        let upto = commit.upto;
        let metadata = commit.metadata.clone();
        let commit = self.consumer.commit(&part.tp, part.epoch, upto, metadata);
        let committed = move |result| Committed {
            place,
            upto,
            result,
        };
        self.commits.push(commit.map(committed).boxed());
    }

    pub(super) fn committed(&mut self, committed: &Committed) {
        let Some(part) = self.live(committed.place) else {
            return;
        };
        let Some(commit) = part.commit.as_mut() else {
            return;
        };
        commit.under_way = false;
        match &committed.result {
            Ok(()) if commit.upto == committed.upto => part.commit = None,
            Ok(()) => {}
            Err(error) => tracing::warn!(tp = %part.tp, %error, "lane commit failed, trying again"),
        }
    }
}
