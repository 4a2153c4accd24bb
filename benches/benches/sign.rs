//! Signing and verifying one attempt of the canonical workload: a 1 KiB body,
//! with the key prepared once and with its text read for every attempt.

use criterion::{Criterion, criterion_group, criterion_main};
use posthaste_benches::{NOW, SECRET, body};
use posthaste_core::signature::{Signer, SigningKey, Verifier};

/// Standard Webhooks' published ed25519 key pair.
const PAIR: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const ID: &str = "load-123456";

fn key(text: &str) -> SigningKey {
    SigningKey::parse(text).expect("a published key")
}

fn sign(c: &mut Criterion) {
    let body = body();
    let now_s = NOW.as_secs();
    let mut out = Vec::with_capacity(256);
    let mut group = c.benchmark_group("sign");
    let signer = Signer::new(vec![key(SECRET)]);
    group.bench_function("v1, prepared key", |b| {
        b.iter(|| {
            out.clear();
            signer.sign_into(ID.as_bytes(), now_s, &body, &mut out);
        });
    });
    group.bench_function("v1, key read each time", |b| {
        b.iter(|| {
            out.clear();
            let signer = Signer::new(vec![key(SECRET)]);
            signer.sign_into(ID.as_bytes(), now_s, &body, &mut out);
        });
    });
    let signer = Signer::new(vec![key(PAIR)]);
    group.bench_function("v1a, prepared key", |b| {
        b.iter(|| {
            out.clear();
            signer.sign_into(ID.as_bytes(), now_s, &body, &mut out);
        });
    });
    group.finish();
}

fn verify(c: &mut Criterion) {
    let body = body();
    let timestamp = NOW.as_secs().to_string();
    let mut group = c.benchmark_group("verify");
    for (name, text) in [("v1", SECRET), ("v1a", PAIR)] {
        let mut signature = vec![];
        let signer = Signer::new(vec![key(text)]);
        signer.sign_into(ID.as_bytes(), NOW.as_secs(), &body, &mut signature);
        let signature = String::from_utf8(signature).expect("base64");
        let verifier = Verifier::new(vec![key(text).verifying()]);
        group.bench_function(name, |b| {
            b.iter(|| {
                verifier
                    .verify(Some(ID), Some(&timestamp), Some(&signature), &body, NOW)
                    .expect("the signature is right");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sign, verify);
criterion_main!(benches);
