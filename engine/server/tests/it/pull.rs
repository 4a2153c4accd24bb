//! Events pulled by those that cannot be called: all an endpoint wants and
//! nothing else, page by page or as they come, from outside; and on a log whose
//! records grow too old, that this is said.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use posthaste::api::{Api as Routes, Parts};
use posthaste::clock::Clock;
use posthaste::config::Config;
use posthaste::control::Endpoints;
use posthaste::ingest::decode::Decoder;
use posthaste::log::embedded::EmbeddedLog;
use posthaste::log::{Log, TopicPartition};
use posthaste::send::{Egress, EgressSettings};
use posthaste::vault::Vault;
use posthaste_core::limits::PULLS_TENANT_MAX;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::access::{self, call, json_of, made};
use crate::contract::unique;
use crate::dead::Receiver;
use crate::kafka::{broker, make};
use crate::refusals::program::{Api, SECRETS, Server, embedded, eventually, posthaste};

const SETTINGS: &str = "[topics]\nsource_partitions = 3\n\
     [egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
const STREAM: &str = "/v1/tenants/acme/endpoints/puller/stream";

fn get(api: Api, path: &str) -> Value {
    json_of(&api.call("GET", path, "", b""), 200)
}

/// An endpoint that wants some, and gets no deliveries.
fn puller(api: Api, receiver: &str) {
    let asked = json!({
        "url": receiver, "uid": "puller",
        "event_types": ["invoice.*"], "exclude_event_types": ["invoice.draft"],
        "filter": {"$or": [{"n": {"$gte": 3}}, {"$headers.content-type": "text/plain"}]},
    });
    json_of(&api.post(ENDPOINTS, "", asked.to_string().as_bytes()), 201);
    let disable = format!("{ENDPOINTS}/puller/disable");
    json_of(&api.post(&disable, "", b"{}"), 200);
}

fn publish(api: Api, tenant: &str, event_type: &str, id: &str, body: &str) {
    let headers = format!("webhook-type: {event_type}\r\nwebhook-id: {id}\r\n");
    let path = format!("/v1/tenants/{tenant}/events");
    assert_eq!(api.post(&path, &headers, body.as_bytes()).status, 202);
}

/// Events `0..count` of a kind the endpoint wants, and as many that it does not.
fn publish_some(api: Api, count: usize) {
    for number in 0..count {
        let wanted = format!("{{\"n\": {}}}", number + 3);
        publish(api, "acme", "invoice.paid", &format!("e{number}"), &wanted);
        let (tenant, event_type, body) = match number % 4 {
            0 => ("acme", "invoice.paid", "{\"n\": 2}"),
            1 => ("acme", "invoice.draft", "{\"n\": 7}"),
            2 => ("acme", "order.made", "{\"n\": 7}"),
            _ => ("other", "invoice.paid", "{\"n\": 7}"),
        };
        publish(api, tenant, event_type, &format!("not-{number}"), body);
    }
}

/// Page after page; answers all events and the last cursor.
fn pull_all(api: Api, from: &str, limit: usize) -> (Vec<Value>, String) {
    let (mut all, mut from) = (Vec::new(), from.to_owned());
    loop {
        let page = get(api, &format!("{STREAM}?limit={limit}&{from}"));
        assert_eq!(page["truncated"], false);
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= limit, "{page}");
        all.extend(data.iter().cloned());
        let cursor = page["next_cursor"].as_str().unwrap().to_owned();
        if page["has_more"] == false {
            return (all, cursor);
        }
        from = format!("cursor={cursor}");
    }
}

fn ids(events: &[Value]) -> Vec<String> {
    let ids = events.iter().map(|event| event["id"].as_str().unwrap());
    let mut ids: Vec<_> = ids.map(ToOwned::to_owned).collect();
    ids.sort_unstable();
    ids
}

/// All that is wanted comes once, in the order of each partition, however small
/// the pages are.
fn everything_is_pulled_once(config: &str) {
    const EVENTS: usize = 30;
    let receiver = Receiver::start(200);
    let server = Server::start(config);
    let api = server.api;
    puller(api, &format!("http://{}/hook", receiver.at));
    let before = get(api, STREAM);
    assert_eq!(
        (&before["data"], &before["has_more"]),
        (&json!([]), &json!(false))
    );
    publish_some(api, EVENTS);
    let mut wanted: Vec<_> = (0..EVENTS).map(|number| format!("e{number}")).collect();
    wanted.sort_unstable();
    let from = format!("cursor={}", before["next_cursor"].as_str().unwrap());
    for (from, limit) in [(&*from, 1), (&from, 7), ("since=1h", 1_000)] {
        let (all, cursor) = pull_all(api, from, limit);
        assert_eq!(ids(&all), wanted, "{from}");
        let mut reached = BTreeMap::new();
        for event in &all {
            let origin = &event["origin"];
            let place = (origin["topic"].to_string(), origin["partition"].to_string());
            let offset = origin["offset"].as_u64().unwrap();
            let before = reached.insert(place, offset);
            assert!(before < Some(offset), "{all:?}");
        }
        assert!(reached.len() > 1, "more than one partition");
        let rest = get(api, &format!("{STREAM}?cursor={cursor}"));
        assert_eq!(rest["data"], json!([]));
    }
    // The same cursor again is the same page again.
    let page = format!("{STREAM}?limit=5&{from}");
    assert_eq!(get(api, &page)["data"], get(api, &page)["data"]);
    assert_eq!(receiver.taken().len(), 0, "nothing is POSTed");
    server.stop();
}

#[test]
fn everything_is_pulled_once_on_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    everything_is_pulled_once(&format!("{}{SETTINGS}", embedded(dir.path())));
}

#[tokio::test]
async fn everything_is_pulled_once_on_kafka() {
    let Some(bootstrap) = broker() else { return };
    let (prefix, source) = (unique("pull"), unique("events"));
    let settings = SETTINGS.replace("[topics]\n", &format!("[topics]\nprefix = \"{prefix}\"\n"));
    let config = format!(
        "log = \"kafka://{bootstrap}\"\nshards = 1\n[ingest]\ntopics = [\"{source}\"]\n\
         start = \"latest\"\n{SECRETS}{settings}"
    );
    make(bootstrap, &Config::parse(&config).unwrap()).await;
    let pulled = tokio::task::spawn_blocking(move || everything_is_pulled_once(&config));
    pulled.await.unwrap();
}

#[test]
fn a_call_waits_for_what_comes_and_ends_when_the_instance_stops() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{SETTINGS}", embedded(dir.path())));
    let api = server.api;
    puller(api, "https://example.com/hook");
    let cursor = get(api, STREAM)["next_cursor"].as_str().unwrap().to_owned();
    let wait = format!("{STREAM}?cursor={cursor}&wait=30s");
    let began = Instant::now();
    let waiting = std::thread::spawn(move || get(api, &wait));
    // What it does not want does not end its waiting.
    publish(api, "acme", "order.made", "not", "{\"n\": 7}");
    std::thread::sleep(Duration::from_secs(1));
    assert!(!waiting.is_finished());
    let note = "webhook-type: invoice.sent\r\nwebhook-id: n1\r\n\
                content-type: text/plain\r\n";
    assert_eq!(
        api.post("/v1/tenants/acme/events", note, b"hello").status,
        202
    );
    let page = waiting.join().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    let event = &page["data"][0];
    let wanted = [
        ("id", "n1"),
        ("type", "invoice.sent"),
        ("content_type", "text/plain"),
        ("data_base64", "aGVsbG8="),
    ];
    for (name, value) in wanted {
        assert_eq!(event[name], value, "{page}");
    }
    assert!(event.get("data").is_none(), "{page}");

    // A time that is over is answered too.
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    let began = Instant::now();
    let none = get(api, &format!("{STREAM}?cursor={cursor}&wait=700ms"));
    assert_eq!(
        (&none["data"], &none["has_more"]),
        (&json!([]), &json!(false))
    );
    assert!(began.elapsed() >= Duration::from_millis(700));

    let wait = format!("{STREAM}?cursor={cursor}&wait=30s");
    let waiting = std::thread::spawn(move || get(api, &wait));
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    server.stop();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(waiting.join().unwrap()["data"], json!([]));
}

#[test]
fn so_many_wait_and_give_their_place_back_when_they_hang_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{SETTINGS}", embedded(dir.path())));
    let api = server.api;
    puller(api, "https://example.com/hook");
    let wait = format!("{STREAM}?wait=30s");
    let begin = |_| api.begin("GET", &wait, "", b"");
    // Whichever come first.
    let all: Vec<_> = (0..2 * PULLS_TENANT_MAX).map(begin).collect();
    let is_answered = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream.peek(&mut [0]).is_ok()
    };
    eventually("those that are too many are answered", || {
        all.iter().filter(|stream| is_answered(stream)).count() == PULLS_TENANT_MAX
    });
    let refused = api.call("GET", STREAM, "", b"");
    refused.problem(503, "too_many_pulls");
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    let waiting = all.iter().filter(|stream| !is_answered(stream)).count();
    assert_eq!(waiting, PULLS_TENANT_MAX);
    drop(all);
    eventually("their places are free", || {
        api.call("GET", STREAM, "", b"").status == 200
    });
    server.stop();
}

#[test]
fn what_cannot_be_pulled_is_refused_by_name_and_a_portal_token_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (server, key) = access::start(dir.path());
    let asked = json!({"url": "https://example.com/", "uid": "puller"});
    json_of(&call(&server, &key, "POST", ENDPOINTS, &asked), 201);
    let sessions = "/v1/tenants/acme/portal_sessions";
    let token = |capability: &str| {
        let asked = json!({"capabilities": [capability]});
        made(&server, &key, sessions, &asked)
    };
    let (reads, publishes) = (
        token("read"),
        made(
            &server,
            &key,
            "/v1/keys",
            &json!({"scopes": ["publish"], "tenant": "acme"}),
        ),
    );
    let page = json_of(&call(&server, &reads, "GET", STREAM, &Value::Null), 200);
    call(&server, &publishes, "GET", STREAM, &Value::Null).problem(403, "forbidden");
    let cursor = page["next_cursor"].as_str().unwrap();
    for (query, param) in [
        (format!("cursor={cursor}0"), "cursor"),
        ("cursor=x".to_owned(), "cursor"),
        (format!("cursor={cursor}&since=1h"), "since"),
        ("since=2999-01-01T00:00:00Z".to_owned(), "since"),
        ("wait=31s".to_owned(), "wait"),
        ("wait=5".to_owned(), "wait"),
        ("limit=0".to_owned(), "limit"),
        ("limit=1001".to_owned(), "limit"),
    ] {
        let path = format!("{STREAM}?{query}");
        let answer = call(&server, &reads, "GET", &path, &Value::Null);
        assert_eq!(answer.problem(422, "invalid").0, param, "{query}");
    }
    let nobody = "/v1/tenants/acme/endpoints/nobody/stream";
    call(&server, &reads, "GET", nobody, &Value::Null).problem(404, "not_found");
    server.stop();
}

#[test]
fn the_command_prints_a_line_an_event_and_says_where_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{SETTINGS}", embedded(dir.path())));
    let api = server.api;
    puller(api, "https://example.com/hook");
    publish_some(api, 9);
    let address = format!("http://{}", api.0);
    let words = [
        "endpoints",
        "pull",
        "--tenant",
        "acme",
        "puller",
        "--server",
        &address,
    ];
    let run = |more: &[&str]| {
        let output = posthaste(&[&words, more].concat())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        let cursor = told.trim().strip_prefix("cursor: ").unwrap().to_owned();
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        (lines.collect::<Vec<Value>>(), cursor)
    };
    let (mut all, cursor) = run(&["--since", "1h", "--limit", "4"]);
    assert_eq!(all.len(), 4);
    let (rest, cursor) = run(&["--cursor", &cursor]);
    all.extend(rest);
    assert_eq!(
        ids(&all),
        (0..9).map(|n| format!("e{n}")).collect::<Vec<_>>()
    );

    let words = [&words[..], &["--follow", "--cursor", &cursor]].concat();
    let mut follower = posthaste(&words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    publish(api, "acme", "invoice.paid", "late", "{\"n\": 3}");
    let mut line = String::new();
    let mut printed = BufReader::new(follower.stdout.take().unwrap());
    printed.read_line(&mut line).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["id"], &line["data"]),
        (&json!("late"), &json!({"n": 3}))
    );
    let interrupted = std::process::Command::new("kill")
        .args(["-s", "INT", &follower.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    let mut told = String::new();
    follower
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert!(follower.wait().unwrap().success(), "{told}");
    let cursor = told.trim().strip_prefix("cursor: ").unwrap();
    assert_eq!(run(&["--cursor", cursor]).0, [json!(null); 0]);
    server.stop();
}

/// The API alone over a log whose clock can be put forward.
async fn aging(dir: &std::path::Path) -> (EmbeddedLog, Api, Arc<AtomicU64>, Config) {
    let (clock, skipped) = (Clock::start(), Arc::new(AtomicU64::new(0)));
    let (stamps, ahead) = (clock.clone(), Arc::clone(&skipped));
    let now = move || {
        let ahead = Duration::from_millis(ahead.load(Ordering::Relaxed));
        stamps.now().after(ahead)
    };
    let log = EmbeddedLog::open(dir, Arc::new(now)).unwrap();
    let config = Config::default();
    let mut specs = config.topics.specs();
    specs.push(config.topics.source_spec("events"));
    log.create(&specs).await.unwrap();
    let (stop, shared): (_, Arc<dyn Log>) = (CancellationToken::new(), Arc::new(log.clone()));
    let endpoints = Endpoints::open(Arc::clone(&shared), &config, stop.clone());
    let routes = Routes::new(Parts {
        endpoints: endpoints.await.unwrap(),
        decoder: Decoder::new(&config).unwrap(),
        egress: Arc::new(Egress::new(EgressSettings::from(&config.egress)).unwrap()),
        vault: Arc::new(Vault::beside(dir).unwrap()),
        event_partitions: config.topics.source_partitions,
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        log: shared,
        config: config.clone(),
        clock,
        stop,
    })
    .routes();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = Api(listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, routes).await });
    (log, api, skipped, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_grew_too_old_under_a_cursor_is_told_and_the_rest_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (log, api, skipped, config) = aging(dir.path()).await;
    let places: Vec<_> = (0..config.topics.source_partitions)
        .map(|partition| TopicPartition {
            topic: config.ingest.topics[0].as_str().into(),
            partition,
        })
        .collect();
    let asked = tokio::task::spawn_blocking(move || {
        let asked = json!({"url": "https://example.com/", "uid": "puller"});
        json_of(&api.post(ENDPOINTS, "", asked.to_string().as_bytes()), 201);
        let before = get(api, STREAM)["next_cursor"].as_str().unwrap().to_owned();
        publish_some(api, 4);
        let after = get(api, STREAM)["next_cursor"].as_str().unwrap().to_owned();
        (before, after)
    });
    let (before, after) = asked.await.unwrap();
    let mut ends = Vec::new();
    for tp in &places {
        ends.push(log.bounds(tp).await.unwrap().1);
    }
    let retention = log
        .describe(&places[0].topic)
        .await
        .unwrap()
        .retention
        .unwrap();
    let ahead = u64::try_from(retention.as_millis()).unwrap() + 3_600_000;
    skipped.store(ahead, Ordering::Relaxed);
    for (tp, end) in places.iter().zip(ends) {
        let began = Instant::now();
        while log.bounds(tp).await.unwrap().0 < end {
            log.verify(&[]).await.unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "nothing was trimmed"
            );
        }
    }
    let asked = tokio::task::spawn_blocking(move || {
        publish(api, "acme", "a", "young", "{}");
        for (cursor, truncated) in [(&before, true), (&after, false)] {
            let page = get(api, &format!("{STREAM}?cursor={cursor}&wait=30s"));
            assert_eq!(page["truncated"], truncated, "{page}");
            assert_eq!(ids(page["data"].as_array().unwrap()), ["young"]);
            // It is said once, unless it is asked again.
            let next = page["next_cursor"].as_str().unwrap();
            assert_eq!(
                get(api, &format!("{STREAM}?cursor={next}"))["truncated"],
                false
            );
        }
    });
    asked.await.unwrap();
}
