//! Who the API is over TLS: a certificate and its key, read from files, and
//! read again when they change.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use posthaste_core::limits::listen::TLS_FILE_BYTES_MAX;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::{ConfigError, TlsConfig};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const CERT: &str = "http.tls.cert";
const KEY: &str = "http.tls.key";

/// A certificate and its key, as their files have them now.
pub struct Identity {
    files: TlsConfig,
    shown: watch::Sender<Shown>,
    acceptor: TlsAcceptor,
}

/// What clients are shown, and of which bytes it was made.
struct Shown {
    certified: Arc<CertifiedKey>,
    digest: blake3::Hash,
}

/// Gives each new session what is shown then.
struct Resolver(watch::Receiver<Shown>);

/// The two files as they are.
struct Files {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Identity {
    /// Reads the files, and prepares sessions of TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// The file that cannot be used, by its key in the configuration.
    pub fn read(config: &TlsConfig) -> Result<Arc<Self>, ConfigError> {
        let files = Files::read(config)?;
        let (shown, seen) = watch::channel(Shown {
            certified: files.certified(config)?,
            digest: files.digest(),
        });
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(CERT, error.to_string()))?;
        let mut server = versions
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(seen)));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(Self {
            files: config.clone(),
            shown,
            acceptor: TlsAcceptor::from(Arc::new(server)),
        }))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Reads the files again when they have changed, and on SIGHUP. Files that
    /// cannot be used change nothing: sessions go on with what was read before.
    pub(super) async fn follow(self: Arc<Self>, until: CancellationToken) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!("SIGHUP cannot be heard: a restart reads certificates again");
            return;
        };
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.shown.borrow().digest;
        let mut said = String::new();
        loop {
            let told = tokio::select! {
                () = until.cancelled() => return,
                _ = look.tick() => false,
                _ = hangup.recv() => true,
            };
            let this = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || Files::read(&this.files));
            match read.await {
                Ok(Ok(files)) if files.digest() == seen && !told => {}
                Ok(Ok(files)) => {
                    seen = files.digest();
                    self.show(&files);
                }
                Ok(Err(error)) => {
                    let error = error.to_string();
                    // Once, not each time it is looked at.
                    if told || error != said {
                        tracing::error!(error, "the certificate stays as it was");
                        said = error;
                    }
                }
                // Told to stop.
                Err(_) => return,
            }
        }
    }

    fn show(&self, files: &Files) {
        match files.certified(&self.files) {
            Ok(certified) => {
                let digest = files.digest();
                self.shown.send_replace(Shown { certified, digest });
                tracing::info!(cert = %self.files.cert.display(), "certificate read again");
            }
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }
}

impl Files {
    fn read(config: &TlsConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            cert: read(CERT, &config.cert)?,
            key: read(KEY, &config.key)?.into(),
        })
    }

    fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(blake3::hash(&self.cert).as_bytes());
        hasher.update(blake3::hash(&self.key).as_bytes());
        hasher.finalize()
    }

    /// The certificate with its key, if the two are for each other.
    fn certified(&self, config: &TlsConfig) -> Result<Arc<CertifiedKey>, ConfigError> {
        let (cert, key) = (config.cert.display(), config.key.display());
        let wanted = "expected certificates in PEM form, the server's own first";
        let bad = |problem: String| invalid(CERT, format!("{cert} {problem}: {wanted}"));
        let chain: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| bad(format!("is malformed ({error})")))?;
        if chain.is_empty() {
            return Err(bad("holds no certificate".to_owned()));
        }
        let wanted = "expected one that is not encrypted, in PEM form (PKCS#8, PKCS#1 or SEC1)";
        let no_key = |problem: String| invalid(KEY, format!("{key} {problem}: {wanted}"));
        // What it says of a bad key could show some of it.
        let private = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| no_key("holds no private key".to_owned()))?;
        let provider = ring::default_provider();
        // Refused here it is the key's fault, later the certificate's.
        provider
            .key_provider
            .load_private_key(private.clone_key())
            .map_err(|error| no_key(format!("cannot be used ({error})")))?;
        match CertifiedKey::from_der(chain, private, &provider) {
            Ok(certified) => Ok(Arc::new(certified)),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let problem = format!("{key} is not the key of {cert}: expected that one's");
                Err(invalid(KEY, problem))
            }
            Err(error) => Err(bad(format!("cannot be used ({error})"))),
        }
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        invalid(
            key,
            format!("cannot read {shown}: {error}: expected a PEM file"),
        )
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > TLS_FILE_BYTES_MAX {
        let problem = format!("{shown} has {size} bytes: expected up to {TLS_FILE_BYTES_MAX}");
        return Err(invalid(key, problem));
    }
    std::fs::read(path).map_err(unreadable)
}

fn invalid(key: &'static str, problem: String) -> ConfigError {
    ConfigError::Invalid { key, problem }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.borrow().certified))
    }
}

/// It holds a key.
impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}
