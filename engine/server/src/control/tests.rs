use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::Clock;
use crate::log::Cleanup;
use crate::log::embedded::EmbeddedLog;

const LONG: Duration = Duration::from_secs(20);
const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

/// A log, and as many instances' views of its table as are asked for. They read
/// what is new before it is compacted, as they do on Kafka; what compaction then
/// leaves is the core's test.
struct Fixture {
    _dir: tempfile::TempDir,
    log: Arc<dyn Log>,
    config: Config,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let log = EmbeddedLog::open(dir.path(), Arc::new(move || clock.now())).unwrap();
        let config = Config::default();
        let mut specs = config.topics.specs();
        for spec in &mut specs {
            spec.cleanup = Cleanup::Delete {
                retention: Duration::from_secs(3_600),
            };
        }
        log.verify(&specs).await.unwrap();
        Self {
            _dir: dir,
            log: Arc::new(log),
            config,
        }
    }

    async fn instance(&self) -> Endpoints {
        let stop = CancellationToken::new();
        let opened = Endpoints::open(Arc::clone(&self.log), &self.config, stop);
        opened.await.unwrap()
    }

    /// What was written of changes, oldest first.
    async fn changes(&self) -> Vec<proto::Change> {
        let from = TopicPartition {
            topic: self.config.topics.changes(),
            partition: 0,
        };
        let (records, _) = self.log.read(&from, 0, 1 << 20).await.unwrap();
        let read = |record: &Record| proto::Change::from_value(&record.value).unwrap();
        records.iter().map(read).collect()
    }
}

fn endpoint(number: u64) -> Endpoint {
    let id = EndpointId::generate(NOW, &mut Rng::new(number));
    Endpoint::from_proto(proto::Endpoint {
        id: id.as_bytes().to_vec().into(),
        tenant: "acme".into(),
        url: "https://example.com/0".into(),
        secrets: vec![proto::Secret {
            id: "s".into(),
            text: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
            ..Default::default()
        }],
        ..Default::default()
    })
    .unwrap()
}

fn by(actor: &str) -> By {
    By::new(actor, NOW)
}

fn at(endpoint: &Endpoint, url: &str) -> Endpoint {
    Endpoint {
        url: format!("https://example.com/{url}"),
        ..endpoint.clone()
    }
}

fn seen(instance: &Endpoints, id: EndpointId) -> Option<(String, u64)> {
    let registry = instance.registry();
    let registry = registry.borrow();
    let found = registry.endpoint(registry.index(id)?)?;
    Some((found.url.clone(), found.version))
}

/// Waits until the instance sees it as `wanted`.
async fn comes_to(instance: &Endpoints, id: EndpointId, wanted: &Option<(String, u64)>) {
    let there = async {
        while seen(instance, id) != *wanted {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let came = timeout(LONG, there).await;
    let is = seen(instance, id);
    assert!(came.is_ok(), "expected {wanted:?}, it is {is:?}");
}

#[tokio::test]
async fn a_writer_reads_its_own_writes_and_versions_rise() {
    let fixture = Fixture::new().await;
    let instance = fixture.instance().await;
    let made = instance.put(&endpoint(1), &by("one")).await.unwrap();
    assert_eq!(made.version, 1);
    let again = instance.put(&at(&made, "a"), &by("two")).await.unwrap();
    let wanted = Some(("https://example.com/a".to_owned(), 2));
    assert_eq!((again.version, seen(&instance, made.id)), (2, wanted));
    // A change of what is no longer there is no change.
    let late = instance.put(&at(&made, "b"), &by("three")).await;
    assert!(matches!(
        late,
        Err(CommandError::Conflict { present: Some(2) })
    ));
    let late = instance.delete(&made, &by("three")).await;
    assert!(matches!(
        late,
        Err(CommandError::Conflict { present: Some(2) })
    ));
    instance.delete(&again, &by("four")).await.unwrap();
    assert_eq!(seen(&instance, made.id), None);
    let late = instance.put(&at(&again, "b"), &by("three")).await;
    assert!(matches!(
        late,
        Err(CommandError::Conflict { present: None })
    ));

    let changes = fixture.changes().await;
    let told = changes.iter().map(|c| (&*c.actor, &*c.action, c.version));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("one", "endpoint.created", 1),
            ("two", "endpoint.updated", 2),
            ("four", "endpoint.deleted", 3),
        ]
    );
    let id = made.id.to_string();
    assert!(
        changes
            .iter()
            .all(|c| c.subject == id && c.tenant == "acme")
    );
    assert!(
        changes
            .iter()
            .all(|c| c.at_ms == NOW.as_millis() && c.request_id.len() == 16)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_instances_one_changes_a_version_and_the_other_hears_of_it() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    for round in 0..20 {
        let made = one.put(&endpoint(round), &by("one")).await.unwrap();
        let first = Some((made.url.clone(), 1));
        comes_to(&two, made.id, &first).await;
        let (left, right) = (at(&made, "left"), at(&made, "right"));
        let (by_one, by_two) = (by("one"), by("system"));
        let (left, right) = tokio::join!(one.put(&left, &by_one), two.put(&right, &by_two));
        let (won, lost) = match (left, right) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            other => panic!("one of them is taken: {other:?}"),
        };
        let CommandError::Conflict {
            present: Some(present),
        } = lost
        else {
            panic!("{lost}");
        };
        assert_eq!(present, 2);
        // Whoever was refused in the table was overwritten there: who reads it
        // now comes to the same, and to the version that the winner was told.
        let wanted = Some((won.url.clone(), 2));
        for instance in [&one, &two, &fixture.instance().await] {
            comes_to(instance, made.id, &wanted).await;
        }
    }
    let changes = fixture.changes().await;
    let refused = changes.iter().filter(|c| c.action == "change.refused");
    assert!(refused.count() > 0, "none met in the table");
}

#[tokio::test]
async fn within_one_instance_changes_take_turns() {
    let fixture = Fixture::new().await;
    let instance = fixture.instance().await;
    let made = instance.put(&endpoint(1), &by("one")).await.unwrap();
    let changes = (0..8).map(|n| {
        let (instance, changed) = (instance.clone(), at(&made, &n.to_string()));
        async move { instance.put(&changed, &by("one")).await.is_ok() }
    });
    let taken = futures_util::future::join_all(changes).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    let refused = |c: &proto::Change| c.action == "change.refused";
    assert!(!fixture.changes().await.iter().any(refused));
}

#[tokio::test]
async fn a_key_is_known_to_every_instance_until_it_is_revoked() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.instance().await, fixture.instance().await);
    let new = posthaste_core::access::NewKey {
        scopes: vec!["read".parse().unwrap()],
        ..Default::default()
    };
    let (key, text) = new_key(new, NOW).unwrap();
    one.put_key(&key, &by("one")).await.unwrap();
    assert!(one.keys().admit(text.expose(), NOW).is_ok());
    let known = async |wanted: bool| {
        while two.keys().admit(text.expose(), NOW).is_ok() != wanted {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, known(true)).await.expect("it is known");
    assert!(one.revoke_key(key.id, &by("two")).await.unwrap());
    assert!(one.keys().admit(text.expose(), NOW).is_err());
    timeout(LONG, known(false)).await.expect("it is not");
    assert!(!one.revoke_key(key.id, &by("two")).await.unwrap());
    assert_eq!(fixture.instance().await.keys().iter().len(), 0);
}
