//! Follows operations to their end, with a line on standard error that says how
//! far they are.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::client::Client;
use super::endpoints::{encode, text};
use super::progress::Progress;
use super::{out, table};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(250);

/// Operations at their end.
#[derive(Debug)]
pub(super) struct Ends(Vec<Value>);

/// Looks at the operations until all of them are over.
pub(super) async fn to_their_end(
    client: &mut Client,
    base: &str,
    ids: &[String],
    quiet: bool,
) -> anyhow::Result<Ends> {
    let line = Progress::new(None, quiet);
    let mut seen: Vec<Value> = vec![Value::Null; ids.len()];
    loop {
        for (id, seen) in ids.iter().zip(&mut seen) {
            if !is_over(seen) {
                let path = format!("{base}/{}", encode(id));
                *seen = client.call(Method::GET, &path, &[], Bytes::new()).await?;
            }
        }
        line.set(sum(&seen, "deliveries"), progress(&seen));
        if seen.iter().all(is_over) {
            break;
        }
        sleep(EVERY).await;
    }
    Ok(Ends(seen))
}

fn is_over(operation: &Value) -> bool {
    let state = operation["state"].as_str();
    matches!(state, Some("succeeded" | "cancelled" | "failed"))
}

fn sum(operations: &[Value], name: &str) -> u64 {
    let each = operations.iter();
    each.map(|one| one["progress"][name].as_u64().unwrap_or(0))
        .sum()
}

/// One line for all of them.
fn progress(operations: &[Value]) -> String {
    let over = operations.iter().filter(|one| is_over(one)).count();
    let mut line = match operations {
        [one] => table::plain(&text(&one["state"])),
        several => format!("{over} of {} over", several.len()),
    };
    let (scanned, records) = (sum(operations, "scanned"), sum(operations, "records"));
    if records > 0 {
        line.push_str(&format!(", read {scanned} of {records}"));
    }
    line.push_str(&format!(", {} deliveries", sum(operations, "deliveries")));
    if let [one] = operations
        && let Some(eta) = one["progress"]["eta"].as_str()
    {
        line.push_str(&format!(", until {}", table::plain(eta)));
    }
    line
}

impl Ends {
    /// Says what they came to. It is an error where one did not succeed.
    pub(super) fn told(&self, json: bool) -> anyhow::Result<()> {
        match (json, &self.0[..]) {
            (true, [one]) => out::line(format_args!("{one:#}"))?,
            (true, all) => out::line(format_args!("{:#}", json!({ "data": all })))?,
            (false, all) => {
                let (deliveries, skipped) = (sum(all, "deliveries"), sum(all, "skipped"));
                let more = match skipped {
                    0 => String::new(),
                    skipped => format!(", {skipped} records skipped"),
                };
                let state = match all {
                    [one] => table::plain(&text(&one["state"])),
                    all => format!("{} operations are over", all.len()),
                };
                out::line(format_args!("{state}: {deliveries} deliveries{more}"))?;
            }
        }
        let bad = |one: &&Value| one["state"] != "succeeded";
        let Some(bad) = self.0.iter().find(bad) else {
            return Ok(());
        };
        let (id, state) = (text(&bad["id"]), text(&bad["state"]));
        match bad["detail"].as_str() {
            Some(why) => anyhow::bail!("{id} {state}: {why}"),
            None => anyhow::bail!("{id} {state}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(state: &str, scanned: u64) -> Value {
        json!({
            "id": "op_1", "state": state, "progress":
            {"records": 10, "scanned": scanned, "deliveries": 2, "skipped": 0, "eta": null},
        })
    }

    #[test]
    fn a_line_says_how_far_they_are() {
        let mut one = operation("running", 4);
        one["progress"]["eta"] = "2026-01-31T08:00:00Z".into();
        assert_eq!(
            progress(&[one]),
            "running, read 4 of 10, 2 deliveries, until 2026-01-31T08:00:00Z"
        );
        let two = [operation("running", 4), operation("succeeded", 10)];
        assert_eq!(progress(&two), "1 of 2 over, read 14 of 20, 4 deliveries");
    }

    #[test]
    fn what_did_not_succeed_is_an_error() {
        let told = |state| Ends(vec![operation(state, 10)]).told(true);
        assert!(told("succeeded").is_ok());
        let mut failed = operation("failed", 1);
        failed["detail"] = "the endpoint is deleted".into();
        let said = Ends(vec![operation("succeeded", 10), failed]).told(true);
        assert_eq!(
            said.unwrap_err().to_string(),
            "op_1 failed: the endpoint is deleted"
        );
        assert_eq!(told("cancelled").unwrap_err().to_string(), "op_1 cancelled");
    }
}
