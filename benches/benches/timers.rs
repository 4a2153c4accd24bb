//! Pending retries: putting 100,000 and a million into the heap, due at random
//! within an hour, and taking them all out.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use posthaste_benches::NOW;
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use posthaste_core::timers::Timers;

const HOUR_MS: u64 = 3_600_000;

fn dues(count: u64) -> Vec<(Timestamp, u64)> {
    let mut rng = Rng::new(1);
    (0..count)
        .map(|key| {
            (
                Timestamp::from_millis(NOW.as_millis() + rng.below(HOUR_MS)),
                key,
            )
        })
        .collect()
}

fn filled(dues: &[(Timestamp, u64)]) -> Timers<u64> {
    let mut timers = Timers::default();
    for &(due, key) in dues {
        timers.insert(due, key);
    }
    timers
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    group.sample_size(10);
    let end = Timestamp::from_millis(NOW.as_millis() + HOUR_MS);
    for count in [100_000, 1_000_000] {
        let dues = dues(count);
        group.throughput(Throughput::Elements(count));
        group.bench_with_input(BenchmarkId::new("insert", count), &dues, |b, dues| {
            b.iter_with_large_drop(|| filled(dues));
        });
        group.bench_with_input(BenchmarkId::new("expire", count), &dues, |b, dues| {
            b.iter_batched_ref(
                || filled(dues),
                |timers| while timers.pop_due(end).is_some() {},
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, timers);
criterion_main!(benches);
