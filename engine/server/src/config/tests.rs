//! What a file may say, what is said against a wrong one, and that the
//! reference in `ops` tells all of it.

use super::*;

fn refused(text: &str) -> String {
    Config::parse(text).expect_err("refused").to_string()
}

#[test]
fn nothing_set_is_the_embedded_log() {
    let config = Config::parse("").unwrap();
    assert_eq!(config.log, LogUrl::Embedded("posthaste-data".into()));
    assert_eq!(config.ingest.start.0, Start::Unset);
}

#[test]
fn every_mistake_is_named() {
    assert!(refused("shard = 2").contains("unknown field `shard`"));
    assert!(refused("[ingest]\ntopic = []").contains("unknown field `topic`"));
    assert!(refused("log = \"kafka:x\"").contains("expected `embedded:DIR`"));
    assert!(refused("[ingest]\nstart = \"yesterday\"").contains("expected \"earliest\""));
    assert!(refused("[ingest]\ntopics = []").contains("ingest.topics"));
    assert!(refused("drain_deadline = \"25\"").contains("a number and a unit"));
    let open = refused("[http]\nlisten = \"0.0.0.0:80\"\n[api]\nauth = \"none\"");
    assert!(
        open.contains("api.auth: `none` lets everybody in"),
        "{open}"
    );
    assert!(refused("[kafka.settings]\na = \"b\"").contains("kafka.settings"));
    assert!(refused("audit = \"some\"").contains("unknown variant `some`"));
    assert!(refused("[http]\nlisten = \"8400\"").contains("such as \"127.0.0.1:8400\""));
}

#[test]
fn only_a_loopback_address_is_open_to_everybody() {
    let auth = |text: &str| Config::parse(text).unwrap().auth();
    assert_eq!(auth(""), Auth::None);
    assert_eq!(auth("[http]\nlisten = \"[::1]:80\""), Auth::None);
    assert_eq!(auth("[api]\nauth = \"keys\""), Auth::Keys);
    for open in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80"] {
        assert_eq!(auth(&format!("[http]\nlisten = \"{open}\"")), Auth::Keys);
    }
}

#[test]
fn a_retry_policy_that_does_not_fit_is_named() {
    let fast = Config::parse("[retry_policies.fast]\ngaps = [\"5s\", \"30s\", \"2m\"]").unwrap();
    assert!(fast.retry_policies.0.knows("fast"));
    let said = |name: &str, gaps: &str| refused(&format!("[retry_policies.{name}]\ngaps = {gaps}"));
    let anew = said("standard", "[\"5s\"]");
    assert!(
        anew.contains("retry_policies") && anew.contains("`standard` is built in"),
        "{anew}"
    );
    assert!(said("\"a/b\"", "[\"5s\"]").contains("`a/b`: expected a name of 1 to 128"));
    assert!(said("fast", "[]").contains("`fast` has 0 gaps: expected 1 to 30"));
    assert!(said("fast", "[\"25h\"]").contains("gap 1: 90000s: expected 1s to 24 hours"));
    assert!(said("fast", "[\"5\"]").contains("`5`: expected a number and a unit"));
    let long = said("fast", "[\"24h\", \"24h\", \"24h\", \"1s\"]");
    assert!(long.contains("expected at most 72 hours"), "{long}");
    assert!(refused("[retry_policies.fast]\ngap = 1").contains("unknown field `gap`"));
}

/// The commented reference, and what it is with every key in use.
fn reference() -> (&'static str, String) {
    let text = include_str!("../../../../ops/posthaste.toml");
    let in_use = text.lines().map(|line| {
        let key = line.strip_prefix('#').filter(|key| !key.starts_with(' '));
        key.unwrap_or(line)
    });
    (text, in_use.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_reference_says_the_defaults() {
    let (text, in_use) = reference();
    let reference = Config::parse(text).unwrap();
    assert_eq!(format!("{reference:?}"), format!("{:?}", Config::default()));
    // What has no default is there as an example that is right, too.
    let in_use: Config = toml::from_str(&in_use).unwrap();
    assert_eq!(in_use.ingest.start.0, Start::Earliest);
    assert!(in_use.ingest.default_tenant.is_some() && in_use.egress.ca_file.is_some());
    let names: Vec<_> = in_use.retry_policies.0.names().collect();
    assert_eq!(names, ["standard", "fast"]);
    assert_eq!(in_use.api.auth, Some(Auth::Keys));
    assert!(in_use.http.tls.is_some());
    assert!(in_use.kafka.group_instance_id.is_some() && !in_use.kafka.settings.is_empty());
}

#[test]
fn the_reference_names_every_key() {
    let reference: toml::Table = toml::from_str(&reference().1).unwrap();
    let mut tables = vec![(String::new(), &reference)];
    let mut seen = Vec::new();
    while let Some((name, table)) = tables.pop() {
        for key in known_keys(&name) {
            let value = table.get(&key);
            let value = value.unwrap_or_else(|| panic!("`{key}` is missing in [{name}]"));
            let path = if name.is_empty() {
                key
            } else {
                format!("{name}.{key}")
            };
            if let Some(table) = value.as_table()
                && path != "kafka.settings"
            {
                // What a table of named things holds, its one example shows.
                if path == "retry_policies" {
                    let fast = table["fast"].as_table().expect("a policy");
                    tables.push((format!("{path}.fast"), fast));
                } else {
                    tables.push((path.clone(), table));
                }
            }
            seen.push(path);
        }
    }
    assert!(
        seen.contains(&"ingest.envelope.data".to_owned()),
        "{seen:?}"
    );
}

/// The keys of a table, by what is said against one that is unknown.
fn known_keys(table: &str) -> Vec<String> {
    let unknown = match table {
        "" => "no_such_key = 1".to_owned(),
        table => format!("[{table}]\nno_such_key = 1"),
    };
    let said = refused(&unknown);
    let (_, expected) = said.split_once("expected ").expect("what is expected");
    // Behind the keys it says in which table.
    let expected = expected.split(" in `").next().unwrap_or(expected);
    let keys: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
    assert!(!keys.is_empty(), "{said}");
    keys.into_iter().map(ToOwned::to_owned).collect()
}

#[test]
fn a_mistake_in_the_text_is_told_on_one_line_with_its_key() {
    let wrong_kind = refused("audit = \"all\"\nshards = \"two\"\n");
    assert_eq!(
        wrong_kind,
        "configuration: line 2, `shards`: invalid type: string \"two\", expected usize in \
         `shards`"
    );
    let nested = refused("[kafka.settings]\n\"sasl.password\" = hunter2\n");
    assert!(nested.contains("line 2, `\"sasl.password\"`: "), "{nested}");
    assert!(!nested.contains("hunter2"), "{nested}");
    let twice = refused("shards = 1\nshards = 2");
    assert!(twice.contains("line 2, `shards`: duplicate key"), "{twice}");
    assert!(refused("[no\nshards = 1").contains("line 1, `[no`: "));
}

#[test]
fn a_password_is_not_shown() {
    let text = "log = \"kafka://a:1\"\n[kafka.settings]\n\"sasl.password\" = \"hunter2\"";
    let shown = format!("{:?}", Config::parse(text).unwrap());
    assert!(
        shown.contains("sasl.password") && !shown.contains("hunter2"),
        "{shown}"
    );
}
