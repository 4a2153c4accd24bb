//! What a request to the API can have wrong: each answer is one problem
//! (RFC 9457) with a code, and the field where one is at fault.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusBuilder;
use posthaste::api::{Api as Routes, Parts};
use posthaste::clock::Clock;
use posthaste::config::Config;
use posthaste::control::Endpoints;
use posthaste::ingest::decode::Decoder;
use posthaste::log::embedded::EmbeddedLog;
use posthaste::log::{
    AppendError, GroupConsumer, Log, LogError, NewRecord, Offset, Record, Start, TopicDescription,
    TopicPartition, TopicSpec,
};
use posthaste::send::{Egress, EgressSettings};
use posthaste::vault::Vault;
use posthaste_core::limits::{BODY_BYTES_MAX, REQUEST_BYTES_MAX};
use posthaste_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::program::{Api, Server, embedded, eventually, posthaste};

const EVENTS: &str = "/v1/tenants/acme/events";
const TYPE: &str = "webhook-type: order.made\r\n";

#[test]
fn every_bad_request_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    let api = server.api;

    for (path, bound) in [("a%20b", "without `/`"), ("a%2Fb", "without `/`")] {
        let answer = api.post(&format!("/v1/tenants/{path}/events"), TYPE, b"{}");
        let (param, detail) = answer.problem(422, "invalid");
        assert_eq!(param, "tenant");
        assert!(detail.contains(bound), "{detail}");
    }
    let long = format!("/v1/tenants/{}/events", "x".repeat(129));
    let (param, detail) = api.post(&long, TYPE, b"{}").problem(422, "invalid");
    assert_eq!(param, "tenant");
    assert!(detail.contains("129 bytes, at most 128"), "{detail}");
    let (_, detail) = api
        .post("/v1/tenants/%ff/events", TYPE, b"{}")
        .problem(400, "malformed");
    assert!(
        detail.contains("path") && detail.contains("UTF-8"),
        "{detail}"
    );

    // Another version of the API is not spoken, and nothing is done in it.
    let known = "webhook-api-version: 2026-11-26\r\n";
    let other = "webhook-api-version: 2027-01-01\r\n";
    for asked in [other.to_owned(), format!("{known}{other}")] {
        let headers = format!("{TYPE}{asked}");
        let (param, detail) = api
            .post(EVENTS, &headers, b"{}")
            .problem(400, "unknown_version");
        assert_eq!(param, "webhook-api-version");
        assert!(detail.contains("`2026-11-26`"), "{detail}");
    }
    let spoken = api.call("GET", EVENTS, known, b"");
    assert_eq!(spoken.status, 200, "{}", spoken.text);
    assert!(spoken.head.contains(known.trim_end()), "{}", spoken.head);

    // Without a header that routes it, a body is an envelope.
    let (param, detail) = api
        .post(EVENTS, "", b"{\"data\": 1}")
        .problem(422, "invalid");
    assert_eq!(param, "type");
    assert!(
        detail.contains("header `webhook-type`") && detail.contains("`/type`"),
        "{detail}"
    );
    let (param, detail) = api
        .post(EVENTS, "", b"{\"type\": \"a\"}")
        .problem(422, "invalid");
    assert_eq!(
        (&*param, detail.contains("`/data`")),
        ("body", true),
        "{detail}"
    );
    let (_, detail) = api.post(EVENTS, "", b"{").problem(400, "malformed");
    assert!(detail.contains("not JSON"), "{detail}");
    let odd = format!("{TYPE}webhook-id: a.b\r\n");
    let (param, detail) = api.post(EVENTS, &odd, b"{}").problem(422, "invalid");
    assert_eq!(
        (&*param, detail.contains("without `.`")),
        ("id", true),
        "{detail}"
    );
    let key = format!("{TYPE}idempotency-key: {}\r\n", "k".repeat(256));
    let (param, detail) = api.post(EVENTS, &key, b"{}").problem(422, "invalid");
    assert_eq!(param, "idempotency-key");
    assert!(detail.contains("1 to 255"), "{detail}");

    api.call("GET", "/v2/events", "", b"")
        .problem(404, "not_found");
    api.call("DELETE", "/v1/tenants/acme/endpoints/ep_1", "", b"")
        .problem(404, "not_found");
    let answer = api.call("PUT", EVENTS, TYPE, b"{}");
    let (_, detail) = answer.problem(405, "method_not_allowed");
    assert!(
        answer.head.contains("allow: get,head,post"),
        "{}",
        answer.head
    );
    assert!(
        detail.contains("`PUT`") && detail.contains("`allow`"),
        "{detail}"
    );

    // None of them was taken.
    assert_eq!(api.metric("posthaste_api_events_total"), None);
    server.stop();
}

#[test]
fn a_key_names_one_body() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    let api = server.api;
    let headers = format!("{TYPE}idempotency-key: k1\r\n");
    let first = api.post(EVENTS, &headers, b"{\"n\": 1}");
    assert_eq!(first.status, 202, "{}", first.text);
    let (param, detail) = api
        .post(EVENTS, &headers, b"{\"n\": 2}")
        .problem(422, "invalid");
    assert_eq!(
        (&*param, detail.contains("another body")),
        ("idempotency-key", true)
    );
    let again = api.post(EVENTS, &headers, b"{\"n\": 1}");
    assert_eq!((again.status, again.text), (202, first.text));
    // Another tenant's key is another key.
    let other = api.post("/v1/tenants/globex/events", &headers, b"{\"n\": 2}");
    assert_eq!(other.status, 202, "{}", other.text);
    // A refused request does not use its key up.
    let headers = "idempotency-key: k2\r\n";
    api.post(EVENTS, headers, b"{}").problem(422, "invalid");
    let taken = api.post(EVENTS, headers, br#"{"type": "a", "data": 1}"#);
    assert_eq!(taken.status, 202, "{}", taken.text);
    assert_eq!(api.metric("posthaste_api_events_total"), Some(3.0));
    server.stop();
}

#[test]
fn a_body_over_the_bound_is_413_with_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    let api = server.api;
    let fits = api.post(EVENTS, TYPE, &vec![b' '; BODY_BYTES_MAX]);
    assert_eq!(fits.status, 202, "{}", fits.text);
    for bytes in [
        BODY_BYTES_MAX + 1,
        REQUEST_BYTES_MAX + 1,
        8 * BODY_BYTES_MAX,
    ] {
        let answer = api.post(EVENTS, TYPE, &vec![b' '; bytes]);
        let (param, detail) = answer.problem(413, "payload_too_large");
        assert_eq!(param, "body");
        assert!(detail.contains("1048576"), "{detail}");
    }
    // The command line gets to hear the same, however much it sends.
    for bytes in [BODY_BYTES_MAX + 1, 8 * BODY_BYTES_MAX] {
        let file = super::program::file(&" ".repeat(bytes));
        let address = format!("http://{}", api.0);
        let words = [
            "publish", "--tenant", "acme", "--type", "a", "--server", &address,
        ];
        let said = posthaste(&words)
            .stdin(file.reopen().unwrap())
            .output()
            .unwrap();
        let why = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(1), "{why}");
        assert!(why.starts_with("posthaste: "), "{why}");
        assert!(why.contains("1048576"), "{why}");
        assert_eq!(why.lines().count(), 1, "{why}");
    }
    assert_eq!(api.metric("posthaste_api_events_total"), Some(1.0));
    server.stop();
}

/// A log that can stop to acknowledge.
struct Stalling {
    log: EmbeddedLog,
    stalls: AtomicBool,
    waiting: AtomicUsize,
}

impl Log for Stalling {
    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Vec<Result<Offset, AppendError>>> {
        Box::pin(async {
            if self.stalls.load(Ordering::SeqCst) {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            self.log.append(records).await
        })
    }

    fn append_audit(
        &self,
        records: Vec<NewRecord>,
    ) -> BoxFuture<'_, Vec<Result<Offset, AppendError>>> {
        self.log.append_audit(records)
    }

    fn join(
        &self,
        group: &str,
        topics: &[ByteString],
        start: Start,
    ) -> Result<Box<dyn GroupConsumer>, LogError> {
        self.log.join(group, topics, start)
    }

    fn follow(&self, topic: &ByteString) -> Result<Box<dyn GroupConsumer>, LogError> {
        self.log.follow(topic)
    }

    fn read<'a>(
        &'a self,
        tp: &'a TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<(Vec<Record>, Offset), LogError>> {
        self.log.read(tp, from, bytes_max)
    }

    fn bounds<'a>(
        &'a self,
        tp: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<(Offset, Offset), LogError>> {
        self.log.bounds(tp)
    }

    fn offset_at<'a>(
        &'a self,
        tp: &'a TopicPartition,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Offset, LogError>> {
        self.log.offset_at(tp, time)
    }

    fn describe<'a>(
        &'a self,
        topic: &'a ByteString,
    ) -> BoxFuture<'a, Result<TopicDescription, LogError>> {
        self.log.describe(topic)
    }

    fn verify<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<(), LogError>> {
        self.log.verify(topics)
    }

    fn create<'a>(
        &'a self,
        topics: &'a [TopicSpec],
    ) -> BoxFuture<'a, Result<Vec<ByteString>, LogError>> {
        self.log.create(topics)
    }
}

/// The API alone, over such a log.
async fn stalling(dir: &std::path::Path) -> (Arc<Stalling>, Api) {
    let clock = Clock::start();
    let stamps = clock.clone();
    let log = Arc::new(Stalling {
        log: EmbeddedLog::open(dir, Arc::new(move || stamps.now())).unwrap(),
        stalls: true.into(),
        waiting: 0.into(),
    });
    let config = Config::default();
    let mut specs = config.topics.specs();
    specs.push(config.topics.source_spec("events"));
    log.create(&specs).await.unwrap();
    let stop = CancellationToken::new();
    let endpoints = Endpoints::open(log.clone(), &config, stop.clone());
    let routes = Routes::new(Parts {
        endpoints: endpoints.await.unwrap(),
        decoder: Decoder::new(&config).unwrap(),
        egress: Arc::new(Egress::new(EgressSettings::from(&config.egress)).unwrap()),
        vault: Arc::new(Vault::beside(dir).unwrap()),
        event_partitions: config.topics.source_partitions,
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        log: log.clone(),
        config,
        clock,
        stop,
    })
    .routes();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = Api(listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, routes).await });
    (log, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_under_way_is_a_conflict_until_its_client_hangs_up() {
    let dir = tempfile::tempdir().unwrap();
    let (log, api) = stalling(dir.path()).await;
    let checked = tokio::task::spawn_blocking(move || {
        let headers = format!("{TYPE}idempotency-key: k\r\n");
        let mut first = api.begin("POST", EVENTS, &headers, b"{}");
        eventually("it waits for the log", || {
            log.waiting.load(Ordering::SeqCst) == 1
        });
        let (_, detail) = api
            .post(EVENTS, &headers, b"{}")
            .problem(409, "in_progress");
        assert!(detail.contains("under way"), "{detail}");
        first.set_nonblocking(true).unwrap();
        assert!(first.read(&mut [0]).is_err(), "the first has no answer yet");
        // Its client gives up; the log recovers: a repeat is taken.
        drop(first);
        log.stalls.store(false, Ordering::SeqCst);
        eventually("the key is free", || {
            api.post(EVENTS, &headers, b"{}").status == 202
        });
    });
    checked.await.unwrap();
}
