//! What can be asked of one endpoint: pause, resume, disable, and what it is
//! owed.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::filters::json_or_file;
use super::super::pages::cell;
use super::super::{follow, operations, out, table};
use super::{Of, encode, path, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// All that is set of an endpoint.
    #[command(after_help = "\
Examples:
  posthaste endpoints show --tenant acme billing
  posthaste endpoints show --tenant acme billing --json | jq .version")]
    Show(One),
    /// Change what is set of an endpoint.
    #[command(after_help = "\
Examples:
  posthaste endpoints change --tenant acme billing '{\"timeout\": \"20s\", \"description\": null}'
  posthaste endpoints change --tenant acme billing patch.json --version 3

A JSON merge patch: what it names is changed, and `null` brings a default back. Members are those
that `show` names. With --version it is made to that version alone, and fails otherwise.")]
    Change {
        #[command(flatten)]
        one: One,
        /// The patch, or a file that holds it.
        #[arg(value_name = "FILE|JSON")]
        patch: String,
        /// The version it is based on.
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// Hold what an endpoint wants, until it is resumed; what is in flight ends.
    #[command(after_help = "\
Examples:
  posthaste endpoints pause --tenant acme billing

What is held expires 72 hours after it came, or past the age its endpoint takes, as it would
anyhow.")]
    Pause(One),
    /// Let a paused endpoint go on: with all that is held, or with less.
    #[command(after_help = "\
Examples:
  posthaste endpoints resume --tenant acme billing
  posthaste endpoints resume --tenant acme billing --from now
  posthaste endpoints resume --tenant acme billing --from 2h

What came before is cancelled before the endpoint goes on.")]
    Resume {
        #[command(flatten)]
        one: One,
        /// `held`, `now`, or a time: a UTC time, or how long ago, such as `2h`.
        #[arg(long, value_name = "TIME", default_value = "held")]
        from: String,
    },
    /// Let an endpoint have no deliveries, until it is enabled.
    #[command(after_help = "\
Examples:
  posthaste endpoints disable --tenant acme billing --reason 'moves to another host'

Events that come meanwhile are not for it; a replay brings them later.")]
    Disable {
        #[command(flatten)]
        one: One,
        /// Why, for people.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Cancel what an endpoint is owed.
    #[command(after_help = "\
Examples:
  posthaste endpoints cancel --tenant acme billing --follow
  posthaste endpoints cancel --tenant acme billing --before 24h
  posthaste endpoints cancel --tenant acme billing --delivery dlv_01M8A8SH3159FXXNQ369DY9HAB

Of an ordered endpoint the next event of a cancelled one's key goes then. `deliveries list --status
held` and `--status scheduled` name what there is.")]
    Cancel {
        #[command(flatten)]
        asked: Asked,
        #[command(flatten)]
        named: Named,
        /// Only what came before then: a UTC time, or how long ago.
        #[arg(long, value_name = "TIME", conflicts_with = "delivery")]
        before: Option<String>,
    },
    /// Make retries that wait for their time due now.
    #[command(after_help = "\
Examples:
  posthaste endpoints retry-now --tenant acme billing
  posthaste endpoints retry-now --tenant acme billing --delivery dlv_01M8A8SH3159FXXNQ369DY9HAB")]
    RetryNow {
        #[command(flatten)]
        asked: Asked,
        #[command(flatten)]
        named: Named,
    },
    /// Let one attempt out to an endpoint that is down.
    #[command(after_help = "\
Examples:
  posthaste endpoints probe --tenant acme billing")]
    Probe(Asked),
}

/// One endpoint.
#[derive(Debug, Args)]
pub(crate) struct One {
    #[command(flatten)]
    pub(super) of: Of,
    /// Its id or uid.
    pub(super) endpoint: String,
}

/// One endpoint whose owner is asked for something.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    one: One,
    /// Wait for its end; fails when it failed or was cancelled.
    #[arg(long)]
    follow: bool,
}

/// Deliveries of it.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Only this delivery; once for each of up to 100: all of them, or none.
    #[arg(long, value_name = "ID")]
    delivery: Vec<String>,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Show(one) => one.show(Method::GET, Bytes::new(), &[]).await,
        Verb::Change {
            one,
            patch,
            version,
        } => {
            let patch = json_or_file("the patch", &patch)?.get().to_owned();
            let based = version.map(|version| ("if-match", format!("\"{version}\"")));
            let headers: Vec<_> = based.iter().map(|(name, tag)| (*name, &**tag)).collect();
            one.show(Method::PATCH, patch.into(), &headers).await
        }
        Verb::Pause(one) => one.change("pause", "paused", &json!({})).await,
        Verb::Resume { one, from } => {
            let body = json!({ "from": from });
            one.change("resume", "resumed", &body).await
        }
        Verb::Disable { one, reason } => {
            let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
            one.change("disable", "disabled", &body).await
        }
        Verb::Cancel {
            asked,
            named,
            before,
        } => {
            let body = before.map_or_else(|| named.body(), |before| json!({ "before": before }));
            asked.start("cancel", &body).await
        }
        Verb::RetryNow { asked, named } => asked.start("retry_now", &named.body()).await,
        Verb::Probe(asked) => asked.start("probe", &json!({})).await,
    }
}

impl One {
    /// Shows the endpoint as the answer has it.
    async fn show(
        &self,
        method: Method,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.of.server).await?;
        let shown = client.call(method, &self.path(), headers, body).await?;
        if self.of.json {
            out::line(format_args!("{shown:#}"))?;
            return Ok(());
        }
        let members = shown.as_object().into_iter().flatten();
        let rows = members.map(|(name, value)| vec![name.clone(), cell(value)]);
        out::write(&table::render(&["member", "value"], rows))?;
        Ok(())
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", path(&self.of.tenant), encode(&self.endpoint))
    }

    async fn call(&self, client: &mut Client, verb: &str, body: &Value) -> anyhow::Result<Value> {
        let path = format!("{}/{verb}", self.path());
        let body = body.to_string().into();
        client.call(Method::POST, &path, &[], body).await
    }

    async fn change(&self, verb: &str, done: &str, body: &Value) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.of.server).await?;
        let changed = self.call(&mut client, verb, body).await?;
        if self.of.json {
            out::line(format_args!("{changed:#}"))?;
        } else {
            let endpoint = table::plain(&self.endpoint);
            out::line(format_args!("{done} {endpoint}"))?;
        }
        Ok(())
    }
}

impl Named {
    fn body(&self) -> Value {
        match &self.delivery[..] {
            [] => json!({}),
            ids => json!({ "delivery_ids": ids }),
        }
    }
}

impl Asked {
    async fn start(&self, verb: &str, body: &Value) -> anyhow::Result<()> {
        let of = &self.one.of;
        let mut client = Client::connect(&of.server).await?;
        let begun = self.one.call(&mut client, verb, body).await?;
        if !self.follow {
            return operations::show(&begun, of.json);
        }
        let base = operations::base(Some(&of.tenant));
        let ids = [text(&begun["id"])];
        let ends = follow::to_their_end(&mut client, &base, &ids, of.json).await?;
        ends.told(of.json)
    }
}
