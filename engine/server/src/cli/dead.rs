//! `posthaste dead`.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::endpoints::text;
use super::pages::gather;
use super::{follow, operations, out, table};

const PATH: &str = "/v1/dead_letters";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Deliveries that were given up, oldest first.
    #[command(after_help = "\
Examples:
  posthaste dead list --since 24h
  posthaste dead list --tenant acme --endpoint billing --cause exhausted --limit 1000
  posthaste dead list --json | jq -r '.data[].detail'")]
    List(List),
    /// Bring their deliveries again, as if for the first time.
    #[command(after_help = "\
Examples:
  posthaste dead redrive --endpoint ep_01M8A8SGRT3TMFMM1F4JJZHFBM --dry-run
  posthaste dead redrive --tenant acme --endpoint billing --since 24h --rate 50/s
  posthaste dead redrive --all

Makes an operation for each endpoint and follows them; they go on when this command is interrupted:
`operations list --kind redrive`. The dead letters stay: redriven twice, an event comes twice, with
the same webhook-id. What has no delivery, or no endpoint that takes it, is not redriven and
counted.")]
    Redrive(Redrive),
}

/// Which dead letters.
#[derive(Debug, Args)]
struct Filter {
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this endpoint: its id, or with `--tenant` its uid.
    #[arg(long)]
    endpoint: Option<String>,
    /// Given up for this: exhausted, expired, gone, rejected, oversize or poison.
    #[arg(long)]
    cause: Option<String>,
    /// Given up since then: a UTC time, or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Given up before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    filter: Filter,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
    limit: usize,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true)
    .args(["all", "tenant", "endpoint", "cause", "since", "until"]))]
pub(crate) struct Redrive {
    #[command(flatten)]
    filter: Filter,
    /// Every one there is.
    #[arg(long, conflicts_with_all = ["tenant", "endpoint", "cause", "since", "until"])]
    all: bool,
    /// At most so many a second for each endpoint, such as `50/s`: 500 without
    /// it.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<usize>,
    /// Only count them.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the operations' end.
    #[arg(long)]
    no_follow: bool,
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(options) => list(options).await,
        Command::Redrive(options) => redrive(options).await,
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "expected a whole number from 1".to_owned())
}

/// How many a second.
pub(super) fn rate(text: &str) -> Result<usize, String> {
    at_least_one(text.strip_suffix("/s").unwrap_or(text))
        .map_err(|_| "expected how many a second, such as 50/s".to_owned())
}

impl Filter {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("tenant", &self.tenant),
            ("endpoint", &self.endpoint),
            ("cause", &self.cause),
            ("since", &self.since),
            ("until", &self.until),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

async fn list(options: List) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let pairs: Vec<_> = options.filter.pairs().collect();
    let found = gather(&mut client, PATH, &pairs, options.limit).await?;
    if options.json {
        out::line(format_args!("{:#}", found.json()))?;
        return Ok(());
    }
    out::write(&table::render(HEAD, found.data.iter().map(row)))?;
    found.hint(options.limit);
    Ok(())
}

const HEAD: &[&str] = &[
    "when", "endpoint", "event", "type", "cause", "attempts", "last",
];

/// What never became an event is shown by where it was read, a letter for many by
/// how many.
fn row(letter: &Value) -> Vec<String> {
    let (at, cause) = (text(&letter["at"]), text(&letter["cause"]));
    let nothing = || "-".to_owned();
    let many = &letter["range"];
    if let Some(count) = many["count"].as_u64() {
        let what = format!("{count} that were held");
        let endpoint = text(&many["endpoint"]);
        return vec![at, endpoint, what, nothing(), cause, nothing(), nothing()];
    }
    let delivery = &letter["delivery"];
    if delivery.is_null() {
        let from = &letter["origin"];
        let place = format!(
            "{}/{}@{}",
            text(&from["topic"]),
            from["partition"],
            from["offset"]
        );
        return vec![at, nothing(), place, nothing(), cause, nothing(), nothing()];
    }
    let last = match &delivery["last_status"] {
        Value::Null => &delivery["last_cause"],
        status => status,
    };
    vec![
        at,
        text(&delivery["endpoint"]),
        text(&delivery["event"]),
        text(&delivery["type"]),
        cause,
        text(&delivery["attempts"]),
        text(last),
    ]
}

/// What a redrive has begun, or would begin.
#[derive(Debug)]
struct Begun {
    operations: Vec<Value>,
    letters: u64,
    /// By why, with the words for it.
    skipped: [(&'static str, &'static str, u64); 4],
}

impl Begun {
    fn new() -> Self {
        Self {
            operations: Vec::new(),
            letters: 0,
            skipped: [
                ("no_delivery", "without a delivery to bring", 0),
                ("no_longer_kept", "that the lane no longer keeps", 0),
                ("endpoint_deleted", "of endpoints that are deleted", 0),
                ("endpoint_disabled", "of endpoints that are disabled", 0),
            ],
        }
    }

    fn add(&mut self, page: &Value) {
        let begun = page["operations"].as_array().into_iter().flatten();
        self.operations.extend(begun.cloned());
        self.letters += page["letters"].as_u64().unwrap_or(0);
        for (why, _, count) in &mut self.skipped {
            *count += page["skipped"][*why].as_u64().unwrap_or(0);
        }
    }

    fn json(&self, dry_run: bool) -> Value {
        let skipped = self
            .skipped
            .iter()
            .map(|(why, _, n)| ((*why).to_owned(), json!(n)));
        json!({
            "dry_run": dry_run,
            "operations": self.operations,
            "letters": self.letters,
            "skipped": skipped.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn words(&self, dry_run: bool) -> String {
        let mut words = if dry_run {
            format!("{} would be redriven", self.letters)
        } else {
            let by = match self.operations.len() {
                1 => "1 operation".to_owned(),
                count => format!("{count} operations"),
            };
            format!("{} come again by {by}", self.letters)
        };
        for (_, what, count) in self.skipped.iter().filter(|(.., count)| *count > 0) {
            words.push_str(&format!("; {count} {what} left"));
        }
        words
    }
}

async fn redrive(options: Redrive) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.server).await?;
    let filter: serde_json::Map<_, _> = options
        .filter
        .pairs()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let mut body = json!({
        "filter": filter,
        "all": options.all,
        "dry_run": options.dry_run,
    });
    if let Some(rate) = options.rate {
        body["rate_per_second"] = json!(rate);
    }
    let mut begun = Begun::new();
    loop {
        let path = format!("{PATH}/redrive");
        let asked = client.call(Method::POST, &path, &[], body.to_string().into());
        let page = asked.await.with_context(|| match begun.operations.len() {
            0 => "nothing was begun, or not known to be".to_owned(),
            count => format!("{count} operations were begun, for other endpoints none"),
        })?;
        begun.add(&page);
        if page["next_cursor"].is_null() {
            break;
        }
        body["cursor"] = page["next_cursor"].clone();
    }
    let idle = begun.operations.is_empty() || options.no_follow;
    match options.json {
        false => out::line(begun.words(options.dry_run))?,
        true if idle => out::line(format_args!("{:#}", begun.json(options.dry_run)))?,
        // Where they are followed, they are shown at their end.
        true => {}
    }
    if idle {
        return Ok(());
    }
    let ids: Vec<_> = begun
        .operations
        .iter()
        .map(|one| text(&one["id"]))
        .collect();
    let base = operations::base(None);
    let ends = follow::to_their_end(&mut client, &base, &ids, options.json).await?;
    ends.told(options.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!(rate("50/s"), Ok(50));
        assert_eq!(rate("7"), Ok(7));
        for bad in ["0/s", "50/m", "fast", "", "-1/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_begun_is_told_whole() {
        let page = json!({
            "operations": [{"id": "op_1"}], "letters": 2,
            "skipped": {"no_delivery": 1, "no_longer_kept": 0, "endpoint_deleted": 0, "endpoint_disabled": 3},
        });
        let mut begun = Begun::new();
        begun.add(&page);
        begun.add(&page);
        assert_eq!(
            begun.words(false),
            "4 come again by 2 operations; 2 without a delivery to bring left; 6 of endpoints that \
             are disabled left"
        );
        assert_eq!(Begun::new().words(true), "0 would be redriven");
        assert_eq!(begun.json(false)["skipped"]["endpoint_disabled"], 6);
    }

    #[test]
    fn a_letter_for_many_is_shown_by_how_many_they_are() {
        let letter = json!({
            "at": "2026-01-31T08:00:00Z", "cause": "expired", "delivery": null,
            "range": {"count": 40, "kept": 40, "endpoint": "ep_1"},
        });
        let row = row(&letter).join(" ");
        assert_eq!(
            row,
            "2026-01-31T08:00:00Z ep_1 40 that were held - expired - -"
        );
    }

    #[test]
    fn what_never_became_an_event_is_shown_by_its_place() {
        let letter = json!({
            "at": "2026-01-31T08:00:00Z", "cause": "poison", "delivery": null,
            "origin": {"topic": "events", "partition": 3, "offset": 17},
        });
        let row = row(&letter).join(" ");
        assert_eq!(row, "2026-01-31T08:00:00Z - events/3@17 - poison - -");
    }
}
