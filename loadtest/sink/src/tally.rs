//! Counts what arrived: by path and by `webhook-id`, exactly, in bounded memory.
//!
//! The canonical workload numbers its events `<run>-<n>` and sends event `n` to
//! endpoint `n % endpoints`, so one bit at `n / endpoints` says whether a path
//! has had it. Ids of another form go to a set.
//!
//! At a bound nothing is lost but judgement: a delivery that finds no room is
//! counted as `unjudged`, neither unique nor duplicate, and the report says so.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use self::bitmap::Bitmap;

mod bitmap;
pub(crate) mod report;
#[cfg(test)]
mod tests;

/// Paths counted one by one; deliveries to further ones are `unjudged`.
pub(crate) const PATHS_MAX: usize = 20_000;
/// Bits of one path's bitmap; an id past it goes to the set.
pub(crate) const PLACES_MAX: u64 = 1 << 27;
/// Bytes of all bitmaps together; past it an id goes to the set.
pub(crate) const BITMAP_BYTES_MAX: usize = 1 << 30;
/// Ids of another form that are remembered; past it they are `unjudged`.
pub(crate) const OTHER_IDS_MAX: usize = 1_000_000;

/// Everything counted since the start or the last reset.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Endpoints of the workload: event `n` goes to endpoint `n % endpoints`.
    endpoints: u64,
    /// The run's prefix, taken from the first numbered id.
    run: Option<Box<str>>,
    by_path: HashMap<Box<str>, usize>,
    paths: Vec<Path>,
    other_ids: HashSet<(usize, Box<str>)>,
    bitmap_bytes: usize,
    totals: Counts,
}

#[derive(Debug)]
struct Path {
    name: Box<str>,
    /// `n % endpoints` of the first numbered id, hence of those in the bitmap.
    residue: Option<u64>,
    places: Bitmap,
    counts: Counts,
}

/// Counts of one path, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    /// Requests answered 2xx.
    pub(crate) deliveries: u64,
    /// … of these, the first with their id.
    pub(crate) unique: u64,
    /// … a further one with the same id at the same path.
    pub(crate) duplicates: u64,
    /// … without an id.
    pub(crate) without_id: u64,
    /// … that found no room to be told apart.
    pub(crate) unjudged: u64,
    /// … unique ones that are not numbered as the workload numbers them.
    pub(crate) unnumbered: u64,
    /// Requests answered otherwise, or not at all.
    pub(crate) refused: u64,
}

/// What one delivery is, besides a delivery.
#[derive(Debug, Clone, Copy)]
enum Judged {
    Unique,
    UniqueUnnumbered,
    Duplicate,
    WithoutId,
    Unjudged,
}

impl Tally {
    /// An empty tally for a workload of so many endpoints (1 when every path
    /// gets every event).
    pub(crate) fn new(endpoints: u64) -> Self {
        Self {
            endpoints: endpoints.max(1),
            run: None,
            by_path: HashMap::new(),
            paths: Vec::new(),
            other_ids: HashSet::new(),
            bitmap_bytes: 0,
            totals: Counts::default(),
        }
    }

    /// Counts a delivery: a request for `path` that is answered 2xx. An empty
    /// `id` is none.
    pub(crate) fn accept(&mut self, path: &str, id: &str) {
        let Some(at) = self.path(path) else {
            self.totals.add(Judged::Unjudged);
            return;
        };
        let judged = self.judge(at, id);
        self.totals.add(judged);
        self.paths[at].counts.add(judged);
    }

    /// Counts a request that is not answered 2xx.
    pub(crate) fn refuse(&mut self, path: &str) {
        self.totals.refused += 1;
        if let Some(at) = self.path(path) {
            self.paths[at].counts.refused += 1;
        }
    }

    fn judge(&mut self, at: usize, id: &str) -> Judged {
        if id.is_empty() {
            return Judged::WithoutId;
        }
        let in_bitmap = self.place(at, id).and_then(|place| self.set(at, place));
        match in_bitmap {
            Some(true) => return Judged::Unique,
            Some(false) => return Judged::Duplicate,
            None => {}
        }
        let key = (at, Box::from(id));
        if self.other_ids.contains(&key) {
            return Judged::Duplicate;
        }
        if self.other_ids.len() >= OTHER_IDS_MAX {
            return Judged::Unjudged;
        }
        self.other_ids.insert(key);
        Judged::UniqueUnnumbered
    }

    /// The id's place in the path's bitmap, if it is numbered as those are.
    fn place(&mut self, at: usize, id: &str) -> Option<u64> {
        let (run, n) = numbered(id)?;
        let place = n / self.endpoints;
        if place >= PLACES_MAX || &**self.run.get_or_insert_with(|| Box::from(run)) != run {
            return None;
        }
        let residue = n % self.endpoints;
        let of_path = *self.paths[at].residue.get_or_insert(residue);
        (of_path == residue).then_some(place)
    }

    /// Sets the bit; `None` when the bitmaps may not grow so far.
    fn set(&mut self, at: usize, place: u64) -> Option<bool> {
        let places = &mut self.paths[at].places;
        let growth = places.growth(place)?;
        if growth > 0 {
            if self.bitmap_bytes + growth > BITMAP_BYTES_MAX {
                return None;
            }
            self.bitmap_bytes += growth;
            places.grow(growth);
        }
        Some(places.set(place))
    }

    fn path(&mut self, path: &str) -> Option<usize> {
        if let Some(&at) = self.by_path.get(path) {
            return Some(at);
        }
        if self.paths.len() >= PATHS_MAX {
            return None;
        }
        self.paths.push(Path {
            name: Box::from(path),
            residue: None,
            places: Bitmap::default(),
            counts: Counts::default(),
        });
        self.by_path.insert(Box::from(path), self.paths.len() - 1);
        Some(self.paths.len() - 1)
    }

    /// Numbers in `range` that belong to `residue`, as places of a bitmap.
    fn places(&self, residue: u64, range: &Range<u64>) -> Range<u64> {
        let first_from = |n: u64| n.saturating_sub(residue).div_ceil(self.endpoints);
        first_from(range.start)..first_from(range.end)
    }
}

impl Counts {
    fn add(&mut self, judged: Judged) {
        self.deliveries += 1;
        match judged {
            Judged::Unique => self.unique += 1,
            Judged::UniqueUnnumbered => {
                self.unique += 1;
                self.unnumbered += 1;
            }
            Judged::Duplicate => self.duplicates += 1,
            Judged::WithoutId => self.without_id += 1,
            Judged::Unjudged => self.unjudged += 1,
        }
    }
}

/// The parts of `<run>-<n>`. A number written in another way than we write it
/// is no number, so that two texts are never one id.
fn numbered(id: &str) -> Option<(&str, u64)> {
    let (run, digits) = id.rsplit_once('-')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    if run.is_empty() || !plain {
        return None;
    }
    Some((run, digits.parse().ok()?))
}
