//! The command line from outside: what its help says, and its exit codes.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn posthaste(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_posthaste"))
        .args(words)
        .env_remove("POSTHASTE_SERVER")
        .output()
        .unwrap()
}

/// The exit code, and what was said on standard error.
fn failure(words: &[&str]) -> (Option<i32>, String) {
    let ended = posthaste(words);
    (
        ended.status.code(),
        String::from_utf8(ended.stderr).unwrap(),
    )
}

/// A port of this machine where nobody listens.
fn nobody() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

#[test]
fn every_command_shows_how_it_is_used() {
    for command in [
        "",
        "serve",
        "api",
        "dev",
        "publish",
        "completions",
        "topics create",
        "endpoints create",
        "endpoints list",
        "endpoints delete",
        "endpoints rotate-secret",
        "secrets reseal",
        "dead list",
        "dead redrive",
        "keys create",
        "keys list",
        "keys revoke",
    ] {
        let mut words: Vec<_> = command.split_whitespace().collect();
        words.push("--help");
        let help = String::from_utf8(posthaste(&words).stdout).unwrap();
        assert!(help.contains("Example"), "{command}: {help}");
        assert!(help.contains(&format!("  posthaste {command}")), "{help}");
        for line in help.lines().filter(|line| line.starts_with("  posthaste")) {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
}

#[test]
fn a_shell_completes_what_it_is_given() {
    let script = posthaste(&["completions", "bash"]);
    assert!(script.status.success());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("posthaste.bash");
    std::fs::write(&file, script.stdout).unwrap();
    let asks = "source \"$1\"; COMP_WORDS=(posthaste endpoints ro); COMP_CWORD=2; \
                _posthaste posthaste ro endpoints; echo \"${COMPREPLY[@]}\"";
    let bash = ["--norc", "-c", asks, "bash", file.to_str().unwrap()];
    let said = Command::new("bash").args(bash).output().unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "rotate-secret\n");
}

#[test]
fn wrong_words_are_2() {
    let endpoint = [
        "endpoints",
        "create",
        "--tenant",
        "a",
        "--url",
        "https://example.com",
        "--header",
    ];
    for words in [
        &["deliver"][..],
        &["endpoints", "list", "--tenant", "a", "--server", "nowhere"],
        &[&endpoint[..], &["no-colon"]].concat(),
        &["dev", "--rate", "0", "--events", "1"],
        &["dead", "redrive"],
        &["dead", "redrive", "--all", "--tenant", "a"],
        &["dead", "redrive", "--all", "--rate", "0/s"],
        &["dead", "list", "--limit", "0"],
    ] {
        let (code, said) = failure(words);
        assert_eq!(code, Some(2), "{words:?}: {said}");
    }
}

#[test]
fn a_wrong_configuration_is_64_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("posthaste.toml");
    let path = file.to_str().unwrap();
    let (code, said) = failure(&["serve", "--config", path]);
    assert!(code == Some(64) && said.contains(path), "{code:?} {said}");
    for (text, key) in [
        ("shard = 1", "shard"),
        (
            "[http]\nlisten = \"0.0.0.0:1\"\n[api]\nauth = \"none\"",
            "api.auth",
        ),
        ("[egress]\nallow = [\"here\"]", "egress.allow"),
        ("[ingest.envelope]\nid = \"id\"", "ingest.envelope"),
    ] {
        let listen = "[http]\nlisten = \"127.0.0.1:0\"\n";
        let listen = if text.contains("[http]") { "" } else { listen };
        std::fs::write(&file, format!("{text}\n{listen}")).unwrap();
        let (code, said) = failure(&["serve", "--config", path]);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(key), "{said}");
    }
}

#[test]
fn what_cannot_be_reached_is_69() {
    let server = format!("http://{}", nobody());
    let list = ["endpoints", "list", "--tenant", "a", "--server", &server];
    let (code, said) = failure(&list);
    assert!(
        code == Some(69) && said.contains(&server),
        "{code:?} {said}"
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("posthaste.toml");
    std::fs::write(&file, format!("log = \"kafka://{}\"", nobody())).unwrap();
    let (code, said) = failure(&["topics", "create", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(69), "{said}");
}

#[test]
fn where_nobody_reads_it_ends_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("posthaste.toml");
    let log = format!("log = \"embedded:{}\"", dir.path().join("log").display());
    std::fs::write(&file, log).unwrap();
    let words = ["topics", "create", "--config", file.to_str().unwrap()];
    let ended = |stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        let output = command.args(words).stdout(stdout).stderr(Stdio::piped());
        let ended = output.spawn().unwrap().wait_with_output().unwrap();
        (
            ended.status.code(),
            String::from_utf8(ended.stderr).unwrap(),
        )
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(ended(writer.into()), (Some(141), String::new()));
    // Anything else that goes wrong there is said.
    let full = std::fs::File::options().write(true).open("/dev/full");
    let (code, said) = ended(full.unwrap().into());
    assert_eq!(code, Some(1));
    assert!(said.starts_with("posthaste: standard output: "), "{said}");
}
