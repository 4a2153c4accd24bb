//! Receivers asked before they get events: by a ping, or by a challenge that
//! hostile ones do not pass.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use posthaste_core::signature::{Scheme, Signed, Signer};
use serde_json::{Value, json};

use crate::refusals::program::{Refused, Server, embedded, eventually, posthaste};

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
const OPEN: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// A request as it came: its head's lines, and its body.
#[derive(Clone)]
pub(crate) struct Got {
    head: Vec<String>,
    pub(crate) body: Vec<u8>,
}

/// What a receiver does with a request.
type Answer = Box<dyn Fn(&Got, &mut TcpStream) + Send>;

/// A receiver that keeps what it gets, and answers as it is told.
pub(crate) struct Receiver {
    pub(crate) at: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Mutex<Answer>>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.iter().filter_map(|line| line.split_once(": "));
        let found = lines.find_map(|(known, value)| (known == name).then_some(value));
        found.unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn read(from: &mut impl std::io::BufRead) -> Option<Self> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut got = Self {
            head,
            body: Vec::new(),
        };
        got.body = vec![0; got.header("content-length").parse().unwrap()];
        from.read_exact(&mut got.body).unwrap();
        Some(got)
    }
}

impl Receiver {
    pub(crate) fn start(answer: impl Fn(&Got, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            at: listener.local_addr().unwrap(),
            got: Arc::default(),
            answer: Arc::new(Mutex::new(Box::new(answer))),
        };
        let (got, answer) = (Arc::clone(&receiver.got), Arc::clone(&receiver.answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (got, answer) = (Arc::clone(&got), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut requests = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = stream;
                    while let Some(request) = Got::read(&mut requests) {
                        got.lock().unwrap().push(request.clone());
                        answer.lock().unwrap()(&request, &mut stream);
                    }
                });
            }
        });
        receiver
    }

    pub(crate) fn answers(&self, answer: impl Fn(&Got, &mut TcpStream) + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    fn url(&self) -> String {
        format!("http://{}/hooks", self.at)
    }

    pub(crate) fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.got.lock().unwrap())
    }
}

pub(crate) fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &str) {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n{body}");
    // One that hangs up early is not what is tested.
    let _ = stream.write_all(answer.as_bytes());
}

/// As Slack's receivers do.
fn echo(got: &Got, stream: &mut TcpStream) {
    let body = got.json();
    respond(stream, 200, "", body["challenge"].as_str().unwrap_or("ok"));
}

fn call(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = server.api.call(method, path, "", body.as_bytes());
    (
        answer.status,
        serde_json::from_str(&answer.text).unwrap_or_default(),
    )
}

fn make(server: &Server, more: &Value) -> Value {
    let (status, made) = call(server, "POST", ENDPOINTS, more);
    assert_eq!(status, 201, "{made}");
    made
}

/// What an endpoint is, and why.
fn status(endpoint: &Value) -> (&str, &str) {
    let reason = endpoint["disabled_reason"].as_str();
    (endpoint["status"].as_str().unwrap(), reason.unwrap_or(""))
}

/// What asking came to.
fn came(endpoint: &Value) -> (bool, &str, u64) {
    let asked = &endpoint["verification"];
    let cause = asked["cause"].as_str().unwrap_or("");
    let passed = asked["passed"].as_bool().expect("it was asked");
    (passed, cause, asked["status"].as_u64().unwrap_or(0))
}

fn publish(server: &Server) {
    let headers = "webhook-type: invoice.paid\r\n";
    let taken = server.api.post("/v1/tenants/acme/events", headers, b"{}");
    assert_eq!(taken.status, 202, "{}", taken.text);
}

fn slack(url: &str) -> Value {
    json!({
        "url": url, "uid": "bot", "signing": {"scheme": "slack"}, "secret": SECRET,
        "verify": "challenge",
    })
}

#[test]
fn a_receiver_that_answers_the_challenge_gets_events() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{OPEN}", embedded(dir.path())));
    let receiver = Receiver::start(echo);
    let made = make(&server, &slack(&receiver.url()));
    assert_eq!(status(&made), ("active", ""));
    assert_eq!(came(&made), (true, "", 200));
    assert_eq!(made["verification"]["kind"], "challenge");

    let asked = receiver.take().pop().unwrap();
    let body = asked.json();
    assert_eq!(body["type"], "url_verification");
    assert!(body["token"].is_string() && body["challenge"].as_str().unwrap().len() == 48);
    let mut signer = Signer::of(Scheme::Slack);
    signer.add(SECRET).unwrap();
    let timestamp_s = asked.header("x-slack-request-timestamp").parse().unwrap();
    let mut signature = Vec::new();
    signer.sign_into(b"any", timestamp_s, &asked.body, &mut signature);
    assert_eq!(asked.header("x-slack-signature").as_bytes(), signature);

    publish(&server);
    eventually("the event comes", || {
        !receiver.got.lock().unwrap().is_empty()
    });
    assert_eq!(receiver.take()[0].body, b"{}");
    // Nobody is asked for a change of something else.
    let bot = format!("{ENDPOINTS}/bot");
    let (_, changed) = call(&server, "PATCH", &bot, &json!({"description": "a bot"}));
    assert_eq!(status(&changed), ("active", ""));
    assert!(changed.get("verification").is_none() && receiver.take().is_empty());
    server.stop();
}

#[test]
fn hostile_receivers_pass_no_challenge() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{OPEN}", embedded(dir.path())));
    let receiver = Receiver::start(|_, stream| respond(stream, 200, "", "ok"));
    let made = make(&server, &slack(&receiver.url()));
    assert_eq!(status(&made), ("disabled", "verification"));
    assert_eq!(came(&made), (false, "challenge_not_answered", 200));
    let detail = made["verification"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("expected it as the response's whole body"),
        "{detail}"
    );
    assert_eq!(made["secret"], SECRET, "the one answer that shows it");

    let verify = format!("{ENDPOINTS}/bot/verify");
    let again = || {
        let (code, answered) = call(&server, "POST", &verify, &Value::Null);
        assert_eq!(
            (code, status(&answered)),
            (200, ("disabled", "verification"))
        );
        let (passed, cause, status) = came(&answered);
        assert!(!passed);
        (cause.to_owned(), status)
    };
    // The request thrown back, a challenge of before, one behind a redirect.
    receiver
        .answers(|got, stream| respond(stream, 200, "", std::str::from_utf8(&got.body).unwrap()));
    assert_eq!(again(), ("challenge_not_answered".to_owned(), 200));
    let before = receiver.take()[0].json()["challenge"]
        .as_str()
        .unwrap()
        .to_owned();
    receiver.answers(move |_, stream| respond(stream, 200, "", &before));
    assert_eq!(again(), ("challenge_not_answered".to_owned(), 200));
    let other = Receiver::start(echo);
    let location = format!("location: {}\r\n", other.url());
    receiver.answers(move |_, stream| respond(stream, 307, &location, ""));
    assert_eq!(again(), ("redirect_not_followed".to_owned(), 307));
    assert!(other.take().is_empty(), "nobody followed it");
    // The right answer, under the wrong status, or far behind in a long body.
    receiver.answers(|got, stream| {
        respond(stream, 401, "", got.json()["challenge"].as_str().unwrap());
    });
    assert_eq!(again(), ("http_4xx".to_owned(), 401));
    receiver.answers(|got, stream| {
        let challenge = got.json()["challenge"].as_str().unwrap().to_owned();
        respond(stream, 200, "", &(" ".repeat(8 << 20) + &challenge));
    });
    assert_eq!(again(), ("challenge_not_answered".to_owned(), 200));
    receiver.answers(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        let _ = stream.write_all("x: y\r\n".repeat(1 << 16).as_bytes());
    });
    assert_eq!(again(), ("response_too_large".to_owned(), 0));
    receiver.answers(|_, stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
    assert_eq!(again(), ("connection_reset".to_owned(), 0));

    // It got none of the events meanwhile, and enabling it asks too.
    receiver.answers(|_, stream| respond(stream, 200, "", "ok"));
    receiver.take();
    publish(&server);
    let enable = format!("{ENDPOINTS}/bot/enable");
    let refused = server.api.post(&enable, "", b"");
    let (_, detail) = refused.problem(409, "not_verified");
    assert!(detail.contains("(challenge_not_answered 200)"), "{detail}");
    let types: Vec<_> = receiver
        .take()
        .iter()
        .map(|got| got.json()["type"].clone())
        .collect();
    assert_eq!(types, ["url_verification"]);
    receiver.answers(echo);
    let (code, enabled) = call(&server, "POST", &enable, &Value::Null);
    assert_eq!((code, status(&enabled)), (200, ("active", "")));
    server.stop();
}

#[test]
fn a_receiver_that_hangs_takes_no_longer_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{OPEN}", embedded(dir.path())));
    let receiver = Receiver::start(|_, _| ());
    let mut wanted = slack(&receiver.url());
    wanted["timeout"] = "300ms".into();
    wanted["connect_timeout"] = "300ms".into();
    let began = Instant::now();
    let made = make(&server, &wanted);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(came(&made), (false, "timeout_headers", 0));
    // A head, and then a body that never ends: the verdict falls, the answer lacks.
    receiver.answers(|got, stream| {
        let challenge = got.json()["challenge"].as_str().unwrap().to_owned();
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 48\r\n\r\n";
        let _ = stream.write_all(format!("{head}{}", &challenge[..47]).as_bytes());
    });
    let verify = format!("{ENDPOINTS}/bot/verify");
    let (_, again) = call(&server, "POST", &verify, &Value::Null);
    assert_eq!(came(&again), (false, "challenge_not_answered", 200));
    server.stop();
}

#[test]
fn nobody_behind_the_wall_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let walled = "[egress]\nallow_http = true\nallow_private_names = true\n";
    let server = Server::start(&format!("{}{walled}", embedded(dir.path())));
    let receiver = Receiver::start(echo);
    for verify in ["challenge", "ping"] {
        let mut wanted = slack(&format!("http://localhost:{}/hooks", receiver.at.port()));
        wanted["uid"] = verify.into();
        wanted["verify"] = verify.into();
        let made = make(&server, &wanted);
        assert_eq!(came(&made), (false, "blocked_address", 0), "{verify}");
    }
    assert!(receiver.take().is_empty());
    server.stop();
}

#[test]
fn another_url_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{OPEN}", embedded(dir.path())));
    let (old, new) = (
        Receiver::start(echo),
        Receiver::start(|_, stream| respond(stream, 503, "", "")),
    );
    make(&server, &slack(&old.url()));
    old.take();
    let bot = format!("{ENDPOINTS}/bot");
    let (code, moved) = call(&server, "PATCH", &bot, &json!({"url": new.url()}));
    assert_eq!((code, status(&moved)), (200, ("disabled", "verification")));
    assert_eq!(came(&moved), (false, "http_5xx", 503));
    // The version in the answer is the one that stands.
    let (_, shown) = call(&server, "GET", &bot, &Value::Null);
    assert_eq!(shown["version"], moved["version"]);
    new.answers(echo);
    let words = ["endpoints", "verify", "--tenant", "acme", "bot", "--server"];
    let address = format!("http://{}", server.api.0);
    let words = [&words[..], &[&address]].concat();
    let said = posthaste(&words).output().unwrap();
    assert_eq!(
        String::from_utf8(said.stdout).unwrap(),
        "challenge: passed\n"
    );
    let (_, shown) = call(&server, "GET", &bot, &Value::Null);
    assert_eq!(status(&shown), ("active", ""));
    new.take();
    // One that is there keeps its events whatever it says later.
    new.answers(|_, stream| respond(stream, 503, "", ""));
    Refused::from(&words).expect(1, &["challenge: http_5xx (503): the endpoint failed"]);
    let (_, shown) = call(&server, "GET", &bot, &Value::Null);
    assert_eq!(status(&shown), ("active", ""));
    // PUT moves as PATCH does, and `verify` on its own is a change too.
    let mut whole = slack(&old.url());
    whole.as_object_mut().unwrap().remove("secret");
    let (_, moved) = call(&server, "PUT", &bot, &whole);
    assert_eq!(
        (status(&moved), came(&moved)),
        (("active", ""), (true, "", 200))
    );
    let (_, looser) = call(
        &server,
        "PATCH",
        &bot,
        &json!({"verify": null, "url": new.url()}),
    );
    assert_eq!(
        (looser["verify"].as_str(), status(&looser)),
        (Some("none"), ("active", ""))
    );
    let (_, stricter) = call(&server, "PATCH", &bot, &json!({"verify": "challenge"}));
    assert_eq!(status(&stricter), ("disabled", "verification"));
    let (_, freed) = call(&server, "PATCH", &bot, &json!({"verify": "none"}));
    assert_eq!(status(&freed), ("active", ""));
    let nothing = server.api.post(&format!("{bot}/verify"), "", b"");
    let (_, detail) = nothing.problem(409, "nothing_to_verify");
    assert!(
        detail.contains("expected `ping` or `challenge`"),
        "{detail}"
    );
    let unknown = server.api.post(
        ENDPOINTS,
        "",
        br#"{"url": "https://a.example", "verify": "pong"}"#,
    );
    let (param, _) = unknown.problem(400, "malformed");
    assert_eq!(param, "verify");
    server.stop();
}

#[test]
fn a_ping_comes_first_and_decides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{OPEN}", embedded(dir.path())));
    let receiver = Receiver::start(|_, stream| respond(stream, 500, "", ""));
    let wanted = json!({
        "url": receiver.url(), "uid": "hello-world", "event_types": ["push"], "verify": "ping",
        "signing": {"scheme": "github"}, "secret": SECRET,
    });
    let made = make(&server, &wanted);
    assert_eq!(
        (status(&made), came(&made)),
        (("active", ""), (false, "http_5xx", 500))
    );
    let ping = receiver.take().pop().unwrap();
    assert_eq!(ping.header("x-github-event"), "ping");
    assert_eq!(
        ping.header("x-github-hook-id"),
        made["id"].as_str().unwrap()
    );
    let body = ping.json();
    assert!(body["zen"].is_string());
    assert_eq!(body["hook_id"], made["id"]);
    assert_eq!(body["hook"]["events"], json!(["push"]));
    assert_eq!(body["hook"]["config"]["url"], receiver.url());
    let mut signer = Signer::of(Scheme::Github);
    signer.add(SECRET).unwrap();
    let signed = Signed {
        id: b"any",
        timestamp_s: 0,
        body: &ping.body,
        event_type: "ping",
        endpoint: &[0; 16],
        endpoint_text: "any",
        retries: 0,
        last_cause: None,
    };
    let mut signature = Vec::new();
    let piece = posthaste_core::signature::Piece::Signature;
    assert!(signer.write(piece, &signed, &mut signature));
    assert_eq!(ping.header("x-hub-signature-256").as_bytes(), signature);
    receiver.answers(|_, stream| respond(stream, 204, "", ""));
    let verify = format!("{ENDPOINTS}/hello-world/verify");
    let (_, again) = call(&server, "POST", &verify, &Value::Null);
    assert_eq!(came(&again), (true, "", 204));
    server.stop();
}
