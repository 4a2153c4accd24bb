//! `posthaste audit`.

use clap::Args;

use super::client::{Client, Server};
use super::endpoints::text;
use super::pages::{cell, gather, given};
use super::{out, table};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  posthaste audit
  posthaste audit --tenant acme --limit 200
  posthaste audit --subject ep_01M8A8SGRT3TMFMM1F4JJZHFBM --json | jq -r '.data[].actor'

Changes are kept for 90 days. A change that came too late is followed by `change.refused`.")]
pub(crate) struct Options {
    #[command(flatten)]
    server: Server,
    /// Only a tenant's.
    #[arg(long)]
    tenant: Option<String>,
    /// Only of what has this id.
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// How many, the newest first.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let pairs = given([("tenant", &options.tenant), ("subject", &options.subject)]);
    let pages = gather(&mut client, "/v1/audit", &pairs, options.limit.max(1)).await?;
    if options.json {
        out::line(format_args!("{:#}", pages.json()))?;
        return Ok(());
    }
    let head = &["when", "actor", "action", "subject", "version", "tenant"];
    let rows = pages.data.iter().map(|change| {
        vec![
            text(&change["at"]),
            text(&change["actor"]),
            text(&change["action"]),
            text(&change["subject"]),
            cell(&change["version"]),
            cell(&change["tenant"]),
        ]
    });
    out::write(&table::render(head, rows))?;
    if pages.has_more {
        eprintln!("there are more: --limit {}", options.limit * 10);
    }
    Ok(())
}
