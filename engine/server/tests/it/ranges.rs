//! Held deliveries that expire together have one dead letter for all: it is
//! listed with their count, and a redrive brings them out of the lane again, as
//! long as they are in there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste::clock::Clock;
use posthaste::config::{Config, Topics};
use posthaste::log::embedded::EmbeddedLog;
use posthaste::log::{Log, NewRecord, TopicPartition};
use posthaste_core::delivery::{Waiting, lane_record};
use posthaste_core::event::{Event, JSON, Origin};
use posthaste_core::id::EndpointId;
use posthaste_core::lane::partition_of;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use proto::progress::{Entry, Kind};
use serde_json::{Value, json};

use crate::dead::Receiver;
use crate::operations::{call, created, said};
use crate::refusals::program::{Server, embedded, eventually};

pub(crate) const SETTINGS: &str = "[topics]\nlane_partitions = 1\nsource_partitions = 1\n\
     [egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const HELD: u64 = 40;
/// Of the held ones these were delivered before the others expired.
const DELIVERED: [u64; 2] = [5, 30];
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// The log while no program runs on it.
pub(crate) struct Desk {
    pub(crate) log: EmbeddedLog,
    config: Config,
    now: Timestamp,
}

impl Desk {
    /// `ago`: how far its clock is behind.
    pub(crate) async fn open(dir: &Path, config: &str, ago: Duration) -> Self {
        let config = Config::parse(config).unwrap();
        let clock = Clock::start();
        let then = move || {
            let now = clock.now().as_millis();
            Timestamp::from_millis(now - u64::try_from(ago.as_millis()).unwrap())
        };
        let now = then();
        let log = EmbeddedLog::open(dir, Arc::new(then)).unwrap();
        let mut specs = config.topics.specs();
        specs.push(config.topics.source_spec(&config.ingest.topics[0]));
        log.verify(&specs).await.unwrap();
        Self { log, config, now }
    }

    fn event(&self, number: u64) -> Event {
        Event {
            id: format!("evt_{number}").into(),
            tenant: "acme".into(),
            event_type: "a.b".into(),
            content_type: JSON,
            body: Bytes::from_static(b"{}"),
            ordering_key: Bytes::new(),
            origin: Origin {
                topic: "events".into(),
                partition: 0,
                offset: number,
                timestamp: self.now,
            },
        }
    }

    /// Events in the first partition of the source topic.
    pub(crate) async fn publish(&self, numbers: std::ops::Range<u64>) {
        let record = |number| {
            let event = self.event(number);
            NewRecord {
                to: TopicPartition {
                    topic: self.config.ingest.topics[0].as_str().into(),
                    partition: 0,
                },
                key: Bytes::new(),
                value: event.body.clone(),
                headers: self.config.ingest.headers.of(&event),
            }
        };
        let results = self.log.append(numbers.map(record).collect()).await;
        assert!(results.iter().all(Result::is_ok));
    }

    /// Answers the offset.
    async fn append(&self, topic: bytestring::ByteString, partition: u32, value: Bytes) -> u64 {
        let record = NewRecord {
            to: TopicPartition { topic, partition },
            key: Bytes::new(),
            value,
            headers: Vec::new(),
        };
        *self.log.append(vec![record]).await[0].as_ref().unwrap()
    }

    async fn lane(&self, value: Bytes) -> u64 {
        self.append(self.config.topics.lane(), 0, value).await
    }

    /// A delivery that is held, and as old as that.
    async fn hold(&self, number: u64, endpoint: EndpointId, age: Duration) -> u64 {
        let event = self.event(number);
        let age = u64::try_from(age.as_millis()).unwrap();
        let waiting = Waiting {
            reason: proto::Reason::Gate,
            attempts: 0,
            first_at: Timestamp::from_millis(self.now.as_millis() - age),
            due: None,
            too_old_at: None,
        };
        let record = lane_record(&event, endpoint, waiting, None);
        self.lane(record.to_value()).await
    }

    async fn letter(&self, endpoint: EndpointId, from: u64, to: u64, count: u64) {
        let letter = proto::DeadRange {
            cause: proto::DeadCause::Expired.into(),
            endpoint_id: endpoint.as_bytes().to_vec().into(),
            partition: 0,
            from,
            to,
            count,
            at_ms: self.now.as_millis(),
            except: Vec::new(),
            tenant: "acme".to_owned(),
        };
        let partition = partition_of(endpoint, Topics::DEAD_PARTITIONS);
        let topic = self.config.topics.dead();
        self.append(topic, partition, letter.to_value()).await;
    }
}

pub(crate) fn endpoint(server: &Server, uid: &str, receiver: &Receiver) -> EndpointId {
    let id = created(server, uid, receiver.at, json!({ "event_types": ["a.*"] }));
    id.parse().unwrap()
}

fn letters(server: &Server, query: &str) -> Vec<Value> {
    let path = format!("/v1/dead_letters?{query}");
    let page = call(server, "GET", &path, Value::Null, 200);
    page["data"].as_array().unwrap().clone()
}

fn redrive(server: &Server, more: Value, status: u16) -> Value {
    let mut body = json!({ "filter": { "cause": "expired" } });
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    call(server, "POST", "/v1/dead_letters/redrive", body, status)
}

/// An operation once it is over.
pub(crate) fn over(server: &Server, id: &Value) -> Value {
    let path = format!("/v1/operations/{}", id.as_str().unwrap());
    let mut shown = Value::Null;
    eventually("it is over", || {
        shown = call(server, "GET", &path, Value::Null, 200);
        shown["state"] == "succeeded"
    });
    shown
}

/// What the receiver has taken since this was asked last.
pub(crate) fn taken(receiver: &Receiver, count: usize) -> Vec<String> {
    eventually("they arrive", || receiver.taken().len() >= count);
    std::thread::sleep(Duration::from_millis(300));
    receiver.forget()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_together_comes_again_out_of_the_lane() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let (own, other) = (Receiver::start(200), Receiver::start(200));
    let server = Server::start(&config);
    let id = endpoint(&server, "billing", &own);
    let beside = endpoint(&server, "other", &other);
    server.stop();

    let desk = Desk::open(dir.path(), &config, Duration::ZERO).await;
    let mut delivered = Vec::new();
    for number in 0..HELD {
        let at = desk.hold(number, id, 73 * HOUR).await;
        desk.hold(HELD + number, beside, HOUR).await;
        if DELIVERED.contains(&number) {
            delivered.push(Entry {
                kind: Kind::Done.into(),
                offset: at,
                endpoint_id: id.as_bytes().to_vec().into(),
                ..Entry::default()
            });
        }
    }
    let progress = proto::Progress {
        owner_epoch: 0,
        entries: delivered,
    };
    desk.lane(progress.to_value()).await;
    desk.log.close();

    let server = Server::start(&config);
    eventually("they are given up", || {
        letters(&server, "cause=expired").len() == 1
    });
    let left = HELD - u64::try_from(DELIVERED.len()).unwrap();
    let letter = &letters(&server, "tenant=acme&endpoint=billing&since=1h")[0];
    assert_eq!(letter["cause"], "expired");
    assert!(letter["redrivable"] == true && letter["delivery"].is_null());
    for (name, value) in [
        ("count", json!(left)),
        ("kept", json!(left)),
        ("tenant", json!("acme")),
        ("endpoint", json!(id.to_string())),
    ] {
        assert_eq!(letter["range"][name], value, "{name}");
    }
    assert!(letters(&server, "tenant=other").is_empty());
    let table = said(&server, &["dead", "list", "--cause", "expired"]);
    assert!(table.contains(&format!("{left} that were held")), "{table}");
    let held = usize::try_from(HELD).unwrap();
    assert_eq!(taken(&other, held).len(), held);
    assert!(own.taken().is_empty());

    let dry = redrive(&server, json!({ "dry_run": true }), 200);
    assert_eq!(
        (&dry["letters"], &dry["endpoints"]),
        (&json!(left), &json!(1))
    );
    let words = [
        "dead",
        "redrive",
        "--tenant",
        "acme",
        "--endpoint",
        "billing",
    ];
    let wanted = format!("{left} come again by 1 operation\nsucceeded: {left} deliveries\n");
    assert_eq!(said(&server, &words), wanted);
    let rest = (0..HELD).filter(|number| !DELIVERED.contains(number));
    let rest: BTreeSet<_> = rest.map(|number| format!("evt_{number}")).collect();
    let came = taken(&own, rest.len());
    assert_eq!(came.len(), rest.len(), "each of them once");
    assert_eq!(came.into_iter().collect::<BTreeSet<_>>(), rest);

    // So does a replay of what was given up.
    let path = "/v1/tenants/acme/endpoints/billing/replays";
    let mut body = json!({ "since": "1h", "mode": "failed", "dry_run": true });
    let counted = call(&server, "POST", path, body.clone(), 200);
    assert_eq!(counted["matched"], left);
    body["dry_run"] = false.into();
    let begun = call(&server, "POST", path, body, 202);
    let done = over(&server, &begun["id"]);
    assert_eq!(done["progress"]["deliveries"], left, "{done}");
    assert_eq!(taken(&own, rest.len()).len(), rest.len());
    assert!(other.taken().is_empty());
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_lane_no_longer_keeps_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let receiver = Receiver::start(200);
    // Older than what the lane keeps, and swept away when the program runs.
    let desk = Desk::open(dir.path(), &config, 100 * HOUR).await;
    for _ in 0..20 {
        desk.lane(proto::Claim::default().to_value()).await;
    }
    desk.log.close();
    let server = Server::start(&config);
    let id = endpoint(&server, "billing", &receiver);
    server.stop();
    let desk = Desk::open(dir.path(), &config, Duration::ZERO).await;
    let first = desk.hold(0, id, HOUR).await;
    for number in 1..5 {
        desk.hold(number, id, HOUR).await;
    }
    desk.letter(id, 0, 10, 10).await;
    desk.letter(id, 15, first + 5, 8).await;
    desk.log.close();

    let server = Server::start(&config);
    assert_eq!(taken(&receiver, 5).len(), 5);
    let mut listed = Vec::new();
    eventually("the lane is swept", || {
        listed = letters(&server, "cause=expired");
        listed[0]["range"]["kept"] == 0
    });
    assert_eq!(listed[0]["redrivable"], false);
    let begun = redrive(&server, json!({}), 202);
    let kept = listed[1]["range"]["kept"].as_u64().unwrap();
    assert!((5..=8).contains(&kept), "{kept}");
    assert_eq!(begun["letters"], kept);
    assert_eq!(begun["skipped"]["no_longer_kept"], 18 - kept);
    let done = over(&server, &begun["operations"][0]["id"]);
    assert_eq!(done["progress"]["deliveries"], 5, "{done}");
    assert_eq!(done["progress"]["skipped"], 5, "{done}");
    assert_eq!(done["detail"], "5 records are no longer in the log");
    assert_eq!(taken(&receiver, 5).len(), 5);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_page_of_a_redrive_has_its_own_stretches_and_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let receiver = Receiver::start(200);
    let server = Server::start(&config);
    let id = endpoint(&server, "billing", &receiver);
    server.stop();
    let desk = Desk::open(dir.path(), &config, Duration::ZERO).await;
    let first = desk.hold(0, id, HOUR).await;
    for number in 1..10 {
        desk.hold(number, id, HOUR).await;
    }
    desk.letter(id, first, first + 5, 5).await;
    desk.letter(id, first + 6, first + 10, 4).await;
    let asked_at = desk.now.as_millis();
    desk.log.close();

    let server = Server::start(&config);
    assert_eq!(taken(&receiver, 10).len(), 10);
    // As if no more than one letter were read at once.
    let page = |letter: u64| {
        let of = |partition| match partition == partition_of(id, Topics::DEAD_PARTITIONS) {
            true => format!(".{letter}-{}", letter + 1),
            false => ".0-0".to_owned(),
        };
        let places: String = (0..Topics::DEAD_PARTITIONS).map(of).collect();
        redrive(
            &server,
            json!({ "cursor": format!("{asked_at}{places}") }),
            202,
        )
    };
    let begun = page(0);
    let done = over(&server, &begun["operations"][0]["id"]);
    assert_eq!(done["progress"]["deliveries"], 5, "{done}");
    assert_eq!(taken(&receiver, 5).len(), 5);
    let again = page(0);
    assert_eq!(
        (&again["letters"], &again["operations"]),
        (&json!(5), &json!([]))
    );
    let begun = page(1);
    assert_eq!(begun["letters"], 4);
    let done = over(&server, &begun["operations"][0]["id"]);
    // The first one is about all other letters.
    assert_eq!(done["progress"]["records"], 4, "{done}");
    assert_eq!(done["progress"]["deliveries"], 4, "{done}");
    assert_eq!(taken(&receiver, 4).len(), 4);
    server.stop();
}
