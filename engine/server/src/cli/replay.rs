//! `posthaste replay` and `posthaste resend`.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::endpoints::{encode, text};
use super::filters::{json_or_file, with_filter};
use super::operations::base;
use super::{follow, operations, out};

/// Whom to bring events again, where.
#[derive(Debug, Args)]
struct To {
    /// The endpoint: its id, or with `--tenant` its uid.
    #[arg(long)]
    endpoint: String,
    /// Its tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Wait for its end; fails when it failed or was cancelled.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  posthaste replay --endpoint ep_01M8A8SGRT3TMFMM1F4JJZHFBM --since 24h --dry-run
  posthaste replay --tenant acme --endpoint billing --since 2h --until 1h --follow
  posthaste replay --tenant acme --endpoint billing --since 2026-01-31T08:00:00Z \\
      --types 'invoice.*' --filter '{\"amount\": {\"$gte\": 100}}' --rate 50/s
  posthaste replay --tenant acme --endpoint billing --since 24h --mode failed

Brings what the endpoint wants of the source topics' events again, with the same webhook-id, as
long as the topics keep them. It goes on when this command is interrupted: `operations wait`.")]
pub(crate) struct Replay {
    #[command(flatten)]
    to: To,
    /// Events since then: a UTC time, or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME")]
    since: String,
    /// Events before then; up to now without it.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// All events, or what was given up in that time.
    #[arg(long, value_name = "WHICH", value_parser = ["all", "failed"], default_value = "all")]
    mode: String,
    /// Only this type, or a pattern such as `invoice.*`; once for each.
    #[arg(long = "types", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Only what passes this filter on an event's content; or a file that holds
    /// it.
    #[arg(long, value_name = "FILE|JSON")]
    filter: Option<String>,
    /// At most so many a second, such as `50/s`: 500 without it.
    #[arg(long, value_name = "N/s", value_parser = super::dead::rate)]
    rate: Option<usize>,
    /// Only count them.
    #[arg(long, conflicts_with = "follow")]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  posthaste resend dlv_01M8A8SGRT3TMFMM1F4JJZHFBM
  posthaste resend --tenant acme --endpoint billing --topic events --partition 3 --offset 17

Sends one event again: that of a delivery, or the one at a place in a source topic, whether the
endpoint wants it or not. A delivery that waits for its time is made due instead.")]
#[command(group = clap::ArgGroup::new("which").required(true).args(["delivery", "endpoint"]))]
pub(crate) struct Resend {
    /// A delivery.
    delivery: Option<String>,
    /// Or an endpoint: its id, or with `--tenant` its uid; and an event's place.
    #[arg(long, requires_all = ["topic", "partition", "offset"])]
    endpoint: Option<String>,
    /// Their tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// The source topic.
    #[arg(long, requires = "endpoint")]
    topic: Option<String>,
    /// Its partition.
    #[arg(long, requires = "endpoint")]
    partition: Option<u32>,
    /// The event's offset.
    #[arg(long, requires = "endpoint")]
    offset: Option<u64>,
    /// Wait for its end; fails when it failed or was cancelled.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn replay(options: Replay) -> anyhow::Result<()> {
    let mut body = json!({ "since": options.since, "mode": options.mode });
    if let Some(until) = &options.until {
        body["until"] = until.as_str().into();
    }
    if !options.event_types.is_empty() {
        body["event_types"] = json!(options.event_types);
    }
    if let Some(rate) = options.rate {
        body["rate_per_second"] = json!(rate);
    }
    body["dry_run"] = options.dry_run.into();
    let body = options.to.named(body);
    let body = match &options.filter {
        Some(filter) => with_filter(&body, &json_or_file("--filter", filter)?)?,
        None => body.to_string(),
    };
    let path = options.to.path("replays");
    options.to.start(&path, body, options.dry_run).await
}

pub(crate) async fn resend(options: Resend) -> anyhow::Result<()> {
    let Resend {
        delivery,
        endpoint,
        tenant,
        topic,
        partition,
        offset,
        follow,
        server,
        json,
    } = options;
    let to = To {
        endpoint: endpoint.unwrap_or_default(),
        tenant,
        follow,
        server,
        json,
    };
    if let Some(delivery) = delivery {
        let below = match &to.tenant {
            Some(tenant) => format!("/v1/tenants/{}", encode(tenant)),
            None => "/v1".to_owned(),
        };
        let path = format!("{below}/deliveries/{}/retry", encode(&delivery));
        return to.start(&path, String::new(), false).await;
    }
    let body = json!({ "topic": topic, "partition": partition, "offset": offset });
    let body = to.named(body).to_string();
    to.start(&to.path("resends"), body, false).await
}

impl To {
    /// Without a tenant the body names the endpoint.
    fn named(&self, mut body: Value) -> Value {
        if self.tenant.is_none() {
            body["endpoint_id"] = self.endpoint.as_str().into();
        }
        body
    }

    fn path(&self, what: &str) -> String {
        match &self.tenant {
            Some(tenant) => format!(
                "/v1/tenants/{}/endpoints/{}/{what}",
                encode(tenant),
                encode(&self.endpoint)
            ),
            None => format!("/v1/{what}"),
        }
    }

    async fn start(&self, path: &str, body: String, dry_run: bool) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.server).await?;
        let answer = client.call(Method::POST, path, &[], body.into()).await?;
        if answer["truncated"] == true {
            eprintln!("the log keeps only a part of that time");
        }
        if dry_run {
            return counted(&answer, self.json);
        }
        if !self.follow {
            return operations::show(&answer, self.json);
        }
        let base = base(self.tenant.as_deref());
        let ids = [text(&answer["id"])];
        let ends = follow::to_their_end(&mut client, &base, &ids, self.json).await?;
        ends.told(self.json)
    }
}

fn counted(answer: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        out::line(format_args!("{answer:#}"))?;
        return Ok(());
    }
    out::line(words(answer))?;
    Ok(())
}

fn words(answer: &Value) -> String {
    let mut words = match answer["exact"].as_bool() {
        Some(true) => format!("{} would be delivered", answer["matched"]),
        _ => format!(
            "about {} would be delivered, by {} of {} records",
            answer["estimated"], answer["scanned"], answer["records"]
        ),
    };
    if answer["skipped"].as_u64() > Some(0) {
        words.push_str(&format!("; {} cannot be read", answer["skipped"]));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_as_what_it_is() {
        let mut answer = json!({
            "exact": true, "matched": 3, "skipped": 0, "estimated": 3, "scanned": 9, "records": 9,
        });
        assert_eq!(words(&answer), "3 would be delivered");
        answer["exact"] = false.into();
        answer["skipped"] = 2.into();
        answer["records"] = 90.into();
        answer["estimated"] = 30.into();
        assert_eq!(
            words(&answer),
            "about 30 would be delivered, by 9 of 90 records; 2 cannot be read"
        );
    }
}
