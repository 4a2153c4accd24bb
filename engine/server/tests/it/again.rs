//! Again, and not at all: what operations come to at the receiver.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dead::Receiver;
use crate::operations::{billing, call, publish, said};
use crate::refusals::program::{Server, eventually};

const ENDPOINT: &str = "/v1/tenants/acme/endpoints/billing";

/// The operation, once it has succeeded.
pub(crate) fn succeeded(server: &Server, operation: &Value) -> Value {
    let id = operation["id"].as_str().unwrap();
    let path = format!("/v1/operations/{id}");
    let mut shown = Value::Null;
    eventually("it is over", || {
        shown = call(server, "GET", &path, Value::Null, 200);
        let state = shown["state"].as_str().unwrap();
        ["succeeded", "failed", "cancelled"].contains(&state)
    });
    assert_eq!(shown["state"], "succeeded", "{shown}");
    shown
}

pub(crate) fn arrived(receiver: &Receiver, events: &[&str]) {
    eventually("they arrive", || receiver.taken().len() >= events.len());
    assert_eq!(receiver.taken(), events);
}

#[test]
fn events_of_the_past_come_again_and_to_a_new_endpoint() {
    let (server, receiver, _, _dir) = billing(200, json!({}));
    publish(&server, &["a", "b"]);
    arrived(&receiver, &["a", "b"]);
    let words = [
        "replay",
        "--tenant",
        "acme",
        "--endpoint",
        "billing",
        "--since",
        "1h",
        "--follow",
    ];
    assert_eq!(said(&server, &words), "succeeded: 2 deliveries\n");
    arrived(&receiver, &["a", "a", "b", "b"]);

    let found = call(
        &server,
        "GET",
        "/v1/tenants/acme/events/a",
        Value::Null,
        200,
    );
    let place = |name: &str| found[name].to_string().replace('"', "");
    let (topic, partition, offset) = (place("topic"), place("partition"), place("offset"));
    let words = [
        "resend",
        "--tenant",
        "acme",
        "--endpoint",
        "billing",
        "--topic",
        &topic,
        "--partition",
        &partition,
        "--offset",
        &offset,
        "--follow",
    ];
    said(&server, &words);
    arrived(&receiver, &["a", "a", "a", "b", "b"]);
    let path = "/v1/tenants/acme/events/b/replay";
    let begun = call(&server, "POST", path, Value::Null, 202);
    assert_eq!(begun["operations"].as_array().unwrap().len(), 1);
    arrived(&receiver, &["a", "a", "a", "b", "b", "b"]);

    let late = Receiver::start(200);
    let body = json!({ "url": format!("http://{}/", late.at), "start_at": "1h" });
    let made = call(&server, "POST", "/v1/tenants/acme/endpoints", body, 201);
    let over = succeeded(&server, &made["operation"]);
    assert_eq!(over["progress"]["deliveries"], 2, "{over}");
    arrived(&late, &["a", "b"]);
    server.stop();
}

#[test]
fn what_is_owed_is_retried_now_or_cancelled() {
    let (server, receiver, _, _dir) = billing(503, json!({}));
    publish(&server, &["a"]);
    let mut delivery = String::new();
    eventually("its attempt is on record", || {
        let list = call(
            &server,
            "GET",
            "/v1/tenants/acme/deliveries",
            Value::Null,
            200,
        );
        let id = list["data"][0]["id"].as_str().unwrap_or_default();
        id.clone_into(&mut delivery);
        !delivery.is_empty()
    });
    let cancel = format!("{ENDPOINT}/cancel");
    eventually("it is owed, and then no more", || {
        let begun = call(&server, "POST", &cancel, Value::Null, 202);
        assert_eq!(begun["kind"], "cancel");
        succeeded(&server, &begun)["progress"]["deliveries"] == 1
    });
    let none = format!("/v1/deliveries/{delivery}/cancel");
    let answer = server.api.post(&none, "", b"");
    answer.problem(409, "delivery_not_owed");
    // It is not owed: its event is sent again.
    receiver.status.store(200, Ordering::SeqCst);
    let begun: Value = serde_json::from_str(&said(&server, &["resend", &delivery, "--json"]))
        .expect("the operation");
    assert_eq!(begun["kind"], "replay");
    succeeded(&server, &begun);
    arrived(&receiver, &["a"]);
    for verb in ["retry_now", "probe"] {
        let path = format!("{ENDPOINT}/{verb}");
        let begun = call(&server, "POST", &path, Value::Null, 202);
        assert_eq!(begun["kind"], verb);
        succeeded(&server, &begun);
    }
    server.stop();
}

#[test]
fn a_resume_skips_what_it_is_told_to() {
    let (server, receiver, _, _dir) = billing(200, json!({}));
    let pause = || {
        let path = format!("{ENDPOINT}/pause");
        call(&server, "POST", &path, Value::Null, 200);
    };
    let resume = |from: &str| {
        let path = format!("{ENDPOINT}/resume");
        let resumed = call(&server, "POST", &path, json!({ "from": from }), 200);
        assert_eq!(resumed["status"], "active");
    };
    // Long enough for what was published to be held.
    let while_later = || std::thread::sleep(Duration::from_millis(1_500));
    pause();
    publish(&server, &["a", "b"]);
    while_later();
    resume("now");
    publish(&server, &["c"]);
    arrived(&receiver, &["c"]);
    pause();
    publish(&server, &["d"]);
    while_later();
    let between = Instant::now();
    while_later();
    publish(&server, &["e"]);
    while_later();
    resume(&format!("{}ms", between.elapsed().as_millis()));
    arrived(&receiver, &["c", "e"]);
    publish(&server, &["f"]);
    arrived(&receiver, &["c", "e", "f"]);
    server.stop();
}
