use proptest::prelude::{any, prop_assert_eq, proptest};
use proptest::sample::Index;
use serde_json::Value;

use super::signer::{DIGITS_MAX, decimal};
use super::*;
use crate::limits::SIGNING_KEYS_MAX;
use crate::outcome::Cause;

mod incoming;
mod schemes;

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const AT: u64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const KEY_A: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const KEY_B: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const KEY_E: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const SIGNED_A: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

/// Name, keys, id, timestamp, body, expected header.
type Derived = (
    &'static str,
    &'static [&'static str],
    &'static str,
    u64,
    &'static [u8],
    &'static str,
);

fn published() -> Value {
    let all: Value = serde_json::from_str(include_str!("../../testdata/signatures.json")).unwrap();
    all["standard_webhooks"].clone()
}

fn sign(keys: &[&str], id: &str, at: u64, body: &[u8]) -> String {
    let keys = keys.iter().map(|k| SigningKey::parse(k).unwrap()).collect();
    let mut out = Vec::new();
    Signer::new(keys).sign_into(id.as_bytes(), at, body, &mut out);
    String::from_utf8(out).unwrap()
}

fn verifier(key: &str) -> Verifier {
    Verifier::new(vec![VerifyingKey::parse(key).unwrap()])
}

fn verify_at(key: &str, header: &str, body: &[u8], now_s: u64) -> Result<(), Refusal> {
    let now = Timestamp::from_millis(now_s * 1_000);
    verifier(key).verify(Some(ID), Some(&AT.to_string()), Some(header), body, now)
}

fn verify(key: &str, header: &str, body: &[u8]) -> Result<(), Refusal> {
    verify_at(key, header, body, AT)
}

/// A published vector's secret, id, timestamp, body and expected header.
fn inputs(vector: &Value) -> (&str, &str, u64, &str, &str) {
    let text = |name: &str| vector[name].as_str().unwrap();
    (
        text("secret"),
        text("id"),
        vector["timestamp"].as_u64().unwrap(),
        text("body"),
        text("expect"),
    )
}

#[test]
fn published_vectors_are_reproduced_and_accepted() {
    let published = published();
    let vectors = published["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let (secret, id, at, body, expect) = inputs(vector);
        assert_eq!(sign(&[secret], id, at, body.as_bytes()), expect);

        let public = SigningKey::parse(secret).unwrap().verifying().public_text();
        assert_eq!(public.as_deref(), vector["public"].as_str());
        let key = public.as_deref().unwrap_or(secret);
        let now = Timestamp::from_millis(at * 1_000);
        let verdict = verifier(key).verify(
            Some(id),
            Some(&at.to_string()),
            Some(expect),
            body.as_bytes(),
            now,
        );
        assert_eq!(verdict, Ok(()));
    }
}

#[test]
fn published_rejects_are_refused() {
    let published = published();
    let (secret, id, at, body, expect) = inputs(&published["vectors"][0]);
    let mut seen = 0;
    for case in published["reject"].as_array().unwrap() {
        assert_eq!(case["of"], "v1", "every published reject is of v1");
        if let Some(missing) = case["missing"].as_array() {
            let at_text = at.to_string();
            let now = Timestamp::from_millis(at * 1_000);
            for name in missing {
                let given = |header: &str, value| (name != header).then_some(value);
                let verdict = verifier(secret).verify(
                    given("webhook-id", id),
                    given("webhook-timestamp", &at_text),
                    given("webhook-signature", expect),
                    body.as_bytes(),
                    now,
                );
                assert!(matches!(verdict, Err(Refusal::Missing(n)) if name == n));
                seen += 1;
            }
            continue;
        }
        let header = case["header"].as_str().unwrap_or(expect);
        let offset = case["now_offset_s"].as_i64().unwrap_or(0);
        let now = at.checked_add_signed(offset).unwrap();
        let refusal = match offset {
            0 => Refusal::NoMatch,
            1.. => Refusal::TooOld,
            _ => Refusal::TooNew,
        };
        assert_eq!(
            verify_at(secret, header, body.as_bytes(), now),
            Err(refusal),
            "{case}"
        );
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn one_right_signature_among_wrong_and_unknown_ones_is_enough() {
    let published = published();
    let (secret, _, _, body, _) = inputs(&published["vectors"][0]);
    let header = published["accept_multi"]["header"].as_str().unwrap();
    assert_eq!(verify(secret, header, body.as_bytes()), Ok(()));
}

#[test]
fn a_secret_used_as_text_is_refused() {
    let trap = published()["trap"].as_str().unwrap().to_owned();
    assert!(trap.contains("must be rejected"));
    let mut mac =
        <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(KEY_A.as_bytes()).unwrap();
    for part in Content::new(ID.as_bytes(), b"1614265330", BODY).0 {
        hmac::Mac::update(&mut mac, part);
    }
    let signature = BASE64.encode(hmac::Mac::finalize(mac).into_bytes());
    assert_eq!(signature, "TcxlhK9b6UD6iVI1ZU2tTqp8PEVfYRseNNfa6b+LcUg=");
    assert_eq!(
        verify(KEY_A, &format!("v1,{signature}"), BODY),
        Err(Refusal::NoMatch)
    );
}

#[test]
fn derived_vectors_are_reproduced() {
    let utf8 = r#"{"name":"Zoë 🚀","note":"snowman ☃"}"#.as_bytes();
    let minified = concat!(
        r#"{"type":"contact.created","timestamp":"2022-11-03T20:26:10.344522Z","#,
        r#""data":{"id":"1f81eb52-5198-4599-803e-771906343485"}}"#,
    )
    .as_bytes();
    let cases: [Derived; 6] = [
        (
            "SW-D1 rotation, the new key first",
            &[KEY_B, KEY_A],
            ID,
            AT,
            BODY,
            "v1,78nXHjpFP0tVJQW5D0SBwmVyyW87BV/rL6MgfM/Bw44= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "SW-D2 UTF-8",
            &[KEY_A],
            ID,
            AT,
            utf8,
            "v1,jEoLokZ6B1C9aEf4FhxknDb9lNAxdlIt/K//c7iIRNE=",
        ),
        (
            "SW-D3 empty body",
            &[KEY_A],
            ID,
            AT,
            b"",
            "v1,v48jdbgvh29KJz2Qc+ghw8G6vG3nAKnujWBg8oM/62A=",
        ),
        (
            "SW-D4 not UTF-8",
            &[KEY_A],
            ID,
            AT,
            b"\x00\xff\x80",
            "v1,6zoMSQ+5wmZYQWOQK/2FQzUsDQlnd8GqyZ9j0TLBM+A=",
        ),
        (
            "SW-D5 the specification's example body",
            &[KEY_A],
            "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
            1_674_087_231,
            minified,
            "v1,ARw42xaAApl/nxRo+iPGYwSaMQaOwMo2eyH5JBRA+bQ=",
        ),
        (
            "SW-D6 v1a of the UTF-8 body",
            &[KEY_E],
            ID,
            AT,
            utf8,
            "v1a,0mDQNJEhZUjbWb8PJ9t6FC0JIOrvLhSaT0fdrLo2zBD7v18UDSYrmbYCRHaH23KK5ybcU22/pdzb2fs8qByvBQ==",
        ),
    ];
    for (name, keys, id, at, body, expect) in cases {
        assert_eq!(sign(keys, id, at, body), expect, "{name}");
    }
}

#[test]
fn bad_keys_are_refused_by_name() {
    let altered = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlaaaaaaaaaaAJ6p9lMicMFs6Kvg==";
    let secret_of = |bytes: usize| format!("whsec_{}", BASE64.encode(vec![7; bytes]));
    let cases = [
        ("", KeyError::Empty),
        ("whsec_", KeyError::Empty),
        ("whsec_not base64", KeyError::Base64),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", KeyError::Base64),
        (&secret_of(23), KeyError::SecretLength { bytes: 23 }),
        (&secret_of(65), KeyError::SecretLength { bytes: 65 }),
        (altered, KeyError::PairMismatch),
        (
            "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=",
            KeyError::KeyLength {
                bytes: 32,
                expected: 64,
            },
        ),
        (
            "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
            KeyError::PublicOnly,
        ),
    ];
    for (text, error) in cases {
        assert_eq!(SigningKey::parse(text).unwrap_err(), error, "{text}");
    }
    for bytes in [24, 64] {
        assert!(SigningKey::parse(&secret_of(bytes)).is_ok(), "{bytes}");
    }
    let public = |bytes: &[u8]| {
        let text = format!("whpk_{}", BASE64.encode(bytes));
        VerifyingKey::parse(&text).map(|_| ()).unwrap_err()
    };
    assert_eq!(
        public(&[1; 31]),
        KeyError::KeyLength {
            bytes: 31,
            expected: 32
        }
    );
    // The neutral element: of order one.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    assert_eq!(public(&neutral), KeyError::WeakPublic);
}

#[test]
fn the_prefix_may_be_left_out() {
    let bare = KEY_A.strip_prefix("whsec_").unwrap();
    assert_eq!(sign(&[bare], ID, AT, BODY), SIGNED_A);
}

#[test]
fn the_tolerance_holds_to_the_second_both_ways() {
    assert_eq!(verify_at(KEY_A, SIGNED_A, BODY, AT + 300), Ok(()));
    assert_eq!(verify_at(KEY_A, SIGNED_A, BODY, AT - 300), Ok(()));
    assert_eq!(
        verify_at(KEY_A, SIGNED_A, BODY, AT + 301),
        Err(Refusal::TooOld)
    );
    assert_eq!(
        verify_at(KEY_A, SIGNED_A, BODY, AT - 301),
        Err(Refusal::TooNew)
    );
}

#[test]
fn malformed_headers_are_refused() {
    let now = Timestamp::from_millis(AT * 1_000);
    let with =
        |id: &str, at: &str| verifier(KEY_A).verify(Some(id), Some(at), Some(SIGNED_A), BODY, now);
    for at in [
        "+1614265330",
        "-1",
        "1614265330.0",
        "Infinity",
        " 1614265330",
        "99999999999999999999",
    ] {
        assert_eq!(with(ID, at), Err(Refusal::MalformedTimestamp), "{at}");
    }
    assert_eq!(with("", "1614265330"), Err(Refusal::Missing("webhook-id")));
    assert_eq!(
        with("a.1614265330", "1614265330"),
        Err(Refusal::MalformedId)
    );
    for header in [
        "v1",
        ",",
        "v1,g0hM",
        " ",
        "v1 ,x",
        "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ] {
        assert_eq!(
            verify(KEY_A, header, BODY),
            Err(Refusal::NoMatch),
            "{header}"
        );
    }
}

#[test]
fn an_id_cannot_lend_its_end_to_the_timestamp() {
    // The same bytes `a.1.1614265330.x`, cut elsewhere.
    let signed = sign(&[KEY_A], "a", 1, b"1614265330.x");
    let now = Timestamp::from_millis(AT * 1_000);
    let verdict = verifier(KEY_A).verify(Some("a.1"), Some("1614265330"), Some(&signed), b"x", now);
    assert_eq!(verdict, Err(Refusal::MalformedId));
}

#[test]
fn a_version_does_not_pass_for_another() {
    let as_v1a = SIGNED_A.replace("v1,", "v1a,");
    assert_eq!(verify(KEY_A, &as_v1a, BODY), Err(Refusal::NoMatch));
    let signed = sign(&[KEY_E], ID, AT, BODY);
    assert_eq!(verify(KEY_E, &signed, BODY), Ok(()));
    let as_v1 = signed.replace("v1a,", "v1,");
    assert_eq!(verify(KEY_E, &as_v1, BODY), Err(Refusal::NoMatch));
}

#[test]
fn a_rotation_is_accepted_by_receivers_of_either_key() {
    let signed = sign(&[KEY_E, KEY_B, KEY_A], ID, AT, BODY);
    assert_eq!(signed.split(' ').count(), 3);
    for key in [KEY_E, KEY_B, KEY_A] {
        assert_eq!(verify(key, &signed, BODY), Ok(()), "{key}");
    }
    let stranger = generate_secret([9; 32]);
    assert_eq!(
        verify(stranger.expose(), &signed, BODY),
        Err(Refusal::NoMatch)
    );
}

#[test]
fn keys_and_signatures_past_the_bounds_are_not_used() {
    let fourth = sign(&[KEY_B, KEY_B, KEY_B, KEY_A], ID, AT, BODY);
    assert_eq!(fourth.split(' ').count(), SIGNING_KEYS_MAX);
    assert_eq!(verify(KEY_A, &fourth, BODY), Err(Refusal::NoMatch));

    let wrong = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= ";
    let last = format!("{}{SIGNED_A}", wrong.repeat(SIGNATURES_READ_MAX - 1));
    assert_eq!(verify(KEY_A, &last, BODY), Ok(()));
    let past = format!("{}{SIGNED_A}", wrong.repeat(SIGNATURES_READ_MAX));
    assert_eq!(verify(KEY_A, &past, BODY), Err(Refusal::NoMatch));
    assert_eq!(sign(&[], ID, AT, BODY), "");
}

#[test]
fn a_generated_secret_signs_and_shows_nothing() {
    let secret = generate_secret([0xA5; 32]);
    assert_eq!(
        secret.expose(),
        "whsec_paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU="
    );
    let key = SigningKey::parse(secret.expose()).unwrap();
    let verifying = key.verifying();
    assert_eq!(format!("{secret:?}"), "SecretText(..)");
    assert_eq!(format!("{key:?}"), "SigningKey(..)");
    assert_eq!(format!("{verifying:?}"), "VerifyingKey(..)");
    let signer = Signer::new(vec![key]);
    assert_eq!(format!("{signer:?}"), "Signer(..)");
}

#[test]
fn decimals_are_written_whole() {
    for value in [0, 9, 10, 1_614_265_330, u64::MAX] {
        let mut buffer = [0; DIGITS_MAX];
        assert_eq!(decimal(value, &mut buffer), value.to_string().as_bytes());
    }
}

#[test]
fn every_flipped_bit_of_a_signature_is_refused() {
    for key in [KEY_A, KEY_E] {
        let signed = sign(&[key], ID, AT, BODY);
        let (version, base64) = signed.split_once(',').unwrap();
        let signature = BASE64.decode(base64).unwrap();
        for bit in 0..signature.len() * 8 {
            let mut flipped = signature.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let header = format!("{version},{}", BASE64.encode(&flipped));
            assert_eq!(
                verify(key, &header, BODY),
                Err(Refusal::NoMatch),
                "bit {bit}"
            );
        }
        for bit in 0..signed.len() * 7 {
            let mut flipped = signed.clone().into_bytes();
            flipped[bit / 7] ^= 1 << (bit % 7);
            let header = String::from_utf8(flipped).unwrap();
            assert_eq!(
                verify(key, &header, BODY),
                Err(Refusal::NoMatch),
                "{header}"
            );
        }
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_accepted_and_every_flipped_bit_refused(
        body in proptest::collection::vec(any::<u8>(), 1..300),
        random in any::<[u8; 32]>(),
        at in 0_u64..4_102_444_800,
        place in any::<Index>(),
        bit in 0_u32..8,
    ) {
        let secret = generate_secret(random);
        let at_text = at.to_string();
        let now = Timestamp::from_millis(at * 1_000);
        for key in [secret.expose(), KEY_E] {
            let signed = sign(&[key], ID, at, &body);
            let check = |id: &str, body: &[u8]| {
                verifier(key).verify(Some(id), Some(&at_text), Some(&signed), body, now)
            };
            prop_assert_eq!(check(ID, &body), Ok(()));
            let mut flipped = body.clone();
            flipped[place.index(body.len())] ^= 1 << bit;
            prop_assert_eq!(check(ID, &flipped), Err(Refusal::NoMatch));
            prop_assert_eq!(check(ID, &body[1..]), Err(Refusal::NoMatch));
            prop_assert_eq!(check("msg_other", &body), Err(Refusal::NoMatch));
        }
    }
}
