//! Verifying by all four schemes: published vectors, malformed headers, and the
//! ways in which the schemes are taken for one another.

use proptest::prelude::prop_assert;

use super::*;

const STRIPE: &str = "stripe-signature";
const GITHUB: &str = "x-hub-signature-256";
const SLACK: &str = "x-slack-signature";
const SLACK_AT: &str = "x-slack-request-timestamp";
const AT: u64 = 1_700_000_000;
const SECRET: &str = "whsec_test_secret";
const EVENT: &str = r#"{"id":"evt_1","object":"event"}"#;

type Headers<'a> = Vec<(&'static str, &'a str)>;

fn check(
    scheme: Scheme,
    secrets: &[&str],
    headers: &Headers<'_>,
    body: &[u8],
    now_s: u64,
) -> Result<(), Refusal> {
    let header = |name| {
        let mut found = headers.iter().filter(|(known, _)| *known == name);
        found.next().map(|(_, value)| *value)
    };
    let now = Timestamp::from_millis(now_s * 1_000);
    Incoming::new(scheme, secrets)
        .unwrap()
        .verify(header, body, now)
}

/// What the signature header of a scheme that signs by text holds.
fn signed(scheme: Scheme, secrets: &[&str], at: u64, body: &[u8]) -> String {
    let mut signer = Signer::of(scheme);
    for secret in secrets {
        signer.add(secret).unwrap();
    }
    let mut out = Vec::new();
    signer.sign_into(b"evt_1", at, body, &mut out);
    String::from_utf8(out).unwrap()
}

/// The headers of a scheme around a signature.
fn around<'a>(scheme: Scheme, signature: &'a str, at: &'a str) -> Headers<'a> {
    match scheme {
        Scheme::StandardWebhooks => vec![
            ("webhook-id", "evt_1"),
            ("webhook-timestamp", at),
            ("webhook-signature", signature),
        ],
        Scheme::Stripe => vec![(STRIPE, signature)],
        Scheme::Github => vec![(GITHUB, signature)],
        Scheme::Slack => vec![(SLACK_AT, at), (SLACK, signature)],
    }
}

fn stripe(header: &str) -> Result<(), Refusal> {
    let headers = vec![(STRIPE, header)];
    check(Scheme::Stripe, &[SECRET], &headers, EVENT.as_bytes(), AT)
}

fn is_malformed(verdict: Result<(), Refusal>, name: &str) -> bool {
    matches!(verdict, Err(Refusal::Malformed { header, .. }) if header == name)
}

/// What is changed of a vector that is accepted.
#[derive(Clone)]
struct Reject {
    header: String,
    absent: String,
    suffix: String,
    offset_s: i64,
}

/// The cases of a published reject of a vector whose header is `expect`.
fn rejects(published: &Value, expect: &str) -> Vec<Reject> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let same = Reject {
        header: expect.to_owned(),
        absent: String::new(),
        suffix: text(&published["body_suffix"]),
        offset_s: published["now_offset_s"].as_i64().unwrap_or(0),
    };
    let all = |name: &str| published[name].as_array().cloned().unwrap_or_default();
    let with = |header: String| Reject {
        header,
        ..same.clone()
    };
    let mut cases: Vec<_> = all("headers").iter().map(|h| with(text(h))).collect();
    cases.extend(all("missing").iter().map(|name| Reject {
        absent: text(name),
        ..same.clone()
    }));
    cases.extend(published["header"].as_str().map(|h| with(h.to_owned())));
    if let Some(version) = published["header_only"].as_str() {
        cases.push(with(expect.replace(",v1=", &format!(",{version}="))));
    }
    if cases.is_empty() {
        cases.push(same);
    }
    cases
}

#[test]
fn published_vectors_are_accepted_and_published_rejects_refused() {
    let all: Value =
        serde_json::from_str(include_str!("../../../testdata/signatures.json")).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for scheme in Scheme::ALL {
        let published = &all[scheme.name()];
        for vector in published["vectors"].as_array().unwrap() {
            let text = |name: &str| vector[name].as_str().unwrap();
            let at = vector["timestamp"].as_u64().unwrap_or(1);
            let at_text = at.to_string();
            let secret = vector["public"].as_str().unwrap_or(text("secret"));
            let verdict = |case: &Reject| {
                let mut headers = around(scheme, &case.header, &at_text);
                if scheme == Scheme::StandardWebhooks {
                    headers[0].1 = text("id");
                }
                headers.retain(|(name, _)| *name != case.absent);
                let body = format!("{}{}", text("body"), case.suffix);
                let now_s = at.checked_add_signed(case.offset_s).unwrap();
                check(scheme, &[secret], &headers, body.as_bytes(), now_s)
            };
            let unchanged = rejects(&Value::Null, text("expect"));
            assert_eq!(verdict(&unchanged[0]), Ok(()), "{scheme}");
            accepted += 1;
            let published = published["reject"].as_array().into_iter().flatten();
            for reject in published.filter(|r| r["of"].is_null() || r["of"] == text("name")) {
                for case in rejects(reject, text("expect")) {
                    assert!(verdict(&case).is_err(), "{scheme}: {reject}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((accepted, refused), (5, 17));
}

#[test]
fn a_header_of_stripe_is_read_by_its_keys() {
    let header = signed(Scheme::Stripe, &[SECRET], AT, EVENT.as_bytes());
    let (t, v1) = header.split_once(',').unwrap();
    for good in [
        header.clone(),
        format!("{v1},{t}"),
        format!("{header},v0=63f3a72374a733066c4be69ed7f8e5ac"),
        format!("v0=1,{t},v1=bogus,{v1},v2=x,,x"),
    ] {
        assert_eq!(stripe(&good), Ok(()), "{good}");
    }
    for bad in [
        "t,v1=,v0=",
        "t,v1=,",
        "t,,",
        ",,",
        "t",
        v1,
        t,
        "x",
        "t=1,t=2,v1=a",
    ] {
        assert!(is_malformed(stripe(bad), STRIPE), "{bad}");
    }
    assert!(
        is_malformed(stripe(&format!("{t},{header}")), STRIPE),
        "which time?"
    );
    assert!(is_malformed(stripe(&header.replace("v1", "v0")), STRIPE));
    for time in [
        "",
        "Infinity",
        "NaN",
        "1e9",
        "-1",
        "+1700000000",
        " 1700000000",
        "1700000000.0",
    ] {
        assert_eq!(
            stripe(&format!("t={time},{v1}")),
            Err(Refusal::MalformedTimestamp),
            "{time}"
        );
    }
    assert_eq!(stripe(""), Err(Refusal::Missing(STRIPE)));
    let no_match = Err(Refusal::NoMatch);
    assert_eq!(stripe(&format!("{t},v1=")), no_match);
    assert_eq!(stripe(&format!("t=0{},{v1}", &t[2..])), no_match);
    // Past the bound nothing is looked at.
    let many = |count| format!("{t}{},{v1}", ",v1=bogus".repeat(count));
    assert_eq!(stripe(&many(SIGNATURES_READ_MAX - 1)), Ok(()));
    assert_eq!(stripe(&many(SIGNATURES_READ_MAX)), no_match);
}

#[test]
fn the_headers_of_github_and_slack_have_one_form() {
    let body = EVENT.as_bytes();
    let github = |headers: &Headers<'_>| check(Scheme::Github, &[SECRET], headers, body, AT);
    let right = signed(Scheme::Github, &[SECRET], AT, body);
    assert_eq!(github(&vec![(GITHUB, &right)]), Ok(()));
    assert_eq!(github(&vec![]), Err(Refusal::Missing(GITHUB)));
    for bad in [
        &right[7..],
        "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59",
        "SHA256=00",
        "=",
    ] {
        assert!(is_malformed(github(&vec![(GITHUB, bad)]), GITHUB), "{bad}");
    }
    assert_eq!(github(&vec![(GITHUB, "sha256=")]), Err(Refusal::NoMatch));
    // The older header never counts, whatever it holds.
    let legacy = vec![("x-hub-signature", &*right)];
    assert_eq!(github(&legacy), Err(Refusal::Missing(GITHUB)));

    let at = AT.to_string();
    let slack = |headers: &Headers<'_>| check(Scheme::Slack, &[SECRET], headers, body, AT);
    let right = signed(Scheme::Slack, &[SECRET], AT, body);
    assert_eq!(slack(&vec![(SLACK_AT, &at), (SLACK, &right)]), Ok(()));
    assert_eq!(
        slack(&vec![(SLACK, &right)]),
        Err(Refusal::Missing(SLACK_AT))
    );
    assert_eq!(slack(&vec![(SLACK_AT, &at)]), Err(Refusal::Missing(SLACK)));
    let as_v1 = right.replace("v0=", "v1=");
    assert!(is_malformed(
        slack(&vec![(SLACK_AT, &at), (SLACK, &as_v1)]),
        SLACK
    ));
    let time = vec![(SLACK_AT, "Infinity"), (SLACK, &*right)];
    assert_eq!(slack(&time), Err(Refusal::MalformedTimestamp));
}

#[test]
fn the_tolerance_can_be_chosen_and_holds_to_the_second() {
    for scheme in [Scheme::StandardWebhooks, Scheme::Stripe, Scheme::Slack] {
        let (header, at) = (signed(scheme, &[KEY_A], AT, b"x"), AT.to_string());
        let headers = around(scheme, &header, &at);
        let within = |tolerance_s, now_s: u64| {
            let incoming = Incoming::new(scheme, &[KEY_A]).unwrap();
            let incoming = incoming.with_tolerance(Duration::from_secs(tolerance_s));
            let find = |name| Some(headers.iter().find(|(known, _)| *known == name)?.1);
            incoming.verify(find, b"x", Timestamp::from_millis(now_s * 1_000))
        };
        for tolerance in [0, 10, 300] {
            assert_eq!(within(tolerance, AT + tolerance), Ok(()), "{scheme}");
            assert_eq!(within(tolerance, AT - tolerance), Ok(()), "{scheme}");
            assert_eq!(within(tolerance, AT + tolerance + 1), Err(Refusal::TooOld));
            assert_eq!(within(tolerance, AT - tolerance - 1), Err(Refusal::TooNew));
        }
        assert_eq!(
            check(scheme, &[KEY_A], &headers, b"x", AT + 301),
            Err(Refusal::TooOld)
        );
    }
    // GitHub signs no time.
    let header = signed(Scheme::Github, &[SECRET], AT, b"x");
    let headers = vec![(GITHUB, &*header)];
    assert_eq!(
        check(Scheme::Github, &[SECRET], &headers, b"x", u64::MAX / 1_000),
        Ok(())
    );
}

#[test]
fn a_rotation_is_accepted_as_the_scheme_has_room() {
    let (new, old) = ("a new secret", "an old secret");
    let body = EVENT.as_bytes();
    let header = signed(Scheme::Stripe, &[new, old], AT, body);
    for secret in [new, old] {
        let headers = vec![(STRIPE, &*header)];
        assert_eq!(check(Scheme::Stripe, &[secret], &headers, body, AT), Ok(()));
    }
    let (by_new, by_old) = (
        signed(Scheme::Github, &[new], AT, body),
        signed(Scheme::Github, &[old], AT, body),
    );
    let headers = vec![(GITHUB, &*by_new), (github::PREVIOUS, &*by_old)];
    for secret in [new, old] {
        assert_eq!(check(Scheme::Github, &[secret], &headers, body, AT), Ok(()));
    }
    assert_eq!(
        check(Scheme::Github, &["a stranger"], &headers, body, AT),
        Err(Refusal::NoMatch)
    );
    // Slack's receivers have to know both.
    let (header, at) = (signed(Scheme::Slack, &[new, old], AT, body), AT.to_string());
    let headers = vec![(SLACK_AT, &*at), (SLACK, &*header)];
    let slack = |secrets: &[&str]| check(Scheme::Slack, secrets, &headers, body, AT);
    assert_eq!(slack(&[old]), Err(Refusal::NoMatch));
    assert_eq!(slack(&[old, new]), Ok(()));
}

#[test]
fn no_scheme_takes_anothers_signature() {
    let at = AT.to_string();
    let body = EVENT.as_bytes();
    let tag = |secret: &[u8], content: &[&[u8]]| mac::Mac::new(secret).tag(content);
    let hex = |bytes: &[u8]| {
        let mut out = Vec::new();
        text::hex_into(bytes, &mut out);
        String::from_utf8(out).unwrap()
    };
    let secret = KEY_A.as_bytes();
    let decoded = BASE64.decode(&KEY_A[6..]).unwrap();
    let time = at.as_bytes();
    let contents: [&[&[u8]]; 6] = [
        &[b"evt_1.", time, b".", body],
        &[time, b".", body],
        &[time, b",", body],
        &[time, b":", body],
        &[b"v0:", time, b":", body],
        &[body],
    ];
    let mut accepted = Vec::new();
    for (place, content) in contents.into_iter().enumerate() {
        for (key, bytes) in [("text", secret), ("base64", &decoded)] {
            let tag = tag(bytes, content);
            for (form, value) in [
                ("hex", hex(&tag)),
                ("HEX", hex(&tag).to_uppercase()),
                ("base64", BASE64.encode(tag)),
            ] {
                for scheme in Scheme::ALL {
                    let signature = match scheme {
                        Scheme::StandardWebhooks => format!("v1,{value}"),
                        Scheme::Stripe => format!("t={at},v1={value}"),
                        Scheme::Github => format!("sha256={value}"),
                        Scheme::Slack => format!("v0={value}"),
                    };
                    let headers = around(scheme, &signature, &at);
                    match check(scheme, &[KEY_A], &headers, body, AT) {
                        Ok(()) => accepted.push((scheme.name(), place, key, form)),
                        Err(refusal) => assert_eq!(refusal, Refusal::NoMatch),
                    }
                }
            }
        }
    }
    accepted.sort_unstable();
    assert_eq!(
        accepted,
        [
            ("github", 5, "text", "hex"),
            ("slack", 4, "text", "hex"),
            ("standard_webhooks", 0, "base64", "base64"),
            ("stripe", 1, "text", "hex"),
        ]
    );
}

#[test]
fn secrets_are_of_the_schemes_form_and_never_shown() {
    for scheme in Scheme::ALL {
        assert_eq!(Incoming::new(scheme, &[]).unwrap_err(), KeyError::Empty);
        let shown = format!("{:?}", Incoming::new(scheme, &[KEY_A]).unwrap());
        assert_eq!(shown, "Incoming(..)");
        assert!(Incoming::new(scheme, &[KEY_A, "short"]).is_err());
    }
    let public = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    assert!(Incoming::new(Scheme::StandardWebhooks, &[public]).is_ok());
    let refused = Incoming::new(Scheme::Stripe, &[public]).unwrap_err();
    assert_eq!(refused, KeyError::PublicOnly);
}

proptest! {
    #[test]
    fn what_any_scheme_signs_is_accepted_and_a_flipped_bit_refused(
        body in proptest::collection::vec(any::<u8>(), 1..300),
        random in any::<[u8; 32]>(),
        at in 0_u64..4_102_444_800,
        place in any::<Index>(),
        bit in 0_u32..8,
    ) {
        let at_text = at.to_string();
        for scheme in Scheme::ALL {
            let secret = scheme.generate_secret(Algorithm::HmacSha256, random).unwrap();
            let header = signed(scheme, &[secret.expose()], at, &body);
            let verdict = |header: &str, body: &[u8]| {
                check(scheme, &[secret.expose()], &around(scheme, header, &at_text), body, at)
            };
            prop_assert_eq!(verdict(&header, &body), Ok(()));
            let mut flipped = body.clone();
            flipped[place.index(body.len())] ^= 1 << bit;
            prop_assert_eq!(verdict(&header, &flipped), Err(Refusal::NoMatch));
            let mut other = header.clone().into_bytes();
            *other.last_mut().unwrap() ^= 1;
            let other = String::from_utf8(other).unwrap();
            prop_assert!(verdict(&other, &body).is_err());
        }
    }
}
