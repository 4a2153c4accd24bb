//! A hash table of slots that keeps no keys: they stand in the slots.
//!
//! Open addressing with linear probing; at most four fifths full, and grown by
//! little, so that it costs at most 6.25 bytes an entry.

/// No slot.
const NONE: u32 = u32::MAX;
const LEAST: usize = 16;

/// Slots by the hash of a key that the caller reads from them.
#[derive(Debug, Default)]
pub(super) struct Index {
    table: Vec<u32>,
    len: usize,
}

/// Spreads a key over all 64 bits, the upper ones best.
pub(super) fn mix(key: u64) -> u64 {
    let key = (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (key ^ (key >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.capacity() * size_of::<u32>()
    }

    /// All slots, in no particular order.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.table.iter().copied().filter(|&slot| slot != NONE)
    }

    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        if self.table.is_empty() {
            return None;
        }
        let mut place = self.home(hash);
        while self.table[place] != NONE {
            if is(self.table[place]) {
                return Some(self.table[place]);
            }
            place = self.after(place);
        }
        None
    }

    pub(super) fn insert(&mut self, slot: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 5 > self.table.len() * 4 {
            self.resize((self.len + 1) * 25 / 16, &hash_of);
        }
        self.put(slot, hash_of(slot));
        self.len += 1;
    }

    /// Takes a slot out and moves up what stood behind it in its place.
    pub(super) fn remove(&mut self, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let mut hole = self.home(hash_of(slot));
        while self.table[hole] != slot {
            assert!(self.table[hole] != NONE, "a slot stands in its index");
            hole = self.after(hole);
        }
        let mut place = self.after(hole);
        while self.table[place] != NONE {
            let home = self.home(hash_of(self.table[place]));
            if self.distance(home, place) >= self.distance(hole, place) {
                self.table[hole] = self.table[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.table[hole] = NONE;
        self.len -= 1;
        if self.table.len() > LEAST && self.len * 4 < self.table.len() {
            self.resize(self.len * 25 / 16, &hash_of);
        }
    }

    fn put(&mut self, slot: u32, hash: u64) {
        let mut place = self.home(hash);
        while self.table[place] != NONE {
            place = self.after(place);
        }
        self.table[place] = slot;
    }

    fn resize(&mut self, size: usize, hash_of: impl Fn(u32) -> u64) {
        let old = std::mem::replace(&mut self.table, vec![NONE; size.max(LEAST)]);
        for slot in old.into_iter().filter(|&slot| slot != NONE) {
            self.put(slot, hash_of(slot));
        }
    }

    /// Multiply-shift, since the size is no power of two.
    fn home(&self, hash: u64) -> usize {
        let size = u128::try_from(self.table.len()).unwrap_or(0);
        usize::try_from((u128::from(hash) * size) >> 64).unwrap_or(0)
    }

    fn after(&self, place: usize) -> usize {
        if place + 1 == self.table.len() {
            0
        } else {
            place + 1
        }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.table.len() - from
        }
    }
}
