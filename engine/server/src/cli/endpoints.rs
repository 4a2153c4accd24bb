//! `posthaste endpoints`.

use std::collections::BTreeMap;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::filters::{header, json_or_file, with_filter};
use super::{dead, operations, out, table, tenants};

mod check;
mod pull;
mod verbs;

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
      --ordered --rate 50/s
  posthaste endpoints create --tenant acme --url https://example.com/hooks \\
      --max-in-flight 4 --owned --recovery fifo --timeout 30s --header 'x-api-key: k1'
  posthaste endpoints create --tenant acme --url https://example.com/hooks --scheme stripe
  posthaste endpoints create --tenant acme --url https://example.com/hooks \\
      --scheme slack --secret-file secret --verify challenge
  posthaste endpoints create --tenant acme --url https://example.com/hooks \\
      --filter '{\"data.amount\": {\"$gte\": 100}}'      what a filter is: filters evaluate --help
  posthaste endpoints create --tenant acme --url https://example.com/hooks --start-at 24h
  posthaste endpoints create --tenant acme --url https://example.com/hooks \\
      --max-age 10m --auto-disable never --metadata crm=4711
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
    #[command(flatten)]
    Verb(verbs::Verb),
    #[command(flatten)]
    Check(check::Check),
    /// Print an endpoint's events, instead of having them delivered: a JSON line each.
    #[command(after_help = pull::AFTER_HELP)]
    Pull(pull::Pull),
    /// Ask an endpoint's receiver again, as `--verify` of `create` says.
    #[command(after_help = "\
Examples:
  posthaste endpoints verify --tenant acme billing

Exits with 1 if it does not take the ping, or does not answer the challenge.")]
    Verify {
        #[command(flatten)]
        of: Of,
        /// Its id or uid.
        endpoint: String,
    },
    /// Let a new secret sign; shows it, this once.
    #[command(after_help = super::secrets::ROTATE_HELP)]
    RotateSecret(super::secrets::Rotate),
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
    pub(super) tenant: String,
    #[command(flatten)]
    pub(super) server: Server,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
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
    /// A type or pattern not to deliver though `--types` names it; once for each.
    #[arg(long = "exclude-types", value_name = "TYPE")]
    exclude_event_types: Vec<String>,
    /// Deliver only what passes this filter on an event's content; or a file
    /// that holds it.
    #[arg(long, value_name = "FILE|JSON")]
    filter: Option<String>,
    /// Bring it the events since then, too: a UTC time, or how long ago.
    #[arg(long, value_name = "TIME")]
    start_at: Option<String>,
    /// Your own name for it.
    #[arg(long, default_value = "", hide_default_value = true)]
    uid: String,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// What is to be remembered of it; once for each.
    #[arg(long, value_name = "KEY=VALUE", value_parser = tenants::pair)]
    metadata: Vec<(String, String)>,
    /// Attempts in flight at once: 10 without it, at most 256.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_in_flight: u32,
    /// Attempts that begin within a second, such as `50/s`: no bound without it.
    #[arg(long, value_name = "N/s", value_parser = dead::rate)]
    rate: Option<usize>,
    /// Time for a whole attempt: 15s without it, at most 30s.
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Time to connect, TLS included: 5s without it.
    #[arg(long, value_name = "TIME")]
    connect_timeout: Option<String>,
    /// The schedule of its retries, one of `retry-policies list`:
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
    /// How old an event may be when it is attempted, such as `10m`; an older one
    /// becomes a dead letter. No bound without it.
    #[arg(long, value_name = "TIME")]
    max_age: Option<String>,
    /// After how long of nothing but failures it is disabled, 12h to 720h, or
    /// `never`: 120h without it.
    #[arg(long, value_name = "TIME")]
    auto_disable: Option<String>,
    /// Send every event through the lane: exact limits, some milliseconds later.
    #[arg(long)]
    owned: bool,
    /// One event at a time for each ordering key, in order. Implies `--owned`
    /// and `--recovery fifo`.
    #[arg(long)]
    ordered: bool,
    /// What goes first once it is back after an outage: new events, with the
    /// backlog beside them, or the backlog.
    #[arg(long, value_name = "ORDER", value_parser = ["live_first", "fifo"],
          default_value = "live_first")]
    recovery: String,
    /// A header to send; once for each.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Also say the event's type, the attempt and why there is a retry, in the
    /// headers `webhook-event-type`, `webhook-attempt`, `webhook-retry-reason`.
    #[arg(long)]
    event_headers: bool,
    /// Offer HTTP/2.
    #[arg(long)]
    http2: bool,
    /// How it is signed: `standard_webhooks` without it, or `stripe`, `github`,
    /// `slack`.
    #[arg(long, value_name = "NAME")]
    scheme: Option<String>,
    /// Make the secret an ed25519 key pair; its public half is published.
    #[arg(long)]
    ed25519: bool,
    /// A file that holds the secret to sign with, in the scheme's form
    /// (`whsec_…`); made by the server without one.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<std::path::PathBuf>,
    /// Ask the receiver first: with one event of type `ping`, or with a
    /// `challenge` it has to answer before it gets events.
    #[arg(long, value_name = "HOW", value_parser = ["none", "ping", "challenge"],
          default_value = "none")]
    verify: String,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(create) => create_one(*create).await,
        Command::List { of } => list(of).await,
        Command::Enable { of, endpoint } => enable(of, &endpoint).await,
        Command::Verb(verb) => verbs::run(verb).await,
        Command::Check(check) => check::run(check).await,
        Command::Pull(pull) => pull::run(pull).await,
        Command::Verify { of, endpoint } => verify(of, &endpoint).await,
        Command::RotateSecret(rotate) => super::secrets::rotate(rotate).await,
        Command::Delete { of, endpoint } => delete(of, &endpoint).await,
    }
}

pub(super) fn path(tenant: &str) -> String {
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
    let headers = create.headers.iter().map(|text| header(text));
    let headers = headers.collect::<Result<BTreeMap<_, _>, _>>()?;
    let metadata: BTreeMap<_, _> = create.metadata.into_iter().collect();
    let mut body = json!({
        "url": create.url,
        "uid": create.uid,
        "description": create.description,
        "metadata": metadata,
        "event_types": create.event_types,
        "exclude_event_types": create.exclude_event_types,
        "event_headers": create.event_headers,
        "max_in_flight": create.max_in_flight,
        "http2": create.http2,
        "retry_policy": create.retry_policy,
        "fail_fast_4xx": create.fail_fast_4xx,
        "owned": create.owned,
        "rate_per_second": create.rate.unwrap_or(0),
        "ordered": create.ordered,
        "recovery": create.recovery,
        "headers": headers,
        "verify": create.verify,
    });
    let times = [
        ("timeout", create.timeout),
        ("connect_timeout", create.connect_timeout),
        ("start_at", create.start_at),
        ("max_age", create.max_age),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            body[name] = time.into();
        }
    }
    if let Some(after) = create.auto_disable {
        body["auto_disable"]["after"] = after.into();
    }
    if let Some(scheme) = create.scheme {
        body["signing"]["scheme"] = scheme.into();
    }
    if create.ed25519 {
        body["signing"]["algorithm"] = "ed25519".into();
    }
    if let Some(file) = create.secret_file {
        body["secret"] = read_secret(&file)?.into();
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
        out::line(format_args!("{made:#}"))?;
        return Ok(());
    }
    let secret = text(&made["secret"]);
    let table = table::render(HEAD, [row(&made)]);
    out::line(format_args!("{table}\nsecret (shown this once): {secret}"))?;
    if let Some(verification) = made.get("verification") {
        out::line(asked(verification))?;
    }
    if made["operation"].is_object() {
        operations::show(&made["operation"], false)?;
    }
    Ok(())
}

/// What asking a receiver came to, in a line.
fn asked(verification: &Value) -> String {
    let kind = text(&verification["kind"]);
    if verification["passed"] == true {
        return format!("{kind}: passed");
    }
    let status = verification["status"].as_u64();
    let status = status.map_or_else(String::new, |status| format!(" ({status})"));
    let (cause, detail) = (text(&verification["cause"]), text(&verification["detail"]));
    format!("{kind}: {cause}{status}: {detail}; `posthaste endpoints verify` asks again")
}

/// The secret in a file, without the line's end behind it.
pub(super) fn read_secret(file: &std::path::Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| anyhow::anyhow!("--secret-file {}: {error}", file.display()))?;
    Ok(text.trim().to_owned())
}

const HEAD: &[&str] = &[
    "id", "uid", "status", "types", "limits", "mode", "retries", "url",
];

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
        status(endpoint),
        types,
        limits(endpoint),
        mode(endpoint),
        retries(endpoint),
        text(&endpoint["url"]),
    ]
}

/// With the reason, where Posthaste disabled it.
fn status(endpoint: &Value) -> String {
    let status = text(&endpoint["status"]);
    match endpoint["disabled_reason"].as_str() {
        Some(reason) => format!("{status}: {reason}"),
        None => status,
    }
}

/// Attempts at once, and a second where that has a bound.
fn limits(endpoint: &Value) -> String {
    let at_once = text(&endpoint["max_in_flight"]);
    match endpoint["rate_per_second"].as_u64() {
        Some(rate) if rate > 0 => format!("{at_once}, {rate}/s"),
        _ => at_once,
    }
}

/// How its events come to it.
fn mode(endpoint: &Value) -> String {
    let is = |name: &str| endpoint[name] == true;
    let fifo = endpoint["recovery"] == "fifo";
    let mode = match (is("ordered"), is("owned")) {
        (true, _) => "ordered",
        (false, true) => "owned",
        (false, false) => "direct",
    };
    // An ordered one always is.
    if fifo && mode != "ordered" {
        return format!("{mode}, fifo");
    }
    mode.to_owned()
}

fn retries(endpoint: &Value) -> String {
    let policy = text(&endpoint["retry_policy"]);
    if endpoint["fail_fast_4xx"] == true {
        return format!("{policy}, fail fast");
    }
    policy
}

pub(super) fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

async fn list(of: Of) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let found = client.all(&path(&of.tenant)).await?;
    if of.json {
        out::line(format_args!("{found:#}"))?;
        return Ok(());
    }
    let rows = found["data"].as_array().into_iter().flatten().map(row);
    out::write(&table::render(HEAD, rows))?;
    Ok(())
}

async fn enable(of: Of, endpoint: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let path = format!("{}/{}/enable", path(&of.tenant), encode(endpoint));
    let enabled = client.call(Method::POST, &path, &[], Bytes::new()).await?;
    if of.json {
        out::line(format_args!("{enabled:#}"))?;
    } else {
        out::line(format_args!("enabled {}", table::plain(endpoint)))?;
    }
    Ok(())
}

async fn verify(of: Of, endpoint: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let path = format!("{}/{}/verify", path(&of.tenant), encode(endpoint));
    let answered = client.call(Method::POST, &path, &[], Bytes::new()).await?;
    let verification = &answered["verification"];
    if of.json {
        out::line(format_args!("{answered:#}"))?;
    } else if verification["passed"] == true {
        out::line(asked(verification))?;
    }
    anyhow::ensure!(verification["passed"] == true, "{}", asked(verification));
    Ok(())
}

async fn delete(of: Of, endpoint: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let path = format!("{}/{}", path(&of.tenant), encode(endpoint));
    client
        .call(Method::DELETE, &path, &[], Bytes::new())
        .await?;
    if of.json {
        out::line(json!({"deleted": endpoint}))?;
    } else {
        out::line(format_args!("deleted {}", table::plain(endpoint)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        create: Create,
    }

    fn words(more: &[&str]) -> Result<Create, clap::Error> {
        let least = ["create", "--tenant", "a", "--url", "https://example.com"];
        let words = Words::try_parse_from(least.iter().chain(more))?;
        Ok(words.create)
    }

    #[test]
    fn a_rate_and_a_recovery_are_read_or_refused() {
        let none = words(&[]).unwrap();
        assert_eq!((none.rate, &*none.recovery), (None, "live_first"));
        let all = words(&["--rate", "50/s", "--ordered", "--recovery", "fifo"]).unwrap();
        assert_eq!(
            (all.rate, all.ordered, &*all.recovery),
            (Some(50), true, "fifo")
        );
        for bad in [
            ["--rate", "0/s"],
            ["--recovery", "lifo"],
            ["--rate", "fast"],
        ] {
            assert!(words(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_a_receiver_answered_is_said_in_a_line() {
        assert_eq!(words(&[]).unwrap().verify, "none");
        assert!(words(&["--verify", "pong"]).is_err());
        let passed = json!({"kind": "ping", "passed": true, "cause": null, "status": 200});
        assert_eq!(asked(&passed), "ping: passed");
        let failed = json!({
            "kind": "challenge", "passed": false, "cause": "http_5xx", "status": 503,
            "detail": "the endpoint failed",
        });
        let said = "challenge: http_5xx (503): the endpoint failed; `posthaste endpoints verify` \
                    asks again";
        assert_eq!(asked(&failed), said);
    }

    #[test]
    fn a_row_shows_what_matters() {
        let mut endpoint = json!({
            "id": "ep_1", "uid": "billing", "status": "active", "event_types": [],
            "max_in_flight": 10, "rate_per_second": 0, "owned": false, "ordered": false,
            "recovery": "live_first", "retry_policy": "standard", "fail_fast_4xx": false,
            "url": "https://example.com",
        });
        let shown = |endpoint: &Value| row(endpoint).join(" | ");
        assert_eq!(
            shown(&endpoint),
            "ep_1 | billing | active | * | 10 | direct | standard | https://example.com"
        );
        endpoint["status"] = "disabled".into();
        endpoint["disabled_reason"] = "gone".into();
        endpoint["rate_per_second"] = 50.into();
        endpoint["owned"] = true.into();
        endpoint["recovery"] = "fifo".into();
        endpoint["fail_fast_4xx"] = true.into();
        assert_eq!(
            shown(&endpoint),
            "ep_1 | billing | disabled: gone | * | 10, 50/s | owned, fifo | standard, fail fast | \
             https://example.com"
        );
        endpoint["ordered"] = true.into();
        assert_eq!(mode(&endpoint), "ordered");
    }
}
