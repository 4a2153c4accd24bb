//! How an endpoint's deliveries are signed, as the API says it, and the secrets
//! that callers bring or get.

use posthaste_core::endpoint::{Endpoint, Secret};
use posthaste_core::signature::{Algorithm, Scheme};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::problem::Problem;

/// The choice of a new endpoint.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Signing {
    #[serde(with = "SchemeName")]
    #[schema(value_type = SchemeName, default = "standard_webhooks")]
    pub(super) scheme: Scheme,
    /// Of the secret made here; a secret that is brought says it itself.
    pub(super) algorithm: AlgorithmName,
}

/// The choice of an endpoint that is there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChosenSigning)]
pub(super) struct Chosen {
    #[serde(with = "SchemeName")]
    #[schema(value_type = SchemeName)]
    scheme: Scheme,
    algorithm: AlgorithmName,
}

/// What the receiver's code expects.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(as = Scheme)]
#[serde(remote = "Scheme", rename_all = "snake_case")]
enum SchemeName {
    StandardWebhooks,
    Stripe,
    Github,
    Slack,
}

/// What a secret is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = Algorithm)]
#[serde(rename_all = "snake_case")]
pub(super) enum AlgorithmName {
    #[default]
    HmacSha256,
    Ed25519,
}

/// A secret the caller brings. It has no Debug that shows it.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Imported(String);

impl std::fmt::Debug for Imported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Imported(..)")
    }
}

impl Signing {
    /// Whether it says how the endpoint's deliveries are signed now.
    pub(super) fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.scheme == endpoint.scheme && self.algorithm == AlgorithmName::of(endpoint)
    }
}

impl From<&Endpoint> for Signing {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            scheme: endpoint.scheme,
            algorithm: AlgorithmName::of(endpoint),
        }
    }
}

impl From<&Endpoint> for Chosen {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            scheme: endpoint.scheme,
            algorithm: AlgorithmName::of(endpoint),
        }
    }
}

impl AlgorithmName {
    /// Of the newest secret.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        match endpoint.secrets.first().is_some_and(Secret::is_key_pair) {
            true => Self::Ed25519,
            false => Self::HmacSha256,
        }
    }
}

/// The text of a new secret: the caller's, which must be of the scheme's form,
/// or one made here. `param` is where the algorithm was asked for.
pub(super) fn secret_text(
    param: &'static str,
    scheme: Scheme,
    algorithm: AlgorithmName,
    imported: Option<Imported>,
) -> Result<Zeroizing<String>, Problem> {
    if let Some(Imported(text)) = imported {
        let text = Zeroizing::new(text);
        let checked = scheme.check_secret(&text);
        checked.map_err(|error| Problem::invalid("secret", error.to_string()))?;
        return Ok(text);
    }
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(random.as_mut_slice())
        .map_err(|error| Problem::unavailable(format!("no randomness: {error}")))?;
    let algorithm = match algorithm {
        AlgorithmName::HmacSha256 => Algorithm::HmacSha256,
        AlgorithmName::Ed25519 => Algorithm::Ed25519,
    };
    let made = scheme.generate_secret(algorithm, *random);
    made.map(|secret| Zeroizing::new(secret.expose().to_owned()))
        .ok_or_else(|| {
            let problem = format!("`{scheme}` signs with `hmac_sha256` alone");
            Problem::invalid(param, problem)
        })
}
