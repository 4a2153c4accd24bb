//! `posthaste endpoints`.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::filters::{header, json_or_file, with_filter};
use super::table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an endpoint; shows its secret, this once.
    #[command(after_help = "\
Examples:
  posthaste endpoints create --tenant acme --url https://example.com/hooks
  posthaste endpoints create --tenant acme --url https://example.com/hooks \\
      --types 'invoice.*' --types order.made --max-in-flight 20
  posthaste endpoints create --tenant acme --url https://example.com/hooks \\
      --retry-policy fast --fail-fast-4xx
  posthaste endpoints create --tenant acme --url https://example.com/hooks \\
      --filter '{\"data.amount\": {\"$gte\": 100}}'      what a filter is: filters evaluate --help
  posthaste endpoints create --tenant acme --url https://example.com/hooks --json | jq -r .secret")]
    Create(Box<Create>),
    /// A tenant's endpoints.
    #[command(after_help = "\
Examples:
  posthaste endpoints list --tenant acme
  posthaste endpoints list --tenant acme --json | jq -r '.data[].url'")]
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Enable an endpoint that was disabled; what it holds is delivered.
    #[command(after_help = "\
Examples:
  posthaste endpoints enable --tenant acme billing")]
    Enable {
        #[command(flatten)]
        of: Of,
        /// Its id or uid.
        endpoint: String,
    },
    /// Delete an endpoint; what waits for it is cancelled.
    #[command(after_help = "\
Examples:
  posthaste endpoints delete --tenant acme billing
  posthaste endpoints delete --tenant acme ep_01M8A8SGRT3TMFMM1F4JJZHFBM")]
    Delete {
        #[command(flatten)]
        of: Of,
        /// Its id or uid.
        endpoint: String,
    },
}

/// Whose endpoints, where.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// Whose endpoints.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    of: Of,
    /// Where to POST.
    #[arg(long)]
    url: String,
    /// A type to deliver, or a pattern such as `invoice.*`; once for each, all
    /// without any.
    #[arg(long = "types", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Deliver only what passes this filter on an event's content; or a file
    /// that holds it.
    #[arg(long, value_name = "FILE|JSON")]
    filter: Option<String>,
    /// Your own name for it.
    #[arg(long, default_value = "", hide_default_value = true)]
    uid: String,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Attempts in flight at once: 10 without it, at most 256.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_in_flight: u32,
    /// Time for a whole attempt: 15s without it, at most 30s.
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Time to connect, TLS included: 5s without it.
    #[arg(long, value_name = "TIME")]
    connect_timeout: Option<String>,
    /// The schedule of its retries, one of the server's `[retry_policies]`:
    /// `standard` without it.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    retry_policy: String,
    /// Give up at once when it answers 400, 404, 405, 413, 415 or 422.
    #[arg(long = "fail-fast-4xx")]
    fail_fast_4xx: bool,
    /// Send every event through the lane: exact limits, some milliseconds later.
    #[arg(long)]
    owned: bool,
    /// A header to send; once for each.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Offer HTTP/2.
    #[arg(long)]
    http2: bool,
    /// A file that holds the secret to sign with, `whsec_…`; made by the server
    /// without one.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<std::path::PathBuf>,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(create) => create_one(*create).await,
        Command::List { of } => list(of).await,
        Command::Enable { of, endpoint } => enable(of, &endpoint).await,
        Command::Delete { of, endpoint } => delete(of, &endpoint).await,
    }
}

fn path(tenant: &str) -> String {
    format!("/v1/tenants/{}/endpoints", encode(tenant))
}

/// Percent-encodes what a path segment may not hold (RFC 3986, 3.3).
pub(super) fn encode(segment: &str) -> String {
    let mut out = String::new();
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

async fn create_one(create: Create) -> anyhow::Result<()> {
    let mut headers = serde_json::Map::new();
    for text in &create.headers {
        let (name, value) = header(text)?;
        headers.insert(name.to_owned(), value.into());
    }
    let mut body = json!({
        "url": create.url,
        "uid": create.uid,
        "description": create.description,
        "event_types": create.event_types,
        "max_in_flight": create.max_in_flight,
        "http2": create.http2,
        "retry_policy": create.retry_policy,
        "fail_fast_4xx": create.fail_fast_4xx,
        "owned": create.owned,
        "headers": headers,
    });
    let times = [
        ("timeout", create.timeout),
        ("connect_timeout", create.connect_timeout),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            body[name] = time.into();
        }
    }
    if let Some(file) = create.secret_file {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| anyhow::anyhow!("--secret-file {}: {error}", file.display()))?;
        body["secret"] = text.trim().into();
    }
    let body = match &create.filter {
        Some(filter) => with_filter(&body, &json_or_file("--filter", filter)?)?,
        None => body.to_string(),
    };
    let mut client = Client::connect(&create.of.server).await?;
    let made = client
        .call(Method::POST, &path(&create.of.tenant), &[], body.into())
        .await?;
    if create.of.json {
        println!("{made:#}");
        return Ok(());
    }
    print!("{}", table::render(HEAD, [row(&made)]));
    println!("\nsecret (shown this once): {}", text(&made["secret"]));
    Ok(())
}

const HEAD: &[&str] = &["id", "uid", "status", "types", "in flight", "url"];

fn row(endpoint: &Value) -> Vec<String> {
    let types: Vec<_> = endpoint["event_types"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    let types = if types.is_empty() {
        "*".to_owned()
    } else {
        types.join(",")
    };
    vec![
        text(&endpoint["id"]),
        text(&endpoint["uid"]),
        text(&endpoint["status"]),
        types,
        text(&endpoint["max_in_flight"]),
        text(&endpoint["url"]),
    ]
}

pub(super) fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

async fn list(of: Of) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let found = client
        .call(Method::GET, &path(&of.tenant), &[], Bytes::new())
        .await?;
    if of.json {
        println!("{found:#}");
        return Ok(());
    }
    let rows = found["data"].as_array().into_iter().flatten().map(row);
    print!("{}", table::render(HEAD, rows));
    Ok(())
}

async fn enable(of: Of, endpoint: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let path = format!("{}/{}/enable", path(&of.tenant), encode(endpoint));
    let enabled = client.call(Method::POST, &path, &[], Bytes::new()).await?;
    if of.json {
        println!("{enabled:#}");
    } else {
        println!("enabled {}", table::plain(endpoint));
    }
    Ok(())
}

async fn delete(of: Of, endpoint: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let path = format!("{}/{}", path(&of.tenant), encode(endpoint));
    client
        .call(Method::DELETE, &path, &[], Bytes::new())
        .await?;
    if of.json {
        println!("{}", json!({"deleted": endpoint}));
    } else {
        println!("deleted {}", table::plain(endpoint));
    }
    Ok(())
}
