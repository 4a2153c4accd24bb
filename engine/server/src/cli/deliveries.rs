//! `posthaste deliveries` and `posthaste attempts`.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::client::{Client, Server};
use super::dead::at_least_one;
use super::endpoints::encode;
use super::pages::{cell, gather, given, under};
use super::{out, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Deliveries by their attempts, the last attempt first.
    #[command(after_help = "\
Examples:
  posthaste deliveries list --tenant acme --status failing
  posthaste deliveries list --tenant acme --endpoint billing --since 2h --error-code http_5xx
  posthaste deliveries list --event evt_01M8A8SH3159FXXNQ369DY9HAB --json | jq -r '.data[].id'
  posthaste deliveries list --tenant acme --endpoint billing --status held

What waits for one endpoint is listed by `--status held` (as soon as the endpoint takes it) or
`scheduled` (for its time), in the order it came, attempted or not; one that was never attempted is
in no other list.")]
    List(List),
    /// One delivery: how it stands, why, and each attempt.
    #[command(after_help = "\
Example:
  posthaste deliveries show dlv_01M8A8SH3159FXXNQ369DY9HAB")]
    Show(Show),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Attempts {
    /// The attempts of one delivery, in the order they were made.
    #[command(after_help = "\
Example:
  posthaste attempts list dlv_01M8A8SH3159FXXNQ369DY9HAB")]
    List(Show),
    /// One attempt, with what the endpoint answered.
    #[command(after_help = "\
Example:
  posthaste attempts show atm_000000G000000000B000000001")]
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// To this endpoint: its id, or with `--tenant` its uid.
    #[arg(long)]
    endpoint: Option<String>,
    /// Of events of this type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Of the event of this id.
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// succeeded, failing or dead; with `--endpoint` also held or scheduled.
    #[arg(long)]
    status: Option<String>,
    /// Whose last attempt failed for this, such as http_5xx or timeout_connect.
    #[arg(long, value_name = "CODE")]
    error_code: Option<String>,
    /// Attempted since then: a UTC time, or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Attempted before then.
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
    /// Its id.
    id: String,
    /// Its tenant, for a key of that tenant alone.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Show {
    /// What stands at the place of that id.
    async fn ask(&self, kind: &str, rest: &str) -> anyhow::Result<Value> {
        let place = format!("{kind}/{}{rest}", encode(&self.id));
        let path = under(self.tenant.as_deref(), &place);
        let mut client = Client::connect(&self.server).await?;
        client.call(Method::GET, &path, &[], Bytes::new()).await
    }

    fn tell(&self, found: &Value, told: impl Fn(&Value) -> String) -> anyhow::Result<()> {
        match self.json {
            true => out::line(format_args!("{found:#}"))?,
            false => out::write(&told(found))?,
        }
        Ok(())
    }
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(options) => list(options).await,
        Command::Show(options) => {
            let found = options.ask("deliveries", "").await?;
            options.tell(&found, told)
        }
    }
}

pub(crate) async fn run_attempts(command: Attempts) -> anyhow::Result<()> {
    match command {
        Attempts::List(options) => {
            let found = options.ask("deliveries", "/attempts").await?;
            options.tell(&found, |found| timeline(&found["data"]))
        }
        Attempts::Show(options) => {
            let found = options.ask("attempts", "").await?;
            options.tell(&found, told_attempt)
        }
    }
}

async fn list(options: List) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let pairs = given([
        ("endpoint", &options.endpoint),
        ("event_type", &options.event_type),
        ("event", &options.event),
        ("status", &options.status),
        ("error_code", &options.error_code),
        ("since", &options.since),
        ("until", &options.until),
    ]);
    let path = under(options.tenant.as_deref(), "deliveries");
    let pages = gather(&mut client, &path, &pairs, options.limit).await?;
    if options.json {
        out::line(format_args!("{:#}", pages.json()))?;
        return Ok(());
    }
    out::write(&rows(&pages.data))?;
    pages.hint(options.limit);
    Ok(())
}

/// Deliveries as a table.
pub(super) fn rows(deliveries: &[Value]) -> String {
    let head = [
        "last attempt",
        "delivery",
        "endpoint",
        "event",
        "type",
        "status",
        "attempts",
        "last",
        "next attempt",
    ];
    let row = |delivery: &Value| {
        let of = |name: &str| cell(&delivery[name]);
        vec![
            of("last_attempt_at"),
            of("id"),
            of("endpoint"),
            of("event"),
            of("type"),
            of("status"),
            of("attempts"),
            last(&delivery["last_status"], &delivery["error"]),
            of("next_attempt_at"),
        ]
    };
    table::render(&head, deliveries.iter().map(row))
}

/// What an attempt came to: its status, or why there was none.
fn last(status: &Value, error: &Value) -> String {
    match status {
        Value::Null => cell(&error["code"]),
        status => cell(status),
    }
}

/// A delivery for people: what holds now above, what was done below.
fn told(found: &Value) -> String {
    let of = |name: &str| cell(&found[name]);
    let mut lines = vec![
        format!("{}  {}", of("id"), of("status")),
        of("why"),
        String::new(),
    ];
    let event = format!("{} ({}) of {}", of("event"), of("type"), of("tenant"));
    let origin = &found["origin"];
    let source = format!(
        "{}/{}@{}, {}",
        cell(&origin["topic"]),
        origin["partition"],
        origin["offset"],
        cell(&origin["at"])
    );
    lines.push(format!("event     {event}"));
    lines.push(format!(
        "endpoint  {} ({})",
        of("endpoint"),
        of("endpoint_status")
    ));
    lines.push(format!("source    {source}"));
    if let Some(lane) = found["lane"]["state"].as_str() {
        let lane_of = |name: &str| found["lane"][name].as_str().unwrap_or_default();
        let parts = [("since", lane_of("since")), ("for", lane_of("reason"))];
        let parts = parts.iter().filter(|(_, text)| !text.is_empty());
        let parts: String = parts
            .map(|(word, text)| format!(", {word} {text}"))
            .collect();
        lines.push(format!("lane      {lane}{parts}"));
    }
    if let Some(due) = found["next_attempt_at"].as_str() {
        lines.push(format!("next      {due}"));
    }
    let letter = &found["dead_letter"];
    if !letter.is_null() {
        let (cause, at) = (cell(&letter["cause"]), cell(&letter["at"]));
        lines.push(format!(
            "given up  {cause}, {at}: {}",
            cell(&letter["detail"])
        ));
    }
    if let Some(bound) = found["scanned"]["attempts_ended_by"].as_str() {
        lines.push(format!(
            "not all attempts were looked at (bound of {bound})"
        ));
    }
    let lines = lines.iter().map(|line| table::plain(line));
    let mut out = lines.collect::<Vec<_>>().join("\n") + "\n";
    if found["history"]
        .as_array()
        .is_some_and(|all| !all.is_empty())
    {
        out.push('\n');
        out += &timeline(&found["history"]);
    }
    out
}

/// Attempts, one a line.
fn timeline(attempts: &Value) -> String {
    let head = [
        "attempt", "when", "trigger", "took", "status", "error", "response", "id",
    ];
    let row = |attempt: &Value| {
        let of = |name: &str| cell(&attempt[name]);
        let response: String = of("response_excerpt").chars().take(40).collect();
        vec![
            of("number"),
            of("at"),
            of("trigger"),
            took(attempt),
            last(&attempt["status"], &Value::Null),
            cell(&attempt["error"]["code"]),
            response,
            of("id"),
        ]
    };
    let attempts = attempts.as_array().into_iter().flatten();
    table::render(&head, attempts.map(row))
}

/// How long an attempt took.
pub(super) fn took(attempt: &Value) -> String {
    let micros = attempt["duration_us"].as_u64().unwrap_or(0);
    format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
}

fn told_attempt(found: &Value) -> String {
    let of = |name: &str| cell(&found[name]);
    let error = &found["error"];
    let came_to = match error {
        Value::Null => "delivered".to_owned(),
        error => {
            let of = |name: &str| cell(&error[name]);
            format!("{} ({}): {}", of("code"), of("blame"), of("text"))
        }
    };
    let lines = [
        format!("{}  attempt {} ({})", of("id"), of("number"), of("trigger")),
        came_to,
        String::new(),
        format!("delivery  {}", of("delivery")),
        format!(
            "event     {} ({}) of {}",
            of("event"),
            of("type"),
            of("tenant")
        ),
        format!("endpoint  {}", of("endpoint")),
        format!("when      {}, for {}", of("at"), took(found)),
        format!("status    {}", of("status")),
        format!("response  {}", of("response_excerpt")),
        format!("next      {}", of("next_attempt_at")),
    ];
    let lines = lines.iter().map(|line| table::plain(line));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_delivery_is_told_from_its_status_to_its_attempts() {
        let found = json!({
            "id": "dlv_1", "status": "failing", "why": "the endpoint failed", "event": "e\u{1b}",
            "type": "t", "tenant": "acme", "endpoint": "ep_1", "endpoint_status": "active",
            "origin": {"topic": "events", "partition": 3, "offset": 17, "at": "now"},
            "lane": {"state": "owed", "since": "then", "reason": "retry"},
            "next_attempt_at": "soon", "dead_letter": null,
            "scanned": {"attempts_ended_by": "time"},
            "history": [{
                "number": 1, "at": "then", "trigger": "initial", "duration_us": 1_250,
                "status": null, "error": {"code": "dns_error"}, "response_excerpt": null,
                "id": "atm_1",
            }],
        });
        assert_eq!(
            told(&found),
            "dlv_1  failing\nthe endpoint failed\n\n\
             event     e\u{fffd} (t) of acme\nendpoint  ep_1 (active)\n\
             source    events/3@17, now\nlane      owed, since then, for retry\n\
             next      soon\nnot all attempts were looked at (bound of time)\n\n\
             attempt  when  trigger  took    status  error      response  id\n\
             1        then  initial  1.2 ms  -       dns_error  -         atm_1\n"
        );
    }
}
