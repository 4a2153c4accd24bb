//! Every route there is, asked by those who may not: refused with the right
//! code, and nothing told; and no secret in any answer but the one that made it,
//! in the logs, or in the folder.
//!
//! The routes are read from the API's description, so that none is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use posthaste::api::document;
use posthaste_core::limits::REQUEST_BYTES_MAX;
use serde_json::{Map, Value, json};

use crate::access::{call, first_key, json_of, made};
use crate::dead::Receiver;
use crate::refusals::program::{Answer, Server, embedded, eventually};
use crate::secrets::holding;

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n\
     [retry_policies.once]\ngaps = [\"1s\"]\n[api]\nauth = \"keys\"\n";
const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
const SESSIONS: &str = "/v1/tenants/globex/portal_sessions";
/// For everybody: whoever adds one says so here.
const OPEN: [&str; 7] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/.well-known/webhook-keys",
    "/v1/egress_ips",
    "/v1/openapi.json",
    "/docs",
];
/// Every tenant may look at them.
const SHARED: [&str; 2] = ["/v1/event_types", "/v1/event_types/{event_type}"];
/// The secrets endpoints are made with: scheme, algorithm, and the text, or
/// nothing for one that is made for them.
const GIVEN: [(&str, &str, &str); 4] = [
    (
        "standard_webhooks",
        "hmac_sha256",
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    ),
    ("standard_webhooks", "ed25519", ""),
    ("stripe", "hmac_sha256", "a-secret-of-stripes-kind"),
    ("slack", "hmac_sha256", "8f742231b10e8888abcd99yyyzzz85a5"),
];
/// How many characters of a key, or of a token, are its id and may be shown.
const KEY_ID: usize = 30;
const TOKEN_ID: usize = 40;

/// Every path of the API, with its operations, as the API describes itself.
fn described() -> Map<String, Value> {
    let mut document: Value = serde_json::from_str(document::text()).unwrap();
    let Value::Object(paths) = document["paths"].take() else {
        panic!("it has paths");
    };
    assert!(paths.len() >= 30, "{paths:?}");
    paths
}

/// The methods of a path, as they are written.
fn methods_of(operations: &Value) -> BTreeSet<String> {
    let methods = operations.as_object().unwrap().keys();
    methods.map(|method| method.to_ascii_uppercase()).collect()
}

/// What stands in a path for its parts: the tenant, and ids by their name.
struct Names<'a> {
    tenant: &'a str,
    ids: &'a BTreeMap<&'static str, String>,
}

impl Names<'_> {
    fn fill(&self, path: &str) -> String {
        let part = |part: &str| match part {
            "{tenant}" => self.tenant.to_owned(),
            part if part.starts_with('{') => {
                let name = part.trim_matches(['{', '}']);
                self.ids.get(name).map_or("x", String::as_str).to_owned()
            }
            part => part.to_owned(),
        };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    }
}

/// What acme has, each by the name that a path has for it.
fn things(server: &Server, admin: &str) -> BTreeMap<&'static str, String> {
    let receiver = Receiver::start(200);
    let url = format!("http://{}/hook", receiver.at);
    let body = json!({"url": url, "uid": "one"});
    let endpoint = json_of(&call(server, admin, "POST", ENDPOINTS, &body), 201);
    let headers = format!(
        "{}webhook-type: a\r\nwebhook-id: evt_theirs\r\n",
        bearer(admin)
    );
    let events = "/v1/tenants/acme/events";
    assert_eq!(server.api.post(events, &headers, b"{}").status, 202);
    let first = |path: &str| {
        let mut id = None;
        eventually(path, || {
            let listed = json_of(&call(server, admin, "GET", path, &Value::Null), 200);
            id = listed["data"][0]["id"].as_str().map(ToOwned::to_owned);
            id.is_some()
        });
        id.unwrap()
    };
    let delivery = first("/v1/tenants/acme/deliveries");
    BTreeMap::from([
        ("endpoint", endpoint["id"].as_str().unwrap().to_owned()),
        ("secret", first(&format!("{ENDPOINTS}/one/secrets"))),
        ("event", "evt_theirs".to_owned()),
        (
            "attempt",
            first(&format!("/v1/tenants/acme/deliveries/{delivery}/attempts")),
        ),
        ("delivery", delivery),
    ])
}

/// An id as good that nobody has.
fn absent(id: &str) -> String {
    let (rest, last) = id.split_at(id.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// What `allow` lists for a path.
fn methods(server: &Server, admin: &str, path: &str) -> BTreeSet<String> {
    let answer = call(server, admin, "OPTIONS", path, &Value::Null);
    answer.problem(405, "method_not_allowed");
    let mut lines = answer.head.lines();
    let allow = lines.find_map(|line| line.strip_prefix("allow: ")).unwrap();
    let methods = allow.split(',').map(|m| m.trim().to_ascii_uppercase());
    methods.filter(|method| method != "HEAD").collect()
}

/// What an answer says, but for what is each request's own.
fn said(answer: &Answer) -> Value {
    let mut said: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    if let Some(said) = said.as_object_mut() {
        said.remove("request_id");
    }
    said
}

fn asked(server: &Server, headers: &str, method: &str, path: &str) -> Answer {
    let body: &[u8] = match method {
        "PUT" | "PATCH" => br#"{"url": "https://example.com/"}"#,
        _ => b"",
    };
    server.api.call(method, path, headers, body)
}

fn bearer(credential: &str) -> String {
    format!("authorization: Bearer {credential}\r\n")
}

/// The last character is another.
fn garbled(credential: &str) -> String {
    let (rest, last) = credential.split_at(credential.len() - 1);
    format!("{rest}{}", if last == "a" { "b" } else { "a" })
}

/// Everything that opens nothing: what it is, its headers, and the code.
fn strangers(server: &Server, admin: &str, globex: &str) -> Vec<(&'static str, String, String)> {
    let token = |expires_in: &str| {
        let asked = json!({"capabilities": ["endpoints"], "expires_in": expires_in});
        made(server, globex, SESSIONS, &asked)
    };
    let (expired, good) = (token("1s"), token("10m"));
    let revoked = made(server, admin, "/v1/keys", &json!({"scopes": ["admin"]}));
    let revoke = format!("/v1/keys/{}", &revoked[..29]);
    let gone = call(server, admin, "DELETE", &revoke, &Value::Null);
    assert_eq!(gone.status, 204);
    eventually("it expires", || {
        call(server, &expired, "GET", "/v1/keys", &Value::Null).status == 401
    });
    let all = [
        ("nobody", String::new()),
        (
            "another scheme",
            format!("authorization: Basic {admin}\r\n"),
        ),
        ("a key's id alone", bearer(&admin[..29])),
        ("a garbled key", bearer(&garbled(admin))),
        ("two keys", bearer(admin).repeat(2)),
        ("a revoked key", bearer(&revoked)),
        ("a garbled token", bearer(&garbled(&good))),
        ("an expired token", bearer(&expired)),
    ];
    let code = |who| match who {
        "an expired token" => "token_expired".to_owned(),
        _ => "unauthorized".to_owned(),
    };
    let all = all.into_iter();
    all.map(|(who, headers)| (who, headers, code(who)))
        .collect()
}

/// Under its own tenant somebody else's things are as such that never were;
/// answers in how many ways it was asked.
fn foreign_things(
    server: &Server,
    globex: &str,
    (method, path): (&str, &str),
    ids: &BTreeMap<&'static str, String>,
) -> usize {
    let named = |name: &&&str| path.contains(&format!("{{{name}}}"));
    let names: Vec<_> = ids.keys().filter(named).collect();
    if !path.contains("{tenant}") {
        return 0;
    }
    for name in &names {
        let theirs = &ids[**name];
        let ask = |id: &str| {
            let mut ids = ids.clone();
            ids.insert(name, id.to_owned());
            let tenant = "globex";
            let path = Names { tenant, ids: &ids }.fill(path);
            let answer = asked(server, &bearer(globex), method, &path);
            let said = said(&answer).to_string();
            let refused = [400, 404, 422].contains(&answer.status);
            assert!(refused, "{method} {path}: {} {said}", answer.status);
            said.replace(id, "")
        };
        assert_eq!(ask(theirs), ask(&absent(theirs)), "{method} {path}");
    }
    names.len()
}

#[test]
fn whoever_may_not_is_refused_everywhere_and_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let admin = first_key(&config);
    let server = Server::start(&config);
    let asks = json!({"scopes": ["admin"], "tenant": "globex"});
    let globex = made(&server, &admin, "/v1/keys", &asks);
    let asks = json!({"capabilities": ["endpoints"]});
    let portal = made(&server, &globex, SESSIONS, &asks);
    let ids = things(&server, &admin);
    let strangers = strangers(&server, &admin, &globex);
    let refused = |answer: &Answer, status, code: &str, what: &str| {
        assert_eq!((answer.status, &*code_of(answer)), (status, code), "{what}");
        said(answer)
    };
    let nobody = call(
        &server,
        &globex,
        "GET",
        "/v1/tenants/none/endpoints",
        &Value::Null,
    );
    let nobody = said(&nobody);
    let large = vec![b' '; REQUEST_BYTES_MAX + 1];
    let (mut hidden, mut bounded) = (0, 0);
    for (path, operations) in described() {
        let acme = Names {
            tenant: "acme",
            ids: &ids,
        };
        let there = acme.fill(&path);
        let allowed = methods(&server, &admin, &there);
        assert_eq!(allowed, methods_of(&operations), "{path}");
        for method in allowed {
            if OPEN.contains(&&*path) {
                assert_eq!(asked(&server, "", &method, &there).status, 200, "{path}");
                continue;
            }
            for (who, headers, code) in &strangers {
                let what = format!("{who}: {method} {path}");
                let told = refused(&asked(&server, headers, &method, &there), 401, code, &what);
                let nowhere = asked(&server, headers, &method, "/v1/nowhere");
                assert_eq!(told, said(&nowhere), "{what}");
            }
            for (who, foreign) in [("key", &globex), ("token", &portal)] {
                let what = format!("another tenant's {who}: {method} {path}");
                let answer = asked(&server, &bearer(foreign), &method, &there);
                if SHARED.contains(&&*path) && method == "GET" {
                    assert!([200, 404].contains(&answer.status), "{what}");
                    continue;
                }
                if !path.contains("{tenant}") {
                    refused(&answer, 403, "forbidden", &what);
                    continue;
                }
                assert_eq!(refused(&answer, 404, "not_found", &what), nobody, "{what}");
            }
            hidden += foreign_things(&server, &globex, (&method, &path), &ids);
            if operations[method.to_ascii_lowercase()]["requestBody"].is_object() {
                let answer = server.api.call(&method, &there, &bearer(&admin), &large);
                refused(
                    &answer,
                    413,
                    "payload_too_large",
                    &format!("{method} {path}"),
                );
                bounded += 1;
            }
        }
    }
    assert!(hidden >= 14 && bounded >= 10, "{hidden} {bounded}");
    server.stop();
}

fn code_of(answer: &Answer) -> String {
    said(answer)["code"].as_str().unwrap_or_default().to_owned()
}

/// Secrets that are made, and every answer after: none holds one.
struct Watch<'a> {
    server: &'a Server,
    admin: &'a str,
    /// What may be shown no more, each without the part that may.
    secrets: Vec<String>,
}

impl Watch<'_> {
    fn keep(&mut self, secret: &str) {
        let bare = match secret.split('_').next().unwrap() {
            "whsec" | "whsk" => &secret[6..],
            "pk" => &secret[KEY_ID..],
            "pt" => &secret[TOKEN_ID..],
            _ => secret,
        };
        self.secrets.push(bare.to_owned());
    }

    /// Asks, and keeps what the answer alone may show.
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let answer = call(self.server, self.admin, method, path, body);
        for secret in &self.secrets {
            let shown = answer.text.contains(secret) || answer.head.contains(&**secret);
            assert!(!shown, "{method} {path}: {}", answer.text);
        }
        let said: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        for name in ["secret", "key", "token"] {
            if let Some(secret) = said[name].as_str().filter(|_| answer.status == 201) {
                self.keep(secret);
            }
        }
        answer
    }

    fn make(&mut self, path: &str, body: &Value) -> Value {
        json_of(&self.ask("POST", path, body), 201)
    }
}

/// One endpoint of each kind, its secret rotated once.
fn make_all(watch: &mut Watch, receivers: [&Receiver; 2]) {
    for (number, (scheme, algorithm, secret)) in GIVEN.into_iter().enumerate() {
        let receiver = receivers[number % 2];
        let mut asked = json!({
            "url": format!("http://{}/hook?in=url-of-its-own", receiver.at),
            "uid": format!("e{number}"), "retry_policy": "once",
            "headers": {"x-api-key": "header-of-its-own"},
            "signing": {"scheme": scheme, "algorithm": algorithm},
        });
        if !secret.is_empty() {
            asked["secret"] = secret.into();
        }
        watch.make(ENDPOINTS, &asked);
        watch.make(&format!("{ENDPOINTS}/e{number}/secrets/rotate"), &json!({}));
    }
}

#[test]
fn no_secret_is_shown_twice_logged_or_stored() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let admin = first_key(&config);
    let server = Server::run("serve", &config, &[("POSTHASTE_LOG", "trace")]);
    let mut watch = Watch {
        server: &server,
        admin: &admin,
        secrets: Vec::new(),
    };
    watch.keep(&admin);
    let key = watch.make("/v1/keys", &json!({"scopes": ["admin"], "tenant": "acme"}));
    let asked = json!({"capabilities": ["read"]});
    watch.make("/v1/tenants/acme/portal_sessions", &asked);
    let (well, ill) = (Receiver::start(200), Receiver::start(503));
    make_all(&mut watch, [&well, &ill]);
    watch.keep("header-of-its-own");
    // In the wrong place, or as what it is not.
    for wrong in [
        json!({"url": "https://example.com/", "secret": "whsec_short"}),
        json!({"url": "https://example.com/", "secret": ["a-list-of-secrets"]}),
        json!({"url": "https://user:in-the-url@example.com/", "secret": "whsk_refused-as-well"}),
    ] {
        let answer = watch.ask("POST", ENDPOINTS, &wrong);
        assert!((400..500).contains(&answer.status), "{}", answer.text);
        for word in [
            "whsec_short",
            "a-list-of-secrets",
            "in-the-url",
            "refused-as-well",
        ] {
            assert!(!answer.text.contains(word), "{}", answer.text);
        }
    }
    watch.ask(
        "DELETE",
        &format!("/v1/keys/{}", key["key"].as_str().unwrap()),
        &Value::Null,
    );
    let event = watch.ask("POST", "/v1/tenants/acme/events", &json!({}));
    let event: Value = serde_json::from_str(&event.text).unwrap();
    eventually("half of them arrive, and the others are given up", || {
        let letters = watch.ask("GET", "/v1/dead_letters", &Value::Null);
        let letters: Value = serde_json::from_str(&letters.text).unwrap();
        well.taken().len() == 2 && letters["data"].as_array().unwrap().len() == 2
    });
    let mut first = |path: &str| {
        let listed = json_of(&watch.ask("GET", path, &Value::Null), 200);
        listed["data"][0]["id"].as_str().unwrap().to_owned()
    };
    let delivery = first("/v1/tenants/acme/deliveries");
    let attempts = format!("/v1/tenants/acme/deliveries/{delivery}/attempts");
    let mut ids = BTreeMap::from([
        ("event", event["id"].as_str().unwrap().to_owned()),
        ("attempt", first(&attempts)),
        ("delivery", delivery),
    ]);
    let (mut got, mut shown) = (0, 0);
    for (path, operations) in described() {
        for endpoint in ["e0", "e1", "e2", "e3"] {
            ids.insert("endpoint", endpoint.to_owned());
            let tenant = "acme";
            let path = Names { tenant, ids: &ids }.fill(&path);
            if operations["get"].is_object() {
                let answer = watch.ask("GET", &path, &Value::Null);
                got += 1;
                shown += usize::from(answer.status == 200);
            }
        }
    }
    assert!(got >= 80 && shown >= 76, "{shown} of {got}");
    let secrets = std::mem::take(&mut watch.secrets);
    assert!(secrets.len() >= 11, "{}", secrets.len());
    let log = server.stop();
    assert!(log.contains("\"level\":\"DEBUG\""), "it logs what it does");
    for secret in secrets.iter().map(|secret| &**secret) {
        assert!(!log.contains(secret), "{secret} is logged");
        assert_eq!(holding(dir.path(), secret.as_bytes()), [""; 0], "{secret}");
        let bytes = BASE64.decode(secret).unwrap_or_default();
        let hides = bytes.len() >= 24 && !holding(dir.path(), &bytes).is_empty();
        assert!(!hides, "{secret} is stored");
    }
    assert!(!log.contains("url-of-its-own"), "a URL's query is logged");
    assert!(!holding(dir.path(), b"url-of-its-own").is_empty());
}
