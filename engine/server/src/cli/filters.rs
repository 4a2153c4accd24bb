//! `posthaste filters`.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::endpoints::text;
use super::{WrongUse, out, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Whether a filter lets an event pass; if not, what stands in the way.
    #[command(after_help = "\
Examples:
  posthaste filters evaluate --filter '{\"amount\": {\"$gte\": 100}}' --body '{\"amount\": 7}'
  posthaste filters evaluate --filter filter.json --type invoice.paid --body invoice.json

A filter is JSON: paths, each with a constant or operators. A path is names separated by dots
(data.amount, items.0.id), a JSON pointer where it begins with / (/data/a.b), $type or
$headers.NAME. Operators: $eq $ne $gt $gte $lt $lte $in $nin $exists $startsWith $endsWith; around
filters: $and $or $not. A body that is no JSON passes no condition on its content.")]
    Evaluate(Evaluate),
    /// What a filter would have done with the events the source topics hold.
    #[command(after_help = "\
Examples:
  posthaste filters backtest --filter filter.json --tenant acme --since 24h
  posthaste filters backtest --filter '{\"data.amount\": {\"$gte\": 100}}' --types 'invoice.*' \\
      --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z --json

Nothing is delivered. It reads up to 64 MiB and 10 s, then says how far it came.")]
    Backtest(Backtest),
}

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// A filter, or a file that holds one.
    #[arg(long, value_name = "FILE|JSON")]
    filter: String,
    /// The event's type.
    #[arg(long = "type", default_value = "", hide_default_value = true)]
    event_type: String,
    /// A header of its record; once for each.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Its body, or a file that holds it; `null` without it.
    #[arg(long, value_name = "FILE|JSON")]
    body: Option<String>,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Backtest {
    /// A filter, or a file that holds one.
    #[arg(long, value_name = "FILE|JSON")]
    filter: String,
    /// Events of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Events of this type, or of a pattern such as `invoice.*`; once for each.
    #[arg(long = "types", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Events since then: a UTC time, or how long ago; an hour without it.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Events before then; now without it.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show at most so many of those that pass.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A request with a filter as it was written: no number in it is rounded.
#[derive(Serialize)]
struct WithFilter<'a> {
    #[serde(flatten)]
    rest: &'a Value,
    filter: &'a RawValue,
}

/// The text of an event, likewise.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    headers: serde_json::Map<String, Value>,
    body: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Evaluation<'a> {
    filter: &'a RawValue,
    event: Event<'a>,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Evaluate(options) => evaluate(options).await,
        Command::Backtest(options) => backtest(options).await,
    }
}

/// JSON where it begins as an object or array does, otherwise a file's.
pub(super) fn json_or_file(option: &str, text: &str) -> anyhow::Result<Box<RawValue>> {
    if text.trim_start().starts_with(['{', '[']) {
        let json = serde_json::from_str(text);
        return Ok(json.map_err(|error| WrongUse(format!("{option}: not JSON: {error}")))?);
    }
    let read = std::fs::read_to_string(text);
    let read = read.with_context(|| format!("{option} {text}: expected JSON or a file of it"))?;
    let json = serde_json::from_str(&read);
    Ok(json.map_err(|error| WrongUse(format!("{option} {text}: not JSON: {error}")))?)
}

/// A request's body with a filter in it.
pub(super) fn with_filter(body: &Value, filter: &RawValue) -> anyhow::Result<String> {
    let body = WithFilter { rest: body, filter };
    Ok(serde_json::to_string(&body)?)
}

/// A header of the command line.
pub(super) fn header(text: &str) -> Result<(&str, &str), WrongUse> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| WrongUse(format!("--header {text}: expected `name: value`")))?;
    Ok((name.trim(), value.trim()))
}

async fn evaluate(options: Evaluate) -> anyhow::Result<()> {
    let filter = json_or_file("--filter", &options.filter)?;
    let body = options.body.as_deref();
    let body = body.map(|text| json_or_file("--body", text)).transpose()?;
    let mut headers = serde_json::Map::new();
    for text in &options.headers {
        let (name, value) = header(text)?;
        headers.insert(name.to_owned(), value.into());
    }
    let asked = Evaluation {
        filter: &filter,
        event: Event {
            event_type: &options.event_type,
            headers,
            body: body.as_deref(),
        },
    };
    let asked = serde_json::to_string(&asked)?;
    let mut client = Client::connect(&options.server).await?;
    let path = "/v1/filters/evaluate";
    let found = client.call(Method::POST, path, &[], asked.into()).await?;
    if options.json {
        out::line(format_args!("{found:#}"))?;
        return Ok(());
    }
    if found["matched"] == true {
        out::line("it passes")?;
        return Ok(());
    }
    out::line("it does not pass:\n")?;
    let failed = found["failed"].as_array().into_iter().flatten();
    let rows = failed.map(|failed| vec![text(&failed["place"]), text(&failed["problem"])]);
    out::write(&table::render(&["condition", "event"], rows))?;
    Ok(())
}

async fn backtest(options: Backtest) -> anyhow::Result<()> {
    let filter = json_or_file("--filter", &options.filter)?;
    let mut asked = json!({ "event_types": options.event_types, "limit": options.limit });
    for (name, value) in [
        ("tenant", options.tenant),
        ("since", options.since),
        ("until", options.until),
    ] {
        if let Some(value) = value {
            asked[name] = value.into();
        }
    }
    let asked = with_filter(&asked, &filter)?;
    let mut client = Client::connect(&options.server).await?;
    let path = "/v1/filters/backtest";
    let found = client.call(Method::POST, path, &[], asked.into()).await?;
    if options.json {
        out::line(format_args!("{found:#}"))?;
    } else {
        out::write(&told(&found))?;
    }
    Ok(())
}

fn told(found: &Value) -> String {
    let count = |name: &str| found[name].as_u64().unwrap_or(0);
    let (matched, scanned, hourly) = (
        count("matched"),
        count("scanned"),
        count("estimated_per_hour"),
    );
    let mut out = format!("{matched} of {scanned} events pass, about {hourly} an hour\n");
    if count("undecided") > 0 {
        out += &format!("{} have a body it cannot read\n", count("undecided"));
    }
    if count("malformed") > 0 {
        out += &format!("{} records are no events\n", count("malformed"));
    }
    if let Some(bound) = found["ended_by"].as_str() {
        let parts = found["partitions"].as_array().into_iter().flatten();
        let sum = |from: &str, to: &str| -> u64 {
            let parts = parts.clone();
            let span = |part: &Value| Some(part[to].as_u64()? - part[from].as_u64()?);
            parts.filter_map(span).sum()
        };
        let (read, all) = (sum("from", "next"), sum("from", "to"));
        out += &format!("ended by its bound of {bound}: {read} of {all} records were read\n");
    }
    let samples = found["samples"].as_array();
    let mut samples = samples.into_iter().flatten().peekable();
    if samples.peek().is_some() {
        let head = ["when", "tenant", "event", "type", "partition", "offset"];
        let rows = samples.map(|sample| {
            let place = format!("{}/{}", text(&sample["topic"]), sample["partition"]);
            let offset = sample["offset"].to_string();
            let of = |name: &str| text(&sample[name]);
            vec![of("at"), of("tenant"), of("id"), of("type"), place, offset]
        });
        out.push('\n');
        out += &table::render(&head, rows);
    }
    out
}
