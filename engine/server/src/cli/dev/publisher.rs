//! Publishes sample events by HTTP, as anybody would: an event counts once the
//! API has answered 202, which says that it is durable.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use posthaste_core::id::generate_event_id;
use posthaste_core::rng::Rng;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::board::Shared;
use super::demo::TENANT;
use super::samples::{Sample, sample};
use crate::cli::client::{Client, Server};
use crate::clock::{Clock, random_seed};

/// Pause before an event that was not taken is published again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Where to, how fast and how many.
pub(super) struct Publisher {
    pub(super) api: SocketAddr,
    /// Events a second, not 0.
    pub(super) rate: u32,
    /// Ends after so many.
    pub(super) limit: Option<u64>,
    pub(super) board: Shared,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

impl Publisher {
    /// Publishes until the limit is reached or it is told to stop.
    pub(super) async fn run(self) {
        let mut rng = Rng::new(random_seed());
        let mut client = None;
        let mut tick = interval(Duration::from_secs(1) / self.rate);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let id = generate_event_id(self.clock.now(), &mut rng);
            let sample = sample(&mut rng);
            // Whoever is owed that much is not helped by more.
            if self.board.lock().expect(&id, sample.event_type) {
                self.publish(&mut client, &id, &sample).await;
                left -= 1;
            }
        }
    }

    /// One event, under one id until the answer is known.
    async fn publish(&self, client: &mut Option<Client>, id: &str, sample: &Sample) {
        let body = Bytes::from(sample.body.to_string());
        loop {
            let posted = tokio::select! {
                biased;
                posted = self.post(client, id, sample.event_type, body.clone()) => posted,
                () = self.stop.cancelled() => break,
            };
            match posted {
                Ok(()) => return self.board.lock().accepted(id),
                Err(error) => tracing::warn!(id, "a sample event was not taken: {error:#}"),
            }
            *client = None;
            tokio::select! {
                () = sleep(AGAIN_AFTER) => {}
                () = self.stop.cancelled() => break,
            }
        }
        self.board.lock().withdraw(id);
    }

    async fn post(
        &self,
        client: &mut Option<Client>,
        id: &str,
        event_type: &str,
        body: Bytes,
    ) -> anyhow::Result<()> {
        let client = match client {
            Some(client) => client,
            none => none.insert(Client::connect(&Server::at(self.api)).await?),
        };
        let path = format!("/v1/tenants/{TENANT}/events");
        let headers = [
            ("webhook-id", id),
            ("webhook-type", event_type),
            ("content-type", "application/json"),
        ];
        client.call(Method::POST, &path, &headers, body).await?;
        Ok(())
    }
}
