//! Why an event did not come in, asked from outside: how far the sources are
//! read, and what their last records are taken for.

use std::path::Path;
use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::config::Config;
use posthaste::log::Log as _;
use posthaste::log::embedded::EmbeddedLog;
use serde_json::{Value, json};

use crate::access::{call, first_key, json_of, made};
use crate::dead::{Receiver, poison};
use crate::refusals::program::{Server, embedded, eventually, posthaste};

const SETTINGS: &str = "[topics]\nsource_partitions = 3\n[api]\nauth = \"keys\"\n\
     [egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const SOURCES: &str = "/v1/sources";
const PREVIEW: &str = "/v1/sources/events/preview";

struct Admin {
    server: Server,
    key: String,
}

/// A record that is no event, written while no program runs.
async fn poisoned(dir: &Path, config: &str) {
    let config = Config::parse(config).unwrap();
    let clock = Clock::start();
    let log = EmbeddedLog::open(dir, Arc::new(move || clock.now())).unwrap();
    let mut specs = config.topics.specs();
    specs.push(config.topics.source_spec(&config.ingest.topics[0]));
    log.verify(&specs).await.unwrap();
    poison(&log, &config).await;
    log.close();
}

impl Admin {
    fn start(dir: &Path) -> Self {
        let config = format!("{}{SETTINGS}", embedded(dir));
        let key = first_key(&config);
        let server = Server::start(&config);
        Self { server, key }
    }

    fn get(&self, path: &str) -> Value {
        json_of(
            &call(&self.server, &self.key, "GET", path, &Value::Null),
            200,
        )
    }

    fn endpoint(&self, asked: &Value) -> Value {
        let path = "/v1/tenants/acme/endpoints";
        json_of(&call(&self.server, &self.key, "POST", path, asked), 201)
    }

    /// Writes a record as a request is taken for one: `headers` end with `\r\n`.
    fn publish(&self, headers: &str, body: &[u8]) {
        let headers = format!("authorization: Bearer {}\r\n{headers}", self.key);
        let path = "/v1/tenants/acme/events";
        let answer = self.server.api.post(path, &headers, body);
        assert_eq!(answer.status, 202, "{}", answer.text);
    }

    fn says(&self, words: &[&str]) -> String {
        let address = format!("http://{}", self.server.api.0);
        let words = [&["sources"], words, &["--server", &address]].concat();
        let mut command = posthaste(&words);
        let output = command
            .env("POSTHASTE_API_KEY", &self.key)
            .output()
            .unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{words:?}: {why}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn sum(source: &Value, name: &str) -> u64 {
    let parts = source["partitions"].as_array().unwrap();
    parts.iter().map(|part| part[name].as_u64().unwrap()).sum()
}

#[test]
fn a_source_says_how_far_it_is_read_and_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path());
    let receiver = Receiver::start(200);
    let url = format!("http://{}/hook", receiver.at);
    admin.endpoint(&json!({"url": url, "uid": "one"}));
    for number in 0..20 {
        let headers = format!("webhook-type: a\r\nwebhook-id: e{number}\r\n");
        admin.publish(&headers, b"{}");
    }
    let mut source = Value::Null;
    eventually("all are settled, and committed", || {
        let listed = admin.get(SOURCES);
        assert_eq!(listed["data"].as_array().unwrap().len(), 1);
        source = listed["data"][0].clone();
        sum(&source, "committed") == 20
    });
    assert_eq!(
        (&source["topic"], &source["group"]),
        (&json!("events"), &json!("posthaste.ingest"))
    );
    assert_eq!((sum(&source, "end"), sum(&source, "lag")), (20, 0));
    assert_eq!(source["lag"], 0);
    for part in source["partitions"].as_array().unwrap() {
        assert_eq!(part["oldest_unsettled"], Value::Null, "{source}");
    }
    let table = admin.says(&["list"]);
    assert!(
        table.contains("events/2") && table.contains("committed"),
        "{table}"
    );
    let printed: Value = serde_json::from_str(&admin.says(&["list", "--json"])).unwrap();
    assert_eq!(
        printed["data"][0]["partitions"].as_array().unwrap().len(),
        3
    );
    admin.server.stop();
}

#[test]
fn what_waits_is_dated() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let key = first_key(&config);
    // Takes events and delivers nothing.
    let server = Server::run("api", &config, &[]);
    let admin = Admin { server, key };
    for number in 0..12 {
        let headers = format!("webhook-type: a\r\nwebhook-id: e{number}\r\n");
        admin.publish(&headers, b"{}");
    }
    let source = admin.get(SOURCES)["data"][0].clone();
    assert_eq!(
        (source["lag"].as_u64(), sum(&source, "lag")),
        (Some(12), 12)
    );
    for part in source["partitions"].as_array().unwrap() {
        assert_eq!(part["committed"], Value::Null);
        let waits = part["lag"].as_u64() > Some(0);
        assert_eq!(part["oldest_unsettled"].is_string(), waits, "{part}");
    }
    admin.server.stop();
}

#[test]
fn records_are_shown_as_what_they_are_taken_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(poisoned(dir.path(), &config));
    let admin = Admin::start(dir.path());
    let receiver = Receiver::start(200);
    let url = format!("http://{}/hook", receiver.at);
    let asked = json!({"url": url, "uid": "one", "event_types": ["invoice.*"]});
    let endpoint = admin.endpoint(&asked)["id"].clone();
    let large = format!("{{\"text\": \"{}\"}}", "x".repeat(9_000));
    admin.publish(
        "webhook-type: invoice.paid\r\nwebhook-id: first\r\n",
        large.as_bytes(),
    );
    admin.publish(
        "webhook-type: order.made\r\nwebhook-id: second\r\n",
        b"\xff\x00",
    );
    let preview = admin.get(PREVIEW);
    assert_eq!(preview["ended_by"], Value::Null);
    let of = |id: &str| {
        let mut all = preview["data"].as_array().unwrap().iter();
        all.find(|record| record["event"]["id"] == id)
            .unwrap()
            .clone()
    };
    let (first, second) = (of("first"), of("second"));
    assert_eq!(first["event"]["endpoints"], json!([endpoint]));
    assert_eq!(first["event"]["tenant"], "acme");
    assert_eq!(
        (&first["dead"], &first["body_truncated"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(first["body"].as_str().unwrap().len(), 4_096);
    assert_eq!(second["event"]["endpoints"], json!([]), "nobody wants it");
    assert_eq!(
        (&second["body_base64"], &second["body_truncated"]),
        (&json!("/wA="), &json!(false))
    );
    let header = json!({"name": "webhook-type", "value": "order.made"});
    assert!(
        second["headers"].as_array().unwrap().contains(&header),
        "{second}"
    );
    let mut dead = Value::Null;
    eventually("its dead letter stands", || {
        dead = admin.get("/v1/dead_letters?cause=poison")["data"][0].clone();
        dead.is_object()
    });
    let poison = preview["data"].as_array().unwrap().last().unwrap();
    assert_eq!(poison["event"], Value::Null);
    assert_eq!(
        (&poison["partition"], &poison["body"]),
        (&json!(1), &json!("?"))
    );
    assert_eq!(poison["dead"]["cause"], "poison");
    assert_eq!(poison["dead"]["detail"], dead["detail"], "the same words");
    let one = admin.get(&format!("{PREVIEW}?limit=1"));
    assert_eq!(one["data"].as_array().unwrap().len(), 1);
    let table = admin.says(&["preview", "events"]);
    assert!(
        table.contains("order.made") && table.contains("poison: "),
        "{table}"
    );

    let tenants = made(
        &admin.server,
        &admin.key,
        "/v1/keys",
        &json!({"scopes": ["read"], "tenant": "acme"}),
    );
    for path in [SOURCES, PREVIEW] {
        call(&admin.server, &tenants, "GET", path, &Value::Null).problem(403, "forbidden");
    }
    let nowhere = "/v1/sources/posthaste.lane/preview";
    call(&admin.server, &admin.key, "GET", nowhere, &Value::Null).problem(404, "not_found");
    let many = format!("{PREVIEW}?limit=51");
    let refused = call(&admin.server, &admin.key, "GET", &many, &Value::Null);
    assert_eq!(refused.problem(422, "invalid").0, "limit");
    admin.server.stop();
}
