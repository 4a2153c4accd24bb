//! `posthaste dev`.
#[derive(Debug, clap::Args)]
pub struct Options {}
pub async fn run(_options: Options) -> anyhow::Result<()> { Ok(()) }
