//! Dead letters from outside: deliveries that end there are listed, and once
//! their receiver is mended all of them are redriven and arrive.

use std::collections::BTreeSet;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use posthaste::clock::Clock;
use posthaste::config::Config;
use posthaste::log::embedded::EmbeddedLog;
use posthaste::log::kafka::KafkaLog;
use posthaste::log::{Log, NewRecord, TopicPartition};
use serde_json::{Value, json};

use crate::contract::unique;
use crate::kafka::{broker, make, settings};
use crate::receiver::read_request;
use crate::refusals::program::{SECRETS, Server, embedded, eventually, posthaste};

/// Endpoints that answer 503 until they are given up, and as many that answer
/// 422 and fail fast. Two events each: too few to trip a breaker.
const ENDPOINTS: usize = 5;
const EVENTS: usize = 2;
const LETTERS: usize = 2 * ENDPOINTS * EVENTS;

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n\
     [retry_policies.once]\ngaps = [\"1s\"]\n";

/// A receiver that answers as it is told, and the events it has taken, each
/// with its endpoint's path.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) at: SocketAddr,
    pub(crate) status: Arc<AtomicU16>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    pub(crate) fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            at: listener.local_addr().unwrap(),
            status: Arc::new(status.into()),
            taken: Arc::default(),
        };
        let answering = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, receiver) = (stream.unwrap(), answering.clone());
                std::thread::spawn(move || receiver.answer(&stream));
            }
        });
        receiver
    }

    fn answer(&self, stream: &std::net::TcpStream) {
        let mut requests = BufReader::new(stream);
        let mut answers = stream;
        while let Some(id) = read_request(&mut requests) {
            let status = self.status.load(Ordering::SeqCst);
            if status == 200 {
                self.taken.lock().unwrap().push(id);
            }
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
            if answers.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// What it has taken so far, and it forgets that.
    pub(crate) fn forget(&self) -> Vec<String> {
        std::mem::take(&mut self.taken.lock().unwrap())
    }

    pub(crate) fn taken(&self) -> Vec<String> {
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort();
        taken
    }
}

/// `posthaste dead` with these words; its standard output.
fn dead(server: &Server, words: &[&str]) -> String {
    let address = format!("http://{}", server.api.0);
    let mut command = posthaste(&[&["dead"], words, &["--server", &address]].concat());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words:?}: {why}");
    // Nobody watches: no line of progress.
    assert!(words[0] != "redrive" || why.is_empty(), "{words:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

fn dead_json(server: &Server, words: &[&str]) -> Value {
    serde_json::from_str(&dead(server, &[words, &["--json"]].concat())).unwrap()
}

fn listed(server: &Server, words: &[&str]) -> Vec<Value> {
    let words = [&["list", "--limit", "1000"], words].concat();
    let page = dead_json(server, &words);
    assert_eq!(page["has_more"], false);
    page["data"].as_array().unwrap().clone()
}

/// Makes the endpoints, and the events each of them alone wants.
fn publish(server: &Server, receivers: [&Receiver; 2]) -> BTreeSet<String> {
    let mut events = BTreeSet::new();
    for (kind, receiver) in ["slow", "strict"].into_iter().zip(receivers) {
        for number in 0..ENDPOINTS {
            let uid = format!("{kind}-{number}");
            let body = json!({
                "url": format!("http://{}/{uid}", receiver.at), "uid": uid,
                "event_types": [uid], "retry_policy": "once",
                "fail_fast_4xx": kind == "strict",
            });
            let path = "/v1/tenants/acme/endpoints";
            let made = server.api.post(path, "", body.to_string().as_bytes());
            assert_eq!(made.status, 201, "{}", made.text);
            for event in 0..EVENTS {
                let id = format!("{uid}-{event}");
                let headers = format!("webhook-type: {uid}\r\nwebhook-id: {id}\r\n");
                let path = "/v1/tenants/acme/events";
                assert_eq!(server.api.post(path, &headers, b"{}").status, 202);
                events.insert(id);
            }
        }
    }
    events
}

/// Writes a record that never becomes an event: it has no type.
pub(crate) async fn poison(log: &dyn Log, config: &Config) {
    let record = NewRecord {
        to: TopicPartition {
            topic: config.ingest.topics[0].as_str().into(),
            partition: 1,
        },
        key: Bytes::new(),
        value: Bytes::from_static(b"?"),
        headers: Vec::new(),
    };
    assert!(log.append(vec![record]).await[0].is_ok());
}

/// What holds on any log that has one poisonous record.
fn all_of_them_come_back(config: &str) {
    let (slow, strict) = (Receiver::start(503), Receiver::start(422));
    let server = Server::start(config);
    let events = publish(&server, [&slow, &strict]);
    eventually("all are given up", || {
        listed(&server, &[]).len() == LETTERS + 1
    });
    lists_are_exact(&server, &events);
    assert!(slow.taken().is_empty() && strict.taken().is_empty());

    for receiver in [&slow, &strict] {
        receiver.status.store(200, Ordering::SeqCst);
    }
    let half = u64::try_from(LETTERS / 2).unwrap();
    let dry = dead_json(&server, &["redrive", "--cause", "exhausted", "--dry-run"]);
    assert_eq!(
        (&dry["letters"], &dry["dry_run"]),
        (&json!(half), &json!(true))
    );
    let one = [
        "redrive",
        "--tenant",
        "acme",
        "--endpoint",
        "slow-0",
        "--rate",
        "1/s",
    ];
    assert_eq!(
        dead(&server, &one),
        format!("{EVENTS} come again by 1 operation\nsucceeded: {EVENTS} deliveries\n")
    );
    eventually("what was meant arrives", || slow.taken().len() == EVENTS);
    assert_eq!(slow.taken(), ["slow-0-0", "slow-0-1"]);
    assert!(strict.taken().is_empty());
    slow.taken.lock().unwrap().clear();

    let said = dead(&server, &["redrive", "--all"]);
    assert_eq!(
        said,
        format!(
            "{LETTERS} come again by {} operations; 1 without a delivery to bring left\n\
             {0} operations are over: {LETTERS} deliveries\n",
            2 * ENDPOINTS
        )
    );
    eventually("all arrive", || {
        let taken: BTreeSet<_> = slow.taken().into_iter().chain(strict.taken()).collect();
        taken == events
    });
    assert_eq!(
        listed(&server, &[]).len(),
        LETTERS + 1,
        "none died again, and all are kept"
    );
    let path = "/v1/tenants/acme/endpoints/slow-1";
    assert_eq!(server.api.call("DELETE", path, "", b"").status, 204);
    let dry = dead_json(&server, &["redrive", "--cause", "exhausted", "--dry-run"]);
    let deleted = u64::try_from(EVENTS).unwrap();
    assert_eq!(dry["skipped"]["endpoint_deleted"], deleted);
    assert_eq!(dry["letters"], half - deleted);
    server.stop();
}

fn lists_are_exact(server: &Server, events: &BTreeSet<String>) {
    let of = |words: &[&str]| {
        let listed = listed(server, words);
        let ids = listed.iter().map(|l| l["delivery"]["event"].as_str());
        ids.flatten()
            .map(ToOwned::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let kind = |prefix: &str| {
        let of_kind = events.iter().filter(|id| id.starts_with(prefix));
        of_kind.cloned().collect::<BTreeSet<_>>()
    };
    assert_eq!(of(&[]), *events);
    assert_eq!(of(&["--cause", "exhausted"]), kind("slow"));
    assert_eq!(of(&["--cause", "rejected"]), kind("strict"));
    assert_eq!(
        of(&["--tenant", "acme", "--endpoint", "slow-1"]),
        kind("slow-1")
    );
    assert_eq!(of(&["--tenant", "acme", "--since", "1h"]), *events);
    assert_eq!(of(&["--until", "1h"]), BTreeSet::new());
    assert_eq!(of(&["--tenant", "other"]), BTreeSet::new());
    let exhausted = &listed(server, &["--cause", "exhausted"])[0];
    assert_eq!(exhausted["delivery"]["attempts"], 2);
    assert_eq!(exhausted["delivery"]["last_status"], 503);
    let rejected = &listed(server, &["--cause", "rejected"])[0];
    assert_eq!(rejected["delivery"]["attempts"], 1);
    let poison = &listed(server, &["--cause", "poison"])[0];
    assert!(poison["delivery"].is_null() && poison["redrivable"] == false);
    assert_eq!(poison["origin"]["partition"], 1);
    // The table for people, cut short.
    let table = dead(server, &["list", "--cause", "rejected", "--limit", "3"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.starts_with("when") && table.matches(" rejected  1         422").count() == 3);
    // How long ago is counted from the first page on, whenever the next is asked
    // for: this one two hours later.
    let page = |query: &str| -> Value {
        let path = format!("/v1/dead_letters?since=1h&limit=7{query}");
        serde_json::from_str(&server.api.call("GET", &path, "", b"").text).unwrap()
    };
    let cursor = page("")["next_cursor"].as_str().unwrap().to_owned();
    let (asked_at, places) = cursor.split_once('.').unwrap();
    let later = asked_at.parse::<u64>().unwrap() + 2 * 3_600_000;
    let count = |page: Value| page["data"].as_array().unwrap().len();
    assert_eq!(count(page(&format!("&cursor={cursor}"))), 7);
    assert_eq!(count(page(&format!("&cursor={later}.{places}"))), 0);
    // Every page goes on where the one before ended.
    let (mut pages, mut cursor, mut places) = (0, String::new(), Vec::new());
    loop {
        let path = format!("/v1/dead_letters?limit=7{cursor}");
        let page: Value =
            serde_json::from_str(&server.api.call("GET", &path, "", b"").text).unwrap();
        let data = page["data"].as_array().unwrap();
        places.extend(
            data.iter()
                .map(|l| (l["partition"].as_u64(), l["offset"].as_u64())),
        );
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((places.len(), pages), (LETTERS + 1, (LETTERS + 7) / 7));
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_them_come_back_on_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{}{SETTINGS}", embedded(dir.path()));
    let config = Config::parse(&text).unwrap();
    let clock = Clock::start();
    let log = EmbeddedLog::open(dir.path(), Arc::new(move || clock.now())).unwrap();
    let source = config.topics.source_spec(&config.ingest.topics[0]);
    log.verify(&[source]).await.unwrap();
    poison(&log, &config).await;
    log.close();
    let run = tokio::task::spawn_blocking(move || all_of_them_come_back(&text));
    run.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_them_come_back_on_kafka() {
    let Some(bootstrap) = broker() else { return };
    let prefix = unique("dead");
    let text = format!(
        "log = \"kafka://{bootstrap}\"\nshards = 1\n{SECRETS}[topics]\nprefix = \"{prefix}\"\n\
         lane_partitions = 4\nsource_partitions = 2\nreplication = 1\n\
         [ingest]\ntopics = [\"{prefix}.events\"]\nstart = \"earliest\"\n{SETTINGS}"
    );
    let config = Config::parse(&text).unwrap();
    make(bootstrap.clone(), &config).await;
    let settings = settings(&bootstrap);
    let log = tokio::task::spawn_blocking(move || KafkaLog::connect(settings));
    let log = log.await.unwrap().unwrap();
    poison(&log, &config).await;
    let run = tokio::task::spawn_blocking(move || {
        drop(log);
        all_of_them_come_back(&text);
    });
    run.await.unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    for (query, param, wanted) in [
        ("limit=0", "limit", "expected 1 to 250"),
        ("limit=251", "limit", "expected 1 to 250"),
        (
            "cause=bored",
            "cause",
            "`bored`: expected one of `exhausted`",
        ),
        ("since=yesterday", "since", "or how long ago"),
        ("until=5", "until", "expected a UTC time"),
        ("endpoint=billing", "endpoint", "together with its tenant"),
        (
            "tenant=a&endpoint=billing",
            "endpoint",
            "`billing`: expected",
        ),
        ("cursor=x", "cursor", "expected the `next_cursor`"),
    ] {
        let answer = server
            .api
            .call("GET", &format!("/v1/dead_letters?{query}"), "", b"");
        let (found, detail) = answer.problem(422, "invalid");
        assert!(
            found == param && detail.contains(wanted),
            "{query}: {found}: {detail}"
        );
    }
    let unknown = server
        .api
        .call("GET", "/v1/dead_letters?color=red", "", b"");
    let (_, detail) = unknown.problem(400, "malformed");
    assert!(detail.contains("unknown field `color`"), "{detail}");
    for (body, param, wanted) in [
        ("{}", "filter", "or instead `all`: true"),
        (
            "{\"all\": true, \"filter\": {\"tenant\": \"a\"}}",
            "filter",
            "or instead `all`",
        ),
        (
            "{\"all\": true, \"cursor\": \"0-0\"}",
            "cursor",
            "expected the `next_cursor`",
        ),
    ] {
        let answer = server
            .api
            .post("/v1/dead_letters/redrive", "", body.as_bytes());
        let (found, detail) = answer.problem(422, "invalid");
        assert!(
            found == param && detail.contains(wanted),
            "{body}: {found}: {detail}"
        );
    }
    let nothing = dead(&server, &["redrive", "--all"]);
    assert_eq!(nothing, "0 come again by 0 operations\n");
    assert_eq!(dead(&server, &["list"]).lines().count(), 1);
    server.stop();
}
