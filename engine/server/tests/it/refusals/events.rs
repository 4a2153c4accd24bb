//! Records on a source topic that are no events: each becomes a dead letter
//! with its reason and position, the good ones around it are delivered, and
//! the source's position moves past all of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use metrics_exporter_prometheus::PrometheusBuilder;
use posthaste::app::App;
use posthaste::config::{Config, KeySource, LogUrl, SecretsConfig, StartConfig, Topics};
use posthaste::log::{GroupEvent, Log, NewRecord, Start};
use posthaste_core::limits::{BODY_BYTES_MAX, DEAD_RECORD_BYTES_MAX};
use posthaste_proto::{Dead, DeadCause, Record as _};
use tokio_util::sync::CancellationToken;

use super::program::{Api, MASTER_KEY, PATIENCE, eventually, file};
use crate::contract::{place, unique};
use crate::dev::Outside;

/// What became of records, and where they lie.
struct Case {
    name: &'static str,
    headers: Vec<(&'static str, &'static [u8])>,
    value: Bytes,
    /// Delivered under this id, or a dead letter with this cause whose detail
    /// holds these words.
    expected: Result<&'static str, (DeadCause, &'static [&'static str])>,
}

fn good(id: &'static str) -> Case {
    Case {
        name: id,
        headers: vec![
            ("webhook-type", b"order.made"),
            ("webhook-tenant", b"acme"),
            ("webhook-id", id.as_bytes()),
        ],
        value: Bytes::from_static(b"{}"),
        expected: Ok(id),
    }
}

fn bad(
    name: &'static str,
    headers: &[(&'static str, &'static [u8])],
    value: impl Into<Bytes>,
    words: &'static [&'static str],
) -> Case {
    Case {
        name,
        headers: headers.to_vec(),
        value: value.into(),
        expected: Err((DeadCause::Poison, words)),
    }
}

fn cases() -> Vec<Case> {
    let typed: (&str, &[u8]) = ("webhook-type", b"order.made");
    let tenant: (&str, &[u8]) = ("webhook-tenant", b"acme");
    let mut oversize = bad(
        "oversize",
        &[typed, tenant],
        vec![b'x'; BODY_BYTES_MAX + 1],
        &["body has 1048577 bytes, at most 1048576"],
    );
    oversize.expected = oversize
        .expected
        .map_err(|(_, words)| (DeadCause::Oversize, words));
    vec![
        good("evt-1"),
        bad(
            "no type",
            &[tenant],
            "{\"data\": 1}",
            &["no type", "header `webhook-type`", "`/type`"],
        ),
        bad(
            "no tenant",
            &[typed],
            "{}",
            &[
                "no tenant",
                "header `webhook-tenant`",
                "`ingest.default_tenant`",
            ],
        ),
        bad(
            "not JSON",
            &[tenant],
            "{\"type\": ",
            &["no routing headers and is not JSON"],
        ),
        bad("not UTF-8", &[], vec![0xff, 0xfe], &["not UTF-8"]),
        bad("not an object", &[], "[1]", &["not a JSON object"]),
        bad("nothing", &[], "", &["not JSON"]),
        bad(
            "type is a number",
            &[tenant],
            "{\"type\": 7, \"data\": 1}",
            &["`/type` must be a string"],
        ),
        good("evt-2"),
        bad(
            "an id with a dot",
            &[typed, tenant, ("webhook-id", b"a.b")],
            "{}",
            &["id must be visible ASCII without `.`"],
        ),
        bad(
            "an id that is not text",
            &[typed, tenant, ("webhook-id", b"\xff")],
            "{}",
            &["id must be UTF-8"],
        ),
        bad(
            "a tenant with a slash",
            &[typed, ("webhook-tenant", b"a/b")],
            "{}",
            &["tenant must be visible ASCII without `/`"],
        ),
        bad(
            "an ordering key too long",
            &[typed, tenant, ("webhook-ordering-key", &[b'k'; 257])],
            "{}",
            &["ordering key has 257 bytes, at most 256"],
        ),
        oversize,
        good("evt-3"),
    ]
}

/// An instance in this process.
struct House {
    log: Arc<dyn Log>,
    api: Api,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl House {
    async fn start(mut config: Config) -> Self {
        config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.shards = 1;
        config.egress.allow_http = true;
        config.egress.allow_private_names = true;
        config.egress.allow = vec!["127.0.0.0/8".to_owned()];
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let app = Box::pin(App::start(config, metrics)).await.unwrap();
        let stop = CancellationToken::new();
        Self {
            log: Arc::clone(&app.log),
            api: Api(app.listening),
            ended: tokio::spawn(app.run(stop.clone().cancelled_owned(), PATIENCE)),
            stop,
        }
    }

    async fn stop(self) -> Arc<dyn Log> {
        self.stop.cancel();
        self.ended.await.unwrap().unwrap();
        self.log
    }
}

/// Runs an instance over all cases, one after the other in one partition.
async fn bury(config: Config) {
    let source = ByteString::from(config.ingest.topics[0].as_str());
    let topics = config.topics.clone();
    let house = House::start(config).await;
    let outside = Outside::default();
    let url = format!("http://{}/hooks", outside.start());
    let api = house.api;
    let made = tokio::task::spawn_blocking(move || api.endpoint("acme", &url));
    made.await.unwrap();

    let tp = place(&source, 0);
    let records = cases().into_iter().map(|case| NewRecord {
        to: tp.clone(),
        key: Bytes::new(),
        value: case.value,
        headers: case
            .headers
            .iter()
            .map(|(name, value)| (ByteString::from(*name), Bytes::from_static(value)))
            .collect(),
    });
    let mut offsets = Vec::new();
    for answer in house.log.append(records.collect()).await {
        offsets.push(answer.unwrap());
    }
    let wanted: BTreeSet<_> = cases()
        .iter()
        .filter_map(|case| Some(case.expected.ok()?.to_owned()))
        .collect();
    let delivered = tokio::task::spawn_blocking(move || {
        eventually("the good ones are delivered", || outside.taken() == wanted);
    });
    delivered.await.unwrap();
    let log = house.stop().await;

    check_letters(&*log, &topics, &source, &offsets).await;
    let past = offsets.last().unwrap() + 1;
    assert_eq!(
        position(&*log, &topics, &source).await,
        past,
        "committed past all of them"
    );
    // Whoever lets go of it last waits for its threads.
    tokio::task::spawn_blocking(move || drop(log))
        .await
        .unwrap();
}

async fn check_letters(log: &dyn Log, topics: &Topics, source: &ByteString, offsets: &[u64]) {
    let mut letters = Vec::new();
    for partition in 0..Topics::DEAD_PARTITIONS {
        let tp = place(&topics.dead(), partition);
        let (mut at, end) = log.bounds(&tp).await.unwrap();
        while at < end {
            let (records, next) = log.read(&tp, at, 1 << 20).await.unwrap();
            at = next;
            letters.extend(records.iter().map(|r| Dead::from_value(&r.value).unwrap()));
        }
    }
    let cases = cases();
    let buried = cases.iter().zip(offsets);
    let buried = buried.filter_map(|(case, at)| Some((case, *at, case.expected.err()?)));
    assert_eq!(letters.len(), buried.clone().count(), "one letter each");
    for (case, offset, (cause, words)) in buried {
        let of = |dead: &&Dead| dead.origin.as_ref().is_some_and(|o| o.offset == offset);
        let dead = letters.iter().find(of).expect(case.name);
        assert_eq!(dead.cause(), cause, "{}: {}", case.name, dead.detail);
        for word in words {
            assert!(dead.detail.contains(word), "{}: {}", case.name, dead.detail);
        }
        let origin = dead.origin.as_ref().unwrap();
        assert_eq!(
            (&*origin.topic, origin.partition),
            (&**source, 0),
            "{}",
            case.name
        );
        let kept = case.value.len().min(DEAD_RECORD_BYTES_MAX);
        assert!(
            dead.record == case.value[..kept],
            "{}: its value is kept",
            case.name
        );
        assert!(origin.timestamp_ms > 0 && dead.at_ms > 0, "{}", case.name);
    }
}

/// Where the ingest group would read on.
async fn position(log: &dyn Log, topics: &Topics, source: &ByteString) -> u64 {
    let group = format!("{}.ingest", topics.prefix);
    let from = std::slice::from_ref(source);
    let mut member = log.join(&group, from, Start::Unset).unwrap();
    let hearing = async {
        loop {
            match member.next().await {
                GroupEvent::Assigned { tp, position, .. } if tp.partition == 0 => return position,
                GroupEvent::Fatal(error) => panic!("{error}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, hearing).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    bury(Config {
        log: LogUrl::Embedded(PathBuf::from(dir.path())),
        ..Config::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka() {
    let Some(bootstrap) = crate::kafka::broker() else {
        return;
    };
    let prefix = unique("refusals");
    let key = file(MASTER_KEY);
    let mut config = Config {
        log: LogUrl::Kafka(bootstrap.clone()),
        secrets: SecretsConfig {
            keys: vec![KeySource::File(key.path().to_owned())],
        },
        drain_deadline: Duration::from_secs(20),
        ..Config::default()
    };
    config.topics.lane_partitions = 2;
    config.topics.source_partitions = 2;
    config.topics.replication = 1;
    config.ingest.topics = vec![format!("{prefix}.events")];
    config.ingest.start = StartConfig(Start::Earliest);
    config.topics.prefix = prefix;
    crate::kafka::make(bootstrap, &config).await;
    bury(config).await;
}
