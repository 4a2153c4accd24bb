//! A window of bits over rising offsets, one bit an offset.

use std::collections::VecDeque;

/// Bits from `base` on; beyond the last word they are clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits {
    /// A multiple of 64.
    base: u64,
    words: VecDeque<u64>,
}

impl Bits {
    pub(super) fn new(from: u64) -> Self {
        Self {
            base: from & !63,
            words: VecDeque::new(),
        }
    }

    pub(super) fn get(&self, offset: u64) -> bool {
        let (word, bit) = self.place(offset);
        self.words
            .get(word)
            .is_some_and(|word| word >> bit & 1 == 1)
    }

    pub(super) fn set(&mut self, offset: u64) {
        let (word, bit) = self.place(offset);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << bit;
    }

    pub(super) fn clear(&mut self, offset: u64) {
        let (word, bit) = self.place(offset);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !(1 << bit);
        }
    }

    /// Sets `from..to`, whole words at a time.
    pub(super) fn set_range(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let (word, bit) = self.place(at);
            if word >= self.words.len() {
                self.words.resize(word + 1, 0);
            }
            let count = (to - at).min(64 - u64::from(bit));
            let ones = if count == 64 { !0 } else { (1 << count) - 1 };
            self.words[word] |= ones << bit;
            at += count;
        }
    }

    /// The first clear bit in `from..to`, or `to`.
    pub(super) fn first_clear(&self, from: u64, to: u64) -> u64 {
        self.first(from, to, |word| !word)
    }

    /// The last set bit in `from..to`.
    pub(super) fn last_set(&self, from: u64, to: u64) -> Option<u64> {
        let mut at = to;
        while at > from {
            let (word, bit) = self.place(at - 1);
            let below = self.word(word) << (63 - bit);
            if below != 0 {
                let found = at - 1 - u64::from(below.leading_zeros());
                return (found >= from).then_some(found);
            }
            at -= u64::from(bit) + 1;
        }
        None
    }

    fn first(&self, from: u64, to: u64, wanted: impl Fn(u64) -> u64) -> u64 {
        let mut at = from;
        while at < to {
            let (word, bit) = self.place(at);
            let rest = wanted(self.word(word)) >> bit;
            if rest != 0 {
                return (at + u64::from(rest.trailing_zeros())).min(to);
            }
            at += 64 - u64::from(bit);
        }
        to
    }

    /// Lets go of whole words below `offset`.
    pub(super) fn forget_below(&mut self, offset: u64) {
        let (words, _) = self.place(offset);
        let gone = words.min(self.words.len());
        self.words.drain(..gone);
        if self.words.is_empty() {
            self.base = offset & !63;
        } else {
            self.base += 64 * u64::try_from(gone).unwrap_or(0);
        }
    }

    fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }

    fn place(&self, offset: u64) -> (usize, u32) {
        let ahead = offset - self.base;
        let word = usize::try_from(ahead / 64).expect("a window fits the address space");
        let bit = u32::try_from(ahead % 64).expect("below 64");
        (word, bit)
    }
}
