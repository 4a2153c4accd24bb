//! Stripe's, GitHub's and Slack's schemes: their published vectors, the headers
//! they send, and the forms of their secrets.

use super::*;

const UTF8: &str = r#"{"name":"Zoë 🚀","note":"snowman ☃"}"#;
const ENDPOINT: [u8; 16] = [7; 16];

fn vectors(scheme: Scheme) -> Value {
    let all: Value =
        serde_json::from_str(include_str!("../../../testdata/signatures.json")).unwrap();
    all[scheme.name()].clone()
}

fn signer(scheme: Scheme, secrets: &[&str]) -> Signer {
    let mut signer = Signer::of(scheme);
    for secret in secrets {
        signer.add(secret).unwrap();
    }
    signer
}

fn signature(scheme: Scheme, secrets: &[&str], at: u64, body: &str) -> String {
    let mut out = Vec::new();
    signer(scheme, secrets).sign_into(b"evt_1", at, body.as_bytes(), &mut out);
    String::from_utf8(out).unwrap()
}

/// The headers of one attempt, as they are sent.
fn headers(scheme: Scheme, secrets: &[&str], signed: &Signed<'_>) -> Vec<(&'static str, String)> {
    let signer = signer(scheme, secrets);
    let mut sent = Vec::new();
    for &(name, piece) in scheme.headers() {
        let mut out = b"before".to_vec();
        if signer.write(piece, signed, &mut out) {
            sent.push((name, String::from_utf8(out[6..].to_vec()).unwrap()));
        } else {
            assert_eq!(out, b"before", "{name}: not sent, so nothing is written");
        }
    }
    sent
}

fn signed(retries: u32, last_cause: Option<Cause>) -> Signed<'static> {
    Signed {
        id: b"evt_1",
        timestamp_s: 1_531_420_618,
        body: b"Hello, World!",
        event_type: "invoice.paid",
        endpoint: &ENDPOINT,
        endpoint_text: "ep_1",
        retries,
        last_cause,
    }
}

#[test]
fn published_vectors_of_every_scheme_are_reproduced() {
    for scheme in [Scheme::Stripe, Scheme::Github, Scheme::Slack] {
        let published = vectors(scheme);
        let cases = published["vectors"].as_array().unwrap();
        assert_eq!(cases.len(), 1, "{scheme}");
        let text = |name: &str| cases[0][name].as_str().unwrap();
        let at = cases[0]["timestamp"].as_u64().unwrap_or(1);
        let secret = text("secret");
        assert_eq!(scheme.check_secret(secret), Ok(()));
        let expect = text("expect");
        assert_eq!(signature(scheme, &[secret], at, text("body")), expect);
        // What must not verify is signed otherwise.
        for reject in published["reject"].as_array().into_iter().flatten() {
            if let Some(suffix) = reject["body_suffix"].as_str() {
                let other = format!("{}{suffix}", text("body"));
                assert_ne!(signature(scheme, &[secret], at, &other), expect);
            }
        }
    }
}

#[test]
fn derived_vectors_of_every_scheme_are_reproduced() {
    use Scheme::{Github, Slack, Stripe};
    let stripe = ["whsec_test_secret"];
    let event = r#"{"id":"evt_1","object":"event"}"#;
    let everybody = ["It's a Secret to Everybody"];
    let at = 1_700_000_000;
    let callback = r#"{"type":"event_callback","event_id":"Ev08MFMKH6"}"#;
    let cases = [
        (
            "ST-D1",
            signature(Stripe, &["test_secret"], at, "{}"),
            "t=1700000000,v1=c561c5814cba8a0cd366ee43292d205cf59c9635ad120894be1ef80c0af72b76",
        ),
        (
            "ST-D2, the prefix is part of the key",
            signature(Stripe, &stripe, at, event),
            "t=1700000000,v1=0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd",
        ),
        (
            "ST-D3, the new secret first",
            signature(Stripe, &["whsec_new_secret", stripe[0]], at, event),
            "t=1700000000,v1=b14fd00c307c0137e9a6b4cd1657d15b7c2c1e6c7dde182c112ed15f4ead61da,\
          v1=0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd",
        ),
        (
            "ST-D4",
            signature(Stripe, &stripe, at, UTF8),
            "t=1700000000,v1=dd7e3532fc72430301141523aeb9142e496bcdae6edac291668b9bb939f6ea95",
        ),
        (
            "GH-D1",
            signature(Github, &everybody, at, UTF8),
            "sha256=989f17b6f350e197cb1333adeed1a8e3cfd9eac53b4f5322bbbe11451a6524c8",
        ),
        (
            "GH-D2",
            signature(Github, &everybody, at, ""),
            "sha256=66a0c074deaa0f489ead6537e0d32f9a344b90bbeda705b6ed45ecd3b413fb40",
        ),
        (
            "SL-D1",
            signature(
                Slack,
                &["8f742231b10e8888abcd99yyyzzz85a5"],
                1_531_420_618,
                callback,
            ),
            "v0=649cd74419d0db312c74495a9d279048690dfc1dc085146872cdbe24409ff2ff",
        ),
    ];
    for (name, signed, expect) in cases {
        assert_eq!(signed, expect, "{name}");
    }
}

#[test]
fn each_scheme_sends_its_own_headers() {
    let first = signed(0, None);
    let standard = headers(Scheme::StandardWebhooks, &[KEY_A], &first);
    let names: Vec<_> = standard.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["webhook-id", "webhook-timestamp", "webhook-signature"]
    );
    assert_eq!(standard[1].1, "1531420618");
    let stripe = headers(Scheme::Stripe, &["test_secret"], &first);
    assert_eq!(stripe[0], ("webhook-id", "evt_1".to_owned()));
    assert!(stripe.len() == 2 && stripe[1].1.starts_with("t=1531420618,v1="));

    let secret = "It's a Secret to Everybody";
    let github = headers(Scheme::Github, &[secret], &first);
    let value = |name: &str, of: &[(&str, String)]| {
        let found = of.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(
        value("x-github-event", &github).as_deref(),
        Some("invoice.paid")
    );
    assert_eq!(value("x-github-hook-id", &github).as_deref(), Some("ep_1"));
    assert_eq!(value("x-hub-signature-256-previous", &github), None);
    let rotated = headers(Scheme::Github, &["a new secret", secret], &first);
    let of_old = value("x-hub-signature-256-previous", &rotated);
    assert_eq!(of_old, value("x-hub-signature-256", &github));
    assert_ne!(of_old, value("x-hub-signature-256", &rotated));
}

#[test]
fn a_guid_is_one_of_the_event_for_the_endpoint() {
    let guid = |signed: &Signed<'_>| {
        let sent = headers(Scheme::Github, &["test_secret"], signed);
        let found = sent
            .into_iter()
            .find(|(name, _)| *name == "x-github-delivery");
        found.unwrap().1
    };
    let first = guid(&signed(0, None));
    let groups: Vec<_> = first.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{first}");
    assert!(first.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()));
    let (version, variant) = (first.as_bytes()[14], first.as_bytes()[19]);
    assert!(version == b'8' && b"89ab".contains(&variant), "{first}");
    assert_eq!(guid(&signed(3, None)), first, "the same in every attempt");
    let other_endpoint = Signed {
        endpoint: &[8; 16],
        ..signed(0, None)
    };
    let other_event = Signed {
        id: b"evt_2",
        ..signed(0, None)
    };
    assert!(guid(&other_endpoint) != first && guid(&other_event) != first);
}

#[test]
fn slack_hears_of_retries_and_why() {
    let names = |signed: &Signed<'_>| {
        let sent = headers(Scheme::Slack, &["test_secret", "an older one"], signed);
        let sent: Vec<_> = sent.into_iter().skip(3).collect();
        sent
    };
    assert_eq!(names(&signed(0, Some(Cause::EgressError))), []);
    for (cause, reason) in [
        (Some(Cause::TimeoutHeaders), "http_timeout"),
        (Some(Cause::RedirectNotFollowed), "too_many_redirects"),
        (Some(Cause::ConnectionRefused), "connection_failed"),
        (Some(Cause::TlsError), "ssl_error"),
        (Some(Cause::Http5xx), "http_error"),
        (Some(Cause::InvalidResponse), "unknown_error"),
        (None, "unknown_error"),
    ] {
        let expect = [
            ("x-slack-retry-num", "2".to_owned()),
            ("x-slack-retry-reason", reason.to_owned()),
        ];
        assert_eq!(names(&signed(2, cause)), expect);
    }
    // One signature, the newest secret's.
    let newest = signature(Scheme::Slack, &["test_secret"], 7, "x");
    let both = signature(Scheme::Slack, &["test_secret", "an older one"], 7, "x");
    assert_eq!(newest, both);
}

#[test]
fn a_secret_has_its_schemes_form() {
    let long = "x".repeat(256);
    let too_long = "x".repeat(257);
    for scheme in [Scheme::Stripe, Scheme::Github, Scheme::Slack] {
        for good in ["12345678", "größe ⚑", &long, KEY_A] {
            assert_eq!(scheme.check_secret(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", KeyError::TextLength { bytes: 0 }),
            ("1234567", KeyError::TextLength { bytes: 7 }),
            (&too_long, KeyError::TextLength { bytes: 257 }),
            ("12345678\n", KeyError::TextShape),
            (" 12345678", KeyError::TextShape),
            ("1234\u{7f}5678", KeyError::TextShape),
            (KEY_E, KeyError::NotShared),
            (
                "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
                KeyError::PublicOnly,
            ),
        ] {
            assert_eq!(scheme.check_secret(bad), Err(error), "{bad:?}");
        }
    }
    let as_standard = Scheme::StandardWebhooks.check_secret("test_secret");
    assert_eq!(as_standard, Err(KeyError::Base64));
}

#[test]
fn every_generated_secret_is_one() {
    for scheme in Scheme::ALL {
        assert_eq!(scheme.name().parse(), Ok(scheme));
        let secret = scheme.generate_secret(Algorithm::HmacSha256, [0xA5; 32]);
        let secret = secret.unwrap();
        assert_eq!(scheme.check_secret(secret.expose()), Ok(()));
        assert!(!signer(scheme, &[secret.expose()]).is_empty());
        let pair = scheme.generate_secret(Algorithm::Ed25519, [0xA5; 32]);
        assert_eq!(pair.is_some(), scheme == Scheme::StandardWebhooks);
        if let Some(pair) = pair {
            assert!(pair.expose().starts_with("whsk_"));
            assert_eq!(scheme.check_secret(pair.expose()), Ok(()));
        }
    }
    let stripe = Scheme::Stripe.generate_secret(Algorithm::HmacSha256, [0xA5; 32]);
    let expect = format!("whsec_{}", "a5".repeat(32));
    assert_eq!(stripe.unwrap().expose(), expect);
    assert!("svix".parse::<Scheme>().is_err());
    // The same pair as its seed gives elsewhere (Standard Webhooks' vector).
    let seed: [u8; 32] = BASE64.decode(&KEY_E[5..]).unwrap()[..32]
        .try_into()
        .unwrap();
    let pair = Scheme::StandardWebhooks.generate_secret(Algorithm::Ed25519, seed);
    assert_eq!(pair.unwrap().expose(), KEY_E);
}

#[test]
fn a_public_key_is_named_by_its_thumbprint() {
    // RFC 8037, appendix A.2 and A.3.
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(x)
        .unwrap();
    let public = format!("whpk_{}", BASE64.encode(bytes));
    let jwk = VerifyingKey::parse(&public).unwrap().jwk().unwrap();
    assert_eq!(jwk.x, x);
    assert_eq!(jwk.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(VerifyingKey::parse(KEY_A).unwrap().jwk(), None);
}
