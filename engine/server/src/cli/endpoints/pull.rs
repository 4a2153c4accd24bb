//! `posthaste endpoints pull`.

use bytes::Bytes;
use clap::Args;
use http::Method;
use posthaste_core::limits::{PULL_PAGE_MAX, PULL_WAIT_MAX};
use serde_json::Value;

use super::super::client::{Client, Server};
use super::super::dead::at_least_one;
use super::super::out;
use super::{encode, path};

pub(super) const AFTER_HELP: &str = "\
Examples:
  posthaste endpoints pull --tenant acme billing --since 24h
  posthaste endpoints pull --tenant acme billing --follow | jq -c .data
  posthaste endpoints pull --tenant acme billing --cursor \"$(cat cursor)\" 2> told > events

Without --since or --cursor only what comes from now on. At its end it says on standard error where
it came: that is the --cursor to go on from. A disabled endpoint gets no deliveries, and can be
pulled.";

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Whose endpoint.
    #[arg(long)]
    tenant: String,
    /// Its id or uid.
    endpoint: String,
    /// Events since then: a UTC time, or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME", conflicts_with = "cursor")]
    since: Option<String>,
    /// Go on from there.
    #[arg(long)]
    cursor: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,
    /// Wait for what comes, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(mut pull: Pull) -> anyhow::Result<()> {
    let stop = crate::cli::stop_signal()?;
    let pulled = tokio::select! {
        pulled = pull.all() => pulled,
        () = stop => Ok(()),
    };
    // Whatever ended it: what was printed is not to be pulled again.
    if let Some(cursor) = &pull.cursor {
        eprintln!("cursor: {cursor}");
    }
    pulled
}

impl Pull {
    async fn all(&mut self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.server).await?;
        let mut left = self.limit.unwrap_or(usize::MAX);
        loop {
            let asked = self.next(left);
            let pulled = client.call(Method::GET, &asked, &[], Bytes::new()).await?;
            let events = pulled["data"].as_array().map_or(&[][..], Vec::as_slice);
            for event in events {
                out::line(event)?;
            }
            if pulled["truncated"] == true {
                eprintln!("events were gone before they were pulled: the log keeps them no longer");
            }
            let cursor = pulled["next_cursor"].as_str();
            anyhow::ensure!(cursor.is_some(), "the server's answer has no `next_cursor`");
            self.cursor = cursor.map(ToOwned::to_owned);
            left = left.saturating_sub(events.len());
            if left == 0 || (!self.follow && pulled["has_more"] != Value::Bool(true)) {
                return Ok(());
            }
        }
    }

    /// What is asked next, for at most so many.
    fn next(&self, left: usize) -> String {
        let endpoint = encode(&self.endpoint);
        let limit = left.min(PULL_PAGE_MAX);
        let mut asked = format!("{}/{endpoint}/stream?limit={limit}", path(&self.tenant));
        match (&self.cursor, &self.since) {
            (Some(cursor), _) => asked.push_str(&format!("&cursor={}", encode(cursor))),
            (None, Some(since)) => asked.push_str(&format!("&since={}", encode(since))),
            (None, None) => {}
        }
        if self.follow {
            asked.push_str(&format!("&wait={}s", PULL_WAIT_MAX.as_secs()));
        }
        asked
    }
}
