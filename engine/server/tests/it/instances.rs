//! Operations where two instances run: they are asked for, steered and followed
//! at either, carried out by the one that owns the endpoint's lane, and ended by
//! the other when that one leaves.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use posthaste::config::Config;
use serde_json::{Value, json};

use crate::contract::unique;
use crate::dead::Receiver;
use crate::kafka::{broker, make};
use crate::operations::{call, created, publish};
use crate::ranges::taken;
use crate::refusals::program::{SECRETS, Server, eventually};

const ENDPOINT: &str = "/v1/tenants/acme/endpoints/billing";
const EVENTS: usize = 60;

/// The one that owns the only partition of the lane, and the one that does not.
struct Two {
    owner: Server,
    other: Server,
}

/// An operation as an instance shows it.
fn shown(server: &Server, operation: &Value) -> Value {
    let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
    call(server, "GET", &path, Value::Null, 200)
}

fn deliveries(shown: &Value) -> usize {
    let count = shown["progress"]["deliveries"].as_u64().unwrap();
    count.try_into().unwrap()
}

fn steer(server: &Server, operation: &Value, verb: &str) -> Value {
    let id = operation["id"].as_str().unwrap();
    let path = format!("/v1/operations/{id}/{verb}");
    call(server, "POST", &path, Value::Null, 200)
}

impl Two {
    /// Whoever owes the only delivery there is owns the lane.
    fn of(first: Server, second: Server) -> Self {
        let owes = |server: &Server| {
            let owed = server.api.metric("posthaste_owner_owed_deliveries ");
            owed == Some(1.0)
        };
        eventually("one of them owes it", || owes(&first) || owes(&second));
        let (owner, other) = match owes(&first) {
            true => (first, second),
            false => (second, first),
        };
        assert!(!owes(&other), "both own it");
        Self { owner, other }
    }

    fn each(&self) -> [&Server; 2] {
        [&self.owner, &self.other]
    }

    /// Both show that it is in this state; the deliveries they tell of.
    fn both_say(&self, operation: &Value, state: &str) -> usize {
        let mut said = [0; 2];
        eventually(state, || {
            let both = self.each().map(|server| shown(server, operation));
            said = [deliveries(&both[0]), deliveries(&both[1])];
            both.iter().all(|one| one["state"] == state) && said[0] == said[1]
        });
        said[0]
    }

    /// Asked for where the lane is not owned.
    fn ask(&self, path: &str, body: Value) -> Value {
        call(
            &self.other,
            "POST",
            &format!("{ENDPOINT}/{path}"),
            body,
            202,
        )
    }

    fn replay(&self, rate: u32) -> Value {
        self.ask("replays", json!({ "since": "1h", "rate_per_second": rate }))
    }
}

/// What waits is retried, and one event is sent again.
fn retries_and_resends(two: &Two, receiver: &Receiver) {
    receiver.status.store(200, Ordering::SeqCst);
    let retry = two.ask("retry_now", json!({}));
    assert_eq!(taken(receiver, 1), ["late"]);
    assert_eq!(two.both_say(&retry, "succeeded"), 1);
    let path = "/v1/tenants/acme/events/late";
    let event = call(&two.other, "GET", path, Value::Null, 200);
    let place = json!({
        "topic": event["topic"], "partition": event["partition"], "offset": event["offset"],
    });
    let resend = two.ask("resends", place);
    assert_eq!(taken(receiver, 1), ["late"]);
    assert_eq!(two.both_say(&resend, "succeeded"), 1);
}

/// A replay that is cancelled on its way brings what it says that it did.
fn cancelled(two: &Two, receiver: &Receiver) {
    let replay = two.replay(20);
    for server in two.each() {
        eventually("both follow it", || {
            deliveries(&shown(server, &replay)) >= 10
        });
    }
    steer(&two.other, &replay, "cancel");
    let count = two.both_say(&replay, "cancelled");
    assert!((10..EVENTS).contains(&count), "{count}");
    assert_eq!(taken(receiver, count).len(), count);
}

/// One that is paused at one and resumed at the other goes on where it was, and
/// goes on where the other owns the lane. Answers the instance that is left.
fn handed_on(two: Two, receiver: &Receiver) -> Server {
    let replay = two.replay(15);
    eventually("it begins", || receiver.taken().len() >= 10);
    assert_eq!(steer(&two.owner, &replay, "pause")["state"], "paused");
    // It is told at most once a second.
    std::thread::sleep(Duration::from_millis(1_500));
    let count = two.both_say(&replay, "paused");
    assert_eq!(receiver.taken().len(), count, "nothing comes meanwhile");
    assert!(count < EVENTS, "{count}");
    assert_ne!(steer(&two.other, &replay, "resume")["state"], "paused");
    eventually("it goes on", || receiver.taken().len() >= count + 10);

    let Two { owner, other } = two;
    owner.stop();
    let mut end = Value::Null;
    eventually("the other ends it", || {
        end = shown(&other, &replay);
        end["state"] == "succeeded"
    });
    assert_eq!(deliveries(&end), EVENTS + 1, "{end}");
    let came = taken(receiver, EVENTS + 1);
    assert_eq!(came.len(), EVENTS + 1, "each once: nothing was cut off");
    assert_eq!(came.iter().collect::<BTreeSet<_>>().len(), EVENTS + 1);
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_of_two_instances_are_the_same() {
    let Some(bootstrap) = broker() else { return };
    let prefix = unique("instances");
    let text = format!(
        "log = \"kafka://{bootstrap}\"\nshards = 1\n{SECRETS}\
         [topics]\nprefix = \"{prefix}\"\nlane_partitions = 1\nsource_partitions = 2\n\
         replication = 1\n[ingest]\ntopics = [\"{prefix}.events\"]\nstart = \"earliest\"\n\
         [egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n\
         [retry_policies.late]\ngaps = [\"1h\"]\n"
    );
    make(bootstrap, &Config::parse(&text).unwrap()).await;
    let run = move || {
        let receiver = Receiver::start(503);
        let (first, second) = (Server::start(&text), Server::start(&text));
        let more = json!({ "retry_policy": "late" });
        created(&first, "billing", receiver.at, more);
        eventually("both know it", || {
            second.api.call("GET", ENDPOINT, "", b"").status == 200
        });
        publish(&first, &["late"]);
        let two = Two::of(first, second);
        retries_and_resends(&two, &receiver);

        let ids: Vec<_> = (0..EVENTS).map(|number| format!("evt_{number}")).collect();
        publish(
            &two.owner,
            &ids.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        assert_eq!(taken(&receiver, EVENTS).len(), EVENTS);
        cancelled(&two, &receiver);
        handed_on(two, &receiver).stop();
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}
