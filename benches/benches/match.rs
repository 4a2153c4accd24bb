//! Finding the endpoints an event goes to, among 10,000 of one tenant, and what
//! a change of one of them costs.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use posthaste_benches::{TENANT, put, table};
use posthaste_core::registry::Registry;

const ENDPOINTS: u32 = 10_000;
/// Endpoints with a pattern, where not all have one.
const PATTERNS: u32 = 100;

fn exact(k: u32) -> Vec<String> {
    vec![format!("load.e{k}")]
}

/// A pattern of its own for each, of which one matches `load.e1.made`.
fn pattern(k: u32) -> Vec<String> {
    vec![format!("load.e{k}.*")]
}

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("match, 10k endpoints");
    let mut out = Vec::with_capacity(64);
    let mut found = |registry: &Registry, event_type: &str| {
        out.clear();
        registry.matching(TENANT, black_box(event_type), &mut out);
        out.len()
    };
    let all_exact = table(ENDPOINTS, exact).snapshot();
    assert_eq!(found(&all_exact, "load.e5000"), 1);
    group.bench_function("exact", |b| b.iter(|| found(&all_exact, "load.e5000")));
    group.bench_function("none", |b| b.iter(|| found(&all_exact, "load.nothing")));

    let some = |k| if k < PATTERNS { pattern(k) } else { exact(k) };
    let some = table(ENDPOINTS, some).snapshot();
    assert_eq!(found(&some, "load.e1.made"), 1);
    group.bench_function("100 patterns", |b| b.iter(|| found(&some, "load.e1.made")));

    let all = table(ENDPOINTS, pattern).snapshot();
    assert_eq!(found(&all, "load.e1.made"), 1);
    group.bench_function("10k patterns", |b| b.iter(|| found(&all, "load.e1.made")));
    group.finish();
}

fn change(c: &mut Criterion) {
    let mut table = table(ENDPOINTS, exact);
    table.snapshot();
    let mut k = 0;
    c.bench_function("snapshot after one change of 10k", |b| {
        b.iter(|| {
            k = (k + 1) % ENDPOINTS;
            put(&mut table, k, exact(k));
            table.snapshot()
        });
    });
}

criterion_group!(benches, matching, change);
criterion_main!(benches);
