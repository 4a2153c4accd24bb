//! Registers the workload's endpoints with a running server.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::http::{Client, Server};
use crate::workload::event_type;

/// Endpoints there are distinct loopback addresses for.
const DISTINCT_MAX: u64 = 250 * 256;

/// What to register, and where.
#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The server, as http://host:port.
    #[arg(long, value_name = "URL")]
    server: Server,
    /// The sink; its port is used with an address of its own for each endpoint.
    #[arg(long, value_name = "IP:PORT")]
    sink: SocketAddrV4,
    /// Endpoints to register.
    #[arg(long, value_name = "E", default_value_t = 100)]
    count: u64,
    /// Their tenant.
    #[arg(long, default_value = "load")]
    tenant: String,
    /// One signing secret for all; the server makes one for each without.
    #[arg(long, value_name = "whsec_...")]
    secret: Option<String>,
    /// Attempts in flight to one endpoint.
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
    /// Their retry policy, one of the server's configuration.
    #[arg(long, value_name = "NAME")]
    retry_policy: Option<String>,
    /// Time of one attempt, such as 5s.
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Use the sink's own address for all instead of 127.1.0.1 and following,
    /// which need a sink that listens on 0.0.0.0.
    #[arg(long)]
    one_address: bool,
    /// Delete an endpoint of the same uid first.
    #[arg(long)]
    replace: bool,
}

/// Registers all; answers the summary.
///
/// # Errors
/// The server refused one, or one of its uid exists and is not to be replaced.
pub(crate) fn register(register: &Register) -> anyhow::Result<Value> {
    ensure!(
        register.one_address || register.count <= DISTINCT_MAX,
        "--count: expected at most {DISTINCT_MAX} without --one-address"
    );
    let mut client = Client::new(&register.server);
    let path = format!("/v1/tenants/{}/endpoints", register.tenant);
    let mut replaced: u64 = 0;
    for k in 0..register.count {
        let body = register.endpoint(k).to_string();
        if register.replace {
            let answer = client.ask("DELETE", &format!("{path}/e{k}"), &[], b"")?;
            replaced += u64::from(answer.status == 204);
        }
        let answer = client
            .ask("POST", &path, &[], body.as_bytes())
            .with_context(|| format!("endpoint {k}"))?;
        match answer.status {
            201 => {}
            409 if !register.replace => {
                bail!("endpoint e{k} exists: use --replace ({})", answer.body)
            }
            status => bail!("endpoint e{k} refused, {status}: {}", answer.body),
        }
    }
    Ok(json!({
        "endpoints": register.count,
        "replaced": replaced,
        "first_url": register.url(0),
    }))
}

impl Register {
    fn endpoint(&self, k: u64) -> Value {
        let mut endpoint = json!({
            "url": self.url(k),
            "uid": format!("e{k}"),
            "event_types": [event_type(k)],
        });
        if let Some(secret) = &self.secret {
            endpoint["secret"] = json!(secret);
        }
        if let Some(most) = self.max_in_flight {
            endpoint["max_in_flight"] = json!(most);
        }
        if let Some(policy) = &self.retry_policy {
            endpoint["retry_policy"] = json!(policy);
        }
        if let Some(timeout) = &self.timeout {
            endpoint["timeout"] = json!(timeout);
        }
        endpoint
    }

    /// Many addresses, as many receivers have them: one address has only some
    /// 28,000 ports to connect from.
    fn url(&self, k: u64) -> String {
        let byte = |n: u64| u8::try_from(n).unwrap_or(u8::MAX);
        let address = if self.one_address {
            *self.sink.ip()
        } else {
            Ipv4Addr::new(127, 1, byte(k / 250), byte(1 + k % 250))
        };
        format!("http://{address}:{}/e/{k}", self.sink.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(one_address: bool) -> Register {
        Register {
            server: "http://127.0.0.1:1".parse().unwrap(),
            sink: "127.0.0.1:9000".parse().unwrap(),
            count: 100,
            tenant: "load".to_owned(),
            secret: None,
            max_in_flight: Some(4),
            retry_policy: Some("quick".to_owned()),
            timeout: Some("5s".to_owned()),
            one_address,
            replace: false,
        }
    }

    #[test]
    fn each_endpoint_has_its_own_address_path_and_type() {
        let register = sample(false);
        assert_eq!(register.url(0), "http://127.1.0.1:9000/e/0");
        assert_eq!(register.url(251), "http://127.1.1.2:9000/e/251");
        assert_eq!(
            register.url(DISTINCT_MAX - 1),
            "http://127.1.255.250:9000/e/63999"
        );
        assert_eq!(sample(true).url(251), "http://127.0.0.1:9000/e/251");
        let endpoint = register.endpoint(7);
        assert_eq!(endpoint["event_types"], json!(["load.e7"]));
        assert_eq!(endpoint["max_in_flight"], 4);
        assert_eq!(endpoint["retry_policy"], "quick");
        assert_eq!(endpoint["timeout"], "5s");
        assert_eq!(endpoint.get("secret"), None);
    }
}
