//! Which package may depend on which, as the lock file has it.
//!
//! The lock file says more than is built: build dependencies and those of other
//! platforms stand in it too. So this test may be stricter than needed, never
//! less strict, and it asks nobody.

use std::collections::{BTreeMap, BTreeSet};

use crate::Finding;

/// Of our packages, whom each may use.
const OURS: [(&str, &[&str]); 8] = [
    ("posthaste-proto", &[]),
    ("posthaste-core", &["posthaste-proto"]),
    ("posthaste", &["posthaste-core", "posthaste-proto"]),
    ("posthaste-sim", &["posthaste-core", "posthaste-proto"]),
    (
        "posthaste-benches",
        &["posthaste", "posthaste-core", "posthaste-proto"],
    ),
    ("posthaste-sink", &["posthaste-core", "posthaste-proto"]),
    ("posthaste-feed", &["posthaste-core", "posthaste-proto"]),
    // It starts programs and reads what they print.
    ("posthaste-rig", &[]),
];

/// What must not stand behind a pure package, its tests aside.
const BANNED: [(&str, &[&str]); 2] = [
    (
        "posthaste-core",
        &["tokio", "hyper", "rdkafka", "mio", "rusqlite"],
    ),
    (
        "posthaste-proto",
        &["tokio", "hyper", "rdkafka", "mio", "rusqlite"],
    ),
];

const LOCK: &str = "Cargo.lock";

/// Names behind a name.
type Graph = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn check(texts: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut graph = locked(texts.get(LOCK).map_or("", String::as_str));
    let mut findings = Vec::new();
    let manifests = texts
        .iter()
        .filter(|(path, _)| path.ends_with("Cargo.toml"));
    for (path, manifest) in manifests {
        let Some(name) = name(manifest) else {
            continue;
        };
        let uses = normal(manifest);
        let Some((_, allowed)) = OURS.iter().find(|(ours, _)| *ours == name) else {
            let right = format!("{name} has no row: say in OURS whom it may use");
            findings.push(Finding::new(path, 1, "unknown package", right));
            continue;
        };
        for (used, line) in &uses {
            let ours = OURS.iter().any(|(ours, _)| ours == used);
            if ours && !allowed.contains(&used.as_str()) {
                let right = format!("{name} may use {allowed:?}, not {used}");
                findings.push(Finding::new(path, *line, "package layers", right));
            }
        }
        // The lock file does not tell tests' dependencies from others.
        graph.insert(
            name.to_owned(),
            uses.into_iter().map(|(used, _)| used).collect(),
        );
    }
    for (name, banned) in BANNED {
        let behind = behind(&graph, name);
        for one in banned.iter().filter(|one| behind.contains(**one)) {
            let right = format!("{name} is pure: {one} must not stand behind it");
            findings.push(Finding::new(LOCK, 1, "pure package", right));
        }
    }
    findings
}

fn name(manifest: &str) -> Option<&str> {
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("name = "));
    line.filter(|_| manifest.contains("[package]"))
        .map(|text| text.trim_matches('"'))
}

/// The keys of a manifest's tables of normal and build dependencies, with
/// their lines.
fn normal(manifest: &str) -> Vec<(String, usize)> {
    let mut uses = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(manifest.lines()) {
        if line.starts_with('[') {
            let table = line.trim_matches(['[', ']']);
            inside = table.ends_with("dependencies") && !table.ends_with("dev-dependencies");
        } else if inside && let Some(end) = line.find(['.', ' ', '=']) {
            uses.push((line[..end].to_owned(), number));
        }
    }
    uses
}

/// What each name in a lock file uses, in whatever version.
fn locked(lock: &str) -> Graph {
    let mut graph = Graph::new();
    let mut name = String::new();
    for line in lock.lines() {
        if let Some(text) = line.strip_prefix("name = ") {
            text.trim_matches('"').clone_into(&mut name);
            graph.entry(name.clone()).or_default();
        } else if let Some(text) = line.strip_prefix(" \"") {
            let used = text.split(['"', ' ']).next().unwrap_or_default();
            graph
                .entry(name.clone())
                .or_default()
                .insert(used.to_owned());
        }
    }
    graph
}

fn behind<'a>(graph: &'a Graph, name: &'a str) -> BTreeSet<&'a str> {
    let mut open = vec![name];
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if seen.insert(name) {
            open.extend(graph.get(name).into_iter().flatten().map(String::as_str));
        }
    }
    seen
}

#[test]
fn the_lock_file_is_read() {
    let texts = crate::Tree::read().texts();
    let graph = locked(&texts[LOCK]);
    assert!(behind(&graph, "posthaste").contains("tokio"));
    assert!(behind(&graph, "posthaste-core").contains("prost"));
}

#[test]
fn a_forbidden_dependency_is_caught() {
    let lock = "[[package]]\nname = \"posthaste-core\"\ndependencies = [\n \"helper 1.0.0\",\n \"tokio\",\n]\n\
                [[package]]\nname = \"helper\"\ndependencies = [\n \"hyper\",\n]\n";
    let found = |core: &str| {
        let manifest = format!("[package]\nname = \"posthaste-core\"\n{core}");
        let texts = [(LOCK, lock), ("engine/core/Cargo.toml", &manifest)];
        let texts = texts.map(|(path, text)| (path.to_owned(), text.to_owned()));
        let found = check(&texts.into());
        let said = found.iter().map(|f| format!("{}: {}", f.rule, f.right));
        said.collect::<Vec<_>>()
    };
    assert_eq!(
        found("[dev-dependencies]\ntokio.workspace = true\n"),
        [] as [&str; 0]
    );
    let direct = found("[dependencies]\ntokio = { workspace = true }\n");
    assert!(
        direct.len() == 1 && direct[0].contains("tokio must not"),
        "{direct:?}"
    );
    let further = found("[target.'cfg(unix)'.dependencies]\nhelper.workspace = true\n");
    assert!(
        further.len() == 1 && further[0].contains("hyper must not"),
        "{further:?}"
    );
    let upward = found("[build-dependencies]\nposthaste-sim.workspace = true\n");
    assert!(upward[0].starts_with("package layers"), "{upward:?}");
    let texts = [(
        "x/Cargo.toml".to_owned(),
        "[package]\nname = \"new\"\n".to_owned(),
    )];
    assert_eq!(check(&texts.into())[0].rule, "unknown package");
}
