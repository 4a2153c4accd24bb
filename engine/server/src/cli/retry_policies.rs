//! `posthaste retry-policies`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::endpoints::text;
use super::records::{At, Records, body_of};
use super::{out, table};
use crate::config::parse_duration;

const POLICIES: Records = Records {
    path: "/v1/retry_policies",
    head: &[
        "policy",
        "source",
        "attempts",
        "within",
        "version",
        "description",
    ],
    row,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The policies endpoints can name: how many attempts each makes, and within
    /// what time.
    #[command(after_help = "\
Examples:
  posthaste retry-policies list
  posthaste retry-policies list --json | jq -r '.data[] | select(.source == \"api\").name'")]
    List {
        #[command(flatten)]
        at: At,
    },
    /// A policy, and the pauses between its attempts.
    #[command(after_help = "\
Examples:
  posthaste retry-policies show standard")]
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Make a policy, or replace it.
    #[command(after_help = "\
Examples:
  posthaste retry-policies put fast --gaps 5s,30s,2m --description 'Gone in three minutes.'
  posthaste retry-policies put fast --file fast.json

Every instance follows it, for what fails from then on. A file holds JSON: {\"gaps\": [\"5s\", ..],
\"description\": ..}, and \"version\" where the change is of that one alone. Those of the configuration,
and `standard`, are not replaced.")]
    Put(Put),
    /// Delete a policy that no endpoint names.
    #[command(after_help = "\
Examples:
  posthaste retry-policies delete fast")]
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Its name.
    name: String,
    /// The pauses after the first attempt, the second, and so on: 1 to 30 of them,
    /// each 1s to 24h, 72h in all.
    #[arg(
        long,
        value_name = "GAP,GAP",
        value_delimiter = ',',
        required_unless_present = "file"
    )]
    gaps: Vec<String>,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// A file that says all of it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["gaps", "description"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { at } => POLICIES.list(&at).await,
        Command::Show { name, at } => show(&name, &at).await,
        Command::Put(put) => put_one(put).await,
        Command::Delete { name, at } => POLICIES.delete(&name, "", &at).await,
    }
}

async fn show(name: &str, at: &At) -> anyhow::Result<()> {
    let Some(found) = POLICIES.show(name, at).await? else {
        return Ok(());
    };
    let gaps = found["gaps"].as_array().into_iter().flatten();
    let gaps: Vec<_> = gaps.map(|gap| table::plain(&text(gap))).collect();
    Ok(out::line(format_args!("\ngaps: {}", gaps.join(", ")))?)
}

async fn put_one(put: Put) -> anyhow::Result<()> {
    let body = match &put.file {
        Some(file) => body_of(file)?,
        None => json!({"gaps": put.gaps, "description": put.description})
            .to_string()
            .into(),
    };
    POLICIES.put(&put.name, body, &put.at).await
}

fn row(policy: &Value) -> Vec<String> {
    vec![
        text(&policy["name"]),
        text(&policy["source"]),
        text(&policy["attempts"]),
        span(&text(&policy["window"])),
        policy["version"]
            .as_u64()
            .map_or("-".to_owned(), |version| version.to_string()),
        text(&policy["description"]),
    ]
}

/// `71h 35m 5s`, of what is one number with a unit.
fn span(window: &str) -> String {
    let Ok(span) = parse_duration(window) else {
        return window.to_owned();
    };
    let (seconds, millis) = (span.as_secs(), span.subsec_millis());
    let parts = [
        (seconds / 3_600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(millis), "ms"),
    ];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<_> = parts
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_a_row_with_attempts_and_time() {
        let policy = json!({
            "name": "standard", "source": "built_in", "attempts": 10, "window": "257705s",
            "version": null, "description": "",
        });
        let wanted = ["standard", "built_in", "10", "71h 35m 5s", "-", ""];
        assert_eq!(row(&policy), wanted);
        assert_eq!(span("1500ms"), "1s 500ms");
        assert_eq!(span("what a newer server says"), "what a newer server says");
    }
}
