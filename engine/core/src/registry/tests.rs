use std::collections::BTreeMap;

use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use proptest::sample::select;
use proptest::{prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::endpoint::sample;
use crate::gate::GateState;
use crate::time::Timestamp;

fn put(table: &mut Table, record: &proto::Endpoint) {
    let id = EndpointId::from_bytes(record.id.as_ref().try_into().unwrap());
    table.apply(&table_key(id), &record.to_value()).unwrap();
}

fn matched(registry: &Registry, tenant: &str, event_type: &str) -> Vec<u32> {
    let mut out = vec![];
    registry.matching(tenant, event_type, &mut out);
    out.iter().map(|ix| ix.0).collect()
}

#[test]
fn tenants_and_types_decide_and_nobody_is_named_twice() {
    let mut table = Table::default();
    let types = [
        "invoice.*",
        "*.paid",
        "invoice.paid",
        "order.made",
        "order.made",
    ];
    put(&mut table, &sample(1, "acme", &types));
    put(&mut table, &sample(2, "acme", &[]));
    put(&mut table, &sample(3, "other", &["*"]));
    let registry = table.snapshot();
    assert_eq!(matched(&registry, "acme", "invoice.paid"), [0, 1]);
    assert_eq!(matched(&registry, "acme", "order.made"), [1, 0]);
    assert_eq!(matched(&registry, "acme", "order.lost"), [1]);
    assert_eq!(matched(&registry, "other", "order.made"), [2]);
    assert_eq!(matched(&registry, "acm", "order.made"), [] as [u32; 0]);
}

#[test]
fn a_deleted_endpoint_keeps_its_index_and_an_old_snapshot_its_view() {
    let mut table = Table::default();
    put(&mut table, &sample(1, "acme", &[]));
    let before = table.snapshot();
    let id = EndpointId::from_bytes([1; 16]);
    table.apply(&table_key(id), &Bytes::new()).unwrap();
    put(&mut table, &sample(2, "acme", &[]));
    let after = table.snapshot();
    assert_eq!(matched(&before, "acme", "a"), [0]);
    assert_eq!(matched(&after, "acme", "a"), [1]);
    assert_eq!(after.index(id), Some(EndpointIx(0)));
    assert!(after.endpoint(EndpointIx(0)).is_none());
    put(&mut table, &sample(1, "other", &[]));
    assert_eq!(matched(&table.snapshot(), "other", "a"), [0]);
}

#[test]
fn a_disabled_endpoint_matches_nothing_but_is_listed() {
    let mut table = Table::default();
    let mut record = sample(1, "acme", &[]);
    record.disabled = true;
    put(&mut table, &record);
    let registry = table.snapshot();
    assert!(matched(&registry, "acme", "a").is_empty());
    assert_eq!(registry.of_tenant("acme").count(), 1);
}

#[test]
fn a_broken_record_changes_nothing() {
    let mut table = Table::default();
    put(&mut table, &sample(1, "acme", &[]));
    let id = EndpointId::from_bytes([1; 16]);
    let broken = Bytes::from_static(&[1, 0xff]);
    assert!(table.apply(&table_key(id), &broken).is_err());
    assert!(table.apply(b"e/nonsense", &broken).is_err());
    assert_eq!(table.apply(b"o/other kind", &broken), Ok(Applied::Nothing));
    assert_eq!(matched(&table.snapshot(), "acme", "a"), [0]);
}

#[test]
fn filters_take_out_what_they_do_not_let_pass() {
    let mut table = Table::default();
    for (number, filter) in [
        (1, ""),
        (2, r#"{"a": 1}"#),
        (3, r#"{"a": {"$ne": 1}}"#),
        (4, r#"{"$or": [{"$type": "x"}, {"b": 1}]}"#),
    ] {
        let mut record = sample(number, "acme", &[]);
        record.filter = filter.into();
        put(&mut table, &record);
    }
    put(&mut table, &sample(5, "other", &[]));
    let registry = table.snapshot();
    let sifted = |tenant, event_type, body: &str| {
        let (mut out, headers) = (vec![], []);
        registry.matching(tenant, event_type, &mut out);
        let view = View {
            event_type,
            headers: &headers,
            body: body.as_bytes(),
        };
        let undecided = registry.sift(tenant, &view, &mut out);
        (out.iter().map(|ix| ix.0).collect::<Vec<_>>(), undecided)
    };
    assert_eq!(sifted("acme", "x", r#"{"a":1}"#), (vec![0, 1, 3], false));
    assert_eq!(
        sifted("acme", "y", r#"{"a":2,"b":1}"#),
        (vec![0, 2, 3], false)
    );
    assert_eq!(sifted("acme", "x", "no JSON"), (vec![0, 3], true));
    assert_eq!(sifted("other", "x", "no JSON"), (vec![4], false));
}

const TENANTS: [&str; 3] = ["acme", "acm", "other"];
const TYPES: [&str; 6] = ["a", "b", "a.b", "b.a", "a.b.c", "c.b.a"];
const PATTERNS: [&str; 9] = [
    "a", "a.b", "b.a", "*", "a.*", "*.b", "a.*.c", "*.*", "c.b.a",
];

#[derive(Debug, Clone)]
enum Step {
    Put(Box<proto::Endpoint>),
    Delete(u8),
    Broken(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let patterns = |most| prop::collection::vec(select(&PATTERNS[..]), 0..=most);
    let wanted = (patterns(3), patterns(1));
    let put = (0..6_u8, select(&TENANTS[..]), wanted, any::<u8>());
    prop_oneof![
        6 => put.prop_map(|(number, tenant, (patterns, excluded), disabled)| {
            let mut record = sample(number, tenant, &patterns);
            record.exclude_event_types = excluded.into_iter().map(Into::into).collect();
            record.disabled = disabled < 50;
            Step::Put(Box::new(record))
        }),
        2 => (0..6_u8).prop_map(Step::Delete),
        1 => (0..6_u8).prop_map(Step::Broken),
    ]
}

/// The plain model: the last good record of each endpoint.
type Model = BTreeMap<u8, proto::Endpoint>;

/// Segment by segment, as the pattern's documentation says.
fn wants(pattern: &str, event_type: &str) -> bool {
    let wanted: Vec<_> = pattern.split('.').collect();
    let have: Vec<_> = event_type.split('.').collect();
    let open = wanted.last() == Some(&"*");
    let long_enough = if open {
        have.len() >= wanted.len()
    } else {
        have.len() == wanted.len()
    };
    long_enough && wanted.iter().zip(have).all(|(w, h)| *w == "*" || *w == h)
}

fn expected(model: &Model, tenant: &str, event_type: &str) -> Vec<u8> {
    let matches = |record: &&proto::Endpoint| {
        let all = record.event_types.is_empty();
        let some = record.event_types.iter().any(|p| wants(p, event_type));
        let excluded = record.exclude_event_types.iter();
        let none = !excluded.into_iter().any(|p| wants(p, event_type));
        record.tenant == tenant && !record.disabled && (all || some) && none
    };
    let found = model.values().filter(matches);
    found.map(|record| record.id[0]).collect()
}

fn agree(registry: &Registry, model: &Model) {
    assert_eq!(registry.len(), model.len());
    for tenant in TENANTS {
        for event_type in TYPES {
            // What was found before stays in front.
            let mut out = vec![EndpointIx(u32::MAX)];
            registry.matching(tenant, event_type, &mut out);
            assert_eq!(out[0], EndpointIx(u32::MAX));
            let ids = out[1..].iter().map(|&ix| registry.id(ix).unwrap());
            let mut found: Vec<_> = ids.map(|id| id.as_bytes()[0]).collect();
            found.sort_unstable();
            assert_eq!(
                found,
                expected(model, tenant, event_type),
                "{tenant} {event_type}"
            );
        }
        let of_tenant = registry.of_tenant(tenant).count();
        assert_eq!(
            of_tenant,
            model.values().filter(|e| e.tenant == tenant).count()
        );
    }
}

#[test]
fn the_gate_of_the_highest_epoch_stands() {
    let mut table = Table::default();
    put(&mut table, &sample(1, "acme", &[]));
    let before = table.snapshot();
    let id = EndpointId::from_bytes([1; 16]);
    let ix = before.index(id).unwrap();
    assert_eq!(before.gate(ix), &Gate::OPEN);
    let mut write = |state, owner_epoch| {
        let gate = Gate {
            state,
            reason: "breaker".into(),
            owner_epoch,
            at: Timestamp::from_millis(1),
        };
        let value = gate.to_proto(id).to_value();
        table.apply(&gate_key(id), &value).unwrap();
        table.snapshot().gate(ix).state
    };
    assert_eq!(write(GateState::Held, 7), GateState::Held);
    assert_eq!(write(GateState::Open, 6), GateState::Held);
    assert_eq!(write(GateState::Open, 7), GateState::Open);
    assert_eq!(write(GateState::Paused, 9), GateState::Paused);
    table.apply(&gate_key(id), &Bytes::new()).unwrap();
    assert_eq!(table.snapshot().gate(ix), &Gate::OPEN);
    assert_eq!(before.gate(ix), &Gate::OPEN);
    assert!(table.apply(b"g/nonsense", &Bytes::new()).is_err());
    assert!(table.apply(b"o/3", &Bytes::new()).is_ok());
}

#[test]
fn no_owner_opens_the_gate_of_a_paused_endpoint() {
    let mut table = Table::default();
    let mut record = sample(1, "acme", &[]);
    record.paused = true;
    put(&mut table, &record);
    let id = EndpointId::from_bytes([1; 16]);
    let held = Gate {
        state: GateState::Held,
        owner_epoch: 9,
        ..Gate::OPEN
    };
    let value = held.to_proto(id).to_value();
    table.apply(&gate_key(id), &value).unwrap();
    let paused = table.snapshot();
    let ix = paused.index(id).unwrap();
    assert_eq!(paused.gate(ix), &Gate::PAUSED);
    let mut matched = Vec::new();
    paused.matching("acme", "a", &mut matched);
    assert_eq!(matched, [ix], "what it wants is held for it");
    record.paused = false;
    put(&mut table, &record);
    assert_eq!(table.snapshot().gate(ix), &held, "as its owner left it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matching_agrees_with_the_model(
        steps in prop::collection::vec((step(), any::<bool>()), 1..40),
    ) {
        let mut table = Table::default();
        let mut model = Model::default();
        let mut older = (table.snapshot(), model.clone());
        let mut indices = BTreeMap::new();
        for (step, look) in steps {
            match step {
                Step::Put(record) => {
                    put(&mut table, &record);
                    model.insert(record.id[0], *record);
                }
                Step::Delete(number) => {
                    let id = EndpointId::from_bytes([number; 16]);
                    table.apply(&table_key(id), &Bytes::new()).unwrap();
                    model.remove(&number);
                }
                Step::Broken(number) => {
                    let id = EndpointId::from_bytes([number; 16]);
                    // The key names another endpoint than the record.
                    let value = sample(number + 1, "acme", &[]).to_value();
                    assert!(table.apply(&table_key(id), &value).is_err());
                }
            }
            if look {
                agree(&older.0, &older.1);
                older = (table.snapshot(), model.clone());
                agree(&older.0, &older.1);
                for number in 0..6_u8 {
                    let id = EndpointId::from_bytes([number; 16]);
                    if let Some(ix) = older.0.index(id) {
                        let first = *indices.entry(number).or_insert(ix);
                        prop_assert_eq!(first, ix, "an index is for life");
                    }
                }
            }
        }
    }
}

/// A change of endpoint 1 to this version, told from others by its URL.
fn change(table: &mut Table, version: u64, url: &str) -> Applied {
    let mut record = sample(1, "acme", &[]);
    (record.version, record.url) = (version, format!("https://example.com/{url}"));
    let id = EndpointId::from_bytes([1; 16]);
    table.apply(&table_key(id), &record.to_value()).unwrap()
}

fn url(table: &mut Table) -> Option<String> {
    let registry = table.snapshot();
    let endpoint = registry.endpoint(EndpointIx(0))?;
    let path = endpoint.url.trim_start_matches("https://example.com/");
    Some(format!("{path} {}", endpoint.version))
}

#[test]
fn of_two_changes_of_one_version_the_first_stands() {
    let mut table = Table::default();
    assert_eq!(change(&mut table, 1, "a"), Applied::Taken);
    assert_eq!(change(&mut table, 2, "b"), Applied::Taken);
    let present = Some(2);
    assert_eq!(change(&mut table, 2, "c"), Applied::Refused { present });
    assert_eq!(change(&mut table, 1, "d"), Applied::Refused { present });
    assert_eq!(change(&mut table, 2, "b"), Applied::Nothing);
    assert_eq!(url(&mut table).as_deref(), Some("b 2"));
    // Those in between were compacted away.
    assert_eq!(change(&mut table, 9, "e"), Applied::Taken);
    // What knows no versions is taken as it comes.
    assert_eq!(change(&mut table, 0, "f"), Applied::Taken);
    assert_eq!(url(&mut table).as_deref(), Some("f 0"));
}

#[test]
fn a_change_does_not_bring_a_deleted_endpoint_back() {
    let mut table = Table::default();
    change(&mut table, 1, "a");
    let id = EndpointId::from_bytes([1; 16]);
    let endpoint = Endpoint::clone(table.snapshot().endpoint(EndpointIx(0)).unwrap());
    let deleted = endpoint.to_deleted().to_value();
    let mut other = Table::default();
    for key in [1, 2] {
        // The one that changed it first stands.
        change(&mut other, key, "b");
    }
    let refused = other.apply(&table_key(id), &deleted).unwrap();
    assert_eq!(refused, Applied::Refused { present: Some(2) });
    assert_eq!(table.apply(&table_key(id), &deleted), Ok(Applied::Taken));
    assert_eq!(table.apply(&table_key(id), &deleted), Ok(Applied::Nothing));
    assert_eq!(url(&mut table), None);
    let refused = Applied::Refused { present: None };
    assert_eq!(change(&mut table, 2, "b"), refused);
    assert_eq!(
        table.apply(&table_key(id), &Bytes::new()),
        Ok(Applied::Taken)
    );
    assert_eq!(change(&mut table, 3, "b"), refused);
    assert_eq!((url(&mut table), table.restated(id)), (None, Bytes::new()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Writers change one endpoint by what they read last, or before; a refused
    /// change is restated by both readers. Versions count the changes that stand,
    /// and however far the log is compacted, whoever reads it comes to what those
    /// hold who read all of it.
    #[test]
    fn a_compacted_log_tells_the_same(
        steps in prop::collection::vec((0..3_usize, any::<bool>()), 1..30),
        cut in any::<prop::sample::Index>(),
    ) {
        let id = EndpointId::from_bytes([1; 16]);
        let mut log = Vec::new();
        let mut table = Table::default();
        // What a writer may have read: its version, and how often it was restated.
        let (mut read, mut stands) = (vec![(0, 0)], 0);
        for (number, (late, delete)) in steps.into_iter().enumerate() {
            let (version, restated) = read[read.len() - 1 - late.min(read.len() - 1)];
            let mut record = sample(1, "acme", &[]);
            (record.version, record.restated) = (version + restated + 1, restated);
            record.url = format!("https://example.com/{number}");
            record.deleted = delete && number > 8;
            log.push(record.to_value());
            let applied = table.apply(&table_key(id), &log[log.len() - 1]).unwrap();
            if matches!(applied, Applied::Refused { .. }) {
                for _ in 0..2 {
                    log.push(table.restated(id));
                }
                for restated in &log[log.len() - 2..] {
                    table.apply(&table_key(id), restated).unwrap();
                }
            } else {
                stands += 1;
            }
            let registry = table.snapshot();
            if let Some(endpoint) = registry.endpoint(EndpointIx(0)) {
                prop_assert_eq!(endpoint.version, stands);
                read.push((endpoint.version, endpoint.restated));
            }
        }
        let mut other = Table::default();
        // All before the cut but the last is gone.
        for value in &log[cut.index(log.len())..] {
            other.apply(&table_key(id), value).unwrap();
        }
        prop_assert_eq!(url(&mut other), url(&mut table));
    }
}
