//! The demo's three endpoints: made in the endpoints table as the API makes
//! them, or pointed at this run's receiver.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::EndpointId;
use posthaste_core::rng::Rng;
use posthaste_core::signature::{Verifier, VerifyingKey, generate_secret};
use posthaste_proto as proto;

use crate::app::Opened;
use crate::clock::random_seed;

/// Whose events the samples are.
pub(super) const TENANT: &str = "demo";
/// Its endpoints: uid, and the event types it wants (none for all).
const ENDPOINTS: [(&str, &[&str]); 3] = [
    ("orders", &["order.*"]),
    ("invoices", &["invoice.*"]),
    (FLAKY, &[]),
];
/// The one whose receiver fails on purpose.
pub(super) const FLAKY: &str = "flaky";

/// One endpoint, and how its receiver verifies what it gets.
pub(super) struct Demo {
    pub(super) endpoint: Endpoint,
    pub(super) verifier: Verifier,
}

/// Makes the endpoints that do not exist, and points all of them at `receiver`.
pub(super) async fn ensure(opened: &Opened, receiver: SocketAddr) -> anyhow::Result<Vec<Demo>> {
    let mut demos = Vec::with_capacity(ENDPOINTS.len());
    let registry = Arc::clone(&opened.endpoints.registry().borrow());
    for (uid, types) in ENDPOINTS {
        let url = format!("http://{receiver}/{uid}");
        let known = registry.of_tenant(TENANT).find(|known| known.uid == uid);
        let endpoint = match known {
            Some(known) => Endpoint {
                url,
                disabled: false,
                ..Endpoint::clone(known)
            },
            None => made(opened, uid, types, url)?,
        };
        let by = opened.by_system();
        let endpoint = opened.endpoints.put(&endpoint, &by).await?;
        let keys = endpoint.secrets.iter();
        let keys: Result<Vec<_>, _> = keys
            .map(|secret| VerifyingKey::parse(&secret.text))
            .collect();
        let verifier = Verifier::new(keys.with_context(|| format!("endpoint {uid}"))?);
        demos.push(Demo { endpoint, verifier });
    }
    Ok(demos)
}

fn made(opened: &Opened, uid: &str, types: &[&str], url: String) -> anyhow::Result<Endpoint> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("no randomness")?;
    let now = opened.clock.now();
    let id = EndpointId::generate(now, &mut Rng::new(random_seed()));
    Ok(Endpoint::from_proto(proto::Endpoint {
        id: id.as_bytes().to_vec().into(),
        uid: uid.to_owned(),
        tenant: TENANT.to_owned(),
        url,
        event_types: types.iter().map(ToString::to_string).collect(),
        secrets: vec![proto::Secret {
            id: "s1".to_owned(),
            text: generate_secret(random).expose().to_owned(),
            not_before_ms: 0,
            expires_at_ms: 0,
        }],
        created_at_ms: now.as_millis(),
        description: "made by `posthaste dev`".to_owned(),
        ..proto::Endpoint::default()
    })?)
}
