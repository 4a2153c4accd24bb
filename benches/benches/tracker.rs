//! Following a source partition: one record seen and one settled, with 4,096
//! open, settled in order and at random.

use criterion::{Criterion, criterion_group, criterion_main};
use posthaste_core::offsets::Tracker;
use posthaste_core::rng::Rng;

const OPEN: u64 = 4_096;

/// A tracker with [`OPEN`] open offsets, and these.
fn open() -> (Tracker, Vec<u64>) {
    let mut tracker = Tracker::new(0, 1);
    for offset in 0..OPEN {
        tracker.seen(offset, 1);
    }
    (tracker, (0..OPEN).collect())
}

fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("tracker, seen and done");
    let (mut tracker, _) = open();
    group.bench_function("in order", |b| {
        b.iter(|| {
            let next = tracker.next();
            tracker.seen(next, 1);
            tracker.done(next - OPEN)
        });
    });
    let (mut tracker, mut waiting) = open();
    let mut rng = Rng::new(1);
    group.bench_function("at random", |b| {
        b.iter(|| {
            let next = tracker.next();
            tracker.seen(next, 1);
            let place = usize::try_from(rng.below(OPEN)).unwrap_or(0);
            tracker.done(std::mem::replace(&mut waiting[place], next))
        });
    });
    let mut tracker = Tracker::new(0, 1);
    group.bench_function("fan-out of 3, at once", |b| {
        b.iter(|| {
            let next = tracker.next();
            tracker.seen(next, 3);
            tracker.done(next) | tracker.done(next) | tracker.done(next)
        });
    });
    assert_eq!(tracker.incomplete(), 0);
    group.finish();
}

criterion_group!(benches, pairs);
criterion_main!(benches);
