//! `posthaste publish`.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::endpoints::encode;
use super::{out, table};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  posthaste publish --tenant acme --type invoice.paid --data '{\"amount\": 7}'
  posthaste publish --tenant acme --file events.ndjson     one envelope a line:
      {\"type\": \"invoice.paid\", \"id\": \"evt_1\", \"data\": {\"amount\": 7}}
  posthaste publish --tenant acme --type invoice.paid < invoice.json
  posthaste publish --tenant acme --type invoice.paid --ordering-key customer-7 --data '{}'

An event is accepted once the log has it. A file stops at the first line that is refused, and says
how many before it are accepted.")]
pub(crate) struct Options {
    /// Whose event.
    #[arg(long)]
    tenant: String,
    /// Its type.
    #[arg(
        long = "type",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    event_type: Option<String>,
    /// Its id; made by the server without one.
    #[arg(long, conflicts_with = "file")]
    id: Option<String>,
    /// Its ordering key: ordered endpoints get events of one key in order.
    #[arg(long, value_name = "KEY", conflicts_with = "file")]
    ordering_key: Option<String>,
    /// Its body; from standard input without it.
    #[arg(long, conflicts_with = "file")]
    data: Option<String>,
    /// A file of envelopes, one a line; `-` for standard input.
    #[arg(long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// Print JSON, a line an event.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let path = format!("/v1/tenants/{}/events", encode(&options.tenant));
    match &options.file {
        Some(file) => publish_file(&mut client, &path, file, options.json).await,
        None => publish_one(&mut client, &path, &options).await,
    }
}

async fn publish_one(client: &mut Client, path: &str, options: &Options) -> anyhow::Result<()> {
    let body = match &options.data {
        Some(data) => data.clone().into_bytes(),
        None => {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body)?;
            body
        }
    };
    let event_type = options.event_type.as_deref().unwrap_or_default();
    let mut headers = vec![("webhook-type", event_type)];
    headers.extend(options.id.as_deref().map(|id| ("webhook-id", id)));
    let key = options.ordering_key.as_deref();
    headers.extend(key.map(|key| ("webhook-ordering-key", key)));
    headers.push(("content-type", "application/json"));
    let accepted = client
        .call(Method::POST, path, &headers, body.into())
        .await?;
    show(&accepted, options.json)?;
    Ok(())
}

fn show(accepted: &Value, as_json: bool) -> std::io::Result<()> {
    if as_json {
        return out::line(accepted);
    }
    let id = accepted["id"].as_str().unwrap_or_default();
    out::line(format_args!("accepted {}", table::plain(id)))
}

async fn publish_file(
    client: &mut Client,
    path: &str,
    file: &PathBuf,
    as_json: bool,
) -> anyhow::Result<()> {
    let input: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        let open = std::fs::File::open(file);
        Box::new(open.with_context(|| format!("cannot read {}", file.display()))?)
    };
    let progress = std::io::stderr().is_terminal() && !as_json;
    let mut count: u64 = 0;
    for (number, line) in BufReader::new(input).lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let accepted = client
            .call(Method::POST, path, &[], Bytes::from(line))
            .await
            .with_context(|| format!("line {}; the {count} before it are accepted", number + 1))?;
        count += 1;
        if as_json {
            show(&accepted, true)?;
        } else if progress && count.is_multiple_of(100) {
            eprint!("\r{count} accepted");
            std::io::stderr().flush()?;
        }
    }
    if progress {
        eprint!("\r");
    }
    if as_json {
        out::line(json!({"accepted": count}))?;
    } else {
        out::line(format_args!("{count} events accepted"))?;
    }
    Ok(())
}
