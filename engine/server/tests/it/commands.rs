//! Commands that show and change what the API keeps, as somebody types them.

use serde_json::Value;

use crate::access::first_key;
use crate::refusals::program::{Refused, Server, embedded, posthaste};

/// A server that asks for keys, and whoever has the first.
struct Admin {
    server: Server,
    key: String,
}

impl Admin {
    fn start(dir: &std::path::Path) -> Self {
        let config = format!("{}[api]\nauth = \"keys\"\n", embedded(dir));
        let key = first_key(&config);
        let server = Server::start(&config);
        Self { server, key }
    }

    fn address(&self) -> String {
        format!("http://{}", self.server.api.0)
    }

    /// What a command says that succeeds.
    fn says(&self, words: &[&str]) -> String {
        self.says_as(&self.key, words)
    }

    fn says_as(&self, key: &str, words: &[&str]) -> String {
        let address = self.address();
        let words = [words, &["--server", &address]].concat();
        let mut command = posthaste(&words);
        let output = command.env("POSTHASTE_API_KEY", key).output().unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{words:?}: {why}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[words, &["--json"]].concat())).unwrap()
    }
}

#[test]
fn an_endpoint_is_shown_and_changed_and_its_history_told() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path());
    let address = admin.address();
    let of = ["--tenant", "acme", "billing"];
    let made = ["--tenant", "acme", "--uid", "billing", "--url"];
    let url = ["https://example.com/hooks"];
    admin.says(&[&["endpoints", "create"][..], &made, &url].concat());

    let change = [&["endpoints", "change"][..], &of].concat();
    let patch = r#"{"timeout": "20s", "description": "theirs"}"#;
    let said = admin.says(&[&change[..], &[patch]].concat());
    let shown = admin.says(&[&["endpoints", "show"][..], &of].concat());
    assert_eq!(said, shown);
    let line = |name: &str| {
        let mut lines = shown.lines().map(str::split_whitespace);
        lines
            .find_map(|mut words| (words.next()? == name).then(|| words.next().unwrap().to_owned()))
    };
    let wanted = [
        ("timeout", "20000ms"),
        ("version", "2"),
        ("description", "theirs"),
    ];
    for (name, value) in wanted {
        assert_eq!(line(name).as_deref(), Some(value), "{shown}");
    }
    let late = [&change[..], &["{}", "--version", "1", "--server", &address]].concat();
    let late = posthaste(&late)
        .env("POSTHASTE_API_KEY", &admin.key)
        .output()
        .unwrap();
    let why = String::from_utf8(late.stderr).unwrap();
    assert!(
        late.status.code() == Some(1) && why.contains("version"),
        "{why}"
    );
    Refused::from(&[&change[..], &["{"]].concat()).expect(2, &["the patch", "not JSON"]);

    admin.says(&[&["endpoints", "rotate-secret"][..], &of].concat());
    let list = [&["secrets", "list"][..], &of].concat();
    let secrets = admin.json(&list);
    let [newest, older] = &secrets["data"].as_array().unwrap()[..] else {
        panic!("{secrets}");
    };
    let older = older["id"].as_str().unwrap();
    let deleted = admin.says(&[&["secrets", "delete"][..], &of, &[older]].concat());
    assert_eq!(deleted, format!("deleted {older}\n"));
    let left = admin.says(&list);
    assert!(
        left.contains(newest["id"].as_str().unwrap()) && !left.contains(older),
        "{left}"
    );

    let changes = admin.json(&["audit", "--tenant", "acme"]);
    let changes = changes["data"].as_array().unwrap();
    let told: Vec<_> = changes
        .iter()
        .map(|c| (&c["action"], &c["version"]))
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(
        (told[3].0, told[2].1),
        (&"endpoint.created".into(), &2.into())
    );
    let table = admin.says(&["audit", "--limit", "1"]);
    assert!(
        table.starts_with("when ") && table.lines().count() == 2,
        "{table}"
    );
}

#[test]
fn a_portal_token_looks_and_does_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path());
    let made = admin.json(&["keys", "portal", "--tenant", "acme", "--can", "read"]);
    let token = made["token"].as_str().unwrap();
    let address = admin.address();
    admin.says_as(token, &["endpoints", "list", "--tenant", "acme"]);
    let delete = [
        "endpoints",
        "delete",
        "--tenant",
        "acme",
        "a",
        "--server",
        &address,
    ];
    let refused = posthaste(&delete)
        .env("POSTHASTE_API_KEY", token)
        .output()
        .unwrap();
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(1) && why.contains("403"),
        "{why}"
    );
}
