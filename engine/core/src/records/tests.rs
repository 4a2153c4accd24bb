use posthaste_proto::Record as _;
use proptest::prelude::*;

use std::time::Duration;

use super::*;
use crate::retry::Policy;
use crate::time::Timestamp;

fn tenant(name: &str) -> Tenant {
    Tenant {
        tenant: "acme".into(),
        name: name.into(),
        description: String::new(),
        metadata: BTreeMap::new(),
        created_at: Timestamp::from_millis(1),
    }
}

fn event_type() -> EventType {
    EventType {
        name: "invoice.paid".into(),
        description: String::new(),
        schema: None,
        examples: Vec::new(),
        deprecated: false,
        enforce: false,
        created_at: Timestamp::from_millis(1),
    }
}

fn retry_policy(gaps_ms: &[u64]) -> RetryPolicy {
    let gaps = gaps_ms.iter().copied().map(Duration::from_millis);
    RetryPolicy {
        name: "fast".into(),
        description: String::new(),
        policy: Policy::new("fast", gaps.collect()).unwrap(),
        created_at: Timestamp::from_millis(1),
    }
}

fn key() -> Bytes {
    record_key::<Tenant>("acme")
}

fn shown(records: &Records<Tenant>) -> Option<(String, u64)> {
    let there = records.get("acme")?;
    Some((there.record.name.clone(), there.version))
}

#[test]
fn the_first_of_two_changes_of_one_version_stands() {
    let mut records = Records::default();
    let mut apply = |name: &str, version| {
        let value = tenant(name).to_proto(version).to_value();
        records.apply(&key(), &value).unwrap().unwrap()
    };
    assert_eq!(apply("one", 1), Applied::Taken);
    assert_eq!(apply("two", 2), Applied::Taken);
    assert_eq!(apply("three", 2), Applied::Refused { present: Some(2) });
    assert_eq!(apply("two", 2), Applied::Nothing);
    assert_eq!(apply("two", 1), Applied::Refused { present: Some(2) });
    // Versions leap where older records were compacted away.
    assert_eq!(apply("five", 5), Applied::Taken);
    assert_eq!(shown(&records), Some(("five".into(), 5)));
    let restated = records.restated(&key()).unwrap();
    assert_eq!(records.apply(&key(), &restated), Ok(Some(Applied::Taken)));
    assert_eq!(records.apply(&key(), &restated), Ok(Some(Applied::Nothing)));
    assert_eq!(shown(&records), Some(("five".into(), 6)));
}

#[test]
fn a_name_used_again_goes_on_with_its_versions() {
    let mut records = Records::default();
    let put = |records: &mut Records<Tenant>, version| {
        let value = tenant("a").to_proto(version).to_value();
        records.apply(&key(), &value).unwrap().unwrap()
    };
    assert_eq!(put(&mut records, 3), Applied::Taken);
    let gone = Tenant::deleted("acme", 4).to_value();
    assert_eq!(records.apply(&key(), &gone), Ok(Some(Applied::Taken)));
    assert_eq!((shown(&records), records.version("acme")), (None, 4));
    assert_eq!((records.len(), records.iter().count()), (0, 0));
    // A change of what was deleted meanwhile does not bring it back.
    assert_eq!(put(&mut records, 4), Applied::Refused { present: None });
    let restated = records.restated(&key()).unwrap();
    assert_eq!(records.apply(&key(), &restated), Ok(Some(Applied::Taken)));
    assert_eq!(put(&mut records, 6), Applied::Taken);
    assert_eq!((records.len(), records.is_empty()), (1, false));
    assert_eq!(
        records.apply(&key(), &Bytes::new()),
        Ok(Some(Applied::Taken))
    );
    assert_eq!((shown(&records), records.version("acme")), (None, 0));
    assert_eq!(records.restated(&key()), Some(Bytes::new()));
}

#[test]
fn what_was_deleted_first_is_forgotten_first() {
    let mut records = Records::<Tenant>::default();
    for number in 0..=GONE_NAMES_MAX {
        assert_eq!(records.forgettable(), None);
        let name = format!("n{number}");
        let value = Tenant::deleted(&name, 2).to_value();
        records.apply(&record_key::<Tenant>(&name), &value).unwrap();
    }
    assert_eq!(records.forgettable(), Some("n0"));
    records.apply(b"t/n0", &Bytes::new()).unwrap();
    assert_eq!(records.forgettable(), None);
    assert_eq!(records.version("n0"), 0);
}

#[test]
fn foreign_and_unreadable_records_change_nothing() {
    let mut records = Records::<Tenant>::default();
    let value = tenant("a").to_proto(1).to_value();
    assert_eq!(records.apply(b"y/acme", &value), Ok(None));
    assert_eq!(records.restated(b"y/acme"), None);
    for (key, value) in [
        (&b"t/other"[..], value.clone()),
        (b"t/acme", event_type().to_proto(1).to_value()),
        (b"t/\xff", value),
        (b"t/acme", proto_with_long_name().to_value()),
    ] {
        assert!(records.apply(key, &value).is_err());
        assert!(records.is_empty());
    }
}

fn proto_with_long_name() -> posthaste_proto::Tenant {
    tenant(&"x".repeat(1_000)).to_proto(1)
}

#[test]
fn each_field_has_a_bound_and_is_named() {
    let with = |edit: fn(&mut Tenant)| {
        let mut tenant = tenant("a");
        edit(&mut tenant);
        tenant.check().map_err(|problem| problem.param)
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|t| t.tenant = "a/b".into()), Err("tenant"));
    assert_eq!(
        with(|t| t.description = "x".repeat(2_000)),
        Err("description")
    );
    let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    assert_eq!(pair("k", "v").len(), 1);
    assert_eq!(
        with(|t| t.metadata = BTreeMap::from([(String::new(), String::new())])),
        Err("metadata")
    );
    assert_eq!(
        with(|t| t.metadata = BTreeMap::from([("k".into(), "x".repeat(9_000))])),
        Err("metadata")
    );
    assert_eq!(
        with(|t| t.metadata = (0..51).map(|n| (n.to_string(), String::new())).collect()),
        Err("metadata")
    );

    let with = |edit: fn(&mut EventType)| {
        let mut event_type = event_type();
        edit(&mut event_type);
        event_type.check().map_err(|problem| problem.param)
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|t| t.name = "a b".into()), Err("name"));
    assert_eq!(with(|t| t.schema = Some("x".repeat(70_000))), Err("schema"));
    assert_eq!(
        with(|t| t.examples = vec![String::new(); 11]),
        Err("examples")
    );
    assert_eq!(
        with(|t| t.examples = vec!["x".repeat(9_000)]),
        Err("examples")
    );
    assert_eq!(with(|t| t.enforce = true), Err("enforce"));

    let with = |edit: fn(&mut posthaste_proto::RetryPolicy)| {
        let mut record = retry_policy(&[1_000]).to_proto(1);
        edit(&mut record);
        RetryPolicy::from_proto(record)
            .map(|_| ())
            .map_err(|problem| problem.param)
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|p| p.name = "standard".into()), Err("name"));
    assert_eq!(with(|p| p.name = "a b".into()), Err("name"));
    assert_eq!(with(|p| p.gaps_ms.clear()), Err("gaps"));
    assert_eq!(with(|p| p.gaps_ms = vec![999]), Err("gaps"));
    assert_eq!(
        with(|p| p.description = "x".repeat(2_000)),
        Err("description")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is refused and overwritten: who reads the compacted log comes to
    /// what those came to who read all of it.
    #[test]
    fn a_compacted_log_folds_to_the_same(writes in prop::collection::vec((0..2_u8, 1..6_u64), 1..20)) {
        let mut all = Records::<Tenant>::default();
        let mut last = Bytes::new();
        for (kind, version) in writes {
            let value = match kind {
                0 => tenant(&version.to_string()).to_proto(version).to_value(),
                _ => Tenant::deleted("acme", version).to_value(),
            };
            let applied = all.apply(&key(), &value).unwrap().unwrap();
            last = value;
            if matches!(applied, Applied::Refused { .. }) {
                last = all.restated(&key()).unwrap();
                all.apply(&key(), &last).unwrap();
            }
        }
        let mut compacted = Records::<Tenant>::default();
        compacted.apply(&key(), &last).unwrap();
        prop_assert_eq!(shown(&compacted), shown(&all));
        prop_assert_eq!(compacted.version("acme"), all.version("acme"));
    }

    #[test]
    fn records_read_back(text in ".{0,40}", flag: bool) {
        let mut one = tenant(&text);
        one.description.clone_from(&text);
        one.metadata = BTreeMap::from([("k".to_owned(), text.clone())]);
        prop_assert_eq!(Tenant::from_proto(one.to_proto(7)), Ok(one));
        let mut one = event_type();
        one.schema = flag.then(|| "{}".to_owned());
        (one.enforce, one.deprecated) = (flag, !flag);
        one.examples = vec![text.clone()];
        prop_assert_eq!(EventType::from_proto(one.to_proto(7)), Ok(one));
        let mut one = retry_policy(&[1_000, 86_400_000]);
        one.description = text;
        prop_assert_eq!(RetryPolicy::from_proto(one.to_proto(7)), Ok(one));
    }
}
