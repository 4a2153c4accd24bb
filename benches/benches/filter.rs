//! Judging an event by an endpoint's filter: by its type alone, and by a value
//! at the start and at the end of a body of 1 KiB.

use std::hint::black_box;

use bytes::Bytes;
use bytestring::ByteString;
use criterion::{Criterion, criterion_group, criterion_main};
use posthaste_benches::BODY_BYTES;
use posthaste_core::content::{Filter, Truth, View};

/// An object of many small members with `first` before and `last` behind them.
fn body() -> String {
    let mut body = r#"{"first":100"#.to_owned();
    let end = r#","last":100}"#;
    for number in 0.. {
        let member = format!(r#","m{number}":{{"id":"item {number}","n":[{number},2.5]}}"#);
        if body.len() + member.len() + end.len() > BODY_BYTES {
            break;
        }
        body.push_str(&member);
    }
    body + end
}

fn evaluate(c: &mut Criterion) {
    let body = body();
    assert!(body.len() > BODY_BYTES - 64 && body.len() <= BODY_BYTES);
    let headers = [(
        ByteString::from_static("webhook-type"),
        Bytes::from_static(b"load.made"),
    )];
    let view = View {
        event_type: "load.made",
        headers: &headers,
        body: body.as_bytes(),
    };
    let mut group = c.benchmark_group("filter, 1 KiB");
    for (name, filter) in [
        ("type", r#"{"$type": {"$startsWith": "load."}}"#),
        ("first", r#"{"first": {"$gte": 100}}"#),
        ("last", r#"{"last": {"$gte": 100}}"#),
        ("missing", r#"{"gone": {"$exists": false}}"#),
    ] {
        let filter = Filter::parse(filter).expect("a filter");
        assert_eq!(filter.judge(&view), Truth::Yes, "{name}");
        group.bench_function(name, |b| b.iter(|| filter.judge(black_box(&view))));
    }
    group.finish();
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
