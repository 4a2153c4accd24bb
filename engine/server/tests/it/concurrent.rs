//! Many who make one endpoint at once with one key: one is made, and all hear of
//! that. Many who change it at once: one history, told alike by everybody, and
//! each who was late told so.

use std::collections::{BTreeMap, BTreeSet};

use posthaste::config::Config;
use serde_json::{Value, json};

use crate::contract::unique;
use crate::kafka::{broker, make};
use crate::refusals::program::{Answer, SECRETS, Server, embedded, eventually};

const CHANGES: usize = 1_000;
const WRITERS: usize = 20;
const ONE: &str = "/v1/tenants/acme/endpoints/one";

/// One change asked for: what it was based on, what it says, and the answer.
struct Asked {
    based: u64,
    text: String,
    answer: Answer,
}

/// What is told of one request.
#[derive(Debug, Default, PartialEq)]
struct Told {
    version: u64,
    refused: bool,
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text).unwrap()
}

fn shown(server: &Server) -> Value {
    let answer = server.api.call("GET", ONE, "", b"");
    assert_eq!(answer.status, 200, "{}", answer.text);
    json_of(&answer)
}

/// Makes it with one key from everywhere at once; answers what everybody heard.
fn made_once(servers: &[Server]) -> Value {
    let settings = json!({ "url": "https://example.com/", "uid": "one" }).to_string();
    let make = |server: &Server| {
        loop {
            let headers = "idempotency-key: one\r\n";
            let path = "/v1/tenants/acme/endpoints";
            let answer = server.api.post(path, headers, settings.as_bytes());
            if answer.status != 409 {
                assert_eq!(answer.status, 201, "{}", answer.text);
                return answer.text;
            }
            answer.problem(409, "in_progress");
        }
    };
    let heard: BTreeSet<_> = std::thread::scope(|scope| {
        let begin = |writer| scope.spawn(move || make(&servers[writer % servers.len()]));
        let writers: Vec<_> = (0..WRITERS).map(begin).collect();
        writers
            .into_iter()
            .map(|ended| ended.join().unwrap())
            .collect()
    });
    assert_eq!(heard.len(), 1, "{heard:?}");
    serde_json::from_str(heard.first().unwrap()).unwrap()
}

/// Changes what it reads, as often as is its share.
fn write(server: &Server, writer: usize) -> Vec<Asked> {
    let change = |number| {
        let based = shown(server)["version"].as_u64().unwrap();
        let text = format!("{writer} {number}");
        let patch = json!({ "description": text }).to_string();
        let headers = format!("if-match: \"{based}\"\r\n");
        let answer = server.api.call("PATCH", ONE, &headers, patch.as_bytes());
        Asked {
            based,
            text,
            answer,
        }
    };
    (0..CHANGES / WRITERS).map(change).collect()
}

fn change_all(servers: &[Server]) -> Vec<Asked> {
    std::thread::scope(|scope| {
        let begin = |writer| scope.spawn(move || write(&servers[writer % servers.len()], writer));
        let writers: Vec<_> = (0..WRITERS).map(begin).collect();
        let ended = writers.into_iter().flat_map(|ended| ended.join().unwrap());
        ended.collect()
    })
}

/// The trail of this endpoint: what each request came to, and the versions of
/// the changes that stand, oldest first.
fn trail(server: &Server, id: &str) -> (BTreeMap<String, Told>, Vec<u64>) {
    let (mut told, mut lines) = (BTreeMap::<_, Told>::new(), Vec::new());
    let mut at = String::new();
    loop {
        let path = format!("/v1/audit?subject={id}&limit=250{at}");
        let page = json_of(&server.api.call("GET", &path, "", b""));
        lines.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => at = format!("&cursor={next}"),
            None => break,
        }
    }
    for line in &lines {
        let request = line["request_id"].as_str().unwrap().to_owned();
        let one = told.entry(request).or_default();
        one.version = line["version"].as_u64().unwrap();
        one.refused |= line["action"] == "change.refused";
    }
    let stands = |line: &&Value| !told[line["request_id"].as_str().unwrap()].refused;
    let standing = lines.iter().rev().filter(stands);
    let versions = standing.map(|line| line["version"].as_u64().unwrap());
    let versions = versions.collect();
    (told, versions)
}

fn request_id(answer: &Answer) -> String {
    let mut lines = answer.head.lines();
    let id = lines.find_map(|line| line.strip_prefix("request-id: "));
    // Heads are lower-cased, ids are not.
    let (kind, rest) = id.unwrap().split_at(4);
    format!("{kind}{}", rest.to_ascii_uppercase())
}

/// Many change it at once, and all of it is one history. `restart` answers an
/// instance that has read nothing yet.
fn one_history(servers: Vec<Server>, restart: impl FnOnce(Vec<Server>) -> Server) {
    let id = made_once(&servers)["id"].as_str().unwrap().to_owned();
    for server in &servers {
        let there = || server.api.call("GET", ONE, "", b"").status == 200;
        eventually("everybody knows it", there);
    }

    let asked = change_all(&servers);
    assert_eq!(asked.len(), CHANGES);
    // By version: its text, and its request.
    let mut taken = BTreeMap::new();
    let mut late = BTreeSet::new();
    for Asked {
        based,
        text,
        answer,
    } in asked
    {
        let said = json_of(&answer);
        let version = said["version"].as_u64();
        let request = request_id(&answer);
        if answer.status == 200 {
            assert_eq!(version, Some(based + 1), "{said}");
            let twice = taken.insert(based + 1, (text, request));
            assert!(twice.is_none(), "two changes are version {}", based + 1);
        } else {
            answer.problem(409, "version_conflict");
            assert!(version > Some(based), "nobody changed it: {said}");
            late.insert(request);
        }
    }
    let last = 1 + u64::try_from(taken.len()).unwrap();
    assert_eq!(
        taken.keys().copied().collect::<Vec<_>>(),
        (2..=last).collect::<Vec<_>>(),
        "no version is left out"
    );

    let (told, standing) = trail(&servers[0], &id);
    assert_eq!(standing, (1..=last).collect::<Vec<_>>());
    for (version, (_, request)) in &taken {
        let wanted = Told {
            version: *version,
            refused: false,
        };
        assert_eq!(told.get(request), Some(&wanted), "{request}");
    }
    assert!(late.iter().all(|id| told.get(id).is_none_or(|t| t.refused)));
    let in_table = told.values().filter(|told| told.refused).count();
    assert_eq!(in_table > 0, servers.len() > 1, "{in_table} met there");

    let (text, _) = &taken[&last];
    for server in &servers {
        eventually("everybody holds the last of them", || {
            shown(server)["version"] == last
        });
        assert_eq!(shown(server)["description"], **text);
        assert_eq!(trail(server, &id).0, told);
    }
    let all = shown(&servers[0]);
    let new = restart(servers);
    assert_eq!(shown(&new), all);
    new.stop();
}

#[test]
fn a_thousand_changes_at_one_instance_are_one_history() {
    let dir = tempfile::tempdir().unwrap();
    let config = embedded(dir.path());
    one_history(vec![Server::start(&config)], |old| {
        for server in old {
            server.stop();
        }
        Server::start(&config)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_changes_at_two_instances_are_one_history() {
    let Some(bootstrap) = broker() else { return };
    let prefix = unique("concurrent");
    let text = format!(
        "log = \"kafka://{bootstrap}\"\nshards = 1\n{SECRETS}\
         [topics]\nprefix = \"{prefix}\"\nlane_partitions = 2\nsource_partitions = 2\n\
         replication = 1\n[ingest]\ntopics = [\"{prefix}.events\"]\nstart = \"earliest\"\n"
    );
    make(bootstrap, &Config::parse(&text).unwrap()).await;
    let run = move || {
        let servers = vec![Server::start(&text), Server::start(&text)];
        one_history(servers, |old| {
            // Beside them, so that no partition moves to it.
            let new = Server::start(&text);
            for server in old {
                server.stop();
            }
            new
        });
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}
