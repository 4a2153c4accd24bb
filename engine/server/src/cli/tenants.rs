//! `posthaste tenants`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::endpoints::{encode, text};
use super::filters::json_or_file;
use super::{WrongUse, out, table};

const PATH: &str = "/v1/tenants";

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

/// Where the server is, and how it is shown.
#[derive(Debug, Args)]
pub(crate) struct At {
    #[command(flatten)]
    pub(super) server: Server,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
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

/// A request's body out of a file, as it is written there.
pub(super) fn body_of(file: &std::path::Path) -> anyhow::Result<Bytes> {
    let name = file
        .to_str()
        .ok_or_else(|| WrongUse("--file: expected a name in UTF-8".to_owned()))?;
    let json = json_or_file("--file", name)?;
    Ok(Bytes::from(json.get().to_owned()))
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { at } => {
            let found = Client::connect(&at.server).await?.all(PATH).await?;
            if at.json {
                return Ok(out::line(format_args!("{found:#}"))?);
            }
            let rows = found["data"].as_array().into_iter().flatten().map(row);
            Ok(out::write(&table::render(HEAD, rows))?)
        }
        Command::Show { tenant, at } => show(&tenant, &at).await,
        Command::Put(put) => put_one(put).await,
        Command::Delete {
            tenant,
            endpoints,
            at,
        } => delete(&tenant, endpoints, &at).await,
    }
}

fn path(tenant: &str) -> String {
    format!("{PATH}/{}", encode(tenant))
}

async fn show(tenant: &str, at: &At) -> anyhow::Result<()> {
    let mut client = Client::connect(&at.server).await?;
    let found = client
        .call(Method::GET, &path(tenant), &[], Bytes::new())
        .await?;
    if at.json {
        return Ok(out::line(format_args!("{found:#}"))?);
    }
    out::write(&table::render(HEAD, [row(&found)]))?;
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
    let mut client = Client::connect(&put.at.server).await?;
    let stands = client
        .call(Method::PUT, &path(&put.tenant), &[], body)
        .await?;
    if put.at.json {
        return Ok(out::line(format_args!("{stands:#}"))?);
    }
    Ok(out::write(&table::render(HEAD, [row(&stands)]))?)
}

async fn delete(tenant: &str, endpoints: bool, at: &At) -> anyhow::Result<()> {
    let mut path = path(tenant);
    if endpoints {
        path.push_str("?endpoints=true");
    }
    let mut client = Client::connect(&at.server).await?;
    client
        .call(Method::DELETE, &path, &[], Bytes::new())
        .await?;
    if at.json {
        out::line(json!({"deleted": tenant}))?;
    } else {
        out::line(format_args!("deleted {}", table::plain(tenant)))?;
    }
    Ok(())
}

const HEAD: &[&str] = &[
    "tenant",
    "name",
    "endpoints",
    "enabled",
    "created",
    "version",
];

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
