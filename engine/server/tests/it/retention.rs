//! Replays of a time of which the log keeps a part: what is left comes again,
//! and the rest is told.

use std::time::Duration;

use posthaste::config::Config;
use posthaste::log::TopicPartition;
use serde_json::{Value, json};

use crate::contract::unique;
use crate::dead::Receiver;
use crate::kafka::{broker, delete_before, make};
use crate::operations::{call, created, publish};
use crate::ranges::{Desk, HOUR, SETTINGS, endpoint, over, taken};
use crate::refusals::program::{SECRETS, Server, embedded, eventually};

const REPLAYS: &str = "/v1/tenants/acme/endpoints/billing/replays";
/// Far longer than a source topic keeps.
const SINCE: &str = "1440h";
const GONE: u64 = 20;
const LEFT: u64 = 10;

fn begin(server: &Server) -> Value {
    call(server, "POST", REPLAYS, json!({ "since": SINCE }), 202)
}

/// What is left comes again, and that there was more is said. `records`: that are
/// left in the source.
fn the_rest_comes_again(server: &Server, receiver: &Receiver, records: u64) {
    let dry = json!({ "since": SINCE, "dry_run": true });
    let dry = call(server, "POST", REPLAYS, dry, 200);
    assert!(dry["truncated"] == true && dry["exact"] == true, "{dry}");
    assert_eq!(
        (&dry["matched"], &dry["records"]),
        (&json!(LEFT), &json!(records))
    );
    let begun = begin(server);
    assert_eq!(begun["truncated"], true);
    let done = over(server, &begun["id"]);
    assert_eq!(done["progress"]["deliveries"], LEFT, "{done}");
    assert_eq!(done["progress"]["skipped"], 0, "{done}");
    let left: usize = LEFT.try_into().unwrap();
    assert_eq!(taken(receiver, left).len(), left);
    // A younger time is there as a whole.
    let young = json!({ "since": "1h", "dry_run": true });
    assert_eq!(
        call(server, "POST", REPLAYS, young, 200)["truncated"],
        false
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_comes_again_on_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let receiver = Receiver::start(200);
    // Older than the topic keeps, and swept away when the program runs.
    for (numbers, ago) in [
        (0..GONE, 8 * 24 * HOUR),
        (GONE..GONE + LEFT, Duration::ZERO),
    ] {
        let desk = Desk::open(dir.path(), &config, ago).await;
        desk.publish(numbers).await;
        desk.log.close();
    }
    let server = Server::start(&config);
    // What came before it was read before it: by nobody.
    let first = Receiver::start(200);
    created(
        &server,
        "first",
        first.at,
        json!({ "event_types": ["invoice.*"] }),
    );
    publish(&server, &["last"]);
    assert_eq!(taken(&first, 1), ["last"]);
    endpoint(&server, "billing", &receiver);
    let count = || {
        let dry = json!({ "since": SINCE, "dry_run": true });
        call(&server, "POST", REPLAYS, dry, 200)["records"].clone()
    };
    eventually("the source is swept", || count() == LEFT + 1);
    the_rest_comes_again(&server, &receiver, LEFT + 1);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_comes_again_on_kafka_also_where_a_replay_had_begun() {
    let Some(bootstrap) = broker() else { return };
    let prefix = unique("retention");
    let source = format!("{prefix}.events");
    let text = format!(
        "log = \"kafka://{bootstrap}\"\nshards = 1\n{SECRETS}\
         [topics]\nprefix = \"{prefix}\"\nlane_partitions = 1\nsource_partitions = 1\n\
         replication = 1\n[ingest]\ntopics = [\"{source}\"]\nstart = \"earliest\"\n\
         [egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n"
    );
    make(bootstrap.clone(), &Config::parse(&text).unwrap()).await;
    let receiver = Receiver::start(200);
    let server = Server::start(&text);
    created(&server, "billing", receiver.at, json!({}));
    let ids: Vec<_> = (0..GONE + LEFT)
        .map(|number| format!("evt_{number}"))
        .collect();
    publish(&server, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(taken(&receiver, ids.len()).len(), ids.len());

    // It waits for its endpoint while what it is to bring is deleted.
    let steer = |verb: &str| {
        let path = format!("/v1/tenants/acme/endpoints/billing/{verb}");
        call(&server, "POST", &path, Value::Null, 200);
    };
    steer("pause");
    let begun = begin(&server);
    assert_eq!(begun["truncated"], false);
    let path = format!("/v1/operations/{}", begun["id"].as_str().unwrap());
    eventually("it waits", || {
        let shown = call(&server, "GET", &path, Value::Null, 200);
        shown["detail"] == "waits: the endpoint is paused"
    });
    let tp = TopicPartition {
        topic: source.into(),
        partition: 0,
    };
    delete_before(&bootstrap, &tp, GONE).await;
    steer("resume");
    let done = over(&server, &begun["id"]);
    assert_eq!(done["progress"]["deliveries"], LEFT, "{done}");
    assert_eq!(done["progress"]["skipped"], GONE, "{done}");
    assert_eq!(done["detail"], "20 records are no longer in the log");
    let left: usize = LEFT.try_into().unwrap();
    assert_eq!(taken(&receiver, left).len(), left);

    the_rest_comes_again(&server, &receiver, LEFT);
    server.stop();
}
