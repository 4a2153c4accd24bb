//! Which chunks of the lane hold records of one endpoint: a set of numbers
//! that only grows at its end and shrinks at its start.
//!
//! Runs where an outage left long ones, bits where they would be larger: at
//! most a bit a chunk of the span, hence 32 KiB for 253,000 chunks.

use std::collections::VecDeque;

/// So many runs are small in any case.
const RUNS_ALWAYS: usize = 48;

/// A set of chunk numbers.
#[derive(Debug, Clone)]
pub(super) struct Chunks {
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Runs(VecDeque<Run>),
    Bits {
        first_word: u64,
        words: VecDeque<u64>,
    },
}

/// Chunks `start..start + len`.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u64,
    len: u64,
}

/// Whatever the form.
impl PartialEq for Chunks {
    fn eq(&self, other: &Self) -> bool {
        self.runs().eq(other.runs())
    }
}

impl Eq for Chunks {}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            form: Form::Runs(VecDeque::new()),
        }
    }
}

impl Chunks {
    /// Adds a chunk, no lower than any that was added before.
    pub(super) fn push(&mut self, chunk: u64) {
        match &mut self.form {
            Form::Runs(runs) => {
                if let Some(last) = runs.back_mut() {
                    assert!(chunk + 1 >= last.start + last.len, "chunks only rise");
                    if chunk < last.start + last.len {
                        return;
                    }
                    if chunk == last.start + last.len {
                        last.len += 1;
                        return;
                    }
                }
                grow(runs);
                runs.push_back(Run {
                    start: chunk,
                    len: 1,
                });
                self.choose();
            }
            Form::Bits { first_word, words } => {
                let place = usize::try_from(chunk / 64 - *first_word).unwrap_or(usize::MAX);
                while words.len() <= place {
                    grow(words);
                    words.push_back(0);
                }
                words[place] |= 1 << (chunk % 64);
            }
        }
    }

    /// Adds a run of chunks, the first no lower than any before.
    pub(super) fn push_run(&mut self, start: u64, len: u64) {
        if let Form::Runs(runs) = &mut self.form
            && len > 1
            && runs.back().is_none_or(|last| start > last.start + last.len)
        {
            grow(runs);
            runs.push_back(Run { start, len });
            self.choose();
        } else {
            (start..start + len).for_each(|chunk| self.push(chunk));
        }
    }

    /// Drops all chunks below this one.
    pub(super) fn pass(&mut self, chunk: u64) {
        match &mut self.form {
            Form::Runs(runs) => {
                while let Some(first) = runs.front_mut() {
                    if first.start >= chunk {
                        break;
                    }
                    if first.start + first.len > chunk {
                        first.len -= chunk - first.start;
                        first.start = chunk;
                        break;
                    }
                    runs.pop_front();
                }
            }
            Form::Bits { first_word, words } => {
                while *first_word < chunk / 64 && words.pop_front().is_some() {
                    *first_word += 1;
                }
                if *first_word == chunk / 64
                    && let Some(first) = words.front_mut()
                {
                    *first &= u64::MAX << (chunk % 64);
                }
                while words.front() == Some(&0) {
                    words.pop_front();
                    *first_word += 1;
                }
                if words.is_empty() {
                    *self = Self::default();
                }
            }
        }
    }

    /// Whether a chunk is in it.
    pub(super) fn contains(&self, chunk: u64) -> bool {
        self.run_from(chunk)
            .is_some_and(|(start, _)| start == chunk)
    }

    /// The first chunks at or after this one that follow each other: start, and
    /// how many.
    pub(super) fn run_from(&self, chunk: u64) -> Option<(u64, u64)> {
        match &self.form {
            Form::Runs(runs) => {
                let place = runs.partition_point(|run| run.start + run.len <= chunk);
                let run = runs.get(place)?;
                let start = run.start.max(chunk);
                Some((start, run.start + run.len - start))
            }
            Form::Bits { first_word, words } => {
                let set = |chunk: u64| {
                    let place = usize::try_from(chunk / 64 - first_word).unwrap_or(usize::MAX);
                    words.get(place).map(|word| word >> (chunk % 64))
                };
                let mut start = chunk.max(first_word * 64);
                loop {
                    match set(start)? {
                        0 => start = (start / 64 + 1) * 64,
                        rest => {
                            start += u64::from(rest.trailing_zeros());
                            break;
                        }
                    }
                }
                let mut end = start;
                while let Some(rest) = set(end) {
                    let ones = u64::from(rest.trailing_ones()).min(64 - end % 64);
                    end += ones;
                    if ones == 0 || !end.is_multiple_of(64) {
                        break;
                    }
                }
                Some((start, end - start))
            }
        }
    }

    /// All runs in order.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let (start, len) = self.run_from(next?)?;
            next = start.checked_add(len);
            Some((start, len))
        })
    }

    /// Whether it is empty.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.run_from(0).is_none()
    }

    /// Bytes it occupies on the heap.
    pub(super) fn bytes(&self) -> usize {
        match &self.form {
            Form::Runs(runs) => runs.capacity() * size_of::<Run>(),
            Form::Bits { words, .. } => words.capacity() * size_of::<u64>(),
        }
    }

    /// Bits once they are smaller; never back, so that it cannot flap.
    fn choose(&mut self) {
        let Form::Runs(runs) = &self.form else {
            return;
        };
        let (Some(first), Some(last)) = (runs.front(), runs.back()) else {
            return;
        };
        if runs.len() < RUNS_ALWAYS {
            return;
        }
        let first_word = first.start / 64;
        let span = usize::try_from((last.start + last.len) / 64 - first_word + 1);
        let span = span.unwrap_or(usize::MAX);
        if span.saturating_mul(size_of::<u64>()) >= runs.len() * size_of::<Run>() {
            return;
        }
        let mut words = VecDeque::new();
        words.reserve_exact(span);
        words.resize(span, 0_u64);
        for run in runs {
            for chunk in run.start..run.start + run.len {
                let place = usize::try_from(chunk / 64 - first_word).unwrap_or(usize::MAX);
                words[place] |= 1 << (chunk % 64);
            }
        }
        self.form = Form::Bits { first_word, words };
    }
}

/// Doubling would leave half of a long set empty.
fn grow<T>(ring: &mut VecDeque<T>) {
    if ring.len() == ring.capacity() {
        ring.reserve_exact(ring.len() / 64 + 4);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::proptest;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// Both forms against a plain set.
        #[test]
        fn it_is_the_set(
            base in 0..1_000_u64,
            steps in prop::collection::vec((0..4_u8, 0..200_u64, any::<bool>()), 1..400),
        ) {
            let mut chunks = Chunks::default();
            let mut plain = BTreeSet::new();
            let mut last = base;
            for (step, number, near) in steps {
                if step == 0 && !plain.is_empty() {
                    let to = plain.first().unwrap() + number / 8;
                    chunks.pass(to);
                    plain.retain(|&chunk| chunk >= to);
                    last = last.max(to);
                } else {
                    last += if near { number % 3 } else { number };
                    chunks.push(last);
                    plain.insert(last);
                }
                assert_eq!(chunks.is_empty(), plain.is_empty());
                assert_eq!(chunks.contains(last), plain.contains(&last));
            }
            let all: Vec<_> = chunks.runs().flat_map(|(start, len)| start..start + len).collect();
            assert_eq!(all, plain.iter().copied().collect::<Vec<_>>());
            for (start, len) in chunks.runs() {
                assert!(!plain.contains(&(start + len)), "runs are whole");
            }
        }
    }

    #[test]
    fn three_days_at_a_thousand_a_second_fit_32_kib() {
        const SPAN: u64 = 253_125;
        let mut solid = Chunks::default();
        (7..7 + SPAN).for_each(|chunk| solid.push(chunk));
        assert!(solid.bytes() < 1_024, "{}", solid.bytes());
        let mut worst = Chunks::default();
        (7..7 + SPAN)
            .filter(|chunk| chunk % 2 == 0)
            .for_each(|chunk| worst.push(chunk));
        assert!(worst.bytes() <= 32 * 1_024, "{}", worst.bytes());
        assert_eq!(worst.runs().count(), usize::try_from(SPAN / 2).unwrap());
    }
}
