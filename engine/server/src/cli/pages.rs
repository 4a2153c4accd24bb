//! Lists that a server gives page by page.

use bytes::Bytes;
use http::Method;
use posthaste_core::limits::LOOK_PAGE_MAX;
use serde_json::{Value, json};

use super::client::Client;
use super::endpoints::{encode, text};

/// What was gathered, up to a limit.
pub(super) struct Pages {
    pub(super) data: Vec<Value>,
    /// Whether more was left.
    pub(super) has_more: bool,
    /// How far the last look came; nothing of a list that needs none.
    scanned: Value,
}

/// A query's parts that are given.
pub(super) fn given<'a, const N: usize>(
    pairs: [(&'static str, &'a Option<String>); N],
) -> Vec<(&'static str, &'a str)> {
    let given = |(name, value): (_, &'a Option<String>)| Some((name, value.as_deref()?));
    pairs.into_iter().filter_map(given).collect()
}

/// A value in a table.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        value => text(value),
    }
}

/// A path under a tenant, where one is named: a credential of that tenant alone
/// has no other.
pub(super) fn under(tenant: Option<&str>, rest: &str) -> String {
    match tenant {
        Some(tenant) => format!("/v1/tenants/{}/{rest}", encode(tenant)),
        None => format!("/v1/{rest}"),
    }
}

/// Asks page after page until there are so many.
pub(super) async fn gather(
    client: &mut Client,
    path: &str,
    pairs: &[(&str, &str)],
    limit: usize,
) -> anyhow::Result<Pages> {
    let mut pages = Pages {
        data: Vec::new(),
        has_more: false,
        scanned: Value::Null,
    };
    let mut cursor = None;
    loop {
        let most = (limit - pages.data.len()).min(LOOK_PAGE_MAX);
        let mut asked = format!("{path}?limit={most}");
        let at = cursor.iter().map(|at: &String| ("cursor", &**at));
        for (name, value) in pairs.iter().copied().chain(at) {
            asked.push_str(&format!("&{name}={}", encode(value)));
        }
        let mut page = client.call(Method::GET, &asked, &[], Bytes::new()).await?;
        if let Value::Array(items) = page["data"].take() {
            pages.data.extend(items);
        }
        pages.scanned = page["scanned"].take();
        cursor = page["next_cursor"].as_str().map(ToOwned::to_owned);
        pages.has_more = cursor.is_some();
        if cursor.is_none() || pages.data.len() >= limit {
            return Ok(pages);
        }
    }
}

impl Pages {
    pub(super) fn json(&self) -> Value {
        let mut json = json!({ "data": self.data, "has_more": self.has_more });
        if !self.scanned.is_null() {
            json["scanned"] = self.scanned.clone();
        }
        json
    }

    /// Says that more was left, to whoever reads a table.
    pub(super) fn hint(&self, limit: usize) {
        if self.has_more {
            eprintln!("there may be more: --limit {} or --since", limit * 10);
        }
    }
}
