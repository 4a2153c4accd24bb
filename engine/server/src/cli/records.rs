//! What the API keeps under names that people give: tenants, event types, retry
//! policies. They are listed, shown, put and deleted alike.

use std::path::Path;

use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::endpoints::encode;
use super::filters::json_or_file;
use super::{WrongUse, out, table};

/// Where the server is, and how it is shown.
#[derive(Debug, Args)]
pub(crate) struct At {
    #[command(flatten)]
    pub(super) server: Server,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// A kind of record.
pub(super) struct Records {
    /// Where they are.
    pub(super) path: &'static str,
    pub(super) head: &'static [&'static str],
    /// One, under the head.
    pub(super) row: fn(&Value) -> Vec<String>,
}

/// A request's body out of a file, as it is written there.
pub(super) fn body_of(file: &Path) -> anyhow::Result<Bytes> {
    let name = file
        .to_str()
        .ok_or_else(|| WrongUse("--file: expected a name in UTF-8".to_owned()))?;
    let json = json_or_file("--file", name)?;
    Ok(Bytes::from(json.get().to_owned()))
}

impl Records {
    pub(super) async fn list(&self, at: &At) -> anyhow::Result<()> {
        let found = Client::connect(&at.server).await?.all(self.path).await?;
        if at.json {
            return Ok(out::line(format_args!("{found:#}"))?);
        }
        let rows = found["data"].as_array().into_iter().flatten();
        Ok(out::write(&table::render(self.head, rows.map(self.row)))?)
    }

    /// Prints one; answers it where there is more to be said of it to people.
    pub(super) async fn show(&self, name: &str, at: &At) -> anyhow::Result<Option<Value>> {
        let found = self.ask(Method::GET, name, "", Bytes::new(), at).await?;
        self.print(&found, at)?;
        Ok((!at.json).then_some(found))
    }

    pub(super) async fn put(&self, name: &str, body: Bytes, at: &At) -> anyhow::Result<()> {
        let stands = self.ask(Method::PUT, name, "", body, at).await?;
        self.print(&stands, at)
    }

    pub(super) async fn delete(&self, name: &str, query: &str, at: &At) -> anyhow::Result<()> {
        let nothing = Bytes::new();
        self.ask(Method::DELETE, name, query, nothing, at).await?;
        if at.json {
            out::line(json!({"deleted": name}))?;
        } else {
            out::line(format_args!("deleted {}", table::plain(name)))?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        method: Method,
        name: &str,
        query: &str,
        body: Bytes,
        at: &At,
    ) -> anyhow::Result<Value> {
        let path = format!("{}/{}{query}", self.path, encode(name));
        let mut client = Client::connect(&at.server).await?;
        client.call(method, &path, &[], body).await
    }

    fn print(&self, one: &Value, at: &At) -> anyhow::Result<()> {
        if at.json {
            return Ok(out::line(format_args!("{one:#}"))?);
        }
        Ok(out::write(&table::render(self.head, [(self.row)(one)]))?)
    }
}
