//! The API alone: what comes in through it is delivered by instances beside it.

use posthaste::config::Config;
use serde_json::{Value, json};

use crate::contract::unique;
use crate::dead::Receiver;
use crate::kafka::{broker, make};
use crate::refusals::program::{Refused, SECRETS, Server, embedded, eventually, file};

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";

fn endpoint(server: &Server, receiver: &Receiver) {
    let url = format!("http://{}/hook", receiver.at);
    server.api.endpoint("acme", &url);
}

fn publish(server: &Server, id: &str) {
    let headers = format!("webhook-type: a.b\r\nwebhook-id: {id}\r\n");
    let taken = server.api.post("/v1/tenants/acme/events", &headers, b"{}");
    assert_eq!(taken.status, 202, "{}", taken.text);
}

/// It is ready, shows metrics, and has no room that delivers.
fn is_the_api_alone(server: &Server) {
    assert_eq!(server.api.call("GET", "/readyz", "", b"").status, 200);
    assert_eq!(server.api.metric("posthaste_control_endpoints"), Some(1.0));
    let log = server.log();
    assert!(log.contains("\"shards\":0"), "{log}");
    assert_eq!(server.api.metric("posthaste_ingest_records_total"), None);
}

#[test]
fn what_the_api_takes_is_delivered_by_whoever_serves_the_log_next() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let receiver = Receiver::start(200);
    let api = Server::run("api", &config, &[]);
    endpoint(&api, &receiver);
    publish(&api, "evt_1");
    is_the_api_alone(&api);
    // The folder has one holder.
    let another = file(&format!("{config}[http]\nlisten = \"127.0.0.1:0\"\n"));
    let words = |word| [word, "--config", another.path().to_str().unwrap()];
    Refused::from(&words("serve")).expect(1, &["is in use"]);
    api.stop();
    assert!(receiver.taken().is_empty());

    let server = Server::start(&config);
    eventually("it arrives", || receiver.taken() == ["evt_1"]);
    Refused::from(&words("api")).expect(1, &["is in use"]);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_made_by_the_api_is_served_beside_it_on_kafka() {
    let Some(bootstrap) = broker() else { return };
    let prefix = unique("alone");
    let text = format!(
        "log = \"kafka://{bootstrap}\"\nshards = 1\n{SECRETS}{SETTINGS}\
         [topics]\nprefix = \"{prefix}\"\nlane_partitions = 2\nsource_partitions = 2\n\
         replication = 1\n[ingest]\ntopics = [\"{prefix}.events\"]\nstart = \"earliest\"\n"
    );
    make(bootstrap, &Config::parse(&text).unwrap()).await;
    let run = move || {
        let receiver = Receiver::start(200);
        let (server, api) = (Server::start(&text), Server::run("api", &text, &[]));
        endpoint(&api, &receiver);
        let known = || {
            let listed = server
                .api
                .call("GET", "/v1/tenants/acme/endpoints", "", b"");
            let listed: Value = serde_json::from_str(&listed.text).unwrap();
            listed["data"].as_array().unwrap().len() == 1
        };
        eventually("it is known beside it", known);
        publish(&api, "evt_1");
        eventually("it is delivered", || receiver.taken() == ["evt_1"]);
        is_the_api_alone(&api);
        // A change made beside it is seen there, and it leaves nobody behind.
        let id = serde_json::from_str::<Value>(
            &server
                .api
                .call("GET", "/v1/tenants/acme/endpoints", "", b"")
                .text,
        );
        let id = id.unwrap()["data"][0]["id"].as_str().unwrap().to_owned();
        let one = format!("/v1/tenants/acme/endpoints/{id}");
        let patch = json!({ "description": "changed" }).to_string();
        let changed = server.api.call("PATCH", &one, "", patch.as_bytes());
        assert_eq!(changed.status, 200, "{}", changed.text);
        eventually("it is seen", || {
            api.api.call("GET", &one, "", b"").text.contains("changed")
        });
        api.stop();
        publish(&server, "evt_2");
        eventually("the rest goes on", || {
            receiver.taken() == ["evt_1", "evt_2"]
        });
        server.stop();
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}
