//! What is said of tenants and event types, on several instances.

use std::collections::BTreeMap;

use posthaste_core::records::{EventType, RetryPolicy, Tenant, Versioned};
use posthaste_core::retry::Policy;

use super::*;

fn tenant(name: &str) -> Tenant {
    Tenant {
        tenant: "acme".into(),
        name: name.into(),
        description: String::new(),
        metadata: BTreeMap::new(),
        created_at: NOW,
    }
}

fn event_type(schema: &str, enforce: bool) -> EventType {
    EventType {
        name: "invoice.paid".into(),
        description: String::new(),
        schema: Some(schema.to_owned()),
        examples: Vec::new(),
        deprecated: false,
        enforce,
        created_at: NOW,
    }
}

fn seen(instance: &Endpoints) -> Option<(String, u64)> {
    let found = instance.catalog().tenants().get("acme")?;
    Some((found.record.name.clone(), found.version))
}

async fn comes_to<T: PartialEq + std::fmt::Debug>(wanted: T, is: impl Fn() -> T) {
    let there = async {
        while is() != wanted {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let came = timeout(LONG, there).await;
    assert!(came.is_ok(), "expected {wanted:?}, it is {:?}", is());
}

#[tokio::test]
async fn a_name_is_used_again_and_its_versions_go_on() {
    let fixture = Fixture::new().await;
    let instance = fixture.instance().await;
    let put = |name: &'static str, based| {
        let instance = instance.clone();
        async move { instance.put_record(tenant(name), based, &by(name)).await }
    };
    let made = put("one", 0).await.unwrap();
    assert_eq!(
        (made.version, seen(&instance)),
        (1, Some(("one".into(), 1)))
    );
    assert!(matches!(
        put("late", 0).await,
        Err(CommandError::Conflict { present: Some(1) })
    ));
    put("two", 1).await.unwrap();
    let late = instance
        .delete_record::<Tenant>("acme", 1, &by("late"))
        .await;
    assert!(matches!(
        late,
        Err(CommandError::Conflict { present: Some(2) })
    ));
    instance
        .delete_record::<Tenant>("acme", 2, &by("three"))
        .await
        .unwrap();
    assert_eq!(seen(&instance), None);
    assert!(matches!(
        put("late", 2).await,
        Err(CommandError::Conflict { present: None })
    ));
    // An instance that starts now knows that too.
    let other = fixture.instance().await;
    let based = other.catalog().tenants().version("acme");
    assert_eq!((seen(&other), based), (None, 3));
    let again = other
        .put_record(tenant("four"), based, &by("four"))
        .await
        .unwrap();
    assert_eq!(again.version, 4);
    comes_to(Some(("four".into(), 4)), || seen(&instance)).await;
    let changes = fixture.changes().await;
    let told = changes.iter().map(|c| (&*c.actor, &*c.action, c.version));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("one", "tenant.created", 1),
            ("two", "tenant.updated", 2),
            ("three", "tenant.deleted", 3),
            ("four", "tenant.created", 4),
        ]
    );
    assert!(
        changes
            .iter()
            .all(|c| c.subject == "acme" && c.tenant == "acme")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_instances_one_changes_a_version_and_the_other_hears_of_it() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    let mut based = 0;
    for _ in 0..20 {
        comes_to(based, || two.catalog().tenants().version("acme")).await;
        let (by_one, by_two) = (by("one"), by("two"));
        let both = tokio::join!(
            one.put_record(tenant(&format!("one {based}")), based, &by_one),
            two.put_record(tenant(&format!("two {based}")), based, &by_two)
        );
        let (won, lost): (Versioned<Tenant>, _) = match both {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            other => panic!("one of them is taken: {other:?}"),
        };
        assert!(
            matches!(lost, CommandError::Conflict { present: Some(_) }),
            "{lost}"
        );
        let restated = fixture.changes().await.last().unwrap().action == "change.refused";
        based = won.version + u64::from(restated);
        let wanted = Some((won.record.name.clone(), based));
        for instance in [&one, &two, &fixture.instance().await] {
            comes_to(wanted.clone(), || seen(instance)).await;
        }
    }
    let changes = fixture.changes().await;
    let refused = changes.iter().filter(|c| c.action == "change.refused");
    assert!(refused.count() > 0, "none met in the table");
}

#[tokio::test]
async fn every_instance_enforces_what_one_was_told() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    let judged = |instance: &Endpoints, body: &str| {
        instance
            .catalog()
            .judge("invoice.paid", body.as_bytes())
            .is_ok()
    };
    let put = async |schema: &str, enforce, based| {
        let record = event_type(schema, enforce);
        one.put_record(record, based, &by("one")).await.unwrap();
        comes_to(based + 1, || {
            two.catalog().event_types().version("invoice.paid")
        })
        .await;
    };
    put(r#"{"required": ["amount"]}"#, false, 0).await;
    assert!(judged(&one, "{}") && judged(&two, "{}"));
    put(r#"{"required": ["amount"]}"#, true, 1).await;
    for instance in [&one, &two, &fixture.instance().await] {
        assert!(!judged(instance, "{}") && judged(instance, r#"{"amount": 1}"#));
        let flaws = instance.catalog().judge("invoice.paid", b"{}").unwrap_err();
        assert!(flaws[0].to_string().contains("amount"), "{flaws:?}");
        assert_eq!(instance.catalog().judge("invoice.made", b"{}"), Ok(()));
    }
    put(r#"{"required": ["total"]}"#, true, 2).await;
    assert!(!judged(&two, r#"{"amount": 1}"#) && judged(&two, r#"{"total": 1}"#));
    // A schema that cannot be read here refuses nothing.
    put(r#"{"type": "strin"}"#, true, 3).await;
    assert!(judged(&two, "{}"));
    put(r#"{"required": ["total"]}"#, true, 4).await;
    one.delete_record::<EventType>("invoice.paid", 5, &by("one"))
        .await
        .unwrap();
    comes_to(true, || judged(&two, "{}")).await;
}

#[tokio::test]
async fn every_instance_follows_a_policy_that_one_was_told_of() {
    let mut fixture = Fixture::new().await;
    let config = "[retry_policies.slow]\ngaps = [\"7h\"]\n";
    fixture.config.retry_policies = Config::parse(config).unwrap().retry_policies;
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    let gaps = |instance: &Endpoints, name: &str| {
        let registry = instance.registry();
        let registry = registry.borrow();
        let policy = registry.policies().get(name)?;
        Some(policy.gaps().iter().map(Duration::as_secs).collect())
    };
    let put = async |name: &str, secs: &[u64], based| {
        let record = RetryPolicy {
            name: name.into(),
            description: String::new(),
            policy: Policy::new(
                name,
                secs.iter().copied().map(Duration::from_secs).collect(),
            )
            .unwrap(),
            created_at: NOW,
        };
        one.put_record(record, based, &by("one")).await.unwrap();
    };
    // Of an empty table too: the configuration's.
    assert_eq!(gaps(&two, "slow"), Some(vec![7 * 3_600]));
    assert_eq!(gaps(&two, "fast"), None);
    put("fast", &[5, 30], 0).await;
    assert_eq!(
        gaps(&one, "fast"),
        Some(vec![5, 30]),
        "who wrote it sees it"
    );
    comes_to(Some(vec![5, 30]), || gaps(&two, "fast")).await;
    put("fast", &[9], 1).await;
    // The configuration's holds where both have a name.
    put("slow", &[1], 0).await;
    for instance in [&one, &two, &fixture.instance().await] {
        comes_to(Some(vec![9]), || gaps(instance, "fast")).await;
        assert_eq!(gaps(instance, "slow"), Some(vec![7 * 3_600]));
    }
    one.delete_record::<RetryPolicy>("fast", 2, &by("one"))
        .await
        .unwrap();
    comes_to(None, || gaps(&two, "fast")).await;
}
