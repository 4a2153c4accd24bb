//! Whether an endpoint gets its events: a test of it now, what it did lately, and
//! how it stands.

use bytes::Bytes;
use clap::Subcommand;
use http::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::deliveries::took;
use super::super::filters::json_or_file;
use super::super::pages::cell;
use super::super::{out, table};
use super::encode;
use super::verbs::One;

#[derive(Debug, Subcommand)]
pub(crate) enum Check {
    /// Send an endpoint one signed request now, and show what came back.
    #[command(after_help = "\
Examples:
  posthaste endpoints test --tenant acme billing
  posthaste endpoints test --tenant acme billing --type invoice.paid
  posthaste endpoints test --tenant acme billing --body '{\"amount\": 7}'

Also one that is paused or disabled. It is no delivery: its `webhook-id` begins with `test_`, and it
is not among the attempts. Exits with 1 if it is not answered 2xx.")]
    Test {
        #[command(flatten)]
        one: One,
        /// The type to send it as: `test` without it.
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
        /// The body, or a file that holds it: without it the first example of the type.
        #[arg(long, value_name = "FILE|JSON")]
        body: Option<String>,
    },
    /// What an endpoint did lately: attempts, errors, durations.
    #[command(after_help = "\
Examples:
  posthaste endpoints stats --tenant acme billing
  posthaste endpoints stats --tenant acme billing --since 1h
  posthaste endpoints stats --tenant acme billing --json | jq .duration_us.p95

A `?` in the picture is a part of the time whose attempts were not all looked at.")]
    Stats {
        #[command(flatten)]
        one: One,
        /// Attempts since then: a UTC time, or how long ago, such as `2h`; 24h without it.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// Whether an endpoint gets its events, and what it is owed.
    #[command(after_help = "\
Examples:
  posthaste endpoints health --tenant acme billing
  posthaste endpoints health --tenant acme billing --json | jq .owed

Exits with 0 if it is healthy, and with 1 if it is failing, down, paused or disabled, or nothing is
known of it.")]
    Health(One),
}

/// What to send, the body as it was written.
#[derive(Serialize)]
struct Asked {
    event_type: Option<String>,
    body: Option<Box<RawValue>>,
}

pub(super) async fn run(check: Check) -> anyhow::Result<()> {
    match check {
        Check::Test {
            one,
            event_type,
            body,
        } => {
            let body = body.map(|body| json_or_file("--body", &body));
            let body = body.transpose()?;
            test(&one, &Asked { event_type, body }).await
        }
        Check::Stats { one, since } => {
            let since = since.map(|since| format!("?since={}", encode(&since)));
            let stats = ask(&one, &format!("stats{}", since.unwrap_or_default())).await?;
            tell(&one, &stats, told_stats)
        }
        Check::Health(one) => {
            let health = ask(&one, "health").await?;
            tell(&one, &health, told_health)?;
            let state = cell(&health["state"]);
            let what = format!("{} is {state}: {}", one.endpoint, cell(&health["why"]));
            anyhow::ensure!(state == "healthy", "{}", table::plain(&what));
            Ok(())
        }
    }
}

async fn ask(one: &One, what: &str) -> anyhow::Result<Value> {
    let mut client = Client::connect(&one.of.server).await?;
    let path = format!("{}/{what}", one.path());
    client.call(Method::GET, &path, &[], Bytes::new()).await
}

fn tell(one: &One, found: &Value, told: impl Fn(&Value) -> String) -> anyhow::Result<()> {
    match one.of.json {
        true => out::line(format_args!("{found:#}"))?,
        false => out::write(&told(found))?,
    }
    Ok(())
}

async fn test(one: &One, asked: &Asked) -> anyhow::Result<()> {
    let mut client = Client::connect(&one.of.server).await?;
    let path = format!("{}/test", one.path());
    let body = Bytes::from(serde_json::to_vec(asked)?);
    let tested = client.call(Method::POST, &path, &[], body).await?;
    tell(one, &tested, told_test)?;
    anyhow::ensure!(tested["passed"] == true, "{}", came_to(&tested));
    Ok(())
}

/// What it came to, in a line.
fn came_to(tested: &Value) -> String {
    let (status, took) = (&tested["status"], took(tested));
    let error = &tested["error"];
    if error.is_null() {
        return format!("passed: {} in {took}", cell(status));
    }
    let of = |name: &str| cell(&error[name]);
    let status = match status {
        Value::Null => String::new(),
        status => format!(" ({status})"),
    };
    let (code, text, blame) = (of("code"), of("text"), of("blame"));
    table::plain(&format!("{code}{status} in {took}: {text} ({blame})"))
}

fn told_test(tested: &Value) -> String {
    let sent = &tested["sent"];
    let of = |name: &str| cell(&sent[name]);
    let from = match sent["body"].as_str() {
        Some("example") => "the first example of its type",
        Some("default") => "no example of its type is known",
        _ => "as given",
    };
    let mut lines = vec![
        came_to(tested),
        format!("sent      {} ({}) at {}", of("id"), of("type"), of("at")),
        format!("body      {} bytes, {from}", of("bytes")),
    ];
    if let Some(response) = tested["response_excerpt"].as_str() {
        lines.push(format!("response  {response}"));
    }
    joined(&lines)
}

fn joined(lines: &[String]) -> String {
    let lines = lines.iter().map(|line| table::plain(line));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn told_stats(stats: &Value) -> String {
    let of = |name: &str| cell(&stats[name]);
    let mut lines = vec![
        format!("time       {} to {}", of("since"), of("until")),
        format!(
            "attempts   {}: {} delivered, {} failed",
            of("attempts"),
            of("delivered"),
            of("failed")
        ),
        format!(
            "deliveries {} attempted for the first time",
            of("first_attempts")
        ),
        format!("answers    {}", counts(&stats["statuses"])),
        format!("errors     {}", counts(&stats["errors"])),
    ];
    let durations = &stats["duration_us"];
    let times = ["p50", "p95", "p99", "max"].map(|name| {
        let took = took(&json!({ "duration_us": durations[name] }));
        format!("{name} {took}")
    });
    if durations.is_object() {
        lines.push(format!("took       {}", times.join(", ")));
    }
    let buckets = stats["buckets"].as_array().map_or(&[][..], Vec::as_slice);
    let most = |name: &str| buckets.iter().filter_map(|b| b[name].as_u64()).max();
    for name in ["delivered", "failed"] {
        let most = most(name).unwrap_or(0);
        let bars = bars(buckets, name, most);
        lines.push(format!(
            "{name:<10} |{bars}| at most {most} in 1/{}",
            buckets.len()
        ));
    }
    let scanned = &stats["scanned"];
    if let Some(since) = scanned["since"].as_str() {
        let bound = cell(&scanned["ended_by"]);
        lines.push(format!("looked at  since {since} (bound of {bound})"));
    }
    lines.extend(recorded(&scanned["recorded"], 10));
    joined(&lines)
}

/// What attempts on record do not show.
fn recorded(level: &Value, width: usize) -> Option<String> {
    let level = level.as_str().filter(|level| *level != "all")?;
    let what = format!("{level} (`audit` of the server's configuration)");
    Some(format!("{:<width$} {what}", "recorded"))
}

/// Those that are not 0.
fn counts(all: &Value) -> String {
    let all = all.as_object().into_iter().flatten();
    let some = all.filter(|(_, count)| count.as_u64() != Some(0));
    let some: Vec<_> = some
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    match some.is_empty() {
        true => "-".to_owned(),
        false => some.join(", "),
    }
}

/// A bar each, the highest for `most`.
fn bars(buckets: &[Value], name: &str, most: u64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |bucket: &Value| {
        let count = bucket[name].as_u64().unwrap_or(0);
        if bucket["complete"] == false {
            return '?';
        }
        // One in a thousand is to be seen, too.
        let height = (count * BARS.len() as u64).div_ceil(most.max(1));
        let height = usize::try_from(height).unwrap_or(0);
        height
            .checked_sub(1)
            .and_then(|at| BARS.get(at))
            .copied()
            .unwrap_or(' ')
    };
    buckets.iter().map(bar).collect()
}

fn told_health(health: &Value) -> String {
    let of = |name: &str| cell(&health[name]);
    let since = health["since"].as_str();
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    let mut lines = vec![
        format!("{}  {}{since}", of("endpoint"), of("state")),
        of("why"),
        String::new(),
        format!("last success  {}", last(&health["last_success"])),
        format!("last failure  {}", last(&health["last_failure"])),
    ];
    let owed = &health["owed"];
    lines.push(match owed["held"].as_u64() {
        None => "owed          not known: the lane holds too much".to_owned(),
        Some(held) => format!("owed          {} scheduled, {held} held", owed["scheduled"]),
    });
    for (name, what) in [("oldest_event_at", "oldest"), ("next_attempt_at", "next")] {
        if let Some(at) = owed[name].as_str() {
            lines.push(format!("{what:<13} {at}"));
        }
    }
    for operation in health["operations"].as_array().into_iter().flatten() {
        let of = |name: &str| cell(&operation[name]);
        let (kind, state) = (of("kind"), of("state"));
        lines.push(format!("operation     {} ({kind}, {state})", of("id")));
    }
    let attempts = &health["scanned"]["attempts"];
    if let Some(bound) = attempts["ended_by"].as_str() {
        let since = cell(&attempts["since"]);
        lines.push(format!(
            "attempts      looked at since {since} (bound of {bound})"
        ));
    }
    lines.extend(recorded(&attempts["recorded"], 13));
    joined(&lines)
}

/// An attempt in a line.
fn last(attempt: &Value) -> String {
    if attempt.is_null() {
        return "-".to_owned();
    }
    let at = cell(&attempt["at"]);
    let came_to = came_to(attempt);
    let came_to = came_to.strip_prefix("passed: ").unwrap_or(&came_to);
    format!("{at}: {came_to}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_told_by_what_came_back() {
        let mut tested = json!({
            "passed": true, "status": 204, "error": null, "duration_us": 12_345,
            "response_excerpt": null,
            "sent": {"id": "test_1", "type": "a.b", "at": "now", "body": "example", "bytes": 7},
        });
        assert_eq!(
            told_test(&tested),
            "passed: 204 in 12.3 ms\nsent      test_1 (a.b) at now\n\
             body      7 bytes, the first example of its type\n"
        );
        tested["status"] = Value::Null;
        tested["error"] = json!({"code": "dns_error", "blame": "network", "text": "no name"});
        tested["response_excerpt"] = "a\u{1b}".into();
        let told = told_test(&tested);
        assert!(told.starts_with("dns_error in 12.3 ms: no name (network)\n"));
        assert!(told.ends_with("\nresponse  a\u{fffd}\n"), "{told}");
    }

    #[test]
    fn figures_are_told_with_a_bar_for_each_part() {
        let bucket = |delivered: u64, failed: u64, complete: bool| {
            let counts = json!({"delivered": delivered, "failed": failed});
            let mut bucket = counts.as_object().unwrap().clone();
            bucket.insert("complete".to_owned(), complete.into());
            Value::Object(bucket)
        };
        let stats = json!({
            "since": "a", "until": "b", "attempts": 1_011, "delivered": 1_010, "failed": 1,
            "first_attempts": 1_009, "errors": {"http_5xx": 1},
            "statuses": {"2xx": 1_010, "3xx": 0, "5xx": 1},
            "duration_us": {"p50": 1_000, "p95": 2_000, "p99": 3_000, "max": 4_050},
            "buckets": [
                bucket(9, 0, false), bucket(0, 0, true), bucket(1, 0, true),
                bucket(500, 1, true), bucket(1_000, 0, true),
            ],
            "scanned": {"since": "c", "ended_by": "bytes", "recorded": "all"},
        });
        assert_eq!(
            told_stats(&stats),
            "time       a to b\n\
             attempts   1011: 1010 delivered, 1 failed\n\
             deliveries 1009 attempted for the first time\n\
             answers    2xx 1010, 5xx 1\n\
             errors     http_5xx 1\n\
             took       p50 1.0 ms, p95 2.0 ms, p99 3.0 ms, max 4.0 ms\n\
             delivered  |? ▁▄█| at most 1000 in 1/5\n\
             failed     |?  █ | at most 1 in 1/5\n\
             looked at  since c (bound of bytes)\n"
        );
    }

    #[test]
    fn health_is_told_from_its_state_to_what_is_owed() {
        let health = json!({
            "endpoint": "ep_1", "state": "down", "why": "it is", "since": "then",
            "last_success": null,
            "last_failure": {
                "at": "now", "status": 503, "duration_us": 1_500,
                "error": {"code": "http_5xx", "blame": "receiver", "text": "it failed"},
            },
            "owed": {"scheduled": 1, "held": 20, "oldest_event_at": "old", "next_attempt_at": null},
            "operations": [{"id": "op_1", "kind": "replay", "state": "running"}],
            "scanned": {"attempts": {"since": null, "ended_by": null, "recorded": "failures"}},
        });
        assert_eq!(
            told_health(&health),
            "ep_1  down since then\nit is\n\n\
             last success  -\n\
             last failure  now: http_5xx (503) in 1.5 ms: it failed (receiver)\n\
             owed          1 scheduled, 20 held\n\
             oldest        old\n\
             operation     op_1 (replay, running)\n\
             recorded      failures (`audit` of the server's configuration)\n"
        );
    }
}
