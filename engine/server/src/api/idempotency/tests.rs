use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::middleware::from_fn_with_state;
use axum::routing::post;
use posthaste_core::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::*;
use crate::clock::Clock;
use crate::config::Config;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Cleanup, Log};

/// A log, and instances that count how often a route of theirs was called, and
/// answer so once they may.
struct Fixture {
    dir: tempfile::TempDir,
    log: Arc<dyn Log>,
    config: Config,
    one: Instance,
}

struct Instance {
    router: Router,
    calls: Arc<AtomicUsize>,
    may: Arc<Semaphore>,
}

impl std::ops::Deref for Fixture {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.one
    }
}

impl Fixture {
    async fn new(may: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let log = EmbeddedLog::open(dir.path(), Arc::new(move || clock.now())).unwrap();
        let config = Config::default();
        let mut specs = config.topics.specs();
        for spec in &mut specs {
            // Every instance reads what is new before it is compacted.
            spec.cleanup = Cleanup::Delete {
                retention: Duration::from_secs(3_600),
            };
        }
        log.verify(&specs).await.unwrap();
        let log: Arc<dyn Log> = Arc::new(log);
        let one = Instance::open(&log, &config, dir.path(), may).await;
        Self {
            dir,
            log,
            config,
            one,
        }
    }

    async fn another(&self) -> Instance {
        Instance::open(&self.log, &self.config, self.dir.path(), 100).await
    }
}

impl Instance {
    #[expect(clippy::disallowed_methods, reason = "routes of the test's own")]
    async fn open(log: &Arc<dyn Log>, config: &Config, dir: &std::path::Path, may: usize) -> Self {
        let (calls, may) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(may)));
        let (counted, waits) = (Arc::clone(&calls), Arc::clone(&may));
        let work = async move |body: Bytes| {
            let call = counted.fetch_add(1, Ordering::Relaxed) + 1;
            waits.acquire().await.unwrap().forget();
            match body.as_ref() {
                b"broken" => Problem::unavailable("no").into_response(),
                b"forbidden" => Problem::forbidden("more").into_response(),
                b"wrong" => Problem::invalid("a", "expected b").into_response(),
                b"long" => vec![b'x'; ANSWER_BYTES_MAX + 1].into_response(),
                b"panics" => panic!("as it was told"),
                _ => (StatusCode::CREATED, format!("call {call}")).into_response(),
            }
        };
        let (two, events) = (work.clone(), work.clone());
        let stop = CancellationToken::new();
        let endpoints = Endpoints::open(Arc::clone(log), config, stop);
        let once = Arc::new(Once {
            endpoints: endpoints.await.unwrap(),
            vault: Arc::new(Vault::beside(dir).unwrap()),
        });
        let router = Router::new()
            .route("/v1/one", post(work))
            .route("/v1/two", post(two.clone()).put(two))
            .route(EVENTS, post(events))
            .layer(from_fn_with_state(once, once_with_caller));
        Self { router, calls, may }
    }

    async fn send(&self, method: &str, path: &str, key: &str, body: &'static str) -> Said {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("idempotency-key", key);
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().call(request).await.unwrap();
        let replayed = response.headers().contains_key(REPLAYED);
        let status = response.status().as_u16();
        if let Some(told) = response.extensions().get::<Told>() {
            return Said {
                status,
                text: serde_json::to_string(told).unwrap(),
                replayed,
            };
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Said {
            status,
            text: String::from_utf8(body.to_vec()).unwrap(),
            replayed,
        }
    }

    async fn post(&self, key: &str, body: &'static str) -> Said {
        self.send("POST", "/v1/one", key, body).await
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

async fn once_with_caller(state: State<Arc<Once>>, mut request: Request, next: Next) -> Response {
    let caller = Caller::local(Clock::start().now());
    request.extensions_mut().insert(caller);
    once(state, request, next).await
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    status: u16,
    text: String,
    replayed: bool,
}

fn said(status: u16, text: &str, replayed: bool) -> Said {
    Said {
        status,
        text: text.to_owned(),
        replayed,
    }
}

#[tokio::test]
async fn a_repeated_request_is_answered_as_it_was() {
    let fixture = Fixture::new(100).await;
    assert_eq!(fixture.post("1", "a").await, said(201, "call 1", false));
    assert_eq!(fixture.post("1", "a").await, said(201, "call 1", true));
    assert_eq!(fixture.post("2", "a").await, said(201, "call 2", false));
    let wrong = fixture.post("3", "wrong").await;
    assert_eq!((wrong.status, wrong.replayed), (422, false));
    let again = fixture.post("3", "wrong").await;
    assert_eq!(
        (again.status, again.replayed, again.text),
        (422, true, wrong.text)
    );
    assert_eq!(fixture.calls(), 3);
}

#[tokio::test]
async fn a_key_is_for_one_request() {
    let fixture = Fixture::new(100).await;
    fixture.post("1", "a").await;
    for (path, body) in [("/v1/one", "b"), ("/v1/two", "a"), ("/v1/one?x=1", "a")] {
        let other = fixture.send("POST", path, "1", body).await;
        assert_eq!(other.status, 422, "{path} {body}");
        assert!(
            other.text.contains("\"param\":\"idempotency-key\""),
            "{}",
            other.text
        );
    }
    for key in ["", &"x".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1)] {
        assert_eq!(fixture.post(key, "a").await.status, 422);
    }
    assert_eq!(fixture.calls(), 1);
    // Others need no key, and events have their own.
    fixture.send("PUT", "/v1/two", "1", "a").await;
    for _ in 0..2 {
        let events = fixture.send("POST", "/v1/tenants/a/events", "1", "a").await;
        assert_eq!((events.status, events.replayed), (201, false));
    }
    assert_eq!(fixture.calls(), 4);
}

#[tokio::test]
async fn another_instance_answers_alike_and_does_nothing() {
    let fixture = Fixture::new(0).await;
    let other = fixture.another().await;
    // Of two that come to two instances at once one is made.
    let (one, second) = tokio::join!(fixture.post("1", "a"), async {
        while fixture.calls() == 0 {
            tokio::task::yield_now().await;
        }
        let second = other.post("1", "a").await;
        fixture.may.add_permits(100);
        second
    });
    assert_eq!(one, said(201, "call 1", false));
    assert_eq!(second.status, 409, "{second:?}");
    // Until it has read the answer it says that one is under way.
    let mut again = other.post("1", "a").await;
    while again.status == 409 {
        tokio::task::yield_now().await;
        again = other.post("1", "a").await;
    }
    assert_eq!(again, said(201, "call 1", true));
    assert_eq!(other.post("1", "b").await.status, 422);
    let wrong = fixture.post("2", "wrong").await;
    // As is one that was started after it.
    let late = fixture.another().await;
    assert_eq!(late.post("1", "a").await, said(201, "call 1", true));
    let again = late.post("2", "wrong").await;
    assert_eq!((again.status, again.replayed), (422, true));
    assert_eq!(again.text, wrong.text);
    assert_eq!((other.calls(), late.calls()), (0, 0));
}

#[tokio::test]
async fn what_is_not_kept_is_done_anew() {
    let fixture = Fixture::new(100).await;
    let bodies = [
        ("broken", 503),
        ("forbidden", 403),
        ("long", 200),
        ("panics", 503),
    ];
    for (number, (body, status)) in bodies.into_iter().enumerate() {
        for call in 1..=2 {
            let mut answer = fixture.post(body, body).await;
            // The key of one that panicked is freed behind its answer.
            while answer.status == 409 {
                tokio::task::yield_now().await;
                answer = fixture.post(body, body).await;
            }
            assert_eq!((answer.status, answer.replayed), (status, false), "{body}");
            assert_eq!(fixture.calls(), 2 * number + call);
        }
    }
}

#[tokio::test]
async fn it_goes_on_without_its_client_and_is_not_done_twice_meanwhile() {
    let fixture = Arc::new(Fixture::new(0).await);
    let client = tokio::spawn({
        let fixture = Arc::clone(&fixture);
        async move { fixture.post("1", "a").await }
    });
    while fixture.calls() == 0 {
        tokio::task::yield_now().await;
    }
    let second = fixture.post("1", "a").await;
    assert_eq!(second.status, 409);
    assert!(second.text.contains("in_progress"), "{}", second.text);
    assert_eq!(fixture.post("1", "b").await.status, 422);
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    fixture.may.add_permits(1);
    let mut answer = fixture.post("1", "a").await;
    while answer.status == 409 {
        tokio::task::yield_now().await;
        answer = fixture.post("1", "a").await;
    }
    assert_eq!(answer, said(201, "call 1", true));
}
