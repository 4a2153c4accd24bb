//! What dead letters for many tell of one endpoint: stretches of the lane. Those
//! that follow each other without a gap become one.

use posthaste_proto as proto;

use crate::limits::{DEAD_RANGE_EXCEPT_MAX, OPERATION_EXCEPT_MAX, OPERATION_RANGES_MAX};
use crate::operation::Range;

/// Stretches of the lane in which held deliveries of one endpoint were given up,
/// as many as one operation may have besides one of the dead letters.
#[derive(Debug, Default)]
pub struct Buried {
    /// Without their topic.
    ranges: Vec<Range>,
    except: usize,
}

impl Buried {
    /// One more letter. Of one that stands twice nothing is taken twice; what one
    /// of two leaves out stays out.
    pub fn add(&mut self, letter: &proto::DeadRange) {
        let range = Range {
            topic: String::new(),
            partition: letter.partition,
            from: letter.from,
            to: letter.to.max(letter.from),
            except: letter.except.clone(),
            count: letter.count,
        };
        self.except += range.except.len();
        match self.ranges.last_mut() {
            Some(last) if last.partition == range.partition && last.from <= range.from => {
                if let Some(range) = joined(last, range) {
                    self.ranges.push(range);
                }
            }
            _ => self.ranges.push(range),
        }
    }

    /// Whether one more letter might be too much for one operation.
    pub fn is_full(&self) -> bool {
        self.ranges.len() + 1 >= OPERATION_RANGES_MAX
            || self.except + DEAD_RANGE_EXCEPT_MAX > OPERATION_EXCEPT_MAX
    }

    /// As ranges of the lane's topic, none of which meets another.
    pub fn ranges(mut self, lane: &str) -> Vec<Range> {
        self.ranges
            .sort_by_key(|range| (range.partition, range.from));
        let mut ranges: Vec<Range> = Vec::with_capacity(self.ranges.len());
        for range in self.ranges {
            let apart = match ranges.last_mut() {
                Some(last) => joined(last, range),
                None => Some(range),
            };
            ranges.extend(apart);
        }
        for range in &mut ranges {
            lane.clone_into(&mut range.topic);
            range.except.sort_unstable();
            range.except.dedup();
        }
        ranges
    }
}

/// Joins a range to the one before it, where nothing lies between; otherwise
/// gives it back.
fn joined(last: &mut Range, range: Range) -> Option<Range> {
    if range.partition != last.partition || range.from > last.to {
        return Some(range);
    }
    last.except.extend(range.except);
    if range.to > last.to {
        last.to = range.to;
        last.count = (last.count + range.count).min(last.to - last.from);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(partition: u32, from: u64, to: u64, except: &[u64]) -> proto::DeadRange {
        let left_out = u64::try_from(except.len()).unwrap();
        proto::DeadRange {
            partition,
            from,
            to,
            count: to - from - left_out,
            except: except.to_vec(),
            ..Default::default()
        }
    }

    fn ranges(letters: &[proto::DeadRange]) -> Vec<(u32, u64, u64, u64, Vec<u64>)> {
        let mut buried = Buried::default();
        letters.iter().for_each(|letter| buried.add(letter));
        let ranges = buried.ranges("lane").into_iter();
        let parts = ranges.map(|it| {
            assert_eq!(it.topic, "lane");
            (it.partition, it.from, it.to, it.count, it.except)
        });
        parts.collect()
    }

    #[test]
    fn letters_that_follow_each_other_become_one_stretch() {
        let some = [letter(1, 10, 20, &[12]), letter(1, 20, 30, &[25, 29])];
        assert_eq!(ranges(&some), [(1, 10, 30, 17, vec![12, 25, 29])]);
        let apart = [letter(1, 10, 20, &[]), letter(1, 21, 30, &[])];
        assert_eq!(ranges(&apart).len(), 2);
        let other = [letter(1, 10, 20, &[]), letter(2, 20, 30, &[])];
        assert_eq!(ranges(&other).len(), 2);
        // In any order.
        let late = [
            letter(1, 20, 30, &[29]),
            letter(2, 0, 5, &[]),
            letter(1, 10, 20, &[12]),
        ];
        let wanted = [(1, 10, 30, 18, vec![12, 29]), (2, 0, 5, 5, vec![])];
        assert_eq!(ranges(&late), wanted);
    }

    #[test]
    fn a_letter_that_stands_twice_is_taken_once() {
        let one = letter(1, 10, 20, &[12]);
        assert_eq!(
            ranges(&[one.clone(), one.clone(), one]),
            [(1, 10, 20, 9, vec![12])]
        );
        // One of a replaced owner, who had not read that 15 was delivered.
        let two = [letter(1, 10, 20, &[]), letter(1, 14, 22, &[15])];
        assert_eq!(ranges(&two), [(1, 10, 22, 12, vec![15])]);
    }

    #[test]
    fn what_it_takes_fits_one_operation() {
        let mut buried = Buried::default();
        let mut at = 0;
        while !buried.is_full() {
            buried.add(&letter(1, at, at + 1, &[]));
            at += 2;
        }
        assert_eq!(buried.ranges("lane").len(), OPERATION_RANGES_MAX - 1);
        let mut buried = Buried::default();
        let most: Vec<u64> = (0..).take(DEAD_RANGE_EXCEPT_MAX).collect();
        let mut letters = 0;
        while !buried.is_full() {
            buried.add(&letter(1, 0, 10_000, &most));
            letters += 1;
        }
        assert_eq!(letters, OPERATION_EXCEPT_MAX / DEAD_RANGE_EXCEPT_MAX);
    }
}
