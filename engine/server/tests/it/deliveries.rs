//! Why an event did not arrive, asked from outside: deliveries that arrived, fail,
//! were given up or wait are found by id and by every condition, page by page,
//! and by nobody else's credential.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use posthaste::config::Config;
use serde_json::{Value, json};

use crate::contract::unique;
use crate::dead::Receiver;
use crate::kafka::{broker, make};
use crate::refusals::program::{Answer, SECRETS, Server, embedded, eventually, file, posthaste};

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n\
     [retry_policies.once]\ngaps = [\"1s\"]\n";

fn get(server: &Server, path: &str) -> Value {
    read(&server.api.call("GET", path, "", b""), path)
}

fn read(answer: &Answer, path: &str) -> Value {
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

fn endpoint(server: &Server, tenant: &str, asked: &Value) {
    let path = format!("/v1/tenants/{tenant}/endpoints");
    let made = server.api.post(&path, "", asked.to_string().as_bytes());
    assert_eq!(made.status, 201, "{}", made.text);
}

fn publish(server: &Server, tenant: &str, event_type: &str, id: &str) {
    let headers = format!("webhook-type: {event_type}\r\nwebhook-id: {id}\r\n");
    let path = format!("/v1/tenants/{tenant}/events");
    let answer = server.api.post(&path, &headers, b"{\"n\": 1}");
    assert_eq!(answer.status, 202, "{}", answer.text);
}

fn listed(server: &Server, query: &str) -> Vec<Value> {
    let page = get(server, &format!("/v1/deliveries?limit=250&{query}"));
    assert_eq!(page["has_more"], false, "{page}");
    page["data"].as_array().unwrap().clone()
}

/// The events of what is listed.
fn events(server: &Server, query: &str) -> BTreeSet<String> {
    let listed = listed(server, query);
    let events = listed.iter().filter_map(|d| d["event"].as_str());
    events.map(ToOwned::to_owned).collect()
}

fn set<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(ToOwned::to_owned).into()
}

fn id_of(delivery: &Value) -> String {
    delivery["id"].as_str().unwrap().to_owned()
}

/// The one delivery of an event.
fn of_event(server: &Server, event: &str) -> Value {
    let mut listed = listed(server, &format!("event={event}"));
    assert_eq!(listed.len(), 1, "{event}: {listed:?}");
    listed.remove(0)
}

/// Five endpoints, an event type each: one takes everything, one is given up
/// after a retry, one refuses and is tried for days, one bars the way behind a
/// first failure, one is another tenant's.
fn begin(server: &Server, good: &Receiver, bad: &Receiver, strict: &Receiver) {
    for (tenant, uid, receiver, more) in [
        ("acme", "good", good, json!({})),
        ("acme", "brief", bad, json!({"retry_policy": "once"})),
        ("acme", "strict", strict, json!({})),
        ("acme", "ordered", bad, json!({"ordered": true})),
        ("other", "theirs", good, json!({})),
    ] {
        let mut asked = json!({
            "url": format!("http://{}/{uid}", receiver.at), "uid": uid, "event_types": [uid],
        });
        asked
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        endpoint(server, tenant, &asked);
    }
    for number in 1..=3 {
        publish(server, "acme", "good", &format!("good-{number}"));
    }
    publish(server, "acme", "brief", "brief-1");
    publish(server, "acme", "strict", "strict-1");
    publish(server, "acme", "ordered", "ordered-1");
    publish(server, "other", "theirs", "theirs-1");
    let all = set([
        "good-1",
        "good-2",
        "good-3",
        "brief-1",
        "strict-1",
        "ordered-1",
        "theirs-1",
    ]);
    eventually("all are attempted", || events(server, "") == all);
    publish(server, "acme", "ordered", "ordered-2");
    eventually("one is given up", || {
        of_event(server, "brief-1")["status"] == "dead"
    });
    // Attempts are recorded some time after they are made.
    let path = format!(
        "/v1/deliveries/{}/attempts",
        id_of(&of_event(server, "brief-1"))
    );
    eventually("its retry is on record", || {
        get(server, &path)["data"].as_array().unwrap().len() == 2
    });
}

/// What holds on any log.
fn everything(config: &str) {
    let (good, bad, strict) = (
        Receiver::start(200),
        Receiver::start(503),
        Receiver::start(422),
    );
    let server = Server::start(config);
    begin(&server, &good, &bad, &strict);
    filters_are_exact(&server);
    pages_are_whole(&server);
    delivered_and_failing_are_shown(&server);
    given_up_is_shown_and_brought_again(&server, &bad);
    what_waits_is_shown(&server);
    events_are_shown(&server);
    others_see_nothing(&server);
    the_command_line_tells_it(&server);
    server.stop();
}

fn filters_are_exact(server: &Server) {
    let good = set(["good-1", "good-2", "good-3"]);
    let acme = set([
        "good-1",
        "good-2",
        "good-3",
        "brief-1",
        "strict-1",
        "ordered-1",
    ]);
    for (query, wanted) in [
        ("tenant=acme", acme.clone()),
        ("tenant=other", set(["theirs-1"])),
        ("tenant=nobody", set([])),
        ("tenant=acme&endpoint=good", good.clone()),
        ("event_type=good", good.clone()),
        ("event=strict-1", set(["strict-1"])),
        ("status=succeeded&tenant=acme", good),
        ("status=failing", set(["strict-1", "ordered-1"])),
        ("status=dead", set(["brief-1"])),
        ("error_code=http_4xx", set(["strict-1"])),
        ("error_code=http_5xx", set(["brief-1", "ordered-1"])),
        ("error_code=http_5xx&status=failing", set(["ordered-1"])),
        ("tenant=acme&since=1h", acme.clone()),
        ("tenant=acme&until=1h", set([])),
        ("tenant=acme&since=2h&until=1h", set([])),
    ] {
        assert_eq!(events(server, query), wanted, "{query}");
    }
    let of_tenant = get(server, "/v1/tenants/acme/deliveries");
    assert_eq!(of_tenant["data"].as_array().unwrap().len(), acme.len());
    let scanned = &of_tenant["scanned"];
    assert!(
        scanned["since"].is_null() && scanned["ended_by"].is_null(),
        "{scanned}"
    );
    assert_eq!(scanned["dead_letters"], true);
    for (query, param, wanted) in [
        ("limit=0", "limit", "expected 1 to 250"),
        (
            "error_code=bored",
            "error_code",
            "expected one of `http_4xx`",
        ),
        ("endpoint=good", "endpoint", "together with its tenant"),
        ("since=yesterday", "since", "how long ago"),
        ("since=1h&until=2h", "since", "before `until`"),
        ("cursor=x", "cursor", "expected the `next_cursor`"),
        ("tenant=a/b", "tenant", "tenant must be"),
    ] {
        let path = format!("/v1/deliveries?{query}");
        let (found, detail) = server
            .api
            .call("GET", &path, "", b"")
            .problem(422, "invalid");
        assert!(
            found == param && detail.contains(wanted),
            "{query}: {found}: {detail}"
        );
    }
    let bored = server
        .api
        .call("GET", "/v1/deliveries?status=bored", "", b"");
    let (_, detail) = bored.problem(400, "malformed");
    assert!(detail.contains("`succeeded`"), "{detail}");
}

/// Whatever the pages' length, each delivery and each event is on one of them,
/// the newest first.
fn pages_are_whole(server: &Server) {
    for (list, at, wanted) in [("deliveries", "last_attempt_at", 6), ("events", "at", 7)] {
        for limit in [1, 2, 3, 250] {
            let (mut seen, mut times) = (Vec::new(), Vec::new());
            let mut path = format!("/v1/tenants/acme/{list}?limit={limit}");
            loop {
                let page = get(server, &path);
                let data = page["data"].as_array().unwrap();
                assert!(data.len() <= limit);
                seen.extend(data.iter().map(id_of));
                times.extend(
                    data.iter()
                        .map(|item| item[at].as_str().unwrap().to_owned()),
                );
                match page["next_cursor"].as_str() {
                    Some(next) => {
                        path = format!("/v1/tenants/acme/{list}?limit={limit}&cursor={next}")
                    }
                    None => break,
                }
            }
            assert_eq!(seen.len(), wanted, "{list}, {limit} a page: {seen:?}");
            assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), wanted);
            let newest_first = times.is_sorted_by(|a, b| a >= b);
            assert!(newest_first || list == "events", "{times:?}");
        }
    }
}

fn delivered_and_failing_are_shown(server: &Server) {
    let good = of_event(server, "good-1");
    let shown = get(server, &format!("/v1/deliveries/{}", id_of(&good)));
    assert_eq!(shown["status"], "succeeded");
    assert_eq!(
        (&shown["tenant"], &shown["type"]),
        (&json!("acme"), &json!("good"))
    );
    assert_eq!(shown["origin"], good["origin"]);
    assert!(shown["error"].is_null() && shown["lane"].is_null());
    let attempt = &shown["history"][0];
    assert_eq!(
        (&attempt["number"], &attempt["trigger"]),
        (&json!(1), &json!("initial"))
    );
    assert_eq!(attempt["status"], 200);
    let path = format!("/v1/attempts/{}", attempt["id"].as_str().unwrap());
    assert_eq!(get(server, &path), *attempt);

    let strict = of_event(server, "strict-1");
    let error = json!({
        "code": "http_4xx", "blame": "receiver", "text": "the endpoint refused the webhook",
    });
    assert_eq!(
        (&strict["error"], &strict["last_status"]),
        (&error, &json!(422))
    );
    let shown = get(server, &format!("/v1/deliveries/{}", id_of(&strict)));
    assert_eq!(shown["status"], "failing");
    assert_eq!(shown["why"], error["text"]);
    assert_eq!(shown["endpoint_status"], "active");
    let lane = &shown["lane"];
    assert_eq!(
        (&lane["state"], &lane["reason"]),
        (&json!("owed"), &json!("retry"))
    );
    assert_eq!(lane["due_at"], shown["next_attempt_at"]);
    // By now it may have been tried a second time, which is due later.
    let first = &shown["history"][0];
    let due = first["next_attempt_at"].as_str().unwrap();
    assert!(due > first["at"].as_str().unwrap());
    assert!(due <= lane["due_at"].as_str().unwrap());
}

fn given_up_is_shown_and_brought_again(server: &Server, bad: &Receiver) {
    let dead = of_event(server, "brief-1");
    let path = format!("/v1/deliveries/{}", id_of(&dead));
    let shown = get(server, &path);
    assert_eq!(
        (&shown["status"], &shown["attempts"]),
        (&json!("dead"), &json!(2))
    );
    assert_eq!(shown["dead_letter"]["cause"], "exhausted");
    assert!(shown["next_attempt_at"].is_null());
    assert!(
        shown["why"]
            .as_str()
            .unwrap()
            .contains("the endpoint failed"),
        "{shown}"
    );
    let attempts = get(server, &format!("{path}/attempts"));
    assert_eq!(attempts["data"], shown["history"]);
    let triggers = shown["history"].as_array().unwrap().iter();
    let triggers: Vec<_> = triggers.map(|a| a["trigger"].as_str().unwrap()).collect();
    assert_eq!(triggers, ["initial", "retry"]);

    // Brought again it is another delivery, of the same event.
    bad.status.store(200, Ordering::SeqCst);
    let body = json!({"filter": {"tenant": "acme", "endpoint": "brief"}}).to_string();
    let redriven = server
        .api
        .post("/v1/dead_letters/redrive", "", body.as_bytes());
    assert_eq!(redriven.status, 202, "{}", redriven.text);
    let redriven: Value = serde_json::from_str(&redriven.text).unwrap();
    assert_eq!(redriven["letters"], 1, "{redriven}");
    eventually("it arrives", || {
        listed(server, "event=brief-1&status=succeeded").len() == 1
    });
    bad.status.store(503, Ordering::SeqCst);
    let again = &listed(server, "event=brief-1&status=succeeded")[0];
    assert_eq!(again["origin"], dead["origin"]);
    assert_ne!(again["id"], dead["id"]);
    let shown = get(server, &format!("/v1/deliveries/{}", id_of(again)));
    assert_eq!(shown["history"].as_array().unwrap().len(), 1);
    assert_eq!(shown["history"][0]["trigger"], "resend");
    assert_eq!(get(server, &path)["status"], "dead");
}

/// It was never attempted: its event and the lane tell of it.
fn what_waits_is_shown(server: &Server) {
    let event = get(server, "/v1/tenants/acme/events/ordered-2");
    assert_eq!(event["deliveries"], json!([]));
    let waiting = event["not_attempted"].as_array().unwrap();
    assert_eq!(waiting.len(), 1, "{event}");
    let shown = get(server, &format!("/v1/deliveries/{}", id_of(&waiting[0])));
    assert_eq!(
        (&shown["status"], &shown["attempts"]),
        (&json!("held"), &json!(0)),
        "{shown}"
    );
    assert_eq!(shown["endpoint"], waiting[0]["endpoint"]);
    assert_eq!(
        (&shown["event"], &shown["history"]),
        (&json!("ordered-2"), &json!([]))
    );
    assert_eq!(shown["lane"]["state"], "held");
    assert_eq!(shown["lane"]["reason"], "owned");
    assert!(
        shown["why"].as_str().unwrap().contains("waits for"),
        "{shown}"
    );
}

fn events_are_shown(server: &Server) {
    let all = get(server, "/v1/events?type=good");
    assert_eq!(all["data"].as_array().unwrap().len(), 3);
    let of_tenant = get(server, "/v1/tenants/other/events");
    let item = &of_tenant["data"][0];
    assert_eq!(
        (&item["id"], &item["body_bytes"]),
        (&json!("theirs-1"), &json!(8))
    );
    assert!(item.get("body").is_none());
    let event = get(server, "/v1/events/brief-1?since=1h");
    assert_eq!(
        (&event["body"], &event["type"]),
        (&json!("{\"n\": 1}"), &json!("brief"))
    );
    let headers = event["headers"].as_array().unwrap();
    assert!(headers.contains(&json!({"name": "webhook-id", "value": "brief-1"})));
    let statuses = event["deliveries"].as_array().unwrap().iter();
    let statuses: BTreeSet<_> = statuses.map(|d| d["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["dead", "succeeded"].into());
    assert_eq!(event["not_attempted"], json!([]));
    // An id of ours tells where to look.
    let path = "/v1/tenants/acme/events";
    let made = server.api.post(path, "webhook-type: good\r\n", b"\xff\x00");
    let made: Value = serde_json::from_str(&made.text).unwrap();
    let made = get(
        server,
        &format!("/v1/events/{}?until=1h", made["id"].as_str().unwrap()),
    );
    assert_eq!(
        (&made["body"], &made["body_base64"]),
        (&Value::Null, &json!("/wA="))
    );
    let gone = server
        .api
        .call("GET", "/v1/events/brief-1?until=1h", "", b"");
    gone.problem(404, "not_found");
}

fn others_see_nothing(server: &Server) {
    let theirs = of_event(server, "theirs-1");
    let id = id_of(&theirs);
    let shown = get(server, &format!("/v1/tenants/other/deliveries/{id}"));
    let attempt = shown["history"][0]["id"].as_str().unwrap();
    get(server, &format!("/v1/tenants/other/attempts/{attempt}"));
    for path in [
        format!("/v1/tenants/acme/deliveries/{id}"),
        format!("/v1/tenants/acme/deliveries/{id}/attempts"),
        format!("/v1/tenants/acme/attempts/{attempt}"),
        "/v1/tenants/acme/events/theirs-1".to_owned(),
        "/v1/deliveries/dlv_00000000000000000000000000".to_owned(),
        "/v1/attempts/atm_7ZZZZZZZZZZZZZZZZZZZZZZZZZ".to_owned(),
        "/v1/attempts/atm_0000000000003ZZZZZZZ000000".to_owned(),
    ] {
        server
            .api
            .call("GET", &path, "", b"")
            .problem(404, "not_found");
    }
    for (path, wanted) in [
        ("/v1/deliveries/theirs-1", "expected `dlv_`"),
        ("/v1/deliveries/x/attempts", "expected `dlv_`"),
        ("/v1/attempts/x", "expected `atm_`"),
        (
            "/v1/tenants/acme/deliveries?tenant=other",
            "the path names the tenant",
        ),
        (
            "/v1/tenants/acme/events?tenant=other",
            "the path names the tenant",
        ),
        (
            "/v1/tenants/acme/events/a?tenant=other",
            "the path names the tenant",
        ),
    ] {
        let (_, detail) = server
            .api
            .call("GET", path, "", b"")
            .problem(422, "invalid");
        assert!(detail.contains(wanted), "{path}: {detail}");
    }
}

/// `posthaste` with these words; its standard output.
fn said(server: &Server, words: &[&str]) -> String {
    let address = format!("http://{}", server.api.0);
    let mut command = posthaste(&[words, &["--server", &address]].concat());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

fn the_command_line_tells_it(server: &Server) {
    let dead = id_of(&listed(server, "event=brief-1&status=dead")[0]);
    let table = said(server, &["deliveries", "list", "--status", "dead"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(
        table.starts_with("last attempt") && table.contains(&dead),
        "{table}"
    );
    let paged = said(server, &["deliveries", "list", "--limit", "2", "--json"]);
    let paged: Value = serde_json::from_str(&paged).unwrap();
    assert_eq!(paged["data"].as_array().unwrap().len(), 2);
    let told = said(server, &["deliveries", "show", &dead]);
    for wanted in [
        "dead", "given up", "brief-1", "initial", "retry", "503", "http_5xx",
    ] {
        assert!(told.contains(wanted), "no `{wanted}` in: {told}");
    }
    let of_tenant = ["deliveries", "show", &dead, "--tenant", "acme", "--json"];
    let json: Value = serde_json::from_str(&said(server, &of_tenant)).unwrap();
    assert_eq!(json["id"], dead);
    let attempts = said(server, &["attempts", "list", &dead]);
    assert_eq!(attempts.lines().count(), 3, "{attempts}");
    let attempt = json["history"][1]["id"].as_str().unwrap();
    let told = said(server, &["attempts", "show", attempt]);
    assert!(told.contains("the endpoint failed"), "{told}");
    let table = said(server, &["events", "list", "--tenant", "other"]);
    assert!(
        table.contains("theirs-1") && table.lines().count() == 2,
        "{table}"
    );
    let told = said(server, &["events", "show", "ordered-2", "--tenant", "acme"]);
    assert!(
        told.contains("{\"n\": 1}") && told.contains("no attempt"),
        "{told}"
    );
}

#[test]
fn everything_on_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    everything(&format!("{}{SETTINGS}", embedded(dir.path())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_on_kafka() {
    let Some(bootstrap) = broker() else { return };
    let prefix = unique("deliveries");
    let text = format!(
        "log = \"kafka://{bootstrap}\"\nshards = 1\n{SECRETS}[topics]\nprefix = \"{prefix}\"\n\
         lane_partitions = 4\nsource_partitions = 2\nreplication = 1\n\
         [ingest]\ntopics = [\"{prefix}.events\"]\nstart = \"earliest\"\n{SETTINGS}"
    );
    let config = Config::parse(&text).unwrap();
    make(bootstrap, &config).await;
    let run = tokio::task::spawn_blocking(move || everything(&text));
    run.await.unwrap();
}

/// A credential of one tenant looks at that one alone, and looking is enough.
#[test]
fn a_tenants_credential_looks_at_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}[api]\nauth = \"keys\"\n", embedded(dir.path()));
    let written = file(&config);
    let path = written.path().to_str().unwrap();
    let words = [
        "keys", "create", "--scope", "admin", "--json", "--config", path,
    ];
    let made = posthaste(&words).stdin(Stdio::null()).output().unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let admin = made["key"].as_str().unwrap().to_owned();
    let server = Server::start(&config);
    let call = |key: &str, method: &str, path: &str, body: &str| {
        let headers = format!("authorization: Bearer {key}\r\nwebhook-type: a\r\n");
        server.api.call(method, path, &headers, body.as_bytes())
    };
    let asked = json!({"scopes": ["read"], "tenant": "acme"}).to_string();
    let made = call(&admin, "POST", "/v1/keys", &asked);
    assert_eq!(made.status, 201, "{}", made.text);
    let made: Value = serde_json::from_str(&made.text).unwrap();
    let reads = made["key"].as_str().unwrap();
    let asked = json!({"capabilities": ["read"]}).to_string();
    let made = call(&admin, "POST", "/v1/tenants/acme/portal_sessions", &asked);
    let made: Value = serde_json::from_str(&made.text).unwrap();
    let portal = made["token"].as_str().unwrap();
    let unknown = "dlv_00000000000000000000000000";
    for key in [reads, portal] {
        for path in ["/v1/tenants/acme/deliveries", "/v1/tenants/acme/events"] {
            let answer = call(key, "GET", path, "");
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        }
        let path = format!("/v1/tenants/acme/deliveries/{unknown}");
        call(key, "GET", &path, "").problem(404, "not_found");
        for path in ["/v1/deliveries", "/v1/events", "/v1/attempts/x"] {
            call(key, "GET", path, "").problem(403, "forbidden");
        }
        for path in ["/v1/tenants/other/deliveries", "/v1/tenants/other/events"] {
            let (_, detail) = call(key, "GET", path, "").problem(404, "not_found");
            assert_eq!(detail, "no such tenant");
        }
        call(key, "POST", "/v1/tenants/acme/events", "{}").problem(403, "forbidden");
    }
    server.stop();
}
