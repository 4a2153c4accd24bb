use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::corpus::{Expected, POLICY, rows};
use super::*;

const DEFAULT: UrlPolicy = UrlPolicy {
    allow_http: false,
    allow_private_names: false,
};
const PRIVATE: UrlPolicy = UrlPolicy {
    allow_http: true,
    allow_private_names: true,
};

fn parse(raw: &str) -> Result<Target, TargetError> {
    Target::parse(raw, &DEFAULT)
}

fn normal(raw: &str) -> String {
    Target::parse(raw, &POLICY).unwrap().to_string()
}

fn assert_agrees(target: &Target, policy: &UrlPolicy) {
    assert_eq!(
        Target::parse(&target.to_string(), policy).as_ref(),
        Ok(target)
    );
    let uri: http::Uri = target.to_string().parse().unwrap();
    assert_eq!(uri.host(), Some(target.host().to_string().as_str()));
    assert_eq!(uri.scheme_str(), Some(target.scheme().as_str()));
    assert_eq!(uri.authority().unwrap().as_str(), target.authority());
    assert_eq!(
        uri.path_and_query().unwrap().as_str(),
        target.path_and_query()
    );
}

#[test]
fn every_row_of_the_corpus_is_judged_as_it_says() {
    let mut counts = [0; 2];
    for row in rows() {
        let read = Target::parse(&row.url, &POLICY);
        match row.expected {
            Expected::RefuseParse => {
                assert!(read.is_err(), "{:?}: {} was read", row.url, row.why);
                counts[0] += 1;
            }
            // Refused later, by the address: if it is read, it is read right.
            Expected::RefuseAddress => {
                if let Ok(target) = read {
                    assert_agrees(&target, &POLICY);
                }
            }
            Expected::Allow | Expected::RefuseDns | Expected::RefuseAttempt => {
                let target = read.unwrap_or_else(|e| panic!("{}: {}: {e}", row.url, row.why));
                assert_agrees(&target, &POLICY);
                counts[1] += 1;
            }
        }
    }
    assert_eq!(counts, [201, 77]);
}

#[test]
fn a_row_written_otherwise_keeps_its_verdict() {
    for row in rows() {
        let verdict = Target::parse(&row.url, &POLICY);
        let upper = Target::parse(&row.url.to_ascii_uppercase(), &POLICY);
        assert_eq!(upper.is_ok(), verdict.is_ok(), "{:?} in capitals", row.url);
        let Ok(target) = verdict else {
            continue;
        };
        let host = target.host().clone();
        assert_eq!(upper.unwrap().host(), &host);
        for changed in [
            format!("{target}x"),
            format!("{}://{host}:8444/", target.scheme()),
        ] {
            let read = Target::parse(&changed, &POLICY).unwrap();
            assert_eq!(read.host(), &host, "{changed}");
        }
        if let Host::Name(name) = &host {
            let dotted = format!("https://{name}./");
            assert_eq!(Target::parse(&dotted, &POLICY).unwrap().host(), &host);
        }
    }
}

#[test]
fn each_rule_is_named() {
    use TargetError as E;
    let long = format!("https://a.com/{}", "a".repeat(2_035));
    for (raw, error) in [
        (&*long, E::TooLong { bytes: 2_049 }),
        (
            "https://a.com/\n",
            E::ForbiddenByte {
                byte: b'\n',
                at: 14,
            },
        ),
        (
            "https://a.com\\b",
            E::ForbiddenByte {
                byte: b'\\',
                at: 13,
            },
        ),
        (
            "https://a.com/\x7f",
            E::ForbiddenByte { byte: 0x7f, at: 14 },
        ),
        ("ftp://a.com/", E::Scheme),
        ("a.com", E::Scheme),
        ("http://a.com/", E::HttpNotAllowed),
        ("https:/a.com/", E::Slashes),
        ("https:///a.com/", E::Slashes),
        ("https://a.com/#x", E::Fragment),
        ("https://u:p@a.com/", E::Userinfo),
        ("https://a%2ecom/", E::PercentInAuthority),
        ("https:///", E::Slashes),
        ("https://", E::NoHost),
        ("https://:443/", E::NoHost),
        ("https://./", E::NoHost),
        ("https://127.1/", E::Ipv4Spelling),
        ("https://1.2.3.4./", E::Ipv4Spelling),
        ("https://0X7F000001/", E::Ipv4Spelling),
        ("https://[::1/", E::Ipv6Syntax),
        ("https://[::1]x/", E::Ipv6Syntax),
        ("https://[::ffff:1.2.3.4]/", E::Ipv6Embedded),
        ("https://[::ffff:102:304]/", E::Ipv6Embedded),
        ("https://a..com/", E::NameLabel),
        ("https://a!b.com/", E::NameLabel),
        ("https://kafka/", E::SingleLabel),
        ("https://a.c0m/", E::LastLabel),
        (
            "https://metadata.google.internal/",
            E::SpecialUse { suffix: "internal" },
        ),
        ("https://a.com:/", E::PortSyntax),
        ("https://a.com:0/", E::PortSyntax),
        ("https://a.com:65536/", E::PortSyntax),
        ("https://a.com:1:2/", E::PortSyntax),
        ("https://::1/", E::Ipv6Syntax),
        ("https://a.com:22/", E::PortDenied { port: 22 }),
        ("https://a.com:27017/", E::PortDenied { port: 27017 }),
        (
            "https://xn--a.com/",
            E::Standard(url::ParseError::IdnaError),
        ),
    ] {
        assert_eq!(parse(raw), Err(error), "{raw}");
    }
    let host = vec!["a".repeat(60); 5].join(".");
    assert_eq!(
        parse(&format!("https://{host}/")),
        Err(E::NameLength { bytes: 304 })
    );
}

#[test]
fn a_foreign_name_is_answered_with_its_punycode() {
    let message = |raw: &str| parse(raw).unwrap_err().to_string();
    assert!(message("https://bücher.acme-corp.com/x").contains("`xn--bcher-kva.acme-corp.com`"));
    assert!(message("https://acme-corp.com/café").contains("percent-encoded"));
    // A host that folds to an address has no punycode form to suggest.
    assert!(message("https://①②⑦.⓪.⓪.①/").contains("percent-encoded"));
}

#[test]
fn the_normal_form_is_one() {
    for (raw, form) in [
        (
            "HTTPS://HOOKS.Acme-Corp.COM.:443",
            "https://hooks.acme-corp.com/",
        ),
        ("http://a.com:80?x=%2F", "http://a.com/?x=%2F"),
        ("http://a.com:443/..%2f/../a", "http://a.com:443/..%2f/../a"),
        (
            "https://[2606:4700:0:0:0:0:0:1]:8443/",
            "https://[2606:4700::1]:8443/",
        ),
        ("https://1.1.1.1:443/", "https://1.1.1.1/"),
    ] {
        assert_eq!(normal(raw), form);
    }
    // The slash that is added may not lift a URL over the bound.
    let full = format!("https://a.com?{}", "q".repeat(URL_BYTES_MAX - 14));
    assert_eq!(full.len(), URL_BYTES_MAX);
    assert_eq!(
        parse(&full),
        Err(TargetError::TooLong {
            bytes: URL_BYTES_MAX + 1
        })
    );
}

#[test]
fn the_operator_may_let_private_names_and_ports_through() {
    for raw in [
        "http://localhost:9092/hook",
        "http://sink1/hook",
        "http://redis.default.svc:22/",
        "http://127.0.0.1:8080/",
    ] {
        let target = Target::parse(raw, &PRIVATE).unwrap();
        assert_eq!(target.to_string(), raw);
        assert_agrees(&target, &PRIVATE);
    }
    for raw in [
        "http://127.1/",
        "http://a@localhost/",
        "http://localhost:0/",
        "http://a..b/",
    ] {
        assert!(Target::parse(raw, &PRIVATE).is_err(), "{raw}");
    }
    assert_eq!(UrlPolicy::default(), DEFAULT);
}

#[test]
fn debug_shows_no_path_and_no_query() {
    let target = parse("https://hooks.acme-corp.com:8443/T0/B0/secret?token=secret").unwrap();
    assert_eq!(
        format!("{target:?}"),
        "Target(https://hooks.acme-corp.com:8443/..)"
    );
    assert_eq!(target.origin(), "https://hooks.acme-corp.com:8443");
}

proptest! {
    #[test]
    fn what_is_read_reads_back(
        raw in r"(https?|HTTP)://([a-z0-9_.-]{1,20}|\[[0-9a-f:]{2,20}\]|[0-9x.]{1,12})(:[0-9]{1,5})?([/?][!-~]{0,20})?",
        private in proptest::bool::ANY,
    ) {
        let policy = UrlPolicy { allow_http: true, allow_private_names: private };
        if let Ok(target) = Target::parse(&raw, &policy) {
            assert_agrees(&target, &policy);
            prop_assert!(target.port() > 0);
            prop_assert!(target.path_and_query().starts_with('/'));
        }
    }

    #[test]
    fn any_text_is_judged_without_a_panic(raw in "\\PC{0,60}", tail in r"https?://\PC{0,40}") {
        prop_assert!(Target::parse(&raw, &PRIVATE).is_err() || raw.contains("://"));
        let twice = (Target::parse(&tail, &PRIVATE), Target::parse(&tail, &PRIVATE));
        prop_assert_eq!(twice.0, twice.1);
    }
}
