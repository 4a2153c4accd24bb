//! How long things may be.

use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::Finding;
use crate::tree::{is_cfg_test, is_test};

/// Production lines of a file.
const FILE_LINES_MAX: usize = 500;
/// Lines of a file of tests.
const TEST_FILE_LINES_MAX: usize = 1_000;
/// Lines of tests beside the code.
const INLINE_TEST_LINES_MAX: usize = 130;
/// Lines of a function, from `fn` to its brace.
const FUNCTION_LINES_MAX: usize = 70;
/// The same in tests and examples, which tell a story from top to bottom.
const TEST_FUNCTION_LINES_MAX: usize = 100;

pub(crate) fn check(path: &str, text: &str, file: &syn::File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tests: usize = inline_tests(file).map(|(_, lines)| lines).sum();
    let total = text.lines().count();
    if is_test(path) {
        if total > TEST_FILE_LINES_MAX {
            let right =
                format!("{total} lines, at most {TEST_FILE_LINES_MAX}: split it by subject");
            findings.push(Finding::new(path, total, "long test file", right));
        }
    } else {
        let lines = total - tests;
        if lines > FILE_LINES_MAX {
            let right =
                format!("{lines} production lines, at most {FILE_LINES_MAX}: move a mechanism out");
            findings.push(Finding::new(path, total, "long file", right));
        }
        for (line, lines) in inline_tests(file).filter(|(_, l)| *l > INLINE_TEST_LINES_MAX) {
            let right = format!(
                "{lines} lines of tests, at most {INLINE_TEST_LINES_MAX} beside the code: move them \
                 to {}/tests.rs",
                path.trim_end_matches(".rs")
            );
            findings.push(Finding::new(path, line, "long inline tests", right));
        }
    }
    let tells = is_test(path) || path.contains("/examples/");
    let mut functions = Functions {
        path,
        lines_max: if tells {
            TEST_FUNCTION_LINES_MAX
        } else {
            FUNCTION_LINES_MAX
        },
        findings: &mut findings,
    };
    functions.visit_file(file);
    findings
}

/// First line and length of each inline module of tests.
fn inline_tests(file: &syn::File) -> impl Iterator<Item = (usize, usize)> {
    file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_some() && is_cfg_test(&module.attrs) => {
            let (first, last) = (first_line(module.span()), last_line(module.span()));
            Some((first, last + 1 - first))
        }
        _ => None,
    })
}

struct Functions<'a> {
    path: &'a str,
    lines_max: usize,
    findings: &'a mut Vec<Finding>,
}

impl Functions<'_> {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = first_line(signature.span());
        let lines = last_line(block.span()) + 1 - first;
        if lines > self.lines_max {
            let right = format!(
                "`{}` has {lines} lines, at most {}: name its parts",
                signature.ident, self.lines_max
            );
            let finding = Finding::new(self.path, first, "long function", right);
            self.findings.push(finding);
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn first_line(span: Span) -> usize {
    span.start().line
}

fn last_line(span: Span) -> usize {
    span.end().line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines;

    fn found(path: &str, text: &str) -> Vec<Finding> {
        check(
            path,
            text,
            &syn::parse_file(text).expect("a planted file parses"),
        )
    }

    #[test]
    fn a_long_function_is_caught_wherever_it_stands() {
        // Braces in text are no braces.
        let body = "let _ = ('{', \"{{{\", r#\"{\"#); // {\n".repeat(69);
        let long = format!("fn long() {{\n{body}}}\n");
        let nested = format!("mod m {{ trait T {{ fn f() {{\n{body}}} }} }}\n");
        let method = format!("struct S;\nimpl S {{\n#[inline]\nfn f() {{\n{body}}}\n}}\n");
        assert_eq!(lines(&found("a/src/a.rs", &long)), [1]);
        assert_eq!(found("a/tests/a.rs", &long), []);
        assert_eq!(lines(&found("a/src/a.rs", &nested)), [1]);
        assert_eq!(lines(&found("a/src/a.rs", &method)), [4]);
        let short = format!("fn short() {{\n{}}}\n", "();\n".repeat(68));
        assert_eq!(found("a/src/a.rs", &short), []);
    }

    #[test]
    fn a_long_file_is_caught_and_its_tests_do_not_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "use a;\n".repeat(100));
        let at_most = format!("{}{tests}", "use a;\n".repeat(500));
        assert_eq!(found("a/src/a.rs", &at_most), []);
        let over = format!("use b;\n{at_most}");
        assert_eq!(found("a/src/a.rs", &over)[0].rule, "long file");
        assert_eq!(found("a/src/a/tests.rs", &over), []);
        assert_eq!(found("a/tests/it/a.rs", &"use a;\n".repeat(1_001)).len(), 1);
        let much = format!(
            "use a;\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "use a;\n".repeat(140)
        );
        assert_eq!(lines(&found("a/src/a.rs", &much)), [2]);
    }
}
