//! What the configuration can have wrong, and where the log is.

use std::time::{Duration, Instant};

use super::program::{Refused, SECRETS, file};

#[test]
fn a_key_that_is_none_is_named_with_those_that_are() {
    Refused::serve("log = \"embedded:x\"\nshard = 2\n").expect(
        64,
        &[
            ".toml: line 2",
            "unknown field `shard`",
            "`shards`",
            "`drain_deadline`",
        ],
    );
    Refused::serve("[ingest]\ntopic = [\"a\"]\n").expect(
        64,
        &["line 2", "unknown field `topic`", "`topics`", "`ingest"],
    );
    Refused::serve("[ingest.headers]\nkind = \"x\"\n")
        .expect(64, &["line 2", "unknown field `kind`", "`event_type`"]);
    Refused::serve("[ingests]\n").expect(64, &["line 1", "unknown field `ingests`", "`ingest`"]);
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_the_right_one() {
    let cases: [(&str, &[&str]); 12] = [
        (
            "shards = \"two\"",
            &["`shards`", "invalid type: string \"two\""],
        ),
        (
            "[ingest]\ntopics = 3",
            &["line 2", "`ingest.topics`", "expected a sequence"],
        ),
        (
            "[egress]\nallow_http = 1",
            &["`egress.allow_http`", "expected a boolean"],
        ),
        (
            "[topics]\nlane_partitions = -1",
            &["`topics.lane_partitions`", "expected u32"],
        ),
        (
            "drain_deadline = \"25\"",
            &["`drain_deadline`", "such as \"500ms\" or \"25s\""],
        ),
        (
            "audit = \"some\"",
            &["`audit`", "expected one of `all`, `failures`, `none`"],
        ),
        (
            "[ingest]\nstart = \"today\"",
            &["`ingest.start`", "\"earliest\", \"latest\" or a time"],
        ),
        (
            "[http]\nlisten = \"8400\"",
            &["`http.listen`", "such as \"127.0.0.1:8400\""],
        ),
        (
            "[ingest.envelope]\nid = \"id\"",
            &["ingest.envelope.id", "a JSON pointer such as"],
        ),
        (
            "[egress]\nallow = [\"10.0.0.0/40\"]",
            &["egress.allow", "expected at most /32"],
        ),
        (
            "[kafka.settings]\nretries = 3",
            &["`kafka.settings.retries`", "expected a string"],
        ),
        ("shards = \nlog = 1", &["line 1", "`shards`"]),
    ];
    for (config, words) in cases {
        Refused::serve(config).expect(64, words);
    }
}

#[test]
fn what_contradicts_itself_is_named() {
    let cases: [(&str, &[&str]); 6] = [
        (
            "[kafka.settings]\n\"a\" = \"b\"",
            &["kafka.settings", "the embedded log", "set `log`"],
        ),
        (
            "[ingest]\ntopics = []",
            &["ingest.topics", "expected at least one"],
        ),
        (
            "[ingest]\ntopics = [\"posthaste.dead\"]",
            &["ingest.topics", "`posthaste.dead`", "`topics.prefix`"],
        ),
        ("[topics]\nlane_partitions = 0", &["topics", "begin at 1"]),
        (
            "[http]\nlisten = \"0.0.0.0:80\"\n[api]\nauth = \"none\"",
            &["api.auth", "expected a loopback address"],
        ),
        (
            "drain_deadline = \"0s\"",
            &["drain_deadline", "such as \"25s\""],
        ),
    ];
    for (config, words) in cases {
        Refused::serve(config).expect(64, words);
    }
}

#[test]
fn a_missing_file_is_named() {
    for command in [&["serve"][..], &["topics", "create"]] {
        let words = [command, &["--config", "/nowhere/posthaste.toml"]].concat();
        let refused = Refused::from(&words);
        refused.expect(64, &["/nowhere/posthaste.toml", "No such file", "expected"]);
        assert_eq!(
            refused.why.matches("No such file").count(),
            1,
            "{}",
            refused.why
        );
    }
}

#[test]
fn a_log_that_is_none_is_named_with_what_it_can_be() {
    for log in [
        "kafka",
        "kafka://",
        "kafka://broker",
        "kafka://a:1,b:x",
        "sqlite:x",
        "embedded:",
    ] {
        Refused::serve(&format!("log = \"{log}\"\n")).expect(
            64,
            &[
                "`log`",
                &format!("`{log}`"),
                "`embedded:DIR` or `kafka://HOST:PORT",
            ],
        );
    }
}

#[test]
fn settings_of_the_kafka_client_are_named_and_their_values_are_not() {
    let refused = |setting: &str| {
        let head = format!("log = \"kafka://127.0.0.1:1\"\n{SECRETS}[kafka.settings]");
        Refused::serve(&format!("{head}\n{setting}\n"))
    };
    refused("acks = \"1\"").expect(64, &["kafka.settings", "`acks` cannot be set"]);
    let unknown = refused("\"sasl.pasword\" = \"hunter2\"");
    unknown.expect(
        64,
        &["kafka.settings", "`sasl.pasword`", "expected a setting"],
    );
    assert!(!unknown.log.contains("hunter2"), "{}", unknown.log);
    refused("\"fetch.wait.max.ms\" = \"soon\"").expect(
        64,
        &[
            "kafka.settings",
            "`fetch.wait.max.ms`",
            "expected a setting",
        ],
    );
}

#[test]
fn kafka_without_a_master_key_is_refused_before_anything_else() {
    let head = "log = \"kafka://127.0.0.1:1\"\n";
    let without = Refused::serve(head);
    without.expect(64, &["secrets.keys: none is set", "env:", "file:"]);
    let refused = |keys: &str| Refused::serve(&format!("{head}[secrets]\nkeys = [\"{keys}\"]\n"));
    refused("env:POSTHASTE_NO_SUCH_KEY").expect(
        64,
        &["secrets.keys: `env:POSTHASTE_NO_SUCH_KEY` is not set"],
    );
    refused("file:/nowhere/key").expect(
        64,
        &[
            "secrets.keys: `file:/nowhere/key`",
            "No such file",
            "base64",
        ],
    );
    let pasted = refused("aHVudGVyMg==");
    pasted.expect(64, &["`keys`", "expected \"env:NAME\" or \"file:PATH\""]);
    assert!(!pasted.log.contains("aHVudGVyMg"), "{}", pasted.log);
}

#[test]
fn servers_that_do_not_answer_are_named() {
    let config = &format!("log = \"kafka://127.0.0.1:1,127.0.0.1:2\"\n{SECRETS}");
    let begun = Instant::now();
    Refused::serve(config).expect(69, &["`127.0.0.1:1,127.0.0.1:2`", "`log`"]);
    // Ten seconds, and room for a busy machine.
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "{:?}",
        begun.elapsed()
    );
    let file = file(config);
    let path = file.path().to_str().unwrap();
    Refused::from(&["topics", "create", "--config", path])
        .expect(69, &["`127.0.0.1:1,127.0.0.1:2`", "`log`"]);
}

#[test]
fn authorities_that_cannot_be_read_are_named() {
    let refused = |path: &str| Refused::serve(&format!("[egress]\nca_file = \"{path}\"\n"));
    refused("/nowhere/ca.pem").expect(
        64,
        &[
            "egress.ca_file",
            "/nowhere/ca.pem",
            "No such file",
            "expected a readable file",
        ],
    );
    let damaged = "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for text in ["", "this is not PEM\n", damaged, no_certificate] {
        let file = file(text);
        let path = file.path().to_str().unwrap();
        refused(path).expect(
            64,
            &["egress.ca_file", path, "expected certificates in PEM form"],
        );
    }
}
