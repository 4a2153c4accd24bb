//! How old events are when they come in: their body says when they were sent
//! (`"sent_ms":N`, which the feed's `--stamp` puts there), and both clocks are
//! this machine's.

use serde::Serialize;

/// Bytes of a body in which the stamp is looked for.
const STAMP_WITHIN: usize = 512;
const STAMP: &[u8] = b"\"sent_ms\":";
/// Steps of each doubling: an answer is at most a thirty-second too high.
const STEPS: u64 = 32;
/// Buckets up to 2^40 ms, which is 34 years; longer counts as that.
const BUCKETS: usize = 36 * 32 + 32;

/// Counts of ages by size, in bounded memory.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    /// Empty until the first.
    buckets: Vec<u64>,
    count: u64,
    max_ms: u64,
}

/// What is told of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Deliveries with a stamp.
    count: u64,
    /// Half were no older.
    p50_ms: u64,
    /// 99 of 100 were no older.
    p99_ms: u64,
    /// The oldest.
    max_ms: u64,
}

/// The time a body says it was sent, in milliseconds since 1970.
pub(crate) fn sent_ms(body: &[u8]) -> Option<u64> {
    let head = &body[..body.len().min(STAMP_WITHIN)];
    let at = head.windows(STAMP.len()).position(|part| part == STAMP)?;
    let digits = &head[at + STAMP.len()..];
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit());
    std::str::from_utf8(&digits[..len.count()])
        .ok()?
        .parse()
        .ok()
}

impl Latencies {
    /// Counts one.
    pub(crate) fn record(&mut self, age_ms: u64) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS];
        }
        self.buckets[bucket(age_ms)] += 1;
        self.count += 1;
        self.max_ms = self.max_ms.max(age_ms);
    }

    /// What was counted.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            count: self.count,
            p50_ms: self.percentile(50),
            p99_ms: self.percentile(99),
            max_ms: self.max_ms,
        }
    }

    fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        let enough = |count: &u64| {
            seen += count;
            seen >= wanted
        };
        let found = self.buckets.iter().position(enough);
        found.map_or(0, |bucket| most_in(bucket).min(self.max_ms))
    }
}

/// Exact below [`STEPS`], then so many buckets for each doubling.
fn bucket(age_ms: u64) -> usize {
    let exact = age_ms < STEPS;
    let doublings = if exact { 0 } else { age_ms.ilog2() - 5 };
    let place = if exact {
        age_ms
    } else {
        u64::from(doublings) * STEPS + (age_ms >> doublings)
    };
    usize::try_from(place).map_or(BUCKETS - 1, |place| place.min(BUCKETS - 1))
}

/// The largest age of a bucket.
fn most_in(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    if bucket < STEPS {
        return bucket;
    }
    let doublings = bucket / STEPS - 1;
    let step = bucket % STEPS + STEPS;
    ((step + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_near_the_front_and_only_there() {
        assert_eq!(
            sent_ms(br#"{"n":1,"sent_ms":1700,"text":"x"}"#),
            Some(1_700)
        );
        assert_eq!(sent_ms(br#"{"sent_ms":"#), None);
        assert_eq!(sent_ms(b"{}"), None);
        let far = format!("{}\"sent_ms\":5", " ".repeat(STAMP_WITHIN));
        assert_eq!(sent_ms(far.as_bytes()), None);
    }

    #[test]
    fn every_age_has_one_bucket_and_its_bound_is_near() {
        for age in (0..10_000).chain([1 << 20, (1 << 30) + 12_345]) {
            let most = most_in(bucket(age));
            assert!(most >= age && most - age <= age / STEPS, "{age} {most}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_of_all_that_was_counted() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), Summary::default());
        for _ in 0..98 {
            latencies.record(3);
        }
        latencies.record(20);
        latencies.record(5_000);
        let summary = latencies.summary();
        assert_eq!((summary.count, summary.p50_ms), (100, 3));
        assert_eq!((summary.p99_ms, summary.max_ms), (20, 5_000));
    }
}
