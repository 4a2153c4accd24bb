//! What all attempts of a process share: the rules for URLs, the wall, the
//! names, the trust in certificate authorities, and the keys to endpoints'
//! secrets.
//!
//! Environment variables that name a proxy are ignored: a proxy would connect
//! where the wall does not stand.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use posthaste_core::endpoint::Held;
use posthaste_core::id::EndpointId;
use posthaste_core::target::{Host, Target, UrlPolicy};
use posthaste_core::wall::{CidrError, Wall};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};
use zeroize::Zeroizing;

use super::dial::Names;
use crate::config::EgressConfig;
use crate::vault::{OpenError, Vault};

/// Where deliveries may go, as the operator set it.
#[derive(Debug, Clone, Default)]
pub struct EgressSettings {
    /// Take `http://` URLs.
    pub allow_http: bool,
    /// Take names and ports that are not on the public internet.
    pub allow_private_names: bool,
    /// Blocks of addresses let through, `10.0.0.0/8` or `10.1.2.3/32:8080`.
    pub allow: Vec<String>,
    /// Blocks of addresses refused although they are public.
    pub deny: Vec<String>,
    /// A PEM file of certificate authorities trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// The way out of one process.
pub struct Egress {
    policy: UrlPolicy,
    wall: Wall,
    names: Names,
    tls: Arc<ClientConfig>,
    tls_http2: Arc<ClientConfig>,
    vault: Option<Arc<Vault>>,
}

/// Settings that cannot be used. Every text begins with the configuration's key.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// An entry of a list of addresses.
    #[error("{key}: {error}")]
    Addresses {
        /// Which list.
        key: &'static str,
        /// What is wrong and what would be right.
        error: CidrError,
    },
    /// The file of certificate authorities cannot be read.
    #[error("egress.ca_file: cannot read {path}: {error}: expected a readable file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file of certificate authorities is not one.
    #[error("egress.ca_file: {path} {problem}: expected certificates in PEM form")]
    NoCertificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No certificate authority is known at all.
    #[error(
        "egress.ca_file: no certificate authority is known: expected a file here, or the \
         system's to be installed (`ca-certificates`)"
    )]
    NoAuthorities,
    /// The TLS library refuses what it is given.
    #[error("egress: TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl From<&EgressConfig> for EgressSettings {
    fn from(config: &EgressConfig) -> Self {
        Self {
            allow_http: config.allow_http,
            allow_private_names: config.allow_private_names,
            allow: config.allow.clone(),
            deny: config.deny.clone(),
            ca_file: config.ca_file.clone(),
        }
    }
}

impl Egress {
    /// The way out under these settings. Reads the certificate authorities.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn new(settings: EgressSettings) -> Result<Self, EgressError> {
        let wall = Wall::new(
            parse_all("egress.allow", &settings.allow)?,
            parse_all("egress.deny", &settings.deny)?,
        );
        if !settings.allow.is_empty() {
            tracing::info!(allow = ?settings.allow, "the wall has openings");
        }
        let tls = client_config(authorities(&settings)?)?;
        let mut tls_http2 = tls.clone();
        tls_http2.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Self {
            policy: UrlPolicy {
                allow_http: settings.allow_http,
                allow_private_names: settings.allow_private_names,
            },
            wall,
            names: Names::new(settings.allow_private_names),
            tls: Arc::new(tls),
            tls_http2: Arc::new(tls_http2),
            vault: None,
        })
    }

    /// The same way out, with these keys. Without any it opens no sealed secret.
    #[must_use]
    pub fn with_vault(self, vault: Arc<Vault>) -> Self {
        Self {
            vault: Some(vault),
            ..self
        }
    }

    /// A secret's text to sign with, or a header's value to send.
    pub(super) fn open(
        &self,
        endpoint: EndpointId,
        id: &str,
        held: &Held,
    ) -> Result<Zeroizing<String>, OpenError> {
        match (&self.vault, held) {
            (Some(vault), _) => vault.open(endpoint, id, held),
            (None, Held::Clear(text)) => Ok(text.clone()),
            (None, Held::Sealed(sealed)) => Err(OpenError::UnknownKey {
                key_id: sealed.key_id.clone(),
            }),
        }
    }

    /// Judges a URL by its text: the rules for URLs, and the wall where the host
    /// is an address. A name is judged at each connection.
    ///
    /// # Errors
    /// What is wrong and what would be right, for the customer.
    pub fn check_url(&self, url: &str) -> Result<(), String> {
        let target = Target::parse(url, &self.policy).map_err(|error| error.to_string())?;
        let address = match target.host() {
            Host::Name(_) => return Ok(()),
            Host::V4(address) => (*address).into(),
            Host::V6(address) => (*address).into(),
        };
        let judged = self.wall.judge(SocketAddr::new(address, target.port()));
        judged.map_err(|refused| refused.to_string())
    }

    pub(super) fn policy(&self) -> &UrlPolicy {
        &self.policy
    }

    pub(super) fn wall(&self) -> &Wall {
        &self.wall
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// One configuration for all connections. The two differ in what they offer
    /// by ALPN and share the parsed authorities and the sessions to resume.
    pub(super) fn tls(&self, http2: bool) -> Arc<ClientConfig> {
        Arc::clone(if http2 { &self.tls_http2 } else { &self.tls })
    }
}

fn parse_all<T>(key: &'static str, texts: &[String]) -> Result<Vec<T>, EgressError>
where
    T: std::str::FromStr<Err = CidrError>,
{
    let parsed = texts.iter().map(|text| text.parse());
    let parsed: Result<_, CidrError> = parsed.collect();
    parsed.map_err(|error| EgressError::Addresses { key, error })
}

/// TLS 1.2 and 1.3, HTTP/1.1 by ALPN.
fn client_config(authorities: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The system's and the operator's. The TLS connector brings a loader of the
/// system's alone, which would take no others besides and not do without any.
fn authorities(settings: &EgressSettings) -> Result<RootCertStore, EgressError> {
    let mut known = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a certificate authority of the system is not usable");
    }
    known.add_parsable_certificates(system.certs);
    if let Some(path) = &settings.ca_file {
        read_authorities(path, &mut known)?;
    }
    if known.is_empty() {
        // Whoever sends in the clear may need none.
        if !settings.allow_http {
            return Err(EgressError::NoAuthorities);
        }
        tracing::warn!("no certificate authority is known: no `https` endpoint can be reached");
    }
    Ok(known)
}

fn read_authorities(path: &Path, known: &mut RootCertStore) -> Result<(), EgressError> {
    let refused = |problem: String| EgressError::NoCertificates {
        path: path.to_owned(),
        problem,
    };
    let text = std::fs::read(path).map_err(|error| EgressError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| refused(format!("is malformed ({error})")))?;
    if certificates.is_empty() {
        return Err(refused("holds no certificate".to_owned()));
    }
    for certificate in certificates {
        known
            .add(certificate)
            .map_err(|error| refused(format!("holds a bad certificate ({error})")))?;
    }
    Ok(())
}
