//! The lane's state: a partition's timers, put in and taken out as they fall
//! due; and what endpoints hold, folded, and drained by facts.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use posthaste_benches::NOW;
use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::lane::fold::Fold;
use posthaste_core::limits::TIMERS_MAX;
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use posthaste_core::timers::{Owed, Timers};
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use proto::progress::{Entry, Kind};

const HOUR_MS: u64 = 3_600_000;
const ENDPOINTS: u8 = 100;
const HELD: u64 = 100_000;

fn owed(number: u64, rng: &mut Rng) -> Owed {
    let endpoint = u8::try_from(number % u64::from(ENDPOINTS)).unwrap_or(0);
    Owed {
        delivery: DeliveryId::from_bytes(
            (u128::from(rng.next_u64()) << 64 | u128::from(number)).to_be_bytes(),
        ),
        endpoint: EndpointId::from_bytes([endpoint; 16]),
        attempts: 1,
        due: Timestamp::from_millis(NOW.as_millis() + rng.below(HOUR_MS)),
        deadline: Timestamp::from_millis(NOW.as_millis() + 72 * HOUR_MS),
    }
}

fn filled(owed: &[Owed]) -> Timers {
    let mut timers = Timers::default();
    for (offset, owed) in (0..).zip(owed) {
        timers.insert(offset, *owed);
    }
    timers
}

fn expire(timers: &mut Timers) {
    let end = Timestamp::from_millis(NOW.as_millis() + HOUR_MS);
    for endpoint in 0..ENDPOINTS {
        let endpoint = EndpointId::from_bytes([endpoint; 16]);
        while let Some(offset) = timers.take_due(endpoint, end) {
            timers.remove(offset);
        }
    }
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    group.sample_size(10);
    let mut rng = Rng::new(1);
    let count = u64::try_from(TIMERS_MAX).unwrap_or(0);
    let all: Vec<_> = (0..count).map(|number| owed(number, &mut rng)).collect();
    group.throughput(Throughput::Elements(count));
    group.bench_function("insert", |b| b.iter_with_large_drop(|| filled(&all)));
    group.bench_function("expire", |b| {
        b.iter_batched_ref(|| filled(&all), expire, BatchSize::PerIteration);
    });
    group.finish();
}

fn held(values: &[Bytes]) -> Fold {
    let mut fold = Fold::new(0);
    fold_on(&mut fold, values);
    fold
}

fn fold_on(fold: &mut Fold, values: &[Bytes]) {
    for value in values {
        fold.apply(fold.next(), value)
            .expect("a record of this version");
    }
}

/// A kibibyte each, of endpoints in turn.
fn delivers() -> Vec<Bytes> {
    let record = |number: u64| {
        proto::Deliver {
            delivery_id: u128::from(number).to_be_bytes().to_vec().into(),
            endpoint_id: vec![u8::try_from(number % u64::from(ENDPOINTS)).unwrap_or(0); 16].into(),
            tenant: "acme".into(),
            event_id: format!("evt_{number}"),
            event_type: "invoice.paid".into(),
            deadline_ms: NOW.as_millis() + 72 * HOUR_MS,
            reason: proto::Reason::Gate.into(),
            body: vec![b'x'; 1_024].into(),
            ..Default::default()
        }
        .to_value()
    };
    (0..HELD).map(record).collect()
}

/// The facts that settle them, as their owner writes them.
fn facts() -> Vec<Bytes> {
    let entry = |offset: u64, kind: Kind| Entry {
        kind: kind.into(),
        offset,
        attempt: 1,
        endpoint_id: vec![u8::try_from(offset % u64::from(ENDPOINTS)).unwrap_or(0); 16].into(),
        ..Entry::default()
    };
    let offsets: Vec<_> = (0..HELD).collect();
    let batch = |offsets: &[u64]| {
        let done = offsets.iter().map(|&offset| entry(offset, Kind::Done));
        let last = offsets.iter().rev().take(usize::from(ENDPOINTS));
        let passed = last.map(|&offset| Entry {
            offset: offset + 1,
            ..entry(offset, Kind::Passed)
        });
        proto::Progress {
            owner_epoch: 1,
            entries: done.chain(passed).collect(),
        }
        .to_value()
    };
    offsets.chunks(500).map(batch).collect()
}

fn holds(c: &mut Criterion) {
    let mut group = c.benchmark_group("holds");
    group.sample_size(10);
    group.throughput(Throughput::Elements(HELD));
    let (delivers, facts) = (delivers(), facts());
    group.bench_function("insert", |b| b.iter_with_large_drop(|| held(&delivers)));
    group.bench_function("drain", |b| {
        b.iter_batched_ref(
            || held(&delivers),
            |fold| fold_on(fold, &facts),
            BatchSize::PerIteration,
        );
    });
    let mut drained = held(&delivers);
    fold_on(&mut drained, &facts);
    assert!(drained.is_empty(), "the facts settle everything");
    group.finish();
}

criterion_group!(benches, timers, holds);
criterion_main!(benches);
