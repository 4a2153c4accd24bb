//! Every `.rs` file is a Cargo target or named by a `mod`.

use std::collections::{BTreeMap, BTreeSet};

use crate::Finding;
use crate::tree::parse;

/// Where Cargo looks for targets by itself, inside a package.
const TARGET_FILES: [&str; 3] = ["src/lib.rs", "src/main.rs", "build.rs"];
/// Folders in which each file, or folder with a `main.rs`, is a target.
const TARGET_FOLDERS: [&str; 4] = ["src/bin/", "tests/", "examples/", "benches/"];

pub(crate) fn check(texts: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut open: Vec<_> = roots(texts).into_iter().collect();
    let roots: BTreeSet<_> = open.iter().cloned().collect();
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        // A file that is named and missing is the compiler's business.
        let Some(text) = texts.get(&path).filter(|_| reached.insert(path.clone())) else {
            continue;
        };
        let file = parse(&path, text);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let inside = if roots.contains(&path) || name == "mod.rs" {
            folder.to_owned()
        } else {
            path.trim_end_matches(".rs").to_owned()
        };
        named(&file.items, folder, &inside, &mut open);
    }
    let sources = texts.keys().filter(|path| path.ends_with(".rs"));
    let mut findings = Vec::new();
    for path in sources {
        if !reached.contains(path) {
            let right = "no `mod` and no Cargo target names it: name it or delete it";
            findings.push(Finding::new(path, 1, "stray file", right));
        }
        if path.ends_with("/mod.rs") {
            let right = "a module's file is foo.rs beside foo/, not foo/mod.rs";
            findings.push(Finding::new(path, 1, "module file", right));
        }
    }
    findings
}

/// The files of Cargo's targets.
fn roots(texts: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    for (manifest, text) in texts
        .iter()
        .filter(|(path, _)| path.ends_with("Cargo.toml"))
    {
        let package = manifest.trim_end_matches("Cargo.toml");
        for path in texts.keys() {
            let Some(inside) = path.strip_prefix(package).filter(|p| p.ends_with(".rs")) else {
                continue;
            };
            let in_folder = TARGET_FOLDERS.iter().any(|folder| {
                let rest = inside.strip_prefix(folder);
                rest.is_some_and(|rest| {
                    !rest.contains('/') || rest.split_once('/').is_some_and(|(_, f)| f == "main.rs")
                })
            });
            if in_folder || TARGET_FILES.contains(&inside) {
                roots.insert(path.clone());
            }
        }
        for line in text.lines() {
            let path = line.trim().strip_prefix("path = \"");
            if let Some(path) = path.and_then(|rest| rest.split('"').next()) {
                roots.insert(format!("{package}{path}"));
            }
        }
    }
    roots
}

/// The files that `mod` items name, those of inline modules included.
fn named(items: &[syn::Item], folder: &str, inside: &str, out: &mut Vec<String>) {
    for item in items {
        let syn::Item::Mod(module) = item else {
            continue;
        };
        let below = format!("{inside}/{}", module.ident);
        if let Some((_, items)) = &module.content {
            named(items, &below, &below, out);
        } else if let Some(path) = module.attrs.iter().find_map(path_attribute) {
            out.push(format!("{folder}/{path}"));
        } else {
            out.push(format!("{below}.rs"));
            out.push(format!("{below}/mod.rs"));
        }
    }
}

fn path_attribute(attr: &syn::Attribute) -> Option<String> {
    let pair = attr.meta.require_name_value().ok()?;
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) if pair.path.is_ident("path") => Some(text.value()),
        _ => None,
    }
}

#[test]
fn a_stray_file_is_caught() {
    let texts = |files: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = |&(path, text): &(&str, &str)| (path.to_owned(), text.to_owned());
        files.iter().map(owned).collect()
    };
    let mut files = vec![
        ("p/Cargo.toml", "[[bench]]\npath = \"odd/place.rs\"\n"),
        (
            "p/src/lib.rs",
            "mod a;\nmod gone;\nmod c { mod d; }\n#[path = \"x/y.rs\"]\nmod z;",
        ),
        ("p/src/a.rs", "#[cfg(test)]\nmod tests;"),
        ("p/src/a/tests.rs", ""),
        ("p/src/c/d.rs", ""),
        ("p/src/x/y.rs", ""),
        ("p/odd/place.rs", ""),
        ("p/build.rs", ""),
        ("p/tests/one.rs", "mod helper;"),
        ("p/tests/helper.rs", ""),
        ("p/tests/it/main.rs", "mod part;"),
        ("p/tests/it/part.rs", ""),
    ];
    assert_eq!(check(&texts(&files)), []);
    files.push(("p/src/a/b.rs", ""));
    files.push(("p/tests/it/other.rs", ""));
    files.push(("p/src/e/mod.rs", ""));
    let found = check(&texts(&files));
    let paths: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.rule)).collect();
    let wanted = [
        ("p/src/a/b.rs", "stray file"),
        ("p/src/e/mod.rs", "stray file"),
        ("p/src/e/mod.rs", "module file"),
        ("p/tests/it/other.rs", "stray file"),
    ];
    assert_eq!(paths, wanted);
}
