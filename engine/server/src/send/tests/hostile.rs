//! Receivers that misbehave: one row each, what it does and what comes of it.

use Step::{Close, Drip, Flood, Hang, Reset, Say};
use futures_util::future::join_all;
use posthaste_core::limits::BODY_TIME_MAX;

use super::*;

/// What a receiver does once it has read a request.
#[derive(Clone, Copy)]
enum Step {
    Say(&'static str),
    /// Says it for ever, as fast as it can.
    Flood(&'static str),
    /// Says one byte of it every 20 ms, for ever.
    Drip(&'static str),
    Hang,
    Close,
    /// Closes with a TCP reset.
    Reset,
}

/// What is expected of an attempt.
struct Row {
    name: &'static str,
    steps: &'static [Step],
    expected: Result<u16, Cause>,
    /// Whether another attempt may follow on the connection.
    reusable: bool,
}

/// The attempt's deadline: only silence and drips may take that long.
const DEADLINE_MS: u64 = 3_000;

const fn row(
    name: &'static str,
    steps: &'static [Step],
    expected: Result<u16, Cause>,
    reusable: bool,
) -> Row {
    Row {
        name,
        steps,
        expected,
        reusable,
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const HUGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n";
const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\n";

const ROWS: &[Row] = &[
    row("says nothing", &[Hang], Err(Cause::TimeoutHeaders), false),
    row(
        "drips a status line",
        &[Drip(HEAD)],
        Err(Cause::TimeoutHeaders),
        false,
    ),
    row(
        "drips headers",
        &[Say(HEAD), Drip("a: b\r\n")],
        Err(Cause::TimeoutHeaders),
        false,
    ),
    row("closes", &[Close], Err(Cause::ConnectionReset), false),
    row(
        "closes in a head",
        &[Say(HEAD), Close],
        Err(Cause::ConnectionReset),
        false,
    ),
    row("resets", &[Reset], Err(Cause::ConnectionReset), false),
    row(
        "floods interim responses",
        &[Flood(INTERIM)],
        Err(Cause::ResponseTooLarge),
        false,
    ),
    row(
        "floods interim responses with headers",
        &[Flood(
            "HTTP/1.1 103 Hints\r\nlink: <a>\r\nlink: <b>\r\n\r\n",
        )],
        Err(Cause::ResponseTooLarge),
        false,
    ),
    row(
        "one interim response",
        &[
            Say(INTERIM),
            Say(HEAD),
            Say("content-length: 0\r\n\r\n"),
            Hang,
        ],
        Ok(200),
        true,
    ),
    row(
        "endless headers",
        &[Say(HEAD), Flood("a: b\r\n")],
        Err(Cause::ResponseTooLarge),
        false,
    ),
    row(
        "endless header value",
        &[Say(HEAD), Say("a: "), Flood("bbbbbbbbbbbbbbbb")],
        Err(Cause::ResponseTooLarge),
        false,
    ),
    row(
        "endless body",
        &[Say(HUGE), Flood("0123456789abcdef")],
        Ok(200),
        false,
    ),
    row(
        "endless chunks",
        &[Say(CHUNKED), Flood("10\r\n0123456789abcdef\r\n")],
        Ok(200),
        false,
    ),
    row(
        "endless chunks of one byte",
        &[Say(CHUNKED), Flood("1\r\nx\r\n")],
        Ok(200),
        false,
    ),
    row(
        "endless body of an error",
        &[Say("HTTP/1.1 500 No\r\n\r\n"), Flood("oh no ")],
        Ok(500),
        false,
    ),
    row("body never comes", &[Say(HUGE), Hang], Ok(200), false),
    row("body drips", &[Say(HUGE), Drip("x")], Ok(200), false),
    row(
        "body is cut",
        &[Say(HUGE), Say("abc"), Close],
        Ok(200),
        false,
    ),
    row(
        "body is reset",
        &[Say(HUGE), Say("abc"), Reset],
        Ok(200),
        false,
    ),
    row(
        "bad chunk size",
        &[Say(CHUNKED), Say("zz\r\n"), Hang],
        Ok(200),
        false,
    ),
    row(
        "old HTTP, body until it closes",
        &[Say("HTTP/1.0 200 OK\r\n\r\nhi"), Close],
        Ok(200),
        false,
    ),
    row(
        "no HTTP",
        &[Say("SSH-2.0-OpenSSH_9.6\r\n"), Hang],
        Err(Cause::InvalidResponse),
        false,
    ),
    row(
        "no head",
        &[Say("<html></html>\r\n\r\n"), Hang],
        Err(Cause::InvalidResponse),
        false,
    ),
    row(
        "a NUL",
        &[Say("HTTP/1.1 200 OK\r\na: \0\r\n\r\n"), Hang],
        Err(Cause::InvalidResponse),
        false,
    ),
    row(
        "two lengths",
        &[
            Say(HEAD),
            Say("content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            Hang,
        ],
        Err(Cause::InvalidResponse),
        false,
    ),
    row(
        "length and chunks",
        &[
            Say(HEAD),
            Say("content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            Hang,
        ],
        Ok(200),
        false,
    ),
    row(
        "status 099",
        &[Say("HTTP/1.1 099 No\r\n\r\n"), Hang],
        Err(Cause::InvalidResponse),
        false,
    ),
    row(
        "switches protocols",
        &[
            Say("HTTP/1.1 101 Ok\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
            Hang,
        ],
        Ok(101),
        false,
    ),
    row(
        "no content",
        &[Say("HTTP/1.1 204 No Content\r\n\r\n"), Hang],
        Ok(204),
        true,
    ),
    row(
        "closes politely",
        &[
            Say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
            Hang,
        ],
        Ok(200),
        false,
    ),
    row(
        "a second response",
        &[
            Say(
                "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            ),
            Hang,
        ],
        Ok(500),
        false,
    ),
];

impl Step {
    async fn run(self, stream: &mut TcpStream) {
        match self {
            // The peer may be gone at any time.
            Say(text) => drop(stream.write_all(text.as_bytes()).await),
            Flood(text) => {
                let much = text.repeat(1_000);
                while stream.write_all(much.as_bytes()).await.is_ok() {}
            }
            Drip(text) => {
                for byte in text.bytes().cycle() {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Hang => std::future::pending().await,
            Close => stream.shutdown().await.unwrap(),
            Reset => stream.set_zero_linger().unwrap(),
        }
    }
}

async fn misbehaving(steps: &'static [Step]) -> Receiver {
    Receiver::start(move |mut stream| async move {
        if Got::read(&mut stream).await.is_some() {
            for step in steps {
                step.run(&mut stream).await;
            }
        }
    })
    .await
}

async fn check(egress: &Egress, row: &Row) {
    let name = row.name;
    let receiver = misbehaving(row.steps).await;
    let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), egress, NOW).unwrap();
    let mut connection = open(egress, &prepared).await.unwrap();
    let event = event("{}");
    let began = Instant::now();
    let attempt = connection.attempt(&prepared, first(&event), soon(DEADLINE_MS));
    let outcome = attempt.await.expect(name).outcome;
    match row.expected {
        Ok(status) => assert_eq!(outcome.status, Some(status), "{name}"),
        Err(cause) => assert_eq!(
            (outcome.cause, outcome.status),
            (Some(cause), None),
            "{name}"
        ),
    }
    assert_eq!(connection.reusable(Instant::now()), row.reusable, "{name}");
    let took = began.elapsed();
    assert!(
        took < Duration::from_millis(4 * DEADLINE_MS),
        "{name} took {took:?}"
    );
    if row.expected == Err(Cause::TimeoutHeaders) {
        assert!(
            took >= Duration::from_millis(DEADLINE_MS),
            "{name} took {took:?}"
        );
    }
}

#[test]
fn each_attack_has_its_outcome() {
    local(async {
        let egress = open_egress();
        join_all(ROWS.iter().map(|row| check(&egress, row))).await;
    });
}

#[test]
fn a_flood_ends_by_its_bytes_not_by_the_deadline() {
    local(async {
        let egress = open_egress();
        for steps in [
            &[Flood(INTERIM)] as &[Step],
            &[Say(HUGE), Flood("0123456789abcdef")],
            &[Say(CHUNKED), Flood("1\r\nx\r\n")],
        ] {
            let receiver = misbehaving(steps).await;
            let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
            let mut connection = open(&egress, &prepared).await.unwrap();
            let began = Instant::now();
            let event = event("{}");
            let attempt = connection.attempt(&prepared, first(&event), soon(60_000));
            assert!(attempt.await.is_some());
            assert!(began.elapsed() < BODY_TIME_MAX);
        }
    });
}

#[test]
fn a_body_has_less_time_than_a_head() {
    local(async {
        let egress = open_egress();
        let receiver = misbehaving(&[Say(HUGE), Drip("x")]).await;
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        let event = event("{}");
        let began = Instant::now();
        let attempt = connection.attempt(&prepared, first(&event), soon(60_000));
        assert!(attempt.await.unwrap().outcome.cause.is_none());
        let took = began.elapsed();
        assert!(
            took >= BODY_TIME_MAX && took < 10 * BODY_TIME_MAX,
            "{took:?}"
        );
    });
}

#[test]
fn the_deadline_holds_for_a_body_too() {
    local(async {
        let egress = open_egress();
        let receiver = misbehaving(&[Say(HUGE), Say("abc"), Hang]).await;
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        let event = event("{}");
        let began = Instant::now();
        let attempt = connection.attempt(&prepared, first(&event), soon(200));
        let attempted = attempt.await.unwrap();
        assert_eq!(attempted.outcome.verdict, Verdict::Delivered);
        assert_eq!(attempted.excerpt, "abc");
        assert!(began.elapsed() < BODY_TIME_MAX);
    });
}

#[test]
fn what_a_receiver_sends_unasked_is_no_answer() {
    local(async {
        let egress = open_egress();
        let receiver = Receiver::start(|mut stream| async move {
            Got::read(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(OK).await.unwrap();
            Hang.run(&mut stream).await;
        })
        .await;
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        assert!(send(&mut connection, &prepared).await.is_some());
        assert!(connection.reusable(Instant::now()));
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(send(&mut connection, &prepared).await.is_none());
    });
}

#[test]
fn a_request_cut_short_by_an_answer_has_that_answer() {
    local(async {
        let egress = open_egress();
        let receiver = Receiver::start(|mut stream| async move {
            let mut some = [0; 64];
            stream.read_exact(&mut some).await.unwrap();
            let answer = "HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        })
        .await;
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        let event = event(vec![b'x'; 1024 * 1024]);
        let attempt = connection.attempt(&prepared, first(&event), soon(10_000));
        assert_eq!(attempt.await.unwrap().outcome.status, Some(413));
        assert!(!connection.reusable(Instant::now()));
    });
}

#[test]
fn redirects_are_not_followed() {
    local(async {
        let egress = open_egress();
        let (other, _) = Receiver::answering(OK, 1).await;
        let answer = format!(
            "HTTP/1.1 307 Elsewhere\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
            other.url()
        );
        let (receiver, _) = Receiver::answering(answer.leak().as_bytes(), 1).await;
        let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
        let mut connection = open(&egress, &prepared).await.unwrap();
        let outcome = send(&mut connection, &prepared).await.unwrap().outcome;
        assert_eq!(outcome.cause, Some(Cause::RedirectNotFollowed));
        assert_eq!((other.connections.get(), outcome.status), (0, Some(307)));
    });
}

#[test]
fn gone_and_retry_after_are_heard() {
    local(async {
        let egress = open_egress();
        let hour = Some(Duration::from_secs(3_600));
        for (answer, verdict, cause, retry_after) in [
            ("410 Gone\r\n", Verdict::Gone, Cause::Gone, None),
            (
                "429 No\r\nretry-after: 3600\r\n",
                Verdict::Retry,
                Cause::RateLimited,
                hour,
            ),
            (
                // An hour after `NOW`.
                "503 No\r\nretry-after: Sun, 15 Jun 2025 16:06:40 GMT\r\n",
                Verdict::Retry,
                Cause::Http5xx,
                hour,
            ),
            (
                "429 No\r\nretry-after: \u{e9}\r\n",
                Verdict::Retry,
                Cause::RateLimited,
                None,
            ),
        ] {
            let answer = format!("HTTP/1.1 {answer}content-length: 0\r\n\r\n");
            let (receiver, _) = Receiver::answering(answer.leak().as_bytes(), 1).await;
            let prepared = Prepared::new(&endpoint(&receiver.url(), |_| ()), &egress, NOW).unwrap();
            let mut connection = open(&egress, &prepared).await.unwrap();
            let outcome = send(&mut connection, &prepared).await.unwrap().outcome;
            assert_eq!(outcome.verdict, verdict);
            assert_eq!(outcome.cause, Some(cause));
            assert_eq!(outcome.retry_after, retry_after);
        }
    });
}
