//! Commit metadata: writing what is open after a committed offset into 4,000
//! characters, and reading it back, in the situations a partition gets into.

use std::collections::BTreeSet;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use posthaste_core::limits::COMMIT_METADATA_MAX;
use posthaste_core::offsets::Tracker;
use posthaste_core::rng::Rng;

/// Name, offsets read, and of these still open, in runs of so many.
const SITUATIONS: [(&str, u64, usize, u64); 7] = [
    ("healthy", 2_000, 500, 1),
    ("busy", 8_000, 2_000, 1),
    ("slow endpoint", 100_000, 200, 1),
    ("slower endpoint", 100_000, 1_000, 1),
    ("very long", 1_000_000, 1_500, 1),
    ("bursts", 100_000, 2_000, 40),
    ("half done", 16_000, 8_000, 1),
];

/// A partition committed at 0 with so many offsets read and open.
fn partition(span: u64, open: usize, run: u64) -> Tracker {
    let mut rng = Rng::new(1);
    let mut waiting = BTreeSet::new();
    let mut start = 0;
    while waiting.len() < open {
        waiting.extend(start..(start + run).min(span));
        start = rng.below(span);
    }
    let mut tracker = Tracker::new(0, 1);
    for offset in 0..span {
        tracker.seen(offset, u32::from(waiting.contains(&offset)));
    }
    assert_eq!(tracker.committable(), 0);
    tracker
}

fn codec(c: &mut Criterion) {
    let mut encode = c.benchmark_group("metadata, encode");
    for (name, span, open, run) in SITUATIONS {
        let tracker = partition(span, open, run);
        encode.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| tracker.metadata(COMMIT_METADATA_MAX));
        });
    }
    encode.finish();
    let mut decode = c.benchmark_group("metadata, decode");
    for (name, span, open, run) in SITUATIONS {
        let tracker = partition(span, open, run);
        let text = tracker.metadata(COMMIT_METADATA_MAX);
        assert!(text.len() <= COMMIT_METADATA_MAX);
        // A text that is not read back would be read very fast.
        let done = (0..span).find(|&offset| tracker.is_done(offset));
        let again = Tracker::resume(0, &text, 2);
        assert!(done.is_some_and(|offset| again.is_done(offset)));
        decode.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| Tracker::resume(0, &text, 2));
        });
    }
    decode.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
