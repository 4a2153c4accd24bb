//! Whether an endpoint gets its events: a test of it now.

use bytes::Bytes;
use clap::Subcommand;
use http::Method;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::client::Client;
use super::super::deliveries::took;
use super::super::filters::json_or_file;
use super::super::pages::cell;
use super::super::{out, table};
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
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
}
