//! TLS to a server: whom to trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why there can be no session, before the server is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The file of authorities cannot be used.
    #[error("--ca-file: {} {problem}: expected certificates in PEM form", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The server's name is none that a certificate could have.
    #[error("--server: {0}: expected a host's name or address")]
    Name(#[from] InvalidDnsNameError),
    /// The TLS library refuses what it is given.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// What a session takes: whom to trust, and whom to expect.
pub(super) struct Session {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Session {
    /// With a server of that name, whom the system's authorities vouch for, or
    /// those of a file. `SSL_CERT_FILE` replaces the system's.
    pub(super) fn prepare(host: &str, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let mut known = RootCertStore::empty();
        known.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            add_file(path, &mut known).map_err(|problem| TlsError::CaFile {
                path: path.to_owned(),
                problem,
            })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(known)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { connector, name })
    }

    pub(super) async fn begin(self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name, stream).await
    }
}

fn add_file(path: &Path, known: &mut RootCertStore) -> Result<(), String> {
    let text = std::fs::read(path).map_err(|error| format!("cannot be read ({error})"))?;
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| format!("is malformed ({error})"))?;
        let added = known.add(certificate);
        added.map_err(|error| format!("holds a bad certificate ({error})"))?;
        found = true;
    }
    match found {
        true => Ok(()),
        false => Err("holds no certificate".to_owned()),
    }
}
