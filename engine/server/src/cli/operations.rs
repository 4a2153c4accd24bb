//! `posthaste operations`.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::endpoints::{encode, text};
use super::pages::{gather, given, under};
use super::{follow, out, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What was asked of endpoints' owners, and how far it is, oldest first.
    #[command(after_help = "\
Examples:
  posthaste operations list --state running
  posthaste operations list --tenant acme --kind replay --limit 100
  posthaste operations list --json | jq -r '.data[] | select(.state == \"failed\") | .detail'")]
    List(List),
    /// One operation, whole.
    #[command(after_help = "\
Examples:
  posthaste operations show op_01M8A8SGRT3TMFMM1F4JJZHFBM")]
    Show(Of),
    /// Hold an operation; what it has done stays done.
    #[command(after_help = "\
Examples:
  posthaste operations pause op_01M8A8SGRT3TMFMM1F4JJZHFBM")]
    Pause(Of),
    /// Let it go on.
    #[command(after_help = "\
Examples:
  posthaste operations resume op_01M8A8SGRT3TMFMM1F4JJZHFBM")]
    Resume(Of),
    /// End it for good; what it has done stays done.
    #[command(after_help = "\
Examples:
  posthaste operations cancel op_01M8A8SGRT3TMFMM1F4JJZHFBM")]
    Cancel(Of),
    /// Follow operations to their end; fails when one failed or was cancelled.
    #[command(after_help = "\
Examples:
  posthaste operations wait op_01M8A8SGRT3TMFMM1F4JJZHFBM && echo all came")]
    Wait(Wait),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this endpoint, by its id.
    #[arg(long)]
    endpoint: Option<String>,
    /// Of this kind: replay, redrive, cancel, `retry_now` or probe.
    #[arg(long)]
    kind: Option<String>,
    /// In this state: pending, running, paused, cancelling, succeeded, cancelled
    /// or failed.
    #[arg(long)]
    state: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = super::dead::at_least_one)]
    limit: usize,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which operation, where.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// Its id.
    operation: String,
    /// Its tenant, where the key is for that one alone.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Their ids.
    #[arg(required = true, value_name = "OPERATION")]
    operations: Vec<String>,
    /// Their tenant, where the key is for that one alone.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(options) => list(options).await,
        Command::Show(of) => steer(of, None).await,
        Command::Pause(of) => steer(of, Some("pause")).await,
        Command::Resume(of) => steer(of, Some("resume")).await,
        Command::Cancel(of) => steer(of, Some("cancel")).await,
        Command::Wait(options) => wait(options).await,
    }
}

/// Where operations are: a tenant's own key reaches only the tenant's.
pub(super) fn base(tenant: Option<&str>) -> String {
    under(tenant, "operations")
}

async fn list(options: List) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let pairs = given([
        ("endpoint", &options.endpoint),
        ("kind", &options.kind),
        ("state", &options.state),
    ]);
    let path = base(options.tenant.as_deref());
    let found = gather(&mut client, &path, &pairs, options.limit).await?;
    if options.json {
        out::line(format_args!("{:#}", found.json()))?;
        return Ok(());
    }
    out::write(&table::render(HEAD, found.data.iter().map(row)))?;
    if found.has_more {
        eprintln!("there are more: --limit {}", options.limit * 10);
    }
    Ok(())
}

const HEAD: &[&str] = &[
    "id",
    "kind",
    "endpoint",
    "state",
    "done",
    "deliveries",
    "asked for",
    "by",
];

fn row(operation: &Value) -> Vec<String> {
    let progress = &operation["progress"];
    let done = match &progress["percent"] {
        Value::Null => "-".to_owned(),
        percent => format!("{percent}%"),
    };
    vec![
        text(&operation["id"]),
        text(&operation["kind"]),
        text(&operation["endpoint"]),
        text(&operation["state"]),
        done,
        text(&progress["deliveries"]),
        text(&operation["created_at"]),
        text(&operation["actor"]),
    ]
}

/// Tells an operation what to do, if anything, and shows it.
async fn steer(of: Of, verb: Option<&str>) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let path = format!("{}/{}", base(of.tenant.as_deref()), encode(&of.operation));
    let (method, path) = match verb {
        Some(verb) => (Method::POST, format!("{path}/{verb}")),
        None => (Method::GET, path),
    };
    let shown = client.call(method, &path, &[], Bytes::new()).await?;
    show(&shown, of.json)
}

/// Shows one operation.
pub(super) fn show(operation: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        out::line(format_args!("{operation:#}"))?;
        return Ok(());
    }
    let mut lines = table::render(HEAD, [row(operation)]);
    let asked = operation["asked"].as_object().into_iter().flatten();
    let said = asked.filter(|(_, value)| !value.is_null() && **value != json!([]));
    let said: Vec<_> = said
        .map(|(name, value)| format!("{name} {}", table::plain(&text(value))))
        .collect();
    if !said.is_empty() {
        lines.push_str(&format!("\nasked for: {}\n", said.join(", ")));
    }
    let progress = &operation["progress"];
    if progress["records"].as_u64() > Some(0) {
        let (scanned, records) = (&progress["scanned"], &progress["records"]);
        lines.push_str(&format!("read: {scanned} of {records} records"));
        if progress["skipped"].as_u64() > Some(0) {
            lines.push_str(&format!(", {} skipped", progress["skipped"]));
        }
        if let Some(eta) = progress["eta"].as_str() {
            lines.push_str(&format!(", to its end at about {}", table::plain(eta)));
        }
        lines.push('\n');
    }
    if let Some(detail) = operation["detail"].as_str() {
        lines.push_str(&format!("why: {}\n", table::plain(detail)));
    }
    out::write(&lines)?;
    Ok(())
}

async fn wait(options: Wait) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let base = base(options.tenant.as_deref());
    let ends = follow::to_their_end(&mut client, &base, &options.operations, options.json).await?;
    ends.told(options.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_how_far_it_is() {
        let mut operation = json!({
            "id": "op_1", "kind": "replay", "endpoint": "ep_1", "state": "pending",
            "created_at": "2026-01-31T08:00:00Z", "actor": "local",
            "progress": {"percent": null, "deliveries": 0},
        });
        let shown = |operation: &Value| row(operation).join(" | ");
        assert_eq!(
            shown(&operation),
            "op_1 | replay | ep_1 | pending | - | 0 | 2026-01-31T08:00:00Z | local"
        );
        operation["state"] = "running".into();
        operation["progress"] = json!({"percent": 42, "deliveries": 7});
        assert_eq!(
            shown(&operation),
            "op_1 | replay | ep_1 | running | 42% | 7 | 2026-01-31T08:00:00Z | local"
        );
    }

    #[test]
    fn a_tenants_operations_are_below_the_tenant() {
        assert_eq!(base(Some("a b")), "/v1/tenants/a%20b/operations");
        assert_eq!(base(None), "/v1/operations");
    }
}
