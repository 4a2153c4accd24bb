//! The tree as it is tracked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Finding;

/// Every tracked path, from the workspace root on.
pub(crate) struct Tree {
    root: PathBuf,
    paths: Vec<String>,
}

impl Tree {
    pub(crate) fn read() -> Self {
        let root = root();
        let mut paths = tracked(&root).unwrap_or_else(|| walked(&root));
        // Tracked and deleted is not there.
        paths.retain(|path| root.join(path).is_file());
        paths.sort();
        assert!(
            paths.len() > 50,
            "the tree was not found at {}",
            root.display()
        );
        Self { root, paths }
    }

    /// Every file that is text.
    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        let read =
            |path: &String| Some((path.clone(), fs::read_to_string(self.root.join(path)).ok()?));
        self.paths.iter().filter_map(read).collect()
    }

    /// What a rule finds in each `.rs` file.
    pub(crate) fn each_source(&self, rule: impl Fn(&str, &str) -> Vec<Finding>) -> Vec<Finding> {
        let texts = self.texts();
        let sources = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        sources.flat_map(|(path, text)| rule(path, text)).collect()
    }
}

/// The workspace root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here
        .ancestors()
        .nth(2)
        .expect("the package lies two folders deep");
    root.to_owned()
}

/// A file's syntax. What does not parse is the compiler's business and looks
/// empty here.
pub(crate) fn parse(path: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| {
        eprintln!("{path}: {error}");
        syn::File {
            shebang: None,
            attrs: Vec::new(),
            items: Vec::new(),
        }
    })
}

/// Whether a path is a test's own file rather than production code.
pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Whether an item stands under `#[cfg(test)]`.
pub(crate) fn is_cfg_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let list = attr.meta.require_list();
        attr.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn tracked(root: &Path) -> Option<Vec<String>> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(listed.stdout).ok()?;
    let paths: Vec<_> = text.split_terminator('\0').map(str::to_owned).collect();
    (!paths.is_empty()).then_some(paths)
}

fn walked(root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
            } else if let Ok(inside) = path.strip_prefix(root) {
                paths.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    paths
}

#[test]
fn a_walk_finds_what_is_tracked() {
    let paths = walked(&root());
    assert!(
        paths
            .iter()
            .any(|path| path == "engine/sim/tests/tidy/tree.rs")
    );
    assert!(!paths.iter().any(|path| path.starts_with("target/")));
}
