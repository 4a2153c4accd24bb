//! TLS: who is believed, and what a failed session is called.

use std::io::Write as _;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate authority of our own, and the file that says so.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(issuer.pem().as_bytes()).unwrap();
        Self { issuer, file }
    }

    /// A way out that trusts it.
    pub(super) fn egress(&self) -> Egress {
        Egress::new(EgressSettings {
            ca_file: Some(self.file.path().to_owned()),
            ..open_settings()
        })
        .unwrap()
    }

    /// A server's settings with a certificate for `name`.
    pub(super) fn server(&self, name: &str, alpn: &[&str]) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// A receiver that answers over TLS, and what it got.
async fn receiver(config: ServerConfig) -> (Receiver, Rc<RefCell<Vec<Got>>>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let got: Rc<RefCell<Vec<Got>>> = Rc::default();
    let seen = Rc::clone(&got);
    let receiver = Receiver::start(move |stream| {
        let acceptor = acceptor.clone();
        let seen = Rc::clone(&seen);
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            while let Some(request) = Got::read(&mut stream).await {
                seen.borrow_mut().push(request);
                if stream.write_all(OK).await.is_err() {
                    return;
                }
            }
        }
    });
    (receiver.await, got)
}

fn https(receiver: &Receiver, host: &str) -> String {
    format!("https://{host}:{}/", receiver.at.port())
}

#[test]
fn a_certificate_of_a_trusted_authority_is_believed() {
    local(async {
        let authority = Authority::new();
        let egress = authority.egress();
        for host in ["localhost", "127.0.0.1"] {
            // It would rather speak HTTP/2, which is not offered.
            let config = authority.server(host, &["h2", "http/1.1"]);
            let (receiver, got) = receiver(config).await;
            let endpoint = endpoint(&https(&receiver, host), |_| ());
            let prepared = Prepared::new(&endpoint, &egress, NOW).unwrap();
            let mut connection = open(&egress, &prepared).await.unwrap();
            for _ in 0..2 {
                let attempted = send(&mut connection, &prepared).await.unwrap();
                assert_eq!(attempted.outcome.verdict, Verdict::Delivered);
                assert!(connection.reusable(Instant::now()));
            }
            assert_eq!(receiver.connections.get(), 1);
            let got = got.take();
            got[0].verify(SECRET);
            let wanted = format!("{host}:{}", receiver.at.port());
            assert_eq!(got[0].header("host"), Some(&*wanted));
        }
    });
}

#[test]
fn any_other_certificate_is_not() {
    local(async {
        let authority = Authority::new();
        let config = authority.server("localhost", &[]);
        let (receiver_ok, got) = receiver(config).await;
        let url = https(&receiver_ok, "localhost");
        let unknown = open_egress();
        assert_eq!(refusal(&unknown, &url).await, Cause::TlsError);

        let trusting = authority.egress();
        let other_name = https(&receiver_ok, "127.0.0.1");
        assert_eq!(refusal(&trusting, &other_name).await, Cause::TlsError);
        assert!(got.borrow().is_empty());
    });
}

#[test]
fn a_session_that_fails_has_its_cause() {
    local(async {
        let authority = Authority::new();
        let egress = authority.egress();
        let plain = Receiver::start(|mut stream| async move {
            stream.write_all(b"HTTP/1.1 400 No\r\n\r\n").await.unwrap();
            std::future::pending().await
        });
        let url = https(&plain.await, "localhost");
        assert_eq!(refusal(&egress, &url).await, Cause::TlsError);

        let hanging_up = Receiver::start(|stream| async move { drop(stream) }).await;
        let url = https(&hanging_up, "localhost");
        assert_eq!(refusal(&egress, &url).await, Cause::ConnectionReset);

        let silent = Receiver::start(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        });
        let slow = endpoint(&https(&silent.await, "localhost"), |record| {
            record.connect_timeout_ms = 100;
        });
        let prepared = Prepared::new(&slow, &egress, NOW).unwrap();
        let began = Instant::now();
        let failure = open(&egress, &prepared).await.err().unwrap();
        assert_eq!(failure.cause(), Cause::TimeoutConnect);
        assert!(began.elapsed() >= Duration::from_millis(100));
        let early = Connection::open(&egress, &prepared, soon(20)).await;
        assert_eq!(early.err().unwrap().cause(), Cause::TimeoutConnect);
    });
}

#[test]
fn no_socket_under_tls_has_its_cause() {
    local(async {
        let authority = Authority::new();
        let (receiver, _) = receiver(authority.server("localhost", &[])).await;
        let walled = Egress::new(EgressSettings {
            allow: Vec::new(),
            ..open_settings()
        });
        let url = https(&receiver, "localhost");
        assert_eq!(refusal(&walled.unwrap(), &url).await, Cause::BlockedAddress);
        assert_eq!(receiver.connections.get(), 0);

        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("https://{}/", unused.local_addr().unwrap());
        drop(unused);
        let refused = refusal(&authority.egress(), &nobody).await;
        assert_eq!(refused, Cause::ConnectionRefused);
    });
}

#[test]
fn a_session_is_resumed_whatever_http_is_offered() {
    local(async {
        let authority = Authority::new();
        let egress = authority.egress();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server("localhost", &["http/1.1"])));
        let kinds: Rc<RefCell<Vec<HandshakeKind>>> = Rc::default();
        let seen = Rc::clone(&kinds);
        let receiver = Receiver::start(move |stream| {
            let acceptor = acceptor.clone();
            let seen = Rc::clone(&seen);
            async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                seen.borrow_mut()
                    .push(stream.get_ref().1.handshake_kind().unwrap());
                while Got::read(&mut stream).await.is_some() {
                    stream.write_all(OK).await.unwrap();
                }
            }
        })
        .await;
        for http2 in [false, true] {
            let endpoint = endpoint(&https(&receiver, "localhost"), |record| {
                record.http2 = http2;
            });
            let prepared = Prepared::new(&endpoint, &egress, NOW).unwrap();
            let mut connection = open(&egress, &prepared).await.unwrap();
            assert!(send(&mut connection, &prepared).await.is_some());
        }
        let kinds = kinds.take();
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    });
}

#[test]
fn a_receiver_that_wants_our_certificate_gets_none() {
    local(async {
        let authority = Authority::new();
        let egress = authority.egress();
        let mut trusted = rustls::RootCertStore::empty();
        trusted.add(authority.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(trusted.into(), provider.clone())
                .build()
                .unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let (receiver, _) = receiver(config).await;
        let endpoint = endpoint(&https(&receiver, "localhost"), |_| ());
        let prepared = Prepared::new(&endpoint, &egress, NOW).unwrap();
        // With TLS 1.3 the refusal comes after the session is there.
        let mut connection = open(&egress, &prepared).await.unwrap();
        let outcome = send(&mut connection, &prepared)
            .await
            .map(|a| a.outcome.cause);
        assert_eq!(outcome, Some(Some(Cause::TlsError)));
    });
}
