//! The house rules as tests over the source tree. A failure names the file, the
//! line, the rule and what would be right; the rules themselves are shown to
//! catch what they are for.
//!
//! `cargo test -p posthaste-sim --test tidy`

mod layers;
mod modules;
mod packages;
mod size;
mod tree;
mod words;

use std::fmt;

use tree::{Tree, parse};

/// A breach of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    right: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, right: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            rule,
            right: right.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.path, self.line, self.rule, self.right
        )
    }
}

fn none(findings: &[Finding]) {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} in all\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// The lines a rule complains about in a planted file.
fn lines(findings: &[Finding]) -> Vec<usize> {
    findings.iter().map(|finding| finding.line).collect()
}

#[test]
fn files_and_functions_are_short() {
    let tree = Tree::read();
    none(&tree.each_source(|path, text| size::check(path, text, &parse(path, text))));
}

#[test]
fn every_file_is_part_of_a_program() {
    let tree = Tree::read();
    none(&modules::check(&tree.texts()));
}

#[test]
fn nobody_knows_whom_they_need_not() {
    let tree = Tree::read();
    none(&tree.each_source(|path, text| layers::check(path, &parse(path, text))));
}

#[test]
fn packages_depend_on_what_they_may() {
    none(&packages::check(&Tree::read().texts()));
}

#[test]
fn texts_say_what_they_should() {
    let tree = Tree::read();
    let mut findings = Vec::new();
    for (path, text) in tree.texts() {
        findings.extend(words::check(&path, &text));
    }
    none(&findings);
}
