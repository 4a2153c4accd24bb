//! What is due when: a heap of times and keys.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Timestamp;

/// Keys by the time they fall due. A key may stand more than once; whoever
/// pops it knows whether it still means anything.
#[derive(Debug)]
pub struct Timers<K> {
    heap: BinaryHeap<Reverse<(Timestamp, K)>>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }
}

impl<K: Ord> Timers<K> {
    /// Lets `key` fall due at `due`.
    pub fn insert(&mut self, due: Timestamp, key: K) {
        self.heap.push(Reverse((due, key)));
    }

    /// The next key due at `now`, the earliest first, of equal times the
    /// smallest key.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<K> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }

    /// When the next key falls due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// How many stand.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none stands.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_order_of_time_and_never_early() {
        let at = Timestamp::from_millis;
        let mut timers = Timers::default();
        for (due, key) in [(30, 'c'), (10, 'b'), (10, 'a'), (20, 'd')] {
            timers.insert(at(due), key);
        }
        assert_eq!(timers.next_due(), Some(at(10)));
        assert_eq!(timers.pop_due(at(9)), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(at(20))).collect();
        assert_eq!(due, ['a', 'b', 'd']);
        assert_eq!((timers.len(), timers.next_due()), (1, Some(at(30))));
    }

    #[test]
    fn a_pending_retry_fits_its_budget() {
        assert!(size_of::<Reverse<(Timestamp, u64)>>() <= 64);
    }
}
