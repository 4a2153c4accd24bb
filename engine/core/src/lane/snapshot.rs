//! Snapshots of a lane partition's fold, written into the lane itself.
//!
//! ```text
//!  ..|        upto        |  part 0 |  | part 1 |  tail ..
//!    |  folded: snapshot  |  ^- named by the commit's metadata
//!                         ^---- the commit: a successor loads, and folds from here
//! ```
//!
//! Between `upto` and the parts others append: a successor that folded from the
//! snapshot's own offset would lose what stands there. A snapshot that is
//! missing or cannot be read costs time, nothing else: the fold of the whole log
//! is the same, since facts stand behind the deliveries they are about.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::{Message as _, Record as _, RecordError};

use super::fold::{Fold, bytes16};
use super::hold::{CHUNK, Hold};
use crate::id::{DeliveryId, EndpointId};
use crate::limits::{SNAPSHOT_PARTS_MAX, SNAPSHOT_RUNS_MAX};
use crate::time::Timestamp;
use crate::timers::Owed;

/// Bytes an item takes beside its own: key and length, and maybe its endpoint.
const ITEM_BYTES: usize = 8 + ENDPOINT_BYTES;
/// … of an endpoint in a part's table.
const ENDPOINT_BYTES: usize = 18;
/// … of a count.
const COUNT_BYTES: usize = 10;

/// Where a snapshot lies: the metadata of the commit of its `upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRef {
    /// Of the owner that wrote it.
    pub owner_epoch: u64,
    /// The offset of its first part.
    pub part0: u64,
    /// How many parts.
    pub parts: u32,
}

/// Metadata that names no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot's place: expected `S1:<epoch>:<offset>:<parts>`")]
pub struct SnapshotRefError;

/// What a snapshot held.
#[derive(Debug)]
pub struct Loaded {
    /// The state, as of `upto`.
    pub fold: Fold,
    /// What its owner thought of endpoints.
    pub standings: Vec<(EndpointId, proto::snapshot::Standing)>,
}

/// Finds a snapshot's parts among the records from its first part on.
#[derive(Debug)]
pub struct Assembly {
    wanted: SnapshotRef,
    upto: Option<u64>,
    parts: BTreeMap<u32, proto::Snapshot>,
}

impl fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            owner_epoch,
            part0,
            parts,
        } = self;
        write!(f, "S1:{owner_epoch}:{part0}:{parts}")
    }
}

impl FromStr for SnapshotRef {
    type Err = SnapshotRefError;

    fn from_str(text: &str) -> Result<Self, SnapshotRefError> {
        let rest = text.strip_prefix("S1:").ok_or(SnapshotRefError)?;
        let mut fields = rest.split(':').map(|field| {
            let digits = !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
            field.parse().ok().filter(|_| digits)
        });
        let mut next = || fields.next().flatten().ok_or(SnapshotRefError);
        let (owner_epoch, part0, parts): (u64, u64, u64) = (next()?, next()?, next()?);
        let parts = u32::try_from(parts).map_err(|_| SnapshotRefError)?;
        let counted = (1..=SNAPSHOT_PARTS_MAX).contains(&parts);
        if !counted || fields.next().is_some() {
            return Err(SnapshotRefError);
        }
        Ok(Self {
            owner_epoch,
            part0,
            parts,
        })
    }
}

impl Assembly {
    /// Looks for the parts of this snapshot.
    pub fn new(wanted: SnapshotRef) -> Self {
        Self {
            wanted,
            upto: None,
            parts: BTreeMap::new(),
        }
    }

    /// A record at or after the first part. Answers whether all parts are found.
    pub fn push(&mut self, offset: u64, value: &Bytes) -> bool {
        if let Ok(part) = proto::Snapshot::from_value(value) {
            if offset == self.wanted.part0 {
                self.upto = Some(part.upto);
            }
            // An owner's later snapshot has another `upto`.
            let ours = part.owner_epoch == self.wanted.owner_epoch
                && Some(part.upto) == self.upto
                && part.parts == self.wanted.parts;
            if ours && part.part < part.parts {
                self.parts.insert(part.part, part);
            }
        }
        self.is_complete()
    }

    /// Whether all parts are found.
    pub fn is_complete(&self) -> bool {
        u32::try_from(self.parts.len()) == Ok(self.wanted.parts)
    }

    /// The state; an error when a part is missing or cannot be right. Then the
    /// log has to be folded from its start.
    pub fn load(self) -> Result<Loaded, RecordError> {
        if !self.is_complete() {
            return Err(malformed("a part of the snapshot is missing"));
        }
        load(self.parts.into_values(), self.upto.unwrap_or(0))
    }
}

/// The parts of a snapshot, each of at most so many bytes unless one item is
/// longer.
pub(super) fn write(
    fold: &Fold,
    owner_epoch: u64,
    standings: Vec<(EndpointId, proto::snapshot::Standing)>,
    part_bytes: usize,
) -> Vec<Bytes> {
    let mut writer = Writer::new(owner_epoch, fold.next(), part_bytes);
    for (offset, owed) in fold.iter() {
        writer.timer(offset, owed, fold.order(offset));
    }
    for (endpoint, hold) in fold.holds() {
        writer.hold(endpoint, hold);
    }
    for (endpoint, standing) in standings {
        writer.standing(endpoint, standing);
    }
    for id in fold.commands() {
        writer.room(ENDPOINT_BYTES + COUNT_BYTES);
        writer.part.commands.push(Bytes::copy_from_slice(id));
        let count = fold.commanded(id).unwrap_or(0);
        writer.part.command_counts.push(count);
    }
    for piece in fold.operations().pieces() {
        writer.room(piece.encoded_len());
        writer.part.made.push(piece);
    }
    writer.finish()
}

struct Writer {
    full: Vec<proto::Snapshot>,
    part: proto::Snapshot,
    bytes: usize,
    bytes_max: usize,
    places: BTreeMap<EndpointId, u32>,
}

impl Writer {
    fn new(owner_epoch: u64, upto: u64, bytes_max: usize) -> Self {
        Self {
            full: Vec::new(),
            part: proto::Snapshot {
                owner_epoch,
                upto,
                ..Default::default()
            },
            bytes: 0,
            bytes_max,
            places: BTreeMap::new(),
        }
    }

    /// Begins a new part where an item of so many bytes has no room.
    fn room(&mut self, bytes: usize) {
        self.bytes += bytes + ITEM_BYTES;
        if self.bytes <= self.bytes_max {
            return;
        }
        let fresh = proto::Snapshot {
            owner_epoch: self.part.owner_epoch,
            upto: self.part.upto,
            ..Default::default()
        };
        self.full.push(std::mem::replace(&mut self.part, fresh));
        self.places.clear();
        self.bytes = bytes + ITEM_BYTES;
    }

    /// An endpoint's place in the part's table.
    fn place(&mut self, endpoint: EndpointId) -> u32 {
        if let Some(&place) = self.places.get(&endpoint) {
            return place;
        }
        let place = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.insert(endpoint, place);
        self.part
            .endpoints
            .push(Bytes::copy_from_slice(endpoint.as_bytes()));
        place
    }

    fn timer(&mut self, offset: u64, owed: Owed, order: u64) {
        let mut timer = proto::snapshot::Timer {
            offset,
            delivery_id: Bytes::copy_from_slice(owed.delivery.as_bytes()),
            endpoint: u32::MAX,
            attempt: owed.attempts,
            due_ms: owed.due.as_millis(),
            deadline_ms: owed.deadline.as_millis(),
            order,
        };
        self.room(timer.encoded_len());
        timer.endpoint = self.place(owed.endpoint);
        self.part.timers.push(timer);
    }

    /// In pieces, where it has many runs.
    fn hold(&mut self, endpoint: EndpointId, hold: &Hold) {
        let mut before = hold.cursor;
        let gaps = hold.taken.iter().map(|&offset| {
            let gap = offset - before;
            before = offset;
            gap
        });
        let mut piece = proto::snapshot::Hold {
            endpoint: u32::MAX,
            cursor: hold.cursor,
            last: hold.last,
            count: hold.count,
            taken: gaps.collect(),
            runs: Vec::new(),
        };
        let mut end = 0;
        let mut runs = hold.chunks.runs().peekable();
        loop {
            for (start, len) in runs.by_ref().take(SNAPSHOT_RUNS_MAX) {
                piece.runs.extend([start - end, len]);
                end = start + len;
            }
            self.room(piece.encoded_len());
            piece.endpoint = self.place(endpoint);
            self.part.holds.push(piece.clone());
            if runs.peek().is_none() {
                return;
            }
            piece.taken.clear();
            piece.runs.clear();
            piece.endpoint = u32::MAX;
        }
    }

    fn standing(&mut self, endpoint: EndpointId, mut standing: proto::snapshot::Standing) {
        standing.endpoint = u32::MAX;
        self.room(standing.encoded_len());
        standing.endpoint = self.place(endpoint);
        self.part.standings.push(standing);
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.full.push(self.part);
        let parts = u32::try_from(self.full.len()).unwrap_or(u32::MAX);
        let number = |(part, mut record): (u32, proto::Snapshot)| {
            record.part = part;
            record.parts = parts;
            record.to_value()
        };
        (0..).zip(self.full).map(number).collect()
    }
}

fn load(parts: impl Iterator<Item = proto::Snapshot>, upto: u64) -> Result<Loaded, RecordError> {
    let mut fold = Fold::new(upto);
    fold.knows_all();
    let mut standings = Vec::new();
    let mut ends = BTreeMap::new();
    for part in parts {
        let ids = part.endpoints.iter().map(bytes16);
        let ids: Vec<_> = ids.collect::<Result<_, _>>()?;
        let endpoint = |place: u32| {
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            let id = ids.get(place).copied().map(EndpointId::from_bytes);
            id.ok_or_else(|| malformed("no such endpoint in the part"))
        };
        for timer in &part.timers {
            load_timer(&mut fold, timer, endpoint(timer.endpoint)?)?;
        }
        for piece in &part.holds {
            load_hold(&mut fold, piece, endpoint(piece.endpoint)?, &mut ends)?;
        }
        for standing in part.standings {
            standings.push((endpoint(standing.endpoint)?, standing));
        }
        // An older version does not say what they came to.
        let counts = part.command_counts.iter().copied();
        let counts = counts.chain(std::iter::repeat(0));
        for (id, count) in part.commands.iter().zip(counts) {
            fold.remember(bytes16(id)?, count);
        }
        if !part.made.iter().all(|piece| fold.restore_made(piece)) {
            return Err(malformed("an operation that cannot be"));
        }
    }
    Ok(Loaded { fold, standings })
}

fn load_timer(
    fold: &mut Fold,
    timer: &proto::snapshot::Timer,
    endpoint: EndpointId,
) -> Result<(), RecordError> {
    let owed = Owed {
        delivery: DeliveryId::from_bytes(bytes16(&timer.delivery_id)?),
        endpoint,
        attempts: timer.attempt,
        due: Timestamp::from_millis(timer.due_ms),
        deadline: Timestamp::from_millis(timer.deadline_ms),
    };
    if timer.offset >= fold.next() || !fold.restore_timer(timer.offset, owed, timer.order) {
        return Err(malformed("a timer stands twice, or beyond the snapshot"));
    }
    Ok(())
}

/// `ends`: where the runs of an endpoint's pieces end so far.
fn load_hold(
    fold: &mut Fold,
    piece: &proto::snapshot::Hold,
    endpoint: EndpointId,
    ends: &mut BTreeMap<EndpointId, u64>,
) -> Result<(), RecordError> {
    let wrong = || malformed("a hold that cannot be");
    if piece.last >= fold.next() || piece.cursor > piece.last {
        return Err(wrong());
    }
    let hold = fold.restore_hold(endpoint, piece);
    let mut before = piece.cursor;
    for gap in &piece.taken {
        before = before.checked_add(*gap).ok_or_else(wrong)?;
        hold.taken.insert(before);
    }
    let end = ends.entry(endpoint).or_default();
    for run in piece.runs.chunks(2) {
        let &[gap, len] = run else {
            return Err(wrong());
        };
        let start = end.checked_add(gap).ok_or_else(wrong)?;
        *end = start.checked_add(len).ok_or_else(wrong)?;
        if len == 0 || *end > piece.last / CHUNK + 1 {
            return Err(wrong());
        }
        hold.chunks.push_run(start, len);
    }
    Ok(())
}

fn malformed(what: &str) -> RecordError {
    RecordError::Malformed(what.to_owned())
}

#[cfg(test)]
mod tests;
