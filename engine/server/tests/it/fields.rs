//! What is set of an endpoint beside where its events go: metadata, the age an
//! event may have, when it is disabled for failing; and when it was changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste::clock::Clock;
use posthaste::config::Config;
use posthaste::log::embedded::EmbeddedLog;
use posthaste::log::{Log as _, NewRecord, TopicPartition};
use serde_json::{Value, json};

use crate::dead::Receiver;
use crate::operations::{call, created, publish, said, server};
use crate::refusals::program::{Server, embedded, eventually};

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
const ONE: &str = "/v1/tenants/acme/endpoints/billing";

/// Members of an endpoint as it is shown.
fn of<const N: usize>(endpoint: &Value, names: [&str; N]) -> [Value; N] {
    names.map(|name| endpoint[name].clone())
}

const SET: [&str; 3] = ["metadata", "max_age", "auto_disable"];

#[test]
fn each_is_set_shown_merged_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let started = server(dir.path());
    let none = json!({"url": "https://example.com/", "metadata": null, "max_age": null});
    let plain = call(&started, "POST", ENDPOINTS, none, 201);
    let defaults = [json!({}), Value::Null, json!({"after": "120h"})];
    assert_eq!(of(&plain, SET), defaults);
    assert_eq!(plain["updated_at"], plain["created_at"]);

    let words = [
        "endpoints",
        "create",
        "--tenant",
        "acme",
        "--url",
        "https://example.com/",
        "--uid",
        "billing",
        "--metadata",
        "crm=4711",
        "--metadata",
        "plan=gold",
        "--max-age",
        "600s",
        "--auto-disable",
        "never",
        "--json",
    ];
    let made: Value = serde_json::from_str(&said(&started, &words)).unwrap();
    let metadata = json!({"crm": "4711", "plan": "gold"});
    let never = json!({"after": "never"});
    assert_eq!(of(&made, SET), [metadata, json!("10m"), never.clone()]);

    // A patch goes by the key; nothing else changes.
    let patch = json!({"metadata": {"plan": null, "since": "2026"}, "max_age": "36h"});
    let patched = call(&started, "PATCH", ONE, patch.clone(), 200);
    let merged = json!({"crm": "4711", "since": "2026"});
    assert_eq!(of(&patched, SET), [merged.clone(), json!("36h"), never]);
    let same = call(&started, "PATCH", ONE, patch, 200);
    assert_eq!(same, patched, "it is no change");
    assert_eq!(same["version"], 2);
    let patch = json!({"auto_disable": {"after": "12h"}, "max_age": null});
    let patched = call(&started, "PATCH", ONE, patch, 200);
    let after = json!({"after": "12h"});
    assert_eq!(of(&patched, SET), [merged, Value::Null, after]);
    let patch = json!({"auto_disable": {"after": null}});
    let patched = call(&started, "PATCH", ONE, patch, 200);
    assert_eq!(patched["auto_disable"], defaults[2]);

    // Times are shown to the second.
    std::thread::sleep(Duration::from_millis(1_100));
    let patch = json!({"metadata": null, "auto_disable": {"after": "720h"}});
    let patched = call(&started, "PATCH", ONE, patch, 200);
    assert_eq!(patched["metadata"], json!({}));
    let [created_at, updated_at] = of(&patched, ["created_at", "updated_at"]);
    assert_eq!(created_at, made["created_at"]);
    assert!(updated_at.as_str() > created_at.as_str(), "{patched}");
    // It is read back from the log as it is, and what others do to it counts.
    started.stop();
    let started = server(dir.path());
    assert_eq!(call(&started, "GET", ONE, Value::Null, 200), patched);
    std::thread::sleep(Duration::from_millis(1_100));
    let paused = call(&started, "POST", &format!("{ONE}/pause"), Value::Null, 200);
    assert!(
        paused["updated_at"].as_str() > updated_at.as_str(),
        "{paused}"
    );
    assert_eq!(paused["auto_disable"], json!({"after": "720h"}));
    started.stop();
}

/// Writes an event while nobody reads.
async fn written(dir: &std::path::Path, id: &'static str) {
    let config = Config::parse(&embedded(dir)).unwrap();
    let clock = Clock::start();
    let log = EmbeddedLog::open(dir, Arc::new(move || clock.now())).unwrap();
    let header = |name: &'static str, value: &'static str| {
        (name.into(), Bytes::from_static(value.as_bytes()))
    };
    let record = NewRecord {
        to: TopicPartition {
            topic: config.ingest.topics[0].as_str().into(),
            partition: 0,
        },
        key: Bytes::new(),
        value: Bytes::from_static(b"{}"),
        headers: vec![
            header("webhook-tenant", "acme"),
            header("webhook-type", "invoice.paid"),
            header("webhook-id", id),
        ],
    };
    assert!(log.append(vec![record]).await[0].is_ok());
    log.close();
}

/// The dead letters, and what was made of each: event, endpoint, cause, attempts.
fn letters(server: &Server) -> Vec<Value> {
    let page = call(server, "GET", "/v1/dead_letters", Value::Null, 200);
    let letters = page["data"].as_array().unwrap().iter();
    let told = letters.map(|letter| {
        let of = &letter["delivery"];
        json!([of["event"], of["endpoint"], letter["cause"], of["attempts"]])
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_too_old_is_never_attempted_and_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (short, beside) = (Receiver::start(200), Receiver::start(200));
    let started = server(dir.path());
    let age = json!({"max_age": "1s"});
    let id = created(&started, "billing", short.at, age);
    created(&started, "beside", beside.at, json!({}));
    started.stop();
    written(dir.path(), "late").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    // It has been in its source for longer than it may.
    let started = server(dir.path());
    let letter = |event: &str| json!([event, id, "expired", 0]);
    eventually("it is given up", || letters(&started) == [letter("late")]);
    eventually("it has no bound there", || beside.taken() == ["late"]);
    assert!(short.taken().is_empty());

    // A young one is delivered, and one that is held for too long is not.
    let age = |max_age: &str| {
        call(&started, "PATCH", ONE, json!({ "max_age": max_age }), 200);
    };
    age("1h");
    publish(&started, &["young"]);
    eventually("it is young enough", || short.taken() == ["young"]);
    age("1s");
    call(&started, "POST", &format!("{ONE}/pause"), Value::Null, 200);
    publish(&started, &["waits"]);
    eventually("both are read", || {
        beside.taken() == ["late", "waits", "young"]
    });
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    call(&started, "POST", &format!("{ONE}/resume"), Value::Null, 200);
    eventually("it is given up, too", || {
        let letters = letters(&started);
        letters.len() == 2 && letters.contains(&letter("waits"))
    });
    assert_eq!(short.taken(), ["young"]);

    // Whoever asks why it did not arrive is told.
    let path = "/v1/tenants/acme/events/late";
    let event = call(&started, "GET", path, Value::Null, 200);
    let delivery = event["not_attempted"][0]["id"].as_str().unwrap();
    let path = format!("/v1/tenants/acme/deliveries/{delivery}");
    let told = call(&started, "GET", &path, Value::Null, 200);
    assert_eq!(told["status"], "dead", "{told:#}");
    let letter = &told["dead_letter"];
    assert_eq!(letter["cause"], "expired");
    assert!(letter["detail"].as_str().unwrap().contains("`max_age`"));

    // What is asked for again is never too old.
    let redrive = ["dead", "redrive", "--tenant", "acme", "--cause", "expired"];
    let told = said(&started, &redrive);
    assert!(told.starts_with("2 come again by 1 operation"), "{told}");
    eventually("they arrive", || {
        short.taken() == ["late", "waits", "young"]
    });
    started.stop();
}
