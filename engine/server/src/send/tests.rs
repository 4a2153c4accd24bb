//! Attempts against real receivers on this host: well-behaved ones here,
//! hostile ones and TLS in files of their own.

mod hostile;
mod http2;
mod tls;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::{Event, JSON, Origin};
use posthaste_core::limits::{CONNECTION_AGE_MAX, CONNECTION_ATTEMPTS_MAX, EXCERPT_BYTES_MAX};
use posthaste_core::outcome::{Cause, Verdict};
use posthaste_core::signature::{Verifier, VerifyingKey};
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Runs a test as a shard runs its tasks.
fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// A receiver: where it listens, and how many connections it took.
struct Receiver {
    at: SocketAddr,
    connections: Rc<Cell<usize>>,
}

impl Receiver {
    /// Gives each connection to `serve`.
    async fn start<F>(serve: impl Fn(TcpStream) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            at: listener.local_addr().unwrap(),
            connections: Rc::default(),
        };
        let connections = Rc::clone(&receiver.connections);
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.set(connections.get() + 1);
                tokio::task::spawn_local(serve(stream));
            }
        });
        receiver
    }

    /// Gives the same answer to each of the first `count` requests of a
    /// connection, keeps what it got, then closes.
    async fn answering(answer: &'static [u8], count: usize) -> (Self, Rc<RefCell<Vec<Got>>>) {
        let got: Rc<RefCell<Vec<Got>>> = Rc::default();
        let seen = Rc::clone(&got);
        let receiver = Self::start(move |mut stream| {
            let seen = Rc::clone(&seen);
            async move {
                for _ in 0..count {
                    let Some(request) = Got::read(&mut stream).await else {
                        return;
                    };
                    seen.borrow_mut().push(request);
                    stream.write_all(answer).await.unwrap();
                }
            }
        });
        (receiver.await, got)
    }

    fn url(&self) -> String {
        format!("http://{}/hook?key=1", self.at)
    }
}

/// A request as it came over the wire.
struct Got {
    head: String,
    body: Vec<u8>,
}

impl Got {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let mut body = bytes.split_off(end + 4);
        let mut got = Self {
            head: String::from_utf8(bytes).unwrap(),
            body: Vec::new(),
        };
        let length: usize = got.header("content-length").unwrap().parse().unwrap();
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        got.body = body;
        Some(got)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split("\r\n").skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn verify(&self, secret: &str) {
        let key = VerifyingKey::parse(secret).unwrap();
        Verifier::new(vec![key])
            .verify(
                self.header("webhook-id"),
                self.header("webhook-timestamp"),
                self.header("webhook-signature"),
                &self.body,
                NOW,
            )
            .unwrap();
    }
}

fn open_settings() -> EgressSettings {
    EgressSettings {
        allow_http: true,
        allow_private_names: true,
        allow: vec!["127.0.0.0/8".into(), "::1/128".into()],
        ..EgressSettings::default()
    }
}

fn open_egress() -> Egress {
    Egress::new(open_settings()).unwrap()
}

fn endpoint(url: &str, change: impl FnOnce(&mut proto::Endpoint)) -> Arc<Endpoint> {
    let mut record = proto::Endpoint {
        id: vec![7; 16].into(),
        tenant: "acme".into(),
        url: url.into(),
        secrets: vec![secret(SECRET, 0, 0)],
        ..Default::default()
    };
    change(&mut record);
    Arc::new(Endpoint::from_proto(record).unwrap())
}

fn secret(text: &str, not_before_ms: u64, expires_at_ms: u64) -> proto::Secret {
    proto::Secret {
        id: "s".into(),
        text: text.into(),
        not_before_ms,
        expires_at_ms,
        ..proto::Secret::default()
    }
}

fn event(body: impl Into<Bytes>) -> Event {
    Event {
        id: "evt_1".into(),
        tenant: "acme".into(),
        event_type: "invoice.paid".into(),
        content_type: JSON,
        body: body.into(),
        ordering_key: Bytes::new(),
        origin: Origin {
            topic: "events".into(),
            partition: 0,
            offset: 0,
            timestamp: NOW,
        },
    }
}

/// Its first attempt.
fn first(event: &Event) -> Attempt<'_> {
    Attempt {
        event,
        retries: 0,
        last_cause: None,
        now: NOW,
    }
}

fn soon(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

async fn open(egress: &Egress, prepared: &Prepared) -> Result<Connection, Failure> {
    Connection::open(egress, prepared, soon(10_000)).await
}

async fn send(connection: &mut Connection, prepared: &Prepared) -> Option<Attempted> {
    let event = event("{}");
    connection
        .attempt(prepared, first(&event), soon(10_000))
        .await
}

/// Why no connection comes about.
async fn refusal(egress: &Egress, url: &str) -> Cause {
    let prepared = Prepared::new(&endpoint(url, |_| ()), egress, NOW).unwrap();
    let opened = open(egress, &prepared).await;
    opened.err().expect("no connection").cause()
}

#[test]
fn a_request_carries_these_headers_and_a_signature() {
    local(async {
        let (receiver, got) = Receiver::answering(OK, 1).await;
        let egress = open_egress();
        let endpoint = endpoint(&receiver.url(), |record| {
            record.headers = vec![proto::Header {
                name: "X-Api-Key".into(),
                value: Bytes::from_static(b"k 1"),
                sealed: None,
            }];
        });
        let prepared = Prepared::new(&endpoint, &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        let attempted = send(&mut connection, &prepared).await.unwrap();
        assert_eq!(attempted.outcome.verdict, Verdict::Delivered);
        assert_eq!(attempted.outcome.status, Some(200));
        assert_eq!(attempted.excerpt, "ok");

        let got = got.take().remove(0);
        got.verify(SECRET);
        assert_eq!(got.body, b"{}");
        let (line, headers) = got.head.trim_end().split_once("\r\n").unwrap();
        assert_eq!(line, "POST /hook?key=1 HTTP/1.1");
        let signature = got.header("webhook-signature").unwrap();
        let mut headers: Vec<&str> = headers.split("\r\n").collect();
        headers.sort_unstable();
        assert_eq!(
            headers,
            [
                "content-length: 2",
                "content-type: application/json",
                &format!("host: {}", receiver.at),
                &format!("user-agent: posthaste/{}", env!("CARGO_PKG_VERSION")),
                "webhook-id: evt_1",
                &format!("webhook-signature: {signature}"),
                "webhook-timestamp: 1750000000",
                "x-api-key: k 1",
            ]
        );
    });
}

#[test]
fn a_body_of_any_size_arrives_byte_for_byte() {
    local(async {
        let (receiver, got) = Receiver::answering(OK, 10).await;
        let egress = open_egress();
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        for size in [0, 1, 16 * 1024, 16 * 1024 + 1, 1024 * 1024] {
            let body: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let event = event(body.clone());
            let attempt = connection.attempt(&prepared, first(&event), soon(10_000));
            assert_eq!(attempt.await.unwrap().outcome.status, Some(200), "{size}");
            assert!(connection.reusable(Instant::now()), "{size}");
            let got = got.borrow_mut().pop().unwrap();
            got.verify(SECRET);
            assert!(got.body == body, "{size}");
        }
        assert_eq!(receiver.connections.get(), 1);
    });
}

#[test]
fn a_connection_is_used_again_until_the_peer_closes_it() {
    local(async {
        let (receiver, _) = Receiver::answering(OK, 3).await;
        let egress = open_egress();
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        assert!(connection.share().is_none(), "HTTP/1.1 is not shared");
        for _ in 0..2 {
            assert!(connection.reusable(Instant::now()));
            assert!(send(&mut connection, &prepared).await.is_some());
            let closed = timeout(Duration::from_millis(20), connection.closed());
            closed.await.expect_err("still open");
        }
        assert!(send(&mut connection, &prepared).await.is_some());
        let closed = timeout(Duration::from_secs(10), connection.closed());
        closed.await.expect("the peer closes after three");
        assert!(!connection.reusable(Instant::now()));
        assert!(send(&mut connection, &prepared).await.is_none());
        assert_eq!(receiver.connections.get(), 1);
    });
}

#[test]
fn an_attempt_on_a_closed_connection_does_not_count() {
    local(async {
        let (receiver, got) = Receiver::answering(OK, 1).await;
        let egress = open_egress();
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        assert!(send(&mut connection, &prepared).await.is_some());
        // Nobody watches it while the peer closes it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(send(&mut connection, &prepared).await.is_none());
        assert!(!connection.reusable(Instant::now()));
        assert_eq!(got.borrow().len(), 1);
    });
}

#[test]
fn a_connection_wears_out() {
    local(async {
        let (receiver, _) = Receiver::answering(OK, 2_000).await;
        let egress = open_egress();
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        for _ in 0..CONNECTION_ATTEMPTS_MAX {
            assert!(connection.reusable(Instant::now()));
            assert!(send(&mut connection, &prepared).await.is_some());
        }
        assert!(!connection.reusable(Instant::now()));

        let mut aged = open(&egress, &prepared).await.unwrap();
        assert!(send(&mut aged, &prepared).await.is_some());
        tokio::time::pause();
        let minute = Duration::from_secs(60);
        tokio::time::advance(CONNECTION_AGE_MAX - minute).await;
        assert!(aged.reusable(Instant::now()));
        tokio::time::advance(minute).await;
        assert!(!aged.reusable(Instant::now()));
    });
}

#[test]
fn an_excerpt_is_the_beginning_of_a_body() {
    local(async {
        let long = format!(
            "HTTP/1.1 500 No\r\ncontent-length: 5000\r\n\r\n{}",
            "x".repeat(5_000)
        );
        let (receiver, _) = Receiver::answering(long.leak().as_bytes(), 2).await;
        let egress = open_egress();
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        let attempted = send(&mut connection, &prepared).await.unwrap();
        assert_eq!(attempted.outcome.cause, Some(Cause::Http5xx));
        assert_eq!(attempted.excerpt, vec![b'x'; EXCERPT_BYTES_MAX]);
        assert!(connection.reusable(Instant::now()), "read to its end");
    });
}

#[test]
fn the_wall_stands_before_addresses_and_names() {
    local(async {
        let (receiver, _) = Receiver::answering(OK, 1).await;
        let closed = EgressSettings {
            allow: Vec::new(),
            ..open_settings()
        };
        let denied = EgressSettings {
            allow: vec![format!(
                "127.0.0.1/32:{}",
                receiver.at.port().wrapping_add(1)
            )],
            ..open_settings()
        };
        for settings in [closed, denied] {
            let egress = Egress::new(settings).unwrap();
            let port = receiver.at.port();
            for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::1]"] {
                let url = format!("http://{host}:{port}/");
                assert_eq!(
                    refusal(&egress, &url).await,
                    Cause::BlockedAddress,
                    "{host}"
                );
            }
        }
        assert_eq!(receiver.connections.get(), 0);

        let url = format!("http://localhost:{}/", receiver.at.port());
        let egress = open_egress();
        let prepared = Prepared::new(&endpoint(&url, |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        assert!(send(&mut connection, &prepared).await.is_some());
    });
}

#[test]
fn no_connection_has_its_cause() {
    local(async {
        let egress = open_egress();
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}/", unused.local_addr().unwrap());
        drop(unused);
        assert_eq!(refusal(&egress, &nobody).await, Cause::ConnectionRefused);
        // Which of the two depends on whether a resolver can be reached.
        let cause = refusal(&egress, "http://no-such-host.invalid/").await;
        assert!(matches!(cause, Cause::DnsNxdomain | Cause::DnsError));
    });
}

#[test]
fn urls_are_judged_as_the_api_does() {
    let egress = Egress::new(EgressSettings {
        allow: vec!["10.1.0.0/16:8443".into()],
        ..EgressSettings::default()
    });
    let egress = egress.unwrap();
    let refused = |url| egress.check_url(url).expect_err(url);
    assert_eq!(egress.check_url("https://hooks.example.com/a"), Ok(()));
    assert_eq!(egress.check_url("https://10.1.2.3:8443/a"), Ok(()));
    assert!(refused("https://10.1.2.3/a").contains("public addresses"));
    assert!(refused("https://[fd00::1]/a").contains("public addresses"));
    assert!(refused("http://hooks.example.com/a").contains("expected `https`"));
    assert!(refused("https://localhost/a").contains("single label"));
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let refused = |change: fn(&mut EgressSettings)| {
        let mut settings = open_settings();
        change(&mut settings);
        let refused = Egress::new(settings).err().expect("refused");
        refused.to_string()
    };
    let text = refused(|s| s.allow = vec!["10.0.0.1/8".into()]);
    assert!(
        text.contains("egress.allow") && text.contains("10.0.0.0/8"),
        "{text}"
    );
    let text = refused(|s| s.deny = vec!["example.com".into()]);
    assert!(text.contains("egress.deny"), "{text}");
    let text = refused(|s| s.ca_file = Some("/no/such/file".into()));
    assert!(text.contains("egress.ca_file: cannot read"), "{text}");
    let text = refused(|s| s.ca_file = Some("/dev/null".into()));
    assert!(text.contains("holds no certificate"), "{text}");
}

#[test]
fn every_live_secret_signs_and_no_other() {
    local(async {
        let now = NOW.as_millis();
        let (receiver, got) = Receiver::answering(OK, 1).await;
        let egress = open_egress();
        let expired = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let endpoint = endpoint(&receiver.url(), |record| {
            record.secrets = vec![
                secret(SECRET, now - 10, 0),
                secret(OLD_SECRET, 0, now + 1),
                secret(expired, 0, now),
            ];
        });
        let prepared = Prepared::new(&endpoint, &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        assert!(send(&mut connection, &prepared).await.is_some());
        let got = got.take().remove(0);
        got.verify(SECRET);
        got.verify(OLD_SECRET);
        let signatures = got.header("webhook-signature").unwrap();
        assert_eq!(signatures.split(' ').count(), 2, "{signatures}");
    });
}

#[test]
fn what_an_event_is_stands_in_headers_where_that_is_asked_for() {
    local(async {
        let (receiver, got) = Receiver::answering(OK, 2).await;
        let egress = open_egress();
        let endpoint = endpoint(&receiver.url(), |record| record.event_headers = true);
        let prepared = Prepared::new(&endpoint, &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        let event = event("{}");
        let second = Attempt {
            retries: 1,
            last_cause: Some(Cause::Http5xx),
            ..first(&event)
        };
        for (attempt, number, reason) in [
            (first(&event), "1", None),
            (second, "2", Some("http_error")),
        ] {
            let taken = connection.attempt(&prepared, attempt, soon(10_000)).await;
            assert_eq!(taken.unwrap().outcome.verdict, Verdict::Delivered);
            let request = got.borrow_mut().remove(0);
            assert_eq!(request.header("webhook-event-type"), Some("invoice.paid"));
            assert_eq!(request.header("webhook-attempt"), Some(number));
            assert_eq!(request.header("webhook-retry-reason"), reason);
        }
    });
}

#[test]
fn every_scheme_goes_out_by_its_own_headers() {
    local(async {
        let (receiver, got) = Receiver::answering(OK, 4).await;
        let egress = open_egress();
        for (scheme, secrets, names) in [
            (
                proto::SigningScheme::Stripe,
                ["whsec_new_secret", "whsec_test_secret"],
                ["webhook-id", "stripe-signature"].as_slice(),
            ),
            (
                proto::SigningScheme::Github,
                ["a new secret", "an old secret"],
                &[
                    "webhook-id",
                    "x-github-event",
                    "x-github-delivery",
                    "x-github-hook-id",
                    "x-hub-signature-256",
                    "x-hub-signature-256-previous",
                ],
            ),
            (
                proto::SigningScheme::Slack,
                ["a new secret", "an old secret"],
                &[
                    "webhook-id",
                    "x-slack-request-timestamp",
                    "x-slack-signature",
                    "x-slack-retry-num",
                    "x-slack-retry-reason",
                ],
            ),
        ] {
            let endpoint = endpoint(&receiver.url(), |record| {
                record.signing_scheme = scheme.into();
                record.secrets = secrets.map(|text| secret(text, 0, 0)).to_vec();
            });
            let prepared = Prepared::new(&endpoint, &egress, NOW).unwrap();
            let mut connection = open(&egress, &prepared).await.unwrap();
            let event = event("{}");
            let retry = Attempt {
                retries: 2,
                last_cause: Some(Cause::Http5xx),
                ..first(&event)
            };
            let taken = connection.attempt(&prepared, retry, soon(10_000)).await;
            assert_eq!(taken.unwrap().outcome.verdict, Verdict::Delivered);
            let request = got.borrow_mut().remove(0);
            let lines = request.head.split("\r\n");
            let sent: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
            let ours: Vec<_> = sent
                .iter()
                .map(|(name, _)| *name)
                .filter(|name| name.starts_with("webhook-") || endpoint.scheme.owns_header(name))
                .collect();
            assert_eq!(ours, names);
            match scheme {
                proto::SigningScheme::Stripe => {
                    let value = request.header("stripe-signature").unwrap();
                    assert_eq!(value.matches(",v1=").count(), 2, "{value}");
                }
                proto::SigningScheme::Github => {
                    assert_eq!(request.header("x-github-event"), Some("invoice.paid"));
                    let hook = request.header("x-github-hook-id").unwrap();
                    assert_eq!(hook, endpoint.id.to_string());
                }
                _ => {
                    assert_eq!(request.header("x-slack-retry-num"), Some("2"));
                    assert_eq!(request.header("x-slack-retry-reason"), Some("http_error"));
                }
            }
        }
    });
}

#[test]
fn prepared_ends_when_a_secret_comes_or_goes() {
    let egress = open_egress();
    let at = Timestamp::from_millis;
    let endpoint = endpoint("https://example.com/", |record| {
        record.secrets = vec![secret(SECRET, 200, 0), secret(OLD_SECRET, 100, 300)];
    });
    let valid_until = |now| {
        let prepared = Prepared::new(&endpoint, &egress, at(now));
        prepared.map(|prepared| prepared.valid_until())
    };
    let unsigned = Failure::of(Cause::InvalidEndpoint);
    assert_eq!(valid_until(99).err(), Some(unsigned));
    assert_eq!(valid_until(100), Ok(Some(at(200))));
    assert_eq!(valid_until(200), Ok(Some(at(300))));
    assert_eq!(valid_until(300), Ok(None));
}

#[test]
fn an_endpoint_that_cannot_be_used_is_not_sent_to() {
    let strict = Egress::new(EgressSettings::default()).unwrap();
    let refused = |endpoint: Arc<Endpoint>| {
        let prepared = Prepared::new(&endpoint, &strict, NOW);
        prepared.err().expect("refused").cause()
    };
    let in_the_clear = endpoint("http://example.com/", |_| ());
    assert_eq!(refused(in_the_clear), Cause::InvalidEndpoint);
    let no_key = endpoint("https://example.com/", |record| {
        record.secrets = vec![secret("whsec_short", 0, 0)];
    });
    assert_eq!(refused(no_key), Cause::InvalidEndpoint);
}

#[test]
fn a_single_attempt_is_made_within_its_time_and_over_http1() {
    local(async {
        let (receiver, got) = Receiver::answering(OK, 1).await;
        let egress = open_egress();
        let event = event("{}");
        let asked = endpoint(&receiver.url(), |record| record.http2 = true);
        let within = Duration::from_secs(10);
        let attempted = once(&egress, &asked, first(&event), within).await;
        assert_eq!(attempted.outcome.verdict, Verdict::Delivered);
        assert_eq!(attempted.excerpt, "ok");
        got.take().remove(0).verify(SECRET);

        let hangs = Receiver::start(|stream| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream);
        });
        let hangs = endpoint(&hangs.await.url(), |_| ());
        let began = Instant::now();
        let attempted = once(&egress, &hangs, first(&event), Duration::from_millis(50)).await;
        assert_eq!(attempted.outcome.cause, Some(Cause::TimeoutHeaders));
        assert!(began.elapsed() < hangs.timeout);
        // The same wall as everywhere.
        let walled = Egress::new(EgressSettings {
            allow: Vec::new(),
            ..open_settings()
        });
        let attempted = once(&walled.unwrap(), &asked, first(&event), within).await;
        assert_eq!(attempted.outcome.cause, Some(Cause::BlockedAddress));
        assert_eq!(receiver.connections.get(), 1);
    });
}
