//! `posthaste secrets`, and `posthaste endpoints rotate-secret`.

use anyhow::bail;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::client::{Client, Server};
use super::endpoints::{Of, encode, path, read_secret, text};
use super::pages::cell;
use super::{out, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Seal all secrets under the first master key.
    #[command(after_help = "\
Examples:
  posthaste secrets reseal
  posthaste secrets reseal --json

Seals what is under another of `secrets.keys`, or in the clear. Once it is done, and on all
instances, the older keys may go. The log keeps old records until it is compacted.")]
    Reseal {
        #[command(flatten)]
        server: Server,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// An endpoint's secrets that are not over, newest first: never their texts.
    #[command(after_help = "\
Examples:
  posthaste secrets list --tenant acme billing")]
    List {
        #[command(flatten)]
        of: Of,
        /// Its id or uid.
        endpoint: String,
    },
    /// Take an older secret back before it expires.
    #[command(after_help = "\
Examples:
  posthaste secrets delete --tenant acme billing sec_01M8A8SGRT3TMFMM1F4JJZHFBM")]
    Delete {
        #[command(flatten)]
        of: Of,
        /// Its endpoint's id or uid.
        endpoint: String,
        /// Its id.
        secret: String,
    },
}

pub(super) const ROTATE_HELP: &str = "\
Examples:
  posthaste endpoints rotate-secret --tenant acme billing
  posthaste endpoints rotate-secret --tenant acme billing --overlap 168h
  posthaste endpoints rotate-secret --tenant acme billing --overlap 0s --json | jq -r .secret

Until the overlap is over deliveries are signed with the older secret too, where the endpoint's
scheme has room for it.";

/// How a secret follows another.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    of: Of,
    /// Its id or uid.
    endpoint: String,
    /// How long the older secret still signs: 24h without it, 0s to 168h.
    #[arg(long, value_name = "TIME")]
    overlap: Option<String>,
    /// Make the new secret an ed25519 key pair.
    #[arg(long)]
    ed25519: bool,
    /// A file that holds the new secret, in the scheme's form; made by the server
    /// without one, as the older one was.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<std::path::PathBuf>,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Reseal { server, json } => reseal(&server, json).await,
        Command::List { of, endpoint } => list(&of, &endpoint).await,
        Command::Delete {
            of,
            endpoint,
            secret,
        } => delete(&of, &endpoint, &secret).await,
    }
}

async fn list(of: &Of, endpoint: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let path = format!("{}/{}/secrets", path(&of.tenant), encode(endpoint));
    let listed = client.call(Method::GET, &path, &[], Bytes::new()).await?;
    if of.json {
        out::line(format_args!("{listed:#}"))?;
        return Ok(());
    }
    let secrets = listed["data"].as_array().into_iter().flatten();
    let rows = secrets.map(|secret| {
        vec![
            text(&secret["id"]),
            text(&secret["created_at"]),
            cell(&secret["expires_at"]),
            cell(&secret["public_key"]),
        ]
    });
    let head = &["id", "created", "expires", "public key"];
    out::write(&table::render(head, rows))?;
    Ok(())
}

async fn delete(of: &Of, endpoint: &str, secret: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let endpoint = format!("{}/{}", path(&of.tenant), encode(endpoint));
    let path = format!("{endpoint}/secrets/{}", encode(secret));
    client
        .call(Method::DELETE, &path, &[], Bytes::new())
        .await?;
    if of.json {
        out::line(json!({ "deleted": secret }))?;
    } else {
        out::line(format_args!("deleted {}", table::plain(secret)))?;
    }
    Ok(())
}

async fn reseal(server: &Server, json: bool) -> anyhow::Result<()> {
    let mut client = Client::connect(server).await?;
    let (mut resealed, mut unreadable) = (0, 0);
    loop {
        let call = client.call(Method::POST, "/v1/secrets/reseal", &[], Bytes::new());
        let page = call.await?;
        let count = |name: &str| page[name].as_u64().unwrap_or_default();
        resealed += count("resealed");
        unreadable = unreadable.max(count("unreadable"));
        if count("left") == 0 || count("resealed") == 0 {
            break;
        }
    }
    if json {
        out::line(json!({"resealed": resealed, "unreadable": unreadable}))?;
    } else {
        out::line(format_args!("{resealed} endpoints sealed anew"))?;
    }
    if unreadable > 0 {
        bail!("{unreadable} endpoints have a secret that no master key opens: the log names them");
    }
    Ok(())
}

pub(super) async fn rotate(rotate: Rotate) -> anyhow::Result<()> {
    let mut body = json!({});
    if let Some(overlap) = rotate.overlap {
        body["overlap"] = overlap.into();
    }
    if rotate.ed25519 {
        body["algorithm"] = "ed25519".into();
    }
    if let Some(file) = rotate.secret_file {
        body["secret"] = read_secret(&file)?.into();
    }
    let Of {
        tenant,
        server,
        json,
    } = rotate.of;
    let mut client = Client::connect(&server).await?;
    let path = format!(
        "{}/{}/secrets/rotate",
        path(&tenant),
        encode(&rotate.endpoint)
    );
    let body = body.to_string().into();
    let made = client.call(Method::POST, &path, &[], body).await?;
    if json {
        out::line(format_args!("{made:#}"))?;
    } else {
        let secret = text(&made["secret"]);
        out::line(format_args!("secret (shown this once): {secret}"))?;
    }
    Ok(())
}
