//! `posthaste sources`.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::client::{Client, Server};
use super::dead::at_least_one;
use super::endpoints::encode;
use super::pages::cell;
use super::{out, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Where events come from, and how far that is read.
    #[command(after_help = "\
Examples:
  posthaste sources list
  posthaste sources list --json | jq '.data[] | {topic, lag}'

All records before the one committed are settled: delivered, or safe in the log elsewhere.")]
    List {
        #[command(flatten)]
        shared: Shared,
    },
    /// The last records of a source, and what they are taken for.
    #[command(after_help = "\
Examples:
  posthaste sources preview events
  posthaste sources preview events --limit 50 --json | jq '.data[] | select(.dead)'

Each with its event and how many endpoints want it now, or with what its dead letter says.")]
    Preview {
        /// The topic.
        topic: String,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
        limit: usize,
        #[command(flatten)]
        shared: Shared,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Shared {
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    let (path, shared, told): (_, _, fn(&Value) -> String) = match command {
        Command::List { shared } => ("/v1/sources".to_owned(), shared, partitions),
        Command::Preview {
            topic,
            limit,
            shared,
        } => {
            let path = format!("/v1/sources/{}/preview?limit={limit}", encode(&topic));
            (path, shared, records)
        }
    };
    let mut client = Client::connect(&shared.server).await?;
    let found = client.call(Method::GET, &path, &[], Bytes::new()).await?;
    match shared.json {
        true => out::line(format_args!("{found:#}"))?,
        false => out::write(&told(&found))?,
    }
    Ok(())
}

fn data(found: &Value) -> &[Value] {
    found["data"].as_array().map_or(&[], Vec::as_slice)
}

fn partitions(found: &Value) -> String {
    let head = [
        "place",
        "start",
        "end",
        "committed",
        "lag",
        "oldest unsettled",
    ];
    let rows = data(found).iter().flat_map(|source| {
        let parts = source["partitions"].as_array().into_iter().flatten();
        parts.map(|part| {
            let of = |name: &str| cell(&part[name]);
            vec![
                format!("{}/{}", cell(&source["topic"]), part["partition"]),
                of("start"),
                of("end"),
                of("committed"),
                of("lag"),
                of("oldest_unsettled"),
            ]
        })
    });
    table::render(&head, rows)
}

fn records(found: &Value) -> String {
    let head = ["when", "place", "tenant", "event", "type", "wanted by"];
    let row = |record: &Value| {
        let of = |name: &str| cell(&record["event"][name]);
        let wanted = match record["event"]["endpoints"].as_array() {
            Some(endpoints) => endpoints.len().to_string(),
            None => format!(
                "{}: {}",
                cell(&record["dead"]["cause"]),
                cell(&record["dead"]["detail"])
            ),
        };
        vec![
            cell(&record["at"]),
            format!("{}@{}", record["partition"], record["offset"]),
            of("tenant"),
            of("id"),
            of("type"),
            wanted,
        ]
    };
    table::render(&head, data(found).iter().map(row))
}
