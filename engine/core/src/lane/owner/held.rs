//! What endpoints hold: read in pages, passed, and expired in ranges.

use bytes::Bytes;
use posthaste_proto::RecordType;

use super::line::Line;
use super::{Action, Expired, Head, Owner};
use crate::id::EndpointId;
use crate::limits::{
    DEAD_RANGE_EXCEPT_MAX, DEAD_RANGE_MIN, HOLD_TAKEN_MAX, PAGE_LOW, PAGE_MAX, PAGE_SPAN_MAX,
    READS_MAX,
};
use crate::time::Timestamp;

impl Owner {
    /// A delivery is held from now on. Where all before it was read, its record
    /// need not be read again.
    pub(super) fn held(&mut self, offset: u64, head: &Head) {
        let endpoint = head.owed.endpoint;
        let first = self
            .fold
            .hold_of(endpoint)
            .is_some_and(|hold| hold.cursor() == hold.last());
        self.touch(endpoint);
        let Some(line) = self.lines.get_mut(&endpoint).filter(|_| self.ready) else {
            return;
        };
        let page = &mut line.page;
        page.behind &= !first;
        if page.behind || page.reading.is_some() || page.open.len() >= PAGE_MAX {
            page.behind = true;
        } else {
            page.insert(offset, *head);
            page.scanned = offset + 1;
        }
    }

    /// Whether a held delivery was read for its line: its turn comes soon, and its
    /// body is worth keeping.
    pub fn has_read(&self, endpoint: EndpointId, offset: u64) -> bool {
        let line = self.lines.get(&endpoint);
        line.is_some_and(|line| line.page.open.contains(&offset))
    }

    /// What was read of the lane for an endpoint: records from the place that
    /// was asked for on, and where the next would stand; no further than asked
    /// for where nothing could be read. Answers the offsets that will be handed
    /// out, whose bodies are worth keeping.
    pub fn page<'a>(
        &mut self,
        endpoint: EndpointId,
        next: u64,
        records: impl IntoIterator<Item = (u64, &'a Bytes)>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Vec<u64> {
        let mut wanted = Vec::new();
        let Some(line) = self.lines.get_mut(&endpoint) else {
            return wanted;
        };
        let page = &mut line.page;
        let Some(to) = page.reading.take() else {
            return wanted;
        };
        self.reads -= 1;
        if let Some(hold) = self.fold.hold_of(endpoint) {
            let mut next = next.min(to);
            for (offset, value) in records {
                if page.open.len() >= PAGE_MAX {
                    next = next.min(offset);
                    break;
                }
                if offset < page.scanned || offset >= to || !hold.contains(offset) {
                    continue;
                }
                let head = held_head(value).filter(|head| head.owed.endpoint == endpoint);
                if let Some(head) = head {
                    if self.overlay.contains_key(&offset) {
                        page.open.insert(offset);
                    } else {
                        page.insert(offset, head);
                        wanted.push(offset);
                    }
                }
            }
            page.scanned = page.scanned.max(next);
            page.behind = page.scanned <= hold.last();
        }
        if let Some(reader) = self.readers.pop_front() {
            if let Some(line) = self.lines.get_mut(&reader) {
                line.page.queued = false;
            }
            self.touch(reader);
        }
        self.serve(endpoint, now, actions);
        wanted
    }

    /// Has more read of what an endpoint holds, where the line has need of it.
    pub(super) fn read_on(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        actions: &mut Vec<Action>,
    ) {
        let page = &mut line.page;
        let taken = self
            .fold
            .hold_of(endpoint)
            .map_or(0, |hold| hold.taken.len());
        // One that is out for long must not let others pile up behind it.
        let has_room = page.open.len() + PAGE_LOW <= PAGE_MAX && taken < PAGE_MAX;
        let idle = page.reading.is_none() && !page.queued;
        if !page.behind || !idle || !has_room || page.items.len() >= PAGE_LOW {
            return;
        }
        let hold = self.fold.hold_of(endpoint);
        let Some(stretch) = hold.and_then(|hold| hold.stretch(page.scanned)) else {
            page.behind = false;
            return;
        };
        if self.reads >= READS_MAX {
            page.queued = true;
            self.readers.push_back(endpoint);
            return;
        }
        // Between two stretches nothing is held.
        page.scanned = stretch.start;
        let to = stretch.end.min(stretch.start + PAGE_SPAN_MAX);
        page.reading = Some(to);
        self.reads += 1;
        actions.push(Action::Read {
            endpoint,
            from: stretch.start,
            to,
        });
    }

    /// Moves the cursor over what is settled, once it is worth a fact. What is
    /// in `open` is not; everything else below `scanned` was seen to be, by the
    /// fold.
    pub(super) fn pass(&mut self, endpoint: EndpointId, line: &mut Line) {
        let Some(hold) = self.fold.hold_of(endpoint) else {
            return;
        };
        if line.expiring.is_some() {
            return;
        }
        let page = &mut line.page;
        let to = page.open.first().copied().unwrap_or(page.scanned);
        let worth = page.open.is_empty() || hold.taken.len() >= HOLD_TAKEN_MAX;
        if worth && to > hold.cursor() && to > page.told {
            page.told = to;
            self.tell_passed(endpoint, to, 0);
        }
    }

    /// Gives up what expired at the start of what is held: all at once where it
    /// is much. The rest expires one by one, when its turn comes.
    pub(super) fn expire_held(
        &mut self,
        endpoint: EndpointId,
        line: &mut Line,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let page = &mut line.page;
        let Some(hold) = self.fold.hold_of(endpoint) else {
            return;
        };
        let expired = |(_, head): &&(u64, Head)| now >= head.owed.deadline;
        if page.items.front().filter(expired).is_none() {
            return;
        }
        page.items.retain(|(offset, _)| hold.contains(*offset));
        let Some(&(first, _)) = page.items.front() else {
            return;
        };
        // Or something before them is out.
        if line.expiring.is_some() || page.open.first() != Some(&first) {
            return;
        }
        let count = page.items.iter().take_while(expired).count();
        let contiguous = page.open.iter().zip(&page.items);
        let count = contiguous
            .take(count)
            .take_while(|(open, (offset, _))| *open == offset)
            .count();
        if count < DEAD_RANGE_MIN {
            return;
        }
        let mut to = page.scanned;
        for (offset, _) in page.items.drain(..count) {
            to = offset + 1;
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        line.expiring = Some((to, count));
        // From where the letter before ended: so one follows the other without a
        // gap, and many are read again as one.
        let from = hold.cursor().max(page.told).min(first);
        let except = hold.taken.range(from..to).copied();
        actions.push(Action::BuryRange(Expired {
            endpoint,
            from,
            to,
            count,
            except: except.take(DEAD_RANGE_EXCEPT_MAX).collect(),
        }));
    }

    /// The dead letter of a range is in the log.
    pub fn range_buried(&mut self, endpoint: EndpointId) {
        let told = self.lines.get_mut(&endpoint).and_then(|line| {
            let (to, count) = line.expiring.take()?;
            line.page.told = line.page.told.max(to);
            Some((to, count))
        });
        if let Some((to, count)) = told {
            self.tell_passed(endpoint, to, count);
        }
    }
}

/// The head of a held delivery's record, `None` of any other record.
fn held_head(value: &Bytes) -> Option<Head> {
    if RecordType::of(value) != Ok(RecordType::Deliver) {
        return None;
    }
    Head::read(value).ok().filter(Head::is_held)
}
