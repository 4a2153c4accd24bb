//! The demo's three endpoints: made in the endpoints table as the API makes
//! them, or pointed at this run's receiver.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use posthaste_core::endpoint::{Endpoint, Held, Secret};
use posthaste_core::id::{EndpointId, generate_secret_id};
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
        let keys = keys.map(|secret| {
            let text = opened.vault.open(endpoint.id, &secret.id, &secret.held)?;
            anyhow::Ok(VerifyingKey::parse(&text)?)
        });
        let keys: anyhow::Result<Vec<_>> = keys.collect();
        let verifier = Verifier::new(keys.with_context(|| format!("endpoint {uid}"))?);
        demos.push(Demo { endpoint, verifier });
    }
    Ok(demos)
}

fn made(opened: &Opened, uid: &str, types: &[&str], url: String) -> anyhow::Result<Endpoint> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("no randomness")?;
    let now = opened.clock.now();
    let mut rng = Rng::new(random_seed());
    let id = EndpointId::generate(now, &mut rng);
    let secret_id = generate_secret_id(now, &mut rng);
    let text = generate_secret(random);
    let held = Held::Sealed(opened.vault.seal(id, &secret_id, text.expose())?);
    let secret = Secret::new(secret_id, text.expose(), held, now);
    Ok(Endpoint::from_proto(proto::Endpoint {
        id: id.as_bytes().to_vec().into(),
        uid: uid.to_owned(),
        tenant: TENANT.to_owned(),
        url,
        event_types: types.iter().map(ToString::to_string).collect(),
        secrets: vec![secret.to_proto()],
        created_at_ms: now.as_millis(),
        description: "made by `posthaste dev`".to_owned(),
        ..proto::Endpoint::default()
    })?)
}
