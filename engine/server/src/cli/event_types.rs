//! `posthaste event-types`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::Client;
use super::endpoints::text;
use super::filters::json_or_file;
use super::records::{At, Records, body_of};
use super::{WrongUse, out, table};

const EVENT_TYPES: Records = Records {
    path: "/v1/event_types",
    head: &["type", "state", "schema", "version", "description"],
    row,
};

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
    /// Say of event types what an OpenAPI 3.1 document says of its webhooks.
    #[command(after_help = "\
Examples:
  posthaste event-types import openapi.json --dry-run
  posthaste event-types import openapi.json

A webhook's name is a type; its description or summary, `deprecated`, and schema and examples of the
`application/json` body of its `post` are what is said of it. What else was said of a type is
replaced, but for whether its schema is enforced. References into the document's components become
part of the schema. One that is refused keeps nothing from the others, and the exit code is 1.

The document is JSON, such as `yq -o json openapi.yaml` makes of YAML.")]
    Import(Import),
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

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The document, as JSON.
    file: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
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

/// … and one that imports.
#[derive(Serialize)]
struct Document {
    openapi: Box<RawValue>,
    dry_run: bool,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { at } => EVENT_TYPES.list(&at).await,
        Command::Show { name, at } => show(&name, &at).await,
        Command::Put(put) => put_one(put).await,
        Command::Import(import) => import_all(import).await,
        Command::Delete { name, at } => EVENT_TYPES.delete(&name, "", &at).await,
    }
}

async fn show(name: &str, at: &At) -> anyhow::Result<()> {
    let Some(found) = EVENT_TYPES.show(name, at).await? else {
        return Ok(());
    };
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
    EVENT_TYPES.put(&put.name, body, &put.at).await
}

async fn import_all(import: Import) -> anyhow::Result<()> {
    let shown = import.file.display();
    let read = std::fs::read_to_string(&import.file).with_context(|| shown.to_string())?;
    let openapi = serde_json::from_str(&read);
    let openapi = openapi.map_err(|error| WrongUse(format!("{shown}: not JSON: {error}")))?;
    let dry_run = import.dry_run;
    let body = serde_json::to_vec(&Document { openapi, dry_run })?;
    let mut client = Client::connect(&import.at.server).await?;
    let path = format!("{}/import", EVENT_TYPES.path);
    let done = client.call(Method::POST, &path, &[], body.into()).await?;
    if import.at.json {
        out::line(format_args!("{done:#}"))?;
    } else {
        let rows = done["data"].as_array().into_iter().flatten().map(|one| {
            let problem = one["problem"].as_str().unwrap_or_default();
            vec![
                text(&one["name"]),
                text(&one["outcome"]),
                problem.to_owned(),
            ]
        });
        let head = ["type", if dry_run { "would be" } else { "is" }, "problem"];
        out::write(&table::render(&head, rows))?;
    }
    match done["refused"].as_u64() {
        Some(refused) if refused > 0 => bail!("refused event types: {refused}"),
        _ => Ok(()),
    }
}

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
