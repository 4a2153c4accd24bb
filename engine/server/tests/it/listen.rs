//! The API's listener: over TLS, with certificates that change; and who is led
//! to it by a page of somebody else's.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::refusals::program::{Refused, Server, embedded, eventually, posthaste};
use crate::refusals::tls::Authority;

/// The files a server is shown by, and those who vouch for it.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// As a new certificate by this authority says.
    fn renew(&self, by: &Authority) {
        let (cert, key) = by.leaf();
        self.write("cert.pem", &cert);
        self.write("key.pem", &key);
    }

    fn config(&self, log: &Path) -> String {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let http = "[http]\nlisten = \"127.0.0.1:0\"\n[http.tls]";
        format!("{}{http}\ncert = {cert:?}\nkey = {key:?}\n", embedded(log))
    }
}

/// `posthaste endpoints list`, over TLS.
fn list(server: &Server, more: &[&str], environment: &[(&str, &Path)]) -> Output {
    let address = format!("https://{}", server.api.0);
    let words = [
        "endpoints",
        "list",
        "--tenant",
        "acme",
        "--server",
        &address,
    ];
    posthaste(&[&words, more].concat())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Over h2: the status of that path.
async fn http2(server: &Server, authority: &Authority, path: &str) -> u16 {
    let mut known = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.pem().as_bytes());
    known.add(certificate.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(known)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test, not an endpoint"
    )]
    let stream = tokio::net::TcpStream::connect(server.api.0).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TokioIo::new(connector.connect(name, stream).await.unwrap());
    let speak = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = speak.await.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://localhost:{}{path}", server.api.0.port());
    let request = http::Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    answer.status().as_u16()
}

#[test]
fn the_api_is_spoken_to_over_tls_alone() {
    let (files, dir) = (Files::new(), tempfile::tempdir().unwrap());
    let authority = Authority::new();
    files.renew(&authority);
    let ca = files.write("ca.pem", &authority.pem());
    let server = Server::run("serve", &files.config(dir.path()), &[]);

    let trusting = ["--ca-file", ca.to_str().unwrap()];
    let listed = list(&server, &trusting, &[]);
    assert!(listed.status.success(), "{listed:?}");
    let listed = list(&server, &[], &[("SSL_CERT_FILE", &ca)]);
    assert!(listed.status.success(), "{listed:?}");
    let stranger = list(&server, &[], &[]);
    let why = String::from_utf8(stranger.stderr).unwrap();
    assert_eq!(stranger.status.code(), Some(69), "{why}");
    assert!(why.contains("invalid peer certificate"), "{why}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    for path in ["/healthz", "/v1/tenants/acme/endpoints"] {
        let status = runtime.block_on(http2(&server, &authority, path));
        assert_eq!(status, 200, "{path}");
    }

    let plain = server.api.call("GET", "/healthz", "", b"");
    assert_eq!(plain.status, 400, "{}", plain.text);
    assert!(plain.text.contains("tls_required") && plain.text.contains("https://"));
    // Whoever says nothing is not waited for.
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test, not an endpoint"
    )]
    let mut silent = std::net::TcpStream::connect(server.api.0).unwrap();
    let since = Instant::now();
    let mut nothing = Vec::new();
    silent.read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty() && since.elapsed() < Duration::from_secs(30));
    server.stop();
}

#[test]
fn a_new_certificate_is_shown_without_a_restart() {
    let (files, dir) = (Files::new(), tempfile::tempdir().unwrap());
    let (first, second) = (Authority::new(), Authority::new());
    let ca = [("a.pem", &first), ("b.pem", &second)];
    let [a, b] = ca.map(|(name, authority)| files.write(name, &authority.pem()));
    files.renew(&first);
    let server = Server::run("serve", &files.config(dir.path()), &[]);
    let trusts = |ca: &Path| list(&server, &["--ca-file", ca.to_str().unwrap()], &[]);
    assert!(trusts(&a).status.success());

    // One that cannot be used changes nothing.
    files.write("cert.pem", "no certificate");
    server.signal("HUP");
    eventually("it says so", || {
        let log = server.log();
        log.contains("the certificate stays as it was") && log.contains("http.tls.cert: ")
    });
    assert!(trusts(&a).status.success());

    files.renew(&second);
    server.signal("HUP");
    eventually("the new one is shown", || trusts(&b).status.success());
    assert_eq!(trusts(&a).status.code(), Some(69));

    // Nobody needs to say so.
    files.renew(&first);
    eventually("and the next", || trusts(&a).status.success());
    let log = server.stop();
    assert!(!log.contains("PRIVATE KEY"));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (files, dir) = (Files::new(), tempfile::tempdir().unwrap());
    let config = files.config(dir.path());
    let ((cert, key), (_, other)) = (Authority::new().leaf(), Authority::new().leaf());
    let refused = |cert: Option<&str>, key: Option<&str>, wanted: &[&str]| {
        for (name, text) in [("cert.pem", cert), ("key.pem", key)] {
            match text {
                Some(text) => _ = files.write(name, text),
                None => _ = std::fs::remove_file(files.path(name)),
            }
        }
        Refused::serve(&config).expect(64, wanted);
    };
    let cert_named = "http.tls.cert: ";
    let key_named = "http.tls.key: ";
    refused(None, Some(&key), &[cert_named, "cert.pem: No such file"]);
    refused(Some(&cert), None, &[key_named, "key.pem: No such file"]);
    let wanted = "expected certificates in PEM form, the server's own first";
    for (bad, problem) in [
        ("", "holds no certificate"),
        (&key, "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\n!\n", "is malformed"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be used",
        ),
    ] {
        refused(Some(bad), Some(&key), &[cert_named, problem, wanted]);
    }
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for bad in ["", &*cert, encrypted] {
        let wanted = [key_named, "holds no private key", "not encrypted"];
        refused(Some(&cert), Some(bad), &wanted);
    }
    let wanted = [key_named, "key.pem is not the key of", "cert.pem"];
    refused(Some(&cert), Some(&other), &wanted);
    let large = "x".repeat(1024 * 1024 + 1);
    refused(Some(&large), Some(&key), &[cert_named, "1048577 bytes"]);
    let list = [
        "endpoints",
        "list",
        "--tenant",
        "a",
        "--server",
        "https://127.0.0.1:1",
    ];
    let nowhere = files.path("nowhere");
    let ca = ["--ca-file", nowhere.to_str().unwrap()];
    Refused::from(&[&list[..], &ca].concat()).expect(2, &["--ca-file: ", "No such file"]);
}

#[test]
fn whom_a_page_leads_here_is_refused() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let http = "[http]\nlisten = \"127.0.0.1:0\"\nhosts = [\"posthaste.internal\"]\n";
    let server = Server::start(&format!("{}{http}", embedded(dir.path())));
    let named = |name: &str, headers: &str| {
        let path = format!("http://{name}/v1/tenants/acme/endpoints");
        server.api.call("GET", &path, headers, b"")
    };
    for own in ["127.0.0.1:1", "localhost", "posthaste.internal:80"] {
        assert_eq!(named(own, "").status, 200, "{own}");
    }
    let (_, detail) = named("evil.example", "").problem(421, "misdirected");
    assert!(detail.contains("`http.hosts`"), "{detail}");
    let body = br#"{"url": "https://example.com/"}"#;
    let post = |origin: &str| {
        let headers = format!("origin: {origin}\r\ncontent-type: text/plain\r\n");
        server
            .api
            .post("/v1/tenants/acme/endpoints", &headers, body)
    };
    post("https://evil.example").problem(403, "foreign_origin");
    assert_eq!(post("http://localhost:3000").status, 201);
    server.stop();

    // A page has no key: where one is asked for it may come by any name.
    let config = format!("{}[api]\nauth = \"keys\"\n", embedded(keys.path()));
    let server = Server::start(&config);
    let path = "http://posthaste.example/healthz";
    assert_eq!(server.api.call("GET", path, "", b"").status, 200);
    server.stop();
}
