//! `posthaste tenants`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::endpoints::text;
use super::records::{At, Records, body_of};
use super::{out, table};

const TENANTS: Records = Records {
    path: "/v1/tenants",
    head: &[
        "tenant",
        "name",
        "endpoints",
        "enabled",
        "created",
        "version",
    ],
    row,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The tenants there are: those that something is said of, and those that
    /// have endpoints.
    #[command(after_help = "\
Examples:
  posthaste tenants list
  posthaste tenants list --json | jq -r '.data[] | select(.endpoints == 0).tenant'")]
    List {
        #[command(flatten)]
        at: At,
    },
    /// What is said of a tenant, and how many endpoints it has.
    #[command(after_help = "\
Examples:
  posthaste tenants show acme
  posthaste tenants show acme --json | jq .metadata")]
    Show {
        /// Its text, as events and endpoints have it.
        tenant: String,
        #[command(flatten)]
        at: At,
    },
    /// Say something of a tenant; what was said before is replaced.
    #[command(after_help = "\
Examples:
  posthaste tenants put acme --name 'Acme Inc.' --metadata plan=gold --metadata crm=4711
  posthaste tenants put acme --file acme.json

A file holds JSON: {\"name\": .., \"description\": .., \"metadata\": {..}}, and \"version\" where the
change is of that one alone. A tenant needs no record: its events and endpoints work without.")]
    Put(Put),
    /// Delete what is said of a tenant that has no endpoints.
    #[command(after_help = "\
Examples:
  posthaste tenants delete acme
  posthaste tenants delete acme --endpoints    its endpoints too; what waits for them is cancelled")]
    Delete {
        /// Its text, as events and endpoints have it.
        tenant: String,
        /// Delete its endpoints too.
        #[arg(long)]
        endpoints: bool,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Its text, as events and endpoints have it.
    tenant: String,
    /// What people call it.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// In your words.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// What is to be remembered of it; once for each.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// A file that says all of it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "description", "metadata"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { at } => TENANTS.list(&at).await,
        Command::Show { tenant, at } => show(&tenant, &at).await,
        Command::Put(put) => put_one(put).await,
        Command::Delete {
            tenant,
            endpoints,
            at,
        } => {
            let query = if endpoints { "?endpoints=true" } else { "" };
            TENANTS.delete(&tenant, query, &at).await
        }
    }
}

async fn show(tenant: &str, at: &At) -> anyhow::Result<()> {
    let Some(found) = TENANTS.show(tenant, at).await? else {
        return Ok(());
    };
    let description = text(&found["description"]);
    if !description.is_empty() {
        out::line(format_args!("\n{}", table::plain(&description)))?;
    }
    let pairs = found["metadata"].as_object().into_iter().flatten();
    let pairs: Vec<_> = pairs
        .map(|(key, value)| vec![key.clone(), text(value)])
        .collect();
    if !pairs.is_empty() {
        out::write(&format!("\n{}", table::render(&["metadata", ""], pairs)))?;
    }
    Ok(())
}

async fn put_one(put: Put) -> anyhow::Result<()> {
    let body = match &put.file {
        Some(file) => body_of(file)?,
        None => {
            let metadata: BTreeMap<_, _> = put.metadata.into_iter().collect();
            let body = json!({
                "name": put.name, "description": put.description, "metadata": metadata,
            });
            body.to_string().into()
        }
    };
    TENANTS.put(&put.tenant, body, &put.at).await
}

fn row(tenant: &Value) -> Vec<String> {
    vec![
        text(&tenant["tenant"]),
        text(&tenant["name"]),
        text(&tenant["endpoints"]),
        text(&tenant["endpoints_enabled"]),
        tenant["created_at"].as_str().unwrap_or("-").to_owned(),
        text(&tenant["version"]),
    ]
}
