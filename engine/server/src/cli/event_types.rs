//! `posthaste event-types`.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::Client;
use super::endpoints::{encode, text};
use super::filters::json_or_file;
use super::tenants::{At, body_of};
use super::{out, table};

const PATH: &str = "/v1/event_types";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The event types that something is said of.
    #[command(after_help = "\
Examples:
  posthaste event-types list
  posthaste event-types list --json | jq -r '.data[] | select(.deprecated).name'")]
    List {
        #[command(flatten)]
        at: At,
    },
    /// What is said of an event type: with its schema and examples.
    #[command(after_help = "\
Examples:
  posthaste event-types show invoice.paid
  posthaste event-types show invoice.paid --json | jq .schema > invoice-paid.schema.json")]
    Show {
        /// The type.
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Say something of an event type; what was said before is replaced.
    #[command(after_help = "\
Examples:
  posthaste event-types put invoice.paid --description 'An invoice is paid.' \\
      --schema invoice-paid.schema.json --example invoice-paid.json
  posthaste event-types put invoice.paid --schema '{\"required\": [\"amount\"]}' --enforce
  posthaste event-types put invoice.paid --file invoice-paid.json

A file holds JSON: {\"description\": .., \"schema\": {..}, \"examples\": [..], \"deprecated\": false,
\"enforce\": false}, and \"version\" where the change is of that one alone. A schema is JSON Schema
2020-12 of a body as it is delivered, and refers only to parts of itself; examples satisfy it.
Events that come by Kafka are never refused for it.")]
    Put(Put),
    /// Forget what was said of an event type; its events are delivered as before.
    #[command(after_help = "\
Examples:
  posthaste event-types delete invoice.paid")]
    Delete {
        /// The type.
        name: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The type.
    name: String,
    /// What its events mean.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// A JSON Schema of their bodies, or a file that holds one.
    #[arg(long, value_name = "FILE|JSON")]
    schema: Option<String>,
    /// A body, or a file that holds one; once for each.
    #[arg(long = "example", value_name = "FILE|JSON")]
    examples: Vec<String>,
    /// Say that it is not to be built upon any more.
    #[arg(long)]
    deprecated: bool,
    /// Refuse events that come by HTTP and do not satisfy the schema.
    #[arg(long, requires = "schema")]
    enforce: bool,
    /// A file that says all of it.
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["description", "schema", "examples", "deprecated", "enforce"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

/// A request's body; what is JSON in it as it was written.
#[derive(Serialize)]
struct Body<'a> {
    description: &'a str,
    deprecated: bool,
    enforce: bool,
    schema: Option<Box<RawValue>>,
    examples: Vec<Box<RawValue>>,
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
        Command::Show { name, at } => show(&name, &at).await,
        Command::Put(put) => put_one(put).await,
        Command::Delete { name, at } => delete(&name, &at).await,
    }
}

fn path(name: &str) -> String {
    format!("{PATH}/{}", encode(name))
}

async fn show(name: &str, at: &At) -> anyhow::Result<()> {
    let mut client = Client::connect(&at.server).await?;
    let found = client
        .call(Method::GET, &path(name), &[], Bytes::new())
        .await?;
    if at.json {
        return Ok(out::line(format_args!("{found:#}"))?);
    }
    out::write(&table::render(HEAD, [row(&found)]))?;
    if !found["schema"].is_null() {
        out::line(format_args!("\nschema: {:#}", found["schema"]))?;
    }
    for example in found["examples"].as_array().into_iter().flatten() {
        out::line(format_args!("\nexample: {example:#}"))?;
    }
    Ok(())
}

async fn put_one(put: Put) -> anyhow::Result<()> {
    let body = match &put.file {
        Some(file) => body_of(file)?,
        None => {
            let schema = put
                .schema
                .as_deref()
                .map(|text| json_or_file("--schema", text));
            let examples = put
                .examples
                .iter()
                .map(|text| json_or_file("--example", text));
            let body = Body {
                description: &put.description,
                deprecated: put.deprecated,
                enforce: put.enforce,
                schema: schema.transpose()?,
                examples: examples.collect::<Result<_, _>>()?,
            };
            serde_json::to_vec(&body)?.into()
        }
    };
    let mut client = Client::connect(&put.at.server).await?;
    let stands = client
        .call(Method::PUT, &path(&put.name), &[], body)
        .await?;
    if put.at.json {
        return Ok(out::line(format_args!("{stands:#}"))?);
    }
    Ok(out::write(&table::render(HEAD, [row(&stands)]))?)
}

async fn delete(name: &str, at: &At) -> anyhow::Result<()> {
    let mut client = Client::connect(&at.server).await?;
    client
        .call(Method::DELETE, &path(name), &[], Bytes::new())
        .await?;
    if at.json {
        out::line(json!({"deleted": name}))?;
    } else {
        out::line(format_args!("deleted {}", table::plain(name)))?;
    }
    Ok(())
}

const HEAD: &[&str] = &["type", "state", "schema", "version", "description"];

fn row(event_type: &Value) -> Vec<String> {
    let is = |name: &str| event_type[name] == true;
    let state = if is("deprecated") {
        "deprecated"
    } else {
        "current"
    };
    let schema = if is("enforce") {
        "enforced"
    } else {
        "not enforced"
    };
    vec![
        text(&event_type["name"]),
        state.to_owned(),
        schema.to_owned(),
        text(&event_type["version"]),
        text(&event_type["description"]),
    ]
}
