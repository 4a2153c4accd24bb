//! A receiver whose certificate nobody vouches for: the attempt fails with its
//! cause, and the delivery stays owed until it can be made.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use posthaste::clock::Clock;
use posthaste::config::Config;
use posthaste::log::Log;
use posthaste::log::embedded::EmbeddedLog;
use posthaste_proto::{Attempt, AttemptBatch, Record as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

use super::program::{Server, embedded, eventually, file};
use crate::contract::place;
use crate::receiver::read_request;

/// Vouches for whom it is asked to.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of this machine, and its key.
    pub(crate) fn leaf(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1", "localhost"].map(ToOwned::to_owned);
        let params = CertificateParams::new(names.to_vec()).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            );
        Arc::new(config.unwrap())
    }
}

/// The ids of the requests that came through TLS; each is answered 200.
type Taken = Arc<Mutex<Vec<String>>>;

fn receiver(config: Arc<ServerConfig>) -> (SocketAddr, Taken) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let taken = Taken::default();
    let seen = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = StreamOwned::new(session, stream);
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || answer(stream, &seen));
        }
    });
    (at, taken)
}

/// Ends when the session or its peer does.
fn answer(stream: impl Read + Write, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let id = read_request(&mut stream)?;
        seen.lock().unwrap().push(id);
        let out = stream.get_mut();
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
        out.flush().ok()?;
    }
}

/// The attempts on record.
async fn attempts(dir: &std::path::Path) -> Vec<Attempt> {
    let clock = Clock::start();
    let log = EmbeddedLog::open(dir, Arc::new(move || clock.now())).unwrap();
    let topics = Config::default().topics;
    let mut attempts = Vec::new();
    for partition in 0..topics.lane_partitions {
        let tp = place(&topics.attempts(), partition);
        let (records, _) = log.read(&tp, 0, 1 << 20).await.unwrap();
        for record in records {
            attempts.extend(AttemptBatch::from_value(&record.value).unwrap().attempts);
        }
    }
    attempts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_nobody_vouches_for_fails_attempts_and_loses_nothing() {
    let (theirs, strange) = (Authority::new(), Authority::new());
    let (at, taken) = receiver(theirs.server());
    let dir = tempfile::tempdir().unwrap();
    let config = |authority: &tempfile::NamedTempFile| {
        format!(
            "{}[egress]\nallow_private_names = true\nallow = [\"127.0.0.1/32\"]\nca_file = {:?}\n",
            embedded(dir.path()),
            authority.path()
        )
    };
    let owed = |server: &Server| server.api.metric("posthaste_owner_owed_deliveries");

    let other = file(&strange.pem());
    let server = Server::start(&config(&other));
    server.api.endpoint("acme", &format!("https://{at}/hooks"));
    let headers = "webhook-type: order.made\r\nwebhook-id: evt-1\r\n";
    let accepted = server.api.post("/v1/tenants/acme/events", headers, b"{}");
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    eventually("the lane owes it", || owed(&server) == Some(1.0));
    server.stop();
    assert!(
        taken.lock().unwrap().is_empty(),
        "nothing was sent to a stranger"
    );
    let failed = attempts(dir.path()).await;
    let first = failed.first().expect("the attempt is on record");
    assert_eq!(
        (&*first.event_id, first.number, first.status, &*first.cause),
        ("evt-1", 1, 0, "tls_error")
    );

    let right = file(&theirs.pem());
    let server = Server::start(&config(&right));
    eventually("it is delivered after all", || {
        !taken.lock().unwrap().is_empty()
    });
    eventually("nothing is owed", || owed(&server) == Some(0.0));
    server.stop();
    assert_eq!(*taken.lock().unwrap(), ["evt-1"]);
}
