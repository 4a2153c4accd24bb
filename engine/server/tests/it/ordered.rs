//! An ordered endpoint from outside: each key's events come in order, and a key
//! that fails holds up no other.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::operations::call;
use crate::receiver::read_request;
use crate::refusals::program::{Server, embedded, eventually, posthaste};

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n\
     [retry_policies.soon]\n\
     gaps = [\"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\"]\n";
const KEYS: [&str; 3] = ["a", "b", "c"];
const EVENTS: usize = 20;

/// Takes events whose id is `<key>-<number>`; those it refuses, only once it is
/// mended.
#[derive(Clone)]
struct Receiver {
    at: SocketAddr,
    /// How the ids begin that it refuses.
    refuses: &'static str,
    mended: Arc<AtomicBool>,
    /// Every attempt: the id, and whether it was taken.
    seen: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Receiver {
    fn start(refuses: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            at: listener.local_addr().unwrap(),
            refuses,
            mended: Arc::default(),
            seen: Arc::default(),
        };
        let answering = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, receiver) = (stream.unwrap(), answering.clone());
                std::thread::spawn(move || receiver.answer(&stream));
            }
        });
        receiver
    }

    fn answer(&self, mut stream: &TcpStream) {
        let mut requests = BufReader::new(stream);
        while let Some(id) = read_request(&mut requests) {
            let takes = !id.starts_with(self.refuses) || self.mended.load(Ordering::SeqCst);
            self.seen.lock().unwrap().push((id, takes));
            let status = if takes { 200 } else { 500 };
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// What was taken of one key, in the order it came.
    fn taken(&self, key: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap().clone();
        let of_key = |(id, takes): &(String, bool)| *takes && id.starts_with(key);
        let taken = seen.into_iter().filter(of_key);
        taken.map(|(id, _)| id).collect()
    }
}

/// Publishes the events of all keys, in turn.
fn publish(server: &Server) {
    for number in 0..EVENTS {
        for key in KEYS {
            let headers = format!(
                "webhook-type: a.b\r\nwebhook-id: {key}-{number}\r\n\
                 webhook-ordering-key: {key}\r\n"
            );
            let taken = server.api.post("/v1/tenants/acme/events", &headers, b"{}");
            assert_eq!(taken.status, 202, "{}", taken.text);
        }
    }
}

fn ids(key: &str) -> Vec<String> {
    (0..EVENTS).map(|n| format!("{key}-{n}")).collect()
}

/// `posthaste endpoints create`, as it answers with `--json`.
fn create(server: &Server, url: &str) -> Value {
    let address = format!("http://{}", server.api.0);
    let mut command = posthaste(&["endpoints", "create", "--tenant", "acme", "--url", url]);
    command.args(["--ordered", "--rate", "500/s", "--recovery", "fifo"]);
    command.args(["--retry-policy", "soon", "--json", "--server", &address]);
    let made = command.stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    serde_json::from_slice(&made.stdout).unwrap()
}

#[test]
fn a_failing_key_holds_up_no_other_and_each_keys_events_come_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{SETTINGS}", embedded(dir.path())));
    let receiver = Receiver::start("a-");
    let url = format!("http://{}/hook", receiver.at);
    let made = create(&server, &url);
    assert_eq!(made["ordered"], true);
    assert_eq!(
        (&made["rate_per_second"], &made["recovery"]),
        (&json!(500), &json!("fifo"))
    );
    publish(&server);
    eventually("the other keys arrive meanwhile", || {
        receiver.taken("b").len() >= EVENTS && receiver.taken("c").len() >= EVENTS
    });
    assert_eq!(receiver.taken("a"), [""; 0]);
    let seen = receiver.seen.lock().unwrap().clone();
    let tried: Vec<_> = seen.iter().filter(|(id, _)| id.starts_with("a-")).collect();
    assert!(!tried.is_empty(), "it was tried");
    let first = tried.iter().all(|(id, _)| id == "a-0");
    assert!(first, "nothing of the key passes its first: {tried:?}");

    receiver.mended.store(true, Ordering::SeqCst);
    eventually("the failed key arrives", || {
        receiver.taken("a").len() >= EVENTS
    });
    for key in KEYS {
        assert_eq!(receiver.taken(key), ids(key));
    }
    server.stop();
}

#[test]
fn cancelling_the_head_of_a_key_lets_the_next_of_that_key_go() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{SETTINGS}", embedded(dir.path())));
    let receiver = Receiver::start("a-0");
    let made = create(&server, &format!("http://{}/hook", receiver.at));
    publish(&server);
    let endpoint = made["id"].as_str().unwrap();
    let path = format!("/v1/deliveries?endpoint={endpoint}&status=scheduled");
    let mut head = Value::Null;
    eventually("the head fails, and waits for its time", || {
        head = call(&server, "GET", &path, Value::Null, 200)["data"][0].clone();
        head["event"] == "a-0"
    });
    assert_eq!(receiver.taken("a"), [""; 0], "it holds up its key");
    let path = format!("/v1/tenants/acme/endpoints/{endpoint}/cancel");
    let named = json!({ "delivery_ids": [head["id"]] });
    call(&server, "POST", &path, named, 202);
    eventually("the next ones arrive", || {
        receiver.taken("a").len() >= EVENTS - 1
    });
    assert_eq!(receiver.taken("a"), ids("a")[1..]);
    let path = format!("/v1/deliveries/{}", head["id"].as_str().unwrap());
    let shown = call(&server, "GET", &path, Value::Null, 200);
    assert_eq!(shown["status"], "canceled", "it was not given up: {shown}");
    eventually("and the other keys'", || {
        receiver.taken("b").len() >= EVENTS && receiver.taken("c").len() >= EVENTS
    });
    for key in ["b", "c"] {
        assert_eq!(receiver.taken(key), ids(key));
    }
    server.stop();
}
