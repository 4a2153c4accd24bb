//! Reads `testdata/bad_urls.tsv`: URLs that look harmless and are not, with
//! the stage at which each must be refused, and URLs that must pass.

use std::net::{IpAddr, SocketAddr};

use super::UrlPolicy;

/// The corpus is written for a policy that takes `http`.
pub(crate) const POLICY: UrlPolicy = UrlPolicy {
    allow_http: true,
    allow_private_names: false,
};

/// Where a row must be refused, if it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Allow,
    RefuseParse,
    RefuseAddress,
    RefuseDns,
    /// By the sender, once connected: the URL itself is fine.
    RefuseAttempt,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) url: String,
    pub(crate) why: &'static str,
    pub(crate) expected: Expected,
    /// Successive look-ups, each with its answers.
    pub(crate) lookups: Vec<Vec<IpAddr>>,
}

pub(crate) fn rows() -> Vec<Row> {
    include_str!("../../testdata/bad_urls.tsv")
        .split_terminator('\n')
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .map(|line| {
            let mut columns = line.split('\t');
            let mut next = || columns.next().expect("every row has five columns");
            let (url, why) = (unescape(next()), next());
            let expected = match (next(), next()) {
                ("allow", _) => Expected::Allow,
                ("refuse", "parse") => Expected::RefuseParse,
                ("refuse", "address") => Expected::RefuseAddress,
                ("refuse", "dns") => Expected::RefuseDns,
                ("refuse", "attempt") => Expected::RefuseAttempt,
                other => panic!("{url}: unknown expectation {other:?}"),
            };
            Row {
                url,
                why,
                expected,
                lookups: lookups(next()),
            }
        })
        .collect()
}

/// Addresses as the wall takes them.
pub(crate) fn at_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|address| SocketAddr::new(*address, port))
        .collect()
}

fn lookups(column: &str) -> Vec<Vec<IpAddr>> {
    if column.is_empty() {
        return Vec::new();
    }
    column
        .split('|')
        .map(|answers| {
            let answers = answers.split(',').map(str::trim);
            answers
                .filter(|answer| !answer.is_empty())
                .map(|answer| answer.parse().expect("an address"))
                .collect()
        })
        .collect()
}

fn unescape(column: &str) -> String {
    let mut text = column.replace("{LONGHOST}", &[&*"l".repeat(60); 5].join("."));
    while let Some(start) = text.find("{A*") {
        let end = start + text[start..].find('}').expect("a closed repetition");
        let count = text[start + 3..end].parse().expect("a count");
        text.replace_range(start..=end, &"a".repeat(count));
    }
    for (escape, byte) in [
        ("\\t", "\t"),
        ("\\n", "\n"),
        ("\\r", "\r"),
        ("\\0", "\0"),
        ("\\s", " "),
        ("\\b", "\\"),
    ] {
        text = text.replace(escape, byte);
    }
    text
}
