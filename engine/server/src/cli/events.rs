//! `posthaste events`.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::client::{Client, Server};
use super::dead::at_least_one;
use super::endpoints::encode;
use super::pages::{cell, gather, given, under};
use super::{deliveries, out, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Events as the log has them, the newest first.
    #[command(after_help = "\
Examples:
  posthaste events list --tenant acme --since 10m
  posthaste events list --tenant acme --type invoice.paid --json | jq -r '.data[].id'")]
    List(List),
    /// One event, and what became of it.
    #[command(after_help = "\
Examples:
  posthaste events show evt_01M8A8SH3159FXXNQ369DY9HAB
  posthaste events show invoice-7 --tenant acme --since 2026-01-31T08:00:00Z

An id that Posthaste made tells where to look. For any other the newest events are looked through
first; `--since` and `--until` narrow that.")]
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Since then: a UTC time, or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
    limit: usize,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its id, the `webhook-id`.
    id: String,
    /// Its tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Since then: a UTC time, or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(options) => list(options).await,
        Command::Show(options) => show(options).await,
    }
}

async fn list(options: List) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let pairs = given([
        ("type", &options.event_type),
        ("since", &options.since),
        ("until", &options.until),
    ]);
    let path = under(options.tenant.as_deref(), "events");
    let pages = gather(&mut client, &path, &pairs, options.limit).await?;
    if options.json {
        out::line(format_args!("{:#}", pages.json()))?;
        return Ok(());
    }
    let head = ["when", "tenant", "event", "type", "place", "bytes"];
    let row = |event: &Value| {
        let of = |name: &str| cell(&event[name]);
        vec![
            of("at"),
            of("tenant"),
            of("id"),
            of("type"),
            place(event),
            of("body_bytes"),
        ]
    };
    out::write(&table::render(&head, pages.data.iter().map(row)))?;
    pages.hint(options.limit);
    Ok(())
}

fn place(event: &Value) -> String {
    let topic = cell(&event["topic"]);
    format!("{topic}/{}@{}", event["partition"], event["offset"])
}

async fn show(options: Show) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let place = format!("events/{}", encode(&options.id));
    let mut path = under(options.tenant.as_deref(), &place);
    let pairs = given([("since", &options.since), ("until", &options.until)]);
    for ((name, value), mark) in pairs.iter().zip(["?", "&"]) {
        path.push_str(&format!("{mark}{name}={}", encode(value)));
    }
    let found = client.call(Method::GET, &path, &[], Bytes::new()).await?;
    match options.json {
        true => out::line(format_args!("{found:#}"))?,
        false => out::write(&told(&found))?,
    }
    Ok(())
}

fn told(found: &Value) -> String {
    let of = |name: &str| cell(&found[name]);
    let body = match &found["body"] {
        Value::Null => format!("{} bytes that are no text", found["body_bytes"]),
        body => cell(body),
    };
    let cut = if found["body_truncated"] == true {
        " …"
    } else {
        ""
    };
    let lines = [
        format!("{}  {} of {}", of("id"), of("type"), of("tenant")),
        format!("{}, {}, {}", of("at"), place(found), of("content_type")),
        format!("{body}{cut}"),
    ];
    let lines = lines.iter().map(|line| table::plain(line));
    let mut out = lines.collect::<Vec<_>>().join("\n") + "\n";
    let all = |name: &str| found[name].as_array().cloned().unwrap_or_default();
    let attempted = all("deliveries");
    if !attempted.is_empty() {
        out.push('\n');
        out += &deliveries::rows(&attempted);
    }
    let waiting = all("not_attempted");
    if !waiting.is_empty() {
        let row = |delivery: &Value| vec![cell(&delivery["id"]), cell(&delivery["endpoint"])];
        out += "\nno attempt on record:\n\n";
        out += &table::render(&["delivery", "endpoint"], waiting.iter().map(row));
    }
    if attempted.is_empty() && waiting.is_empty() {
        out += "\nno endpoint wants it\n";
    }
    out
}
