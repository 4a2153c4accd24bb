//! A shard's part of a delivery, without IO: a mailbox batch of 64 over 100
//! endpoints is taken in, sent, and settled by a 200, or put into the lane
//! after a 503.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use posthaste_benches::{NOW, body, delivery, registry};
use posthaste_core::delivery::Delivery;
use posthaste_core::limits::MAILBOX_BATCH;
use posthaste_core::outcome::Outcome;
use posthaste_core::rng::Rng;
use posthaste_core::shard::{Action, Shard};

const ENDPOINTS: u32 = 100;

/// One turn: everything is offered, sent, and ends with `status`. Answers how
/// many deliveries were settled or appended.
fn turn(shard: &mut Shard, batch: Vec<Delivery>, status: u16, actions: &mut Vec<Action>) -> usize {
    let outcome = Outcome::response(status, None, NOW);
    for delivery in batch {
        let taken = shard.offer(delivery, NOW, false, actions);
        assert!(taken.is_ok(), "an idle shard takes everything");
    }
    let mut ended = 0;
    for action in std::mem::take(actions) {
        if let Action::Send(delivery) = action {
            shard.finished(delivery, outcome, NOW, actions);
        }
    }
    for action in std::mem::take(actions) {
        match action {
            Action::Append(append) => shard.acknowledged(append.charge, NOW, actions),
            Action::Send(_) | Action::Close(_) | Action::Report(_) => {}
        }
        ended += 1;
    }
    ended
}

fn shard(c: &mut Criterion) {
    let body = body();
    let mut group = c.benchmark_group("shard, 64 deliveries");
    group.throughput(Throughput::Elements(64));
    for (name, status) in [("delivered", 200), ("to the lane", 503)] {
        let mut shard = Shard::new(registry(ENDPOINTS), Rng::new(1));
        let mut n = 0;
        let mut batch = || {
            let next = |_| {
                n += 1;
                delivery(n, u32::try_from(n).unwrap_or(0) % ENDPOINTS, &body)
            };
            (0..MAILBOX_BATCH).map(next).collect::<Vec<_>>()
        };
        let mut actions = vec![];
        group.bench_function(name, |b| {
            b.iter_batched(
                &mut batch,
                |batch| turn(&mut shard, batch, status, &mut actions),
                BatchSize::SmallInput,
            );
        });
        assert_eq!(
            turn(&mut shard, batch(), status, &mut actions),
            MAILBOX_BATCH
        );
        assert_eq!((shard.in_flight(), shard.unacked_bytes()), (0, 0));
    }
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);
