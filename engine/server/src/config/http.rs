//! The API's listener: `[http]`.

use std::path::PathBuf;

use serde::Deserialize;

/// The API's listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port.
    #[serde(deserialize_with = "address")]
    pub listen: std::net::SocketAddr,
    /// Names it goes by besides addresses and `localhost`, where everybody is
    /// let in.
    pub hosts: Vec<String>,
    /// Over TLS alone.
    pub tls: Option<TlsConfig>,
}

/// Who the API is over TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Its certificate, and those that vouch for it: PEM.
    pub cert: PathBuf,
    /// The certificate's private key: PEM.
    pub key: PathBuf,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 8400)),
            hosts: Vec::new(),
            tls: None,
        }
    }
}

fn address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<std::net::SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let wanted = || format!("`{text}`: expected an address and a port, such as \"127.0.0.1:8400\"");
    text.parse().map_err(|_| serde::de::Error::custom(wanted()))
}
