//! Operations carried out by owners that are killed on the way, from outside: an
//! operation stands in the table, what comes of it is seen at the receiver.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use posthaste::clock::Clock;
use posthaste::config::Config;
use posthaste::control::{By, Endpoints};
use posthaste::log::embedded::EmbeddedLog;
use posthaste::log::{Log, NewRecord, TopicPartition};
use posthaste_core::event::{Event, JSON, Origin};
use posthaste_core::id::{EndpointId, OperationId};
use posthaste_core::operation::{Kind, Operation, Progress, Range, State, Wanted};
use posthaste_core::time::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::dead::Receiver;
use crate::refusals::program::{Server, embedded, eventually};

const SETTINGS: &str = "[topics]\nlane_partitions = 4\nsource_partitions = 3\n\
     [egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const EVENTS: usize = 400;
/// Attempts of which a kill may take the facts, twice: all that an owner has
/// handed out ([`OWNER_OUTSTANDING`](posthaste_core::limits::OWNER_OUTSTANDING)),
/// and what ended while its last facts were on their way.
const AGAIN_MAX: usize = 2 * (64 + 16);

/// The log and its table while no program runs on it.
struct Desk {
    log: EmbeddedLog,
    endpoints: Endpoints,
    config: Config,
    now: Timestamp,
}

impl Desk {
    async fn open(dir: &Path, config: &str) -> Self {
        let config = Config::parse(config).unwrap();
        let clock = Clock::start();
        let now = clock.now();
        let log = EmbeddedLog::open(dir, Arc::new(move || clock.now())).unwrap();
        let mut specs = config.topics.specs();
        specs.push(config.topics.source_spec(&config.ingest.topics[0]));
        log.verify(&specs).await.unwrap();
        let shared: Arc<dyn Log> = Arc::new(log.clone());
        let opened = Endpoints::open(shared, &config, CancellationToken::new());
        let endpoints = opened.await.unwrap();
        Self {
            log,
            endpoints,
            config,
            now,
        }
    }

    fn source(&self, partition: usize) -> TopicPartition {
        TopicPartition {
            topic: self.config.ingest.topics[0].as_str().into(),
            partition: u32::try_from(partition).unwrap(),
        }
    }

    /// Every other event is of type `a.b`, the others of type `c`.
    async fn publish(&self) {
        let record = |number: usize| {
            let event = Event {
                id: format!("evt_{number}").into(),
                tenant: "acme".into(),
                event_type: if number.is_multiple_of(2) { "a.b" } else { "c" }.into(),
                content_type: JSON,
                body: Bytes::from_static(b"{}"),
                ordering_key: Bytes::new(),
                origin: Origin {
                    topic: "".into(),
                    partition: 0,
                    offset: 0,
                    timestamp: self.now,
                },
            };
            NewRecord {
                to: self.source(number % 3),
                key: Bytes::new(),
                value: event.body.clone(),
                headers: self.config.ingest.headers.of(&event),
            }
        };
        let records = (0..EVENTS).map(record).collect();
        let results = self.log.append(records).await;
        assert!(results.iter().all(Result::is_ok));
    }

    /// All that stands in these partitions of a topic now.
    async fn ranges(&self, topic: &str, partitions: u32) -> Vec<Range> {
        let mut ranges = Vec::new();
        for partition in 0..partitions {
            let tp = TopicPartition {
                topic: topic.into(),
                partition,
            };
            let (from, to) = self.log.bounds(&tp).await.unwrap();
            ranges.push(Range {
                topic: topic.to_owned(),
                partition,
                from,
                to,
                ..Range::default()
            });
        }
        ranges
    }

    async fn ask(&self, operation: &Operation) {
        let by = By::new("local", self.now);
        self.endpoints.put_operation(operation, &by).await.unwrap();
    }

    fn progress(&self, id: OperationId) -> Option<Progress> {
        let operations = self.endpoints.operations();
        let known = operations.borrow().get(id).cloned();
        known?.progress.map(|progress| (*progress).clone())
    }

    fn close(self) {
        drop(self.endpoints);
        self.log.close();
    }
}

fn operation(number: u8, kind: Kind, endpoint: EndpointId, ranges: Vec<Range>) -> Operation {
    Operation {
        id: OperationId::from_bytes([number; 16]),
        tenant: "acme".to_owned(),
        endpoint,
        kind,
        wanted: Wanted::Unspecified,
        actor: "local".to_owned(),
        created_at: Timestamp::from_millis(1),
        ranges,
        span: Default::default(),
        event_types: Vec::new(),
        filter: None,
        any: false,
        rate_per_second: 0,
        dead_cause: String::new(),
        offsets: Vec::new(),
        before: 0,
        version: 1,
    }
}

fn endpoint(server: &Server, receiver: &Receiver, more: Value) -> EndpointId {
    let mut body = more;
    body["url"] = format!("http://{}/hook", receiver.at).into();
    let path = "/v1/tenants/acme/endpoints";
    let made = server.api.post(path, "", body.to_string().as_bytes());
    assert_eq!(made.status, 201, "{}", made.text);
    let made: Value = serde_json::from_str(&made.text).unwrap();
    made["id"].as_str().unwrap().parse().unwrap()
}

/// Lets the program run until these are over; answers what they came to.
async fn until_over(dir: &Path, config: &str, asked: &[&Operation]) -> Vec<Progress> {
    for _ in 0..30 {
        let server = Server::start(config);
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.stop();
        let desk = Desk::open(dir, config).await;
        let told: Vec<_> = asked
            .iter()
            .filter_map(|one| desk.progress(one.id))
            .collect();
        desk.close();
        if told.len() == asked.len() && told.iter().all(Progress::is_ended) {
            return told;
        }
    }
    panic!("never over");
}

fn counts(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in receiver.taken() {
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_brings_each_event_again_though_its_owner_is_killed_twice() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let receiver = Receiver::start(200);
    let server = Server::start(&config);
    let wanted = json!({ "event_types": ["a.*"], "max_in_flight": 8 });
    let id = endpoint(&server, &receiver, wanted);
    server.stop();
    let desk = Desk::open(dir.path(), &config).await;
    desk.publish().await;
    desk.close();
    let server = Server::start(&config);
    eventually("all arrive", || receiver.taken().len() == EVENTS / 2);
    server.stop();

    let desk = Desk::open(dir.path(), &config).await;
    let topic = desk.config.ingest.topics[0].clone();
    let replay = Operation {
        rate_per_second: 100,
        ..operation(7, Kind::Replay, id, desk.ranges(&topic, 3).await)
    };
    desk.ask(&replay).await;
    desk.close();
    for share in [1, 2] {
        let server = Server::start(&config);
        eventually("some arrive again", || {
            receiver.taken().len() >= EVENTS / 2 + share * EVENTS / 8
        });
        // As by `kill -9`.
        drop(server);
    }
    let again = receiver.taken().len() - EVENTS / 2;
    assert!(again < EVENTS / 2, "it was killed on the way: {again}");
    let server = Server::start(&config);
    eventually("all arrive again", || {
        let counts = counts(&receiver);
        counts.len() == EVENTS / 2 && counts.values().all(|count| *count >= 2)
    });
    eventually("nothing is owed", || {
        server.api.metric("posthaste_owner_owed_deliveries ") == Some(0.0)
    });
    server.stop();

    let progress = until_over(dir.path(), &config, &[&replay]).await.remove(0);
    assert_eq!(progress.state, State::Succeeded, "{}", progress.detail);
    assert_eq!(progress.count, u64::try_from(EVENTS / 2).unwrap());
    let ends: Vec<_> = replay.ranges.iter().map(|range| range.to).collect();
    assert_eq!(progress.next, ends);
    let taken = receiver.taken().len();
    assert!(taken <= EVENTS + AGAIN_MAX, "{taken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_redriven_and_what_is_owed_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let policy = "[retry_policies.once]\ngaps = [\"1h\", \"1h\"]\n";
    let config = format!("{}{SETTINGS}{policy}", embedded(dir.path()));
    let (strict, slow) = (Receiver::start(422), Receiver::start(503));
    let server = Server::start(&config);
    let wanted = json!({ "event_types": ["a.*"], "fail_fast_4xx": true });
    let dead = endpoint(&server, &strict, wanted);
    let wanted = json!({ "event_types": ["c"], "retry_policy": "once" });
    let owed = endpoint(&server, &slow, wanted);
    for number in 0..6 {
        let event_type = if number < 4 { "a.b" } else { "c" };
        let headers = format!("webhook-type: {event_type}\r\nwebhook-id: evt_{number}\r\n");
        let taken = server.api.post("/v1/tenants/acme/events", &headers, b"{}");
        assert_eq!(taken.status, 202);
    }
    eventually("all are given up, or wait", || {
        let letters = server.api.call("GET", "/v1/dead_letters", "", b"");
        let letters: Value = serde_json::from_str(&letters.text).unwrap();
        letters["data"].as_array().unwrap().len() == 4
            && server.api.metric("posthaste_owner_owed_deliveries ") == Some(2.0)
    });
    server.stop();

    let desk = Desk::open(dir.path(), &config).await;
    let topic = desk.config.topics.dead();
    let letters = desk.ranges(&topic, posthaste::config::Topics::DEAD_PARTITIONS);
    let letters = letters.await;
    let redrive = operation(7, Kind::Redrive, dead, letters.clone());
    let nothing = Operation {
        dead_cause: "expired".to_owned(),
        ..operation(8, Kind::Redrive, dead, letters)
    };
    let soon = operation(9, Kind::RetryNow, owed, Vec::new());
    let cancel = Operation {
        before: u64::MAX,
        ..operation(10, Kind::Cancel, owed, Vec::new())
    };
    for operation in [&redrive, &nothing, &soon] {
        desk.ask(operation).await;
    }
    desk.close();
    strict.status.store(200, Ordering::SeqCst);
    let asked = [&redrive, &nothing, &soon];
    let told = until_over(dir.path(), &config, &asked).await;
    for (progress, count) in told.iter().zip([4, 0, 2]) {
        assert_eq!(progress.state, State::Succeeded, "{}", progress.detail);
        assert_eq!(progress.count, count, "{progress:?}");
    }
    let server = Server::start(&config);
    eventually("the letters arrive", || counts(&strict).len() == 4);
    eventually("nothing but the retries is owed", || {
        server.api.metric("posthaste_owner_owed_deliveries ") == Some(2.0)
    });
    server.stop();

    let desk = Desk::open(dir.path(), &config).await;
    desk.ask(&cancel).await;
    desk.close();
    let progress = until_over(dir.path(), &config, &[&cancel]).await.remove(0);
    assert_eq!((progress.state, progress.count), (State::Succeeded, 2));
}
