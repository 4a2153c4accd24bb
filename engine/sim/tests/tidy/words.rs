//! What texts do not say, and what they say instead.

use crate::Finding;
use crate::tree::is_test;

/// Columns of a line of code.
const COLUMNS_MAX: usize = 120;

/// Something not to write, where, and what would be right.
struct Word {
    text: &'static str,
    within: Scope,
    except: &'static [&'static str],
    right: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Every text file.
    Everywhere,
    /// Code.
    Rust,
    /// Code that is not a test.
    Production,
    /// The server's code that is not a test.
    Server,
}

const fn word(text: &'static str, within: Scope, right: &'static str) -> Word {
    Word {
        text,
        within,
        except: &[],
        right,
    }
}

/// Written in halves, so that this list does not find itself.
const WORDS: [Word; 14] = [
    word(
        concat!("#[al", "low("),
        Scope::Rust,
        "#[expect(lint, reason = \"...\")], which goes when it is no longer needed",
    ),
    word(
        concat!("#![al", "low("),
        Scope::Rust,
        "#![expect(lint, reason = \"...\")]",
    ),
    word(concat!("db", "g!("), Scope::Rust, "a trace, or nothing"),
    word(
        concat!("to", "do!("),
        Scope::Rust,
        "the code, or no function yet",
    ),
    word(
        concat!("unimple", "mented!("),
        Scope::Rust,
        "the code, or no function yet",
    ),
    word(
        concat!("FIX", "ME"),
        Scope::Everywhere,
        "fix it, or say what does not work and why",
    ),
    word(
        concat!("XX", "X"),
        Scope::Everywhere,
        "fix it, or say what does not work and why",
    ),
    word(
        concat!("TO", "DO"),
        Scope::Everywhere,
        "do it, or say what is missing and why",
    ),
    word(concat!("D", "LQ"), Scope::Everywhere, "dead letter"),
    word(concat!("dead", "-lettered"), Scope::Rust, "given up"),
    word(concat!("Post", "Haste"), Scope::Everywhere, "Posthaste"),
    word(
        concat!("unbounded_", "channel"),
        Scope::Rust,
        "a channel with a bound from limits.rs",
    ),
    Word {
        text: concat!("SystemTime::", "now"),
        within: Scope::Server,
        except: &["engine/server/src/clock.rs"],
        right: "the Clock: only clock.rs reads the wall clock",
    },
    Word {
        text: concat!("/target", "/debug"),
        within: Scope::Production,
        except: &[],
        right: "a path Cargo gives, such as CARGO_BIN_EXE_posthaste",
    },
];

pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let words: Vec<_> = WORDS.iter().filter(|word| word.is_for(path)).collect();
    for (line, text) in (1..).zip(text.lines()) {
        for word in &words {
            if contains_whole(text, word.text) {
                let right = format!("`{}`: {}", word.text, word.right);
                findings.push(Finding::new(path, line, "word", right));
            }
        }
        if is_ours(path) && text.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(
                path,
                line,
                "line end",
                "no space at the end of a line",
            ));
        }
        let columns = text.chars().count();
        if path.ends_with(".rs") && columns > COLUMNS_MAX {
            let right = format!("{columns} columns, at most {COLUMNS_MAX}: break the line or text");
            findings.push(Finding::new(path, line, "long line", right));
        }
    }
    if is_ours(path) && !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(
            path,
            text.lines().count(),
            "file end",
            "end the last line",
        ));
    }
    if Scope::Production.holds(path) && !text.starts_with("//!") {
        let right = "begin with `//!`: what it is for and what it refuses to do";
        findings.push(Finding::new(path, 1, "module doc", right));
    }
    findings
}

/// Texts people write; data is as it came.
fn is_ours(path: &str) -> bool {
    [".rs", ".md", ".toml", ".proto", ".yaml", ".yml"]
        .iter()
        .any(|end| path.ends_with(end))
}

impl Word {
    fn is_for(&self, path: &str) -> bool {
        let data = path.contains("/testdata/") || path.ends_with("Cargo.lock");
        self.within.holds(path) && !data && !self.except.contains(&path)
    }
}

impl Scope {
    fn holds(self, path: &str) -> bool {
        let rust = path.ends_with(".rs");
        match self {
            Self::Everywhere => true,
            Self::Rust => rust,
            Self::Production => rust && path.contains("src/") && !is_test(path),
            Self::Server => rust && path.starts_with("engine/server/src/") && !is_test(path),
        }
    }
}

/// Whether the text stands there as a word of its own, as far as it begins or
/// ends with a letter.
fn contains_whole(line: &str, text: &str) -> bool {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + text.len()..].chars().next();
        let begins = text.starts_with(char::is_alphanumeric) && part_of_word(before);
        let ends = text.ends_with(char::is_alphanumeric) && part_of_word(after);
        !begins && !ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines;

    #[test]
    fn every_word_is_caught_where_it_counts() {
        for word in &WORDS {
            let planted = format!("//! A file.\n\nfn f() {{ {} }}\n", word.text);
            let path = "engine/server/src/a.rs";
            assert_eq!(lines(&check(path, &planted)), [3], "{}", word.text);
            for except in word.except {
                assert_eq!(check(except, &planted), [], "{}", word.text);
            }
        }
        let fixme = format!("* {}: later\n", concat!("FIX", "ME"));
        assert_eq!(lines(&check("README.md", &fixme)), [1]);
        let part = format!("* A{}B and {}s\n", concat!("XX", "X"), concat!("TO", "DO"));
        assert_eq!(check("README.md", &part), [], "part of another word");
    }

    #[test]
    fn lines_and_files_end_well() {
        assert_eq!(lines(&check("a.md", "one \ntwo\t\nthree")), [1, 2, 3]);
        assert_eq!(check("a.tsv", "one \ntwo"), [], "data is as it came");
        let long = format!("//! A file.\n// {}\n", "x".repeat(118));
        assert_eq!(lines(&check("a/src/a.rs", &long)), [2]);
        assert_eq!(check("a/tests/a.rs", "fn f() {}\n"), []);
        assert_eq!(lines(&check("a/src/a.rs", "fn f() {}\n")), [1]);
    }
}
