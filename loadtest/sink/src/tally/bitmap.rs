//! A growing bitmap that says in advance what growing costs.

/// Words a bitmap grows by at least.
const GROW_WORDS_MIN: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Bytes to grow by before `place` can be set; `None` past the address
    /// space.
    pub(super) fn growth(&self, place: u64) -> Option<usize> {
        let needed = usize::try_from(place / 64).ok()?.checked_add(1)?;
        if needed <= self.words.len() {
            return Some(0);
        }
        let words = needed.max(self.words.len() * 2).max(GROW_WORDS_MIN);
        (words - self.words.len()).checked_mul(size_of::<u64>())
    }

    /// Grows by so many bytes.
    pub(super) fn grow(&mut self, bytes: usize) {
        let words = self.words.len() + bytes / size_of::<u64>();
        self.words.reserve_exact(words - self.words.len());
        self.words.resize(words, 0);
    }

    /// Sets a bit there is room for; answers whether it was clear.
    pub(super) fn set(&mut self, place: u64) -> bool {
        let word = usize::try_from(place / 64).unwrap_or(usize::MAX);
        let bit = 1 << (place % 64);
        let before = self.words[word];
        self.words[word] = before | bit;
        before & bit == 0
    }

    /// Whether a bit is set.
    pub(super) fn get(&self, place: u64) -> bool {
        usize::try_from(place / 64)
            .ok()
            .and_then(|word| self.words.get(word))
            .is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Bits set.
    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }
}
