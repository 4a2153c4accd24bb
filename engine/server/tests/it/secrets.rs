//! Endpoints' secrets from outside: none stands anywhere in the clear, one
//! follows another, and a master key another.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use posthaste::clock::Clock;
use posthaste::config::Config;
use posthaste::log::embedded::EmbeddedLog;
use posthaste::log::{Log as _, NewRecord, TopicPartition};
use posthaste_core::id::EndpointId;
use posthaste_core::registry::table_key;
use posthaste_core::signature::{Scheme, Signer, Verifier, VerifyingKey};
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use serde_json::{Value, json};

use crate::refusals::program::{Refused, Server, embedded, eventually, posthaste};

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A request as it came: its head's lines, and its body.
type Got = (Vec<String>, Vec<u8>);

/// A receiver that keeps what it gets, and answers 503 as often as it is told.
struct Receiver {
    at: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    failures: Arc<AtomicUsize>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            at: listener.local_addr().unwrap(),
            got: Arc::default(),
            failures: Arc::default(),
        };
        let (got, failures) = (Arc::clone(&receiver.got), Arc::clone(&receiver.failures));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (got, failures) = (Arc::clone(&got), Arc::clone(&failures));
                std::thread::spawn(move || take(&stream.unwrap(), &got, &failures));
            }
        });
        receiver
    }

    /// The next request, once it is there.
    fn next(&self) -> Got {
        let mut next = None;
        eventually("a delivery arrives", || {
            let mut got = self.got.lock().unwrap();
            if !got.is_empty() {
                next = Some(got.remove(0));
            }
            next.is_some()
        });
        next.unwrap()
    }
}

fn take(stream: &TcpStream, got: &Mutex<Vec<Got>>, failures: &AtomicUsize) {
    let mut requests = BufReader::new(stream);
    let mut answers = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = header(&head, "content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        requests.read_exact(&mut body).unwrap();
        got.lock().unwrap().push((head, body));
        let less = |left: usize| left.checked_sub(1);
        let fails = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        let status = if fails.is_ok() { 503 } else { 200 };
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        answers.write_all(answer.as_bytes()).unwrap();
    }
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let mut lines = head.iter().filter_map(|line| line.split_once(": "));
    lines.find_map(|(known, value)| (known == name).then_some(value))
}

/// Whether a delivery verifies with that secret.
fn verifies((head, body): &Got, secret: &str) -> bool {
    let verifier = Verifier::new(vec![VerifyingKey::parse(secret).unwrap()]);
    let name = |name| header(head, name);
    let (id, at) = (name("webhook-id"), name("webhook-timestamp"));
    let now = Clock::start().now();
    verifier
        .verify(id, at, name("webhook-signature"), body, now)
        .is_ok()
}

fn call(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = server.api.call(method, path, "", body.as_bytes());
    let read = serde_json::from_str(&answer.text).unwrap_or_default();
    (answer.status, read)
}

fn make(server: &Server, more: Value) -> Value {
    let (status, made) = call(server, "POST", ENDPOINTS, &more);
    assert_eq!(status, 201, "{made}");
    made
}

fn publish(server: &Server) {
    let headers = "webhook-type: invoice.paid\r\n";
    let taken = server.api.post("/v1/tenants/acme/events", headers, b"{}");
    assert_eq!(taken.status, 202, "{}", taken.text);
}

/// The files of a folder that hold these bytes.
pub(crate) fn holding(folder: &Path, bytes: &[u8]) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap();
    let holds = |path: &Path| {
        let found = std::fs::read(path).unwrap();
        found.windows(bytes.len()).any(|window| window == bytes)
    };
    files
        .map(|file| file.unwrap().path())
        .filter(|path| holds(path))
        .map(|path| path.display().to_string())
        .collect()
}

fn cli(server: &Server, words: &[&str]) -> String {
    let address = format!("http://{}", server.api.0);
    let words = [words, &["--server", &address]].concat();
    let output = posthaste(&words).stdin(Stdio::null()).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn two_secrets_sign_for_the_overlap_and_none_stands_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let receiver = Receiver::start();
    let server = Server::start(&config);
    let url = format!("http://{}/a-hook-to-be-found", receiver.at);
    make(
        &server,
        json!({"url": url, "uid": "billing", "secret": OLD}),
    );
    publish(&server);
    let first = receiver.next();
    assert!(verifies(&first, OLD) && !verifies(&first, NEW));

    let file = dir.path().with_extension("secret");
    std::fs::write(&file, format!("{NEW}\n")).unwrap();
    let rotate = ["endpoints", "rotate-secret", "--tenant", "acme", "billing"];
    let from = ["--secret-file", file.to_str().unwrap()];
    let said = cli(&server, &[&rotate[..], &from].concat());
    assert_eq!(said, format!("secret (shown this once): {NEW}\n"));
    std::fs::remove_file(&file).unwrap();
    publish(&server);
    let both = receiver.next();
    assert!(verifies(&both, OLD) && verifies(&both, NEW));

    let secrets = format!("{ENDPOINTS}/billing/secrets");
    let (_, listed) = call(&server, "GET", &secrets, &Value::Null);
    let data = listed["data"].as_array().unwrap();
    assert_eq!(data.len(), 2, "{listed}");
    assert!(data[0]["expires_at"].is_null() && data[1]["expires_at"].is_string());
    let shown = listed.to_string() + &call(&server, "GET", ENDPOINTS, &Value::Null).1.to_string();
    assert!(!shown.contains(&OLD[6..]) && !shown.contains(&NEW[6..]));
    let old = format!("{secrets}/{}", data[1]["id"].as_str().unwrap());
    assert_eq!(call(&server, "DELETE", &old, &Value::Null).0, 204);
    publish(&server);
    let last = receiver.next();
    assert!(!verifies(&last, OLD) && verifies(&last, NEW));

    let log = server.stop();
    for secret in [OLD, NEW] {
        let text = &secret[6..];
        assert!(!log.contains(text), "{log}");
        for bytes in [text.as_bytes(), &BASE64.decode(text).unwrap()] {
            assert_eq!(holding(dir.path(), bytes), [""; 0]);
        }
    }
    assert!(!holding(dir.path(), b"a-hook-to-be-found").is_empty());
    let key = dir.path().join("secrets.key");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Another key than the one that sealed: refused, not sent unsigned.
    std::fs::remove_file(key).unwrap();
    Refused::serve(&config).expect(64, &["secrets.keys: endpoint ep_", "expected that key too"]);
}

#[test]
fn a_header_is_sent_and_kept_sealed() {
    const TOKEN: &str = "Bearer a-token-not-to-be-found";
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    let server = Server::start(&format!("{}{SETTINGS}", embedded(dir.path())));
    let url = format!("http://{}/hook", receiver.at);
    let made = make(
        &server,
        json!({"url": url, "uid": "billing", "headers": {"authorization": TOKEN}}),
    );
    assert_eq!(made["headers"], json!(["authorization"]));
    let place = format!("{ENDPOINTS}/billing");
    let patch = |body: Value| call(&server, "PATCH", &place, &body);
    // What says nothing new changes nothing, though the same text is never sealed
    // to the same bytes.
    let same = json!({"headers": {"authorization": TOKEN}});
    assert_eq!(patch(same).1["version"], 1);
    let (_, changed) = patch(json!({"headers": {"x-team": "billing"}}));
    assert_eq!(changed["headers"], json!(["authorization", "x-team"]));
    publish(&server);
    let (head, _) = receiver.next();
    assert_eq!(header(&head, "authorization"), Some(TOKEN));
    assert_eq!(header(&head, "x-team"), Some("billing"));
    let (_, changed) = patch(json!({"headers": {"authorization": null}}));
    assert_eq!(changed["headers"], json!(["x-team"]));
    let (status, refused) = patch(json!({"headers": {"x-team": "a\nb"}}));
    assert_eq!((status, &refused["param"]), (422, &json!("headers")));

    let log = server.stop();
    assert!(!log.contains("not-to-be-found"), "{log}");
    assert_eq!(holding(dir.path(), b"not-to-be-found"), [""; 0]);
}

/// A table as it was written before secrets were sealed.
async fn write_in_the_clear(dir: &Path, config: &Config, url: &str) {
    let clock = Clock::start();
    let log = EmbeddedLog::open(dir, Arc::new(move || clock.now())).unwrap();
    log.verify(&config.topics.specs()).await.unwrap();
    let id = EndpointId::from_bytes([7; 16]);
    let endpoint = proto::Endpoint {
        id: id.as_bytes().to_vec().into(),
        tenant: "acme".into(),
        url: url.into(),
        secrets: vec![proto::Secret {
            id: "s1".into(),
            text: OLD.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let record = NewRecord {
        to: TopicPartition {
            topic: config.topics.endpoints(),
            partition: 0,
        },
        key: table_key(id),
        value: endpoint.to_value(),
        headers: Vec::new(),
    };
    assert!(log.append(vec![record]).await[0].is_ok());
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_in_the_clear_are_read_and_sealed_and_a_master_key_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let receiver = Receiver::start();
    let url = format!("http://{}/hook", receiver.at);
    write_in_the_clear(dir.path(), &Config::parse(&config).unwrap(), &url).await;
    let run = move || {
        let server = Server::start(&config);
        assert!(server.log().contains("`posthaste secrets reseal`"));
        publish(&server);
        assert!(verifies(&receiver.next(), OLD));
        let reseal = ["secrets", "reseal", "--json"];
        let sealed = |count: u32| format!("{{\"resealed\":{count},\"unreadable\":0}}\n");
        assert_eq!(cli(&server, &reseal), sealed(1));
        assert_eq!(cli(&server, &reseal), sealed(0));
        publish(&server);
        assert!(verifies(&receiver.next(), OLD));
        server.stop();

        let new = dir.path().join("new.key");
        std::fs::write(&new, BASE64.encode([9; 32])).unwrap();
        let key = |path: &Path| format!("\"file:{}\"", path.display());
        let (new, old) = (key(&new), key(&dir.path().join("secrets.key")));
        let both = format!("{config}[secrets]\nkeys = [{new}, {old}]\n");
        let server = Server::start(&both);
        assert!(server.log().contains("`posthaste secrets reseal`"));
        assert_eq!(cli(&server, &reseal), sealed(1));
        server.stop();

        let server = Server::start(&format!("{config}[secrets]\nkeys = [{new}]\n"));
        assert!(!server.log().contains("`posthaste secrets reseal`"));
        publish(&server);
        assert!(verifies(&receiver.next(), OLD));
        server.stop();
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

#[test]
fn public_keys_are_published_while_they_sign() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    let published = || {
        let path = "/.well-known/webhook-keys";
        let (status, set) = call(&server, "GET", path, &Value::Null);
        assert_eq!(status, 200);
        let keys = set["keys"].as_array().unwrap().len();
        assert_eq!(set["whpk"].as_array().unwrap().len(), keys);
        set
    };
    make(&server, json!({"url": "https://example.com/hmac"}));
    assert_eq!(published(), json!({"keys": [], "whpk": []}));
    let pair = json!({
        "url": "https://example.com/", "uid": "pair", "signing": {"algorithm": "ed25519"},
    });
    let made = make(&server, pair);
    assert_eq!(made["signing"]["algorithm"], "ed25519");
    let key = VerifyingKey::parse(made["secret"].as_str().unwrap()).unwrap();
    let (set, jwk) = (published(), key.jwk().unwrap());
    let expect = json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": jwk.kid, "x": jwk.x,
    });
    assert_eq!(set["keys"], json!([expect]));
    assert_eq!(set["whpk"], json!([key.public_text().unwrap()]));
    // A pair is followed by a pair.
    let rotate = format!("{ENDPOINTS}/pair/secrets/rotate");
    let (status, rotated) = call(&server, "POST", &rotate, &Value::Null);
    assert_eq!(status, 201, "{rotated}");
    assert!(rotated["secret"].as_str().unwrap().starts_with("whsk_"));
    let whpk = published()["whpk"].clone();
    assert_eq!(whpk.as_array().unwrap().len(), 2);
    assert!(whpk.as_array().unwrap().contains(&rotated["public_key"]));
    let endpoint = format!("{ENDPOINTS}/pair");
    assert_eq!(call(&server, "DELETE", &endpoint, &Value::Null).0, 204);
    assert_eq!(published(), json!({"keys": [], "whpk": []}));
    server.stop();
}

#[test]
fn a_rotation_that_cannot_be_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    make(
        &server,
        json!({"url": "https://example.com/", "uid": "a", "signing": {"scheme": "slack"}}),
    );
    let secrets = format!("{ENDPOINTS}/a/secrets");
    let rotate = |body: &str| {
        let path = format!("{secrets}/rotate");
        server.api.post(&path, "", body.as_bytes())
    };
    for (body, param, wanted) in [
        (
            "{\"overlap\": \"169h\"}",
            "overlap",
            "expected \"0s\" to \"168h\"",
        ),
        ("{\"overlap\": \"soon\"}", "overlap", "a number and a unit"),
        ("{\"secret\": \"hunter2\"}", "secret", "expected 8 to 256"),
        (
            "{\"algorithm\": \"ed25519\"}",
            "algorithm",
            "`hmac_sha256` alone",
        ),
    ] {
        let (found, detail) = rotate(body).problem(422, "invalid");
        assert_eq!(found, param, "{detail}");
        assert!(
            detail.contains(wanted) && !detail.contains("hunter2"),
            "{detail}"
        );
    }
    let (found, _) = rotate("{\"overlap\": 7}").problem(400, "malformed");
    assert_eq!(found, "overlap");
    for _ in 0..2 {
        assert_eq!(rotate("").status, 201);
    }
    let (_, detail) = rotate("").problem(409, "too_many_secrets");
    assert!(detail.contains("delete one"), "{detail}");
    let (_, listed) = call(&server, "GET", &secrets, &Value::Null);
    let newest = listed["data"][0]["id"].as_str().unwrap();
    let delete = |path: &str| server.api.call("DELETE", path, "", b"");
    let (_, detail) = delete(&format!("{secrets}/{newest}")).problem(409, "newest_secret");
    assert!(detail.contains("rotate"), "{detail}");
    delete(&format!("{secrets}/sec_none")).problem(404, "not_found");
    let foreign = format!("/v1/tenants/other/endpoints/a/secrets/{newest}");
    delete(&foreign).problem(404, "not_found");
    assert_eq!(rotate("{\"overlap\": \"0s\"}").status, 201);
    let (_, listed) = call(&server, "GET", &secrets, &Value::Null);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    server.stop();
}

#[test]
fn a_slack_receiver_hears_why_there_is_a_retry() {
    let dir = tempfile::tempdir().unwrap();
    let policy = "[retry_policies.twice]\ngaps = [\"1s\", \"1s\"]\n";
    let server = Server::start(&format!("{}{SETTINGS}{policy}", embedded(dir.path())));
    let receiver = Receiver::start();
    receiver.failures.store(2, Ordering::SeqCst);
    let url = format!("http://{}/hook", receiver.at);
    let secret = "8f742231b10e8888abcd99yyyzzz85a5";
    let slack = json!({
        "url": url, "secret": secret, "retry_policy": "twice", "signing": {"scheme": "slack"},
    });
    make(&server, slack);
    publish(&server);
    let mut signer = Signer::of(Scheme::Slack);
    signer.add(secret).unwrap();
    for retry in [
        (None, None),
        (Some("1"), Some("http_error")),
        (Some("2"), Some("unknown_error")),
    ] {
        let (head, body) = receiver.next();
        let name = |name| header(&head, name);
        let told = (name("x-slack-retry-num"), name("x-slack-retry-reason"));
        assert_eq!(told, retry);
        let at = name("x-slack-request-timestamp").unwrap().parse().unwrap();
        let mut expect = Vec::new();
        signer.sign_into(b"", at, &body, &mut expect);
        assert_eq!(name("x-slack-signature").unwrap().as_bytes(), expect);
        assert_eq!(name("webhook-signature"), None);
    }
    server.stop();
}
