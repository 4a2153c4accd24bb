//! `posthaste keys`.
//!
//! The first key is made on the log itself (`--config`): whoever may write that
//! may do everything already, so nothing is opened that was closed. A server
//! that made a key for the first caller from its own machine would make one for
//! everybody behind a proxy on that machine.

use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use posthaste_core::access::{ApiKey, NewKey, Scope};
use posthaste_core::id::KeyId;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::endpoints::{Of, encode, text};
use super::{WrongUse, out, table};
use crate::app::{Desk, open_desk};
use crate::config::{Config, format_rfc3339};
use crate::control::{By, new_key};

const PATH: &str = "/v1/keys";
/// Who changes the log by its configuration.
const OPERATOR: &str = "operator";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an API key; shows it, this once.
    #[command(after_help = "\
Examples:
  posthaste keys create --scope admin --config posthaste.toml    the first one
  posthaste keys create --scope publish --scope read --description billing
  posthaste keys create --scope admin --tenant acme --json | jq -r .key

With --config the log is written, which needs no key and no running server; an embedded log must
not be in use meanwhile. Otherwise the server is asked, with the key in POSTHASTE_API_KEY.")]
    Create {
        /// What it is for: admin, publish or read; once for each.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// The only tenant it is for; all of them without.
        #[arg(long)]
        tenant: Option<String>,
        /// What it is for, in your words.
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,
        #[command(flatten)]
        at: At,
    },
    /// The keys there are.
    #[command(after_help = "\
Examples:
  posthaste keys list
  posthaste keys list --config posthaste.toml")]
    List {
        #[command(flatten)]
        at: At,
    },
    /// Make a token for a tenant's own people; it lasts up to 24 hours.
    #[command(after_help = "\
Examples:
  posthaste keys portal --tenant acme --can endpoints --expires-in 1h
  posthaste keys portal --tenant acme --can read --json | jq -r .token

It is made in the name of the key in POSTHASTE_API_KEY, and ends with that.")]
    Portal {
        #[command(flatten)]
        of: Of,
        /// What it is for: read or endpoints; once for each.
        #[arg(long = "can", value_name = "CAPABILITY", required = true)]
        capabilities: Vec<String>,
        /// How long it lasts: 1h without it, at most 24h.
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
    },
    /// Revoke a key, and the portal tokens made in its name.
    #[command(after_help = "\
Examples:
  posthaste keys revoke pk_01M8A8SGRT3TMFMM1F4JJZHFBM")]
    Revoke {
        /// Its id: what stands before the second `_` of the key.
        key: KeyId,
        #[command(flatten)]
        at: At,
    },
}

/// Where the keys are.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// Work on the log that this file names, not by a server.
    #[arg(long, short, value_name = "FILE", conflicts_with = "server")]
    config: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl At {
    /// The log, where that is to be worked on.
    async fn desk(&self) -> anyhow::Result<Option<Desk>> {
        let Some(file) = &self.config else {
            return Ok(None);
        };
        let desk = open_desk(&Config::load(file)?).await;
        let desk = desk.context("where a server uses the log, ask that: leave --config away")?;
        Ok(Some(desk))
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let mut client = Client::connect(&self.server).await?;
        client.call(method, path, &[], body).await
    }
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create {
            scopes,
            tenant,
            description,
            at,
        } => {
            let new = NewKey {
                scopes,
                tenant,
                description,
            };
            create(new, &at).await
        }
        Command::List { at } => list(&at).await,
        Command::Portal {
            of,
            capabilities,
            expires_in,
        } => {
            let asked = json!({ "capabilities": capabilities, "expires_in": expires_in });
            portal(&of, &asked).await
        }
        Command::Revoke { key, at } => revoke(key, &at).await,
    }
}

async fn portal(of: &Of, asked: &Value) -> anyhow::Result<()> {
    let mut client = Client::connect(&of.server).await?;
    let path = format!("/v1/tenants/{}/portal_sessions", encode(&of.tenant));
    let body = asked.to_string().into();
    let made = client.call(Method::POST, &path, &[], body).await?;
    if of.json {
        out::line(format_args!("{made:#}"))?;
        return Ok(());
    }
    let (token, end) = (text(&made["token"]), text(&made["expires_at"]));
    out::line(format_args!(
        "token (shown this once, good until {end}): {token}"
    ))?;
    Ok(())
}

async fn create(new: NewKey, at: &At) -> anyhow::Result<()> {
    let made = match at.desk().await? {
        Some(desk) => {
            let now = desk.clock.now();
            let (key, text) = new_key(new, now).map_err(|error| WrongUse(format!("--{error}")))?;
            let by = By::new(OPERATOR, now);
            desk.endpoints.put_key(&key, &by).await?;
            let mut made = shown(&key);
            made["key"] = text.expose().into();
            made
        }
        None => {
            let scopes: Vec<_> = new.scopes.iter().map(|scope| scope.name()).collect();
            let asked = json!({
                "scopes": scopes, "tenant": new.tenant, "description": new.description,
            });
            at.call(Method::POST, PATH, asked.to_string().into())
                .await?
        }
    };
    if at.json {
        out::line(format_args!("{made:#}"))?;
        return Ok(());
    }
    let (table, key) = (table::render(HEAD, [row(&made)]), text(&made["key"]));
    out::line(format_args!("{table}\nkey (shown this once): {key}"))?;
    Ok(())
}

async fn list(at: &At) -> anyhow::Result<()> {
    let found = match at.desk().await? {
        Some(desk) => {
            let keys = desk.endpoints.keys();
            let data: Vec<_> = keys.iter().map(|key| shown(key)).collect();
            json!({ "data": data })
        }
        None => Client::connect(&at.server).await?.all(PATH).await?,
    };
    if at.json {
        out::line(format_args!("{found:#}"))?;
        return Ok(());
    }
    let rows = found["data"].as_array().into_iter().flatten().map(row);
    out::write(&table::render(HEAD, rows))?;
    Ok(())
}

async fn revoke(key: KeyId, at: &At) -> anyhow::Result<()> {
    match at.desk().await? {
        Some(desk) => {
            let by = By::new(OPERATOR, desk.clock.now());
            if !desk.endpoints.revoke_key(key, &by).await? {
                anyhow::bail!("no such key: {key}");
            }
        }
        None => {
            let path = format!("{PATH}/{key}");
            at.call(Method::DELETE, &path, Bytes::new()).await?;
        }
    }
    if at.json {
        out::line(json!({"revoked": key.to_string()}))?;
    } else {
        out::line(format_args!("revoked {key}"))?;
    }
    Ok(())
}

/// A key in the form of the API.
fn shown(key: &ApiKey) -> Value {
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
    json!({
        "id": key.id.to_string(),
        "scopes": scopes,
        "tenant": key.tenant,
        "description": key.description,
        "created_at": format_rfc3339(key.created_at),
    })
}

const HEAD: &[&str] = &["id", "scopes", "tenant", "created", "description"];

fn row(key: &Value) -> Vec<String> {
    let scopes = key["scopes"].as_array().into_iter().flatten();
    let scopes: Vec<_> = scopes.map(text).collect();
    vec![
        text(&key["id"]),
        scopes.join(","),
        key["tenant"].as_str().unwrap_or("*").to_owned(),
        text(&key["created_at"]),
        text(&key["description"]),
    ]
}
