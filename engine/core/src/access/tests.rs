use std::time::Duration;

use super::*;
use crate::rng::Rng;

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

fn make(number: u8, scopes: &[Scope], tenant: Option<&str>) -> (ApiKey, SecretText) {
    let id = KeyId::generate(NOW, &mut Rng::new(number.into()));
    let new = NewKey {
        scopes: scopes.to_vec(),
        tenant: tenant.map(ToOwned::to_owned),
        description: "a test's".to_owned(),
    };
    // Secrets with every character of the alphabet in them, `_` and `-` too.
    let random = std::array::from_fn(|n| u8::try_from(n).unwrap().wrapping_mul(37) ^ number);
    ApiKey::make(id, random, new, NOW).unwrap()
}

fn folded(keys: &[&ApiKey]) -> Keys {
    let mut all = Keys::default();
    for key in keys {
        let value = key.to_proto().to_value();
        assert_eq!(all.apply(&key_key(key.id), &value), Ok(true));
    }
    all
}

#[test]
fn a_key_lets_in_what_its_scopes_say_until_it_is_revoked() {
    let needs = [Need::Read, Need::Publish, Need::Endpoints, Need::Admin];
    let cases: [(&[Scope], [bool; 4]); 4] = [
        (&[Scope::Admin], [true; 4]),
        (&[Scope::Publish], [false, true, false, false]),
        (&[Scope::Read], [true, false, false, false]),
        (&[Scope::Read, Scope::Publish], [true, true, false, false]),
    ];
    for number in 0..=255 {
        let (scopes, may) = cases[usize::from(number) % cases.len()];
        let (key, text) = make(number, scopes, Some("acme"));
        let mut keys = folded(&[&key]);
        let grant = keys.admit(text.expose(), NOW).expect("it is right");
        assert_eq!(needs.map(|need| grant.may(need)), may, "{scopes:?}");
        assert_eq!((grant.key, grant.portal), (key.id, false));
        assert_eq!(grant.tenant.as_deref(), Some("acme"));
        keys.apply(&key_key(key.id), &Bytes::new()).unwrap();
        let stranger = keys.admit(text.expose(), NOW).expect_err("revoked");
        assert_eq!(stranger.claimed, Some(key.id));
    }
}

#[test]
fn nothing_else_lets_in() {
    let (one, text) = make(1, &[Scope::Admin], None);
    let (other, others_text) = make(2, &[Scope::Read], None);
    let keys = folded(&[&one, &other]);
    let text = text.expose();
    let (head, secret) = text.split_at(text.len() - 43);
    let others_secret = &others_text.expose()[head.len()..];
    for wrong in [
        String::new(),
        head.to_owned(),
        secret.to_owned(),
        format!("{head}{others_secret}"),
        format!("{text}A"),
        format!(" {text}"),
        text[..text.len() - 1].to_owned(),
        text.replacen("pk_", "pt_", 1),
        format!("{head}{}", "é".repeat(20)),
        "é".repeat(20),
        "_".repeat(CREDENTIAL_BYTES_MAX),
        "x".repeat(CREDENTIAL_BYTES_MAX + 1),
    ] {
        assert!(keys.admit(&wrong, NOW).is_err(), "{wrong}");
    }
    assert!(Keys::default().admit(text, NOW).is_err());
}

#[test]
fn the_record_holds_no_key_and_is_shown_without_its_hash() {
    let (key, text) = make(3, &[Scope::Read, Scope::Read], None);
    assert_eq!(key.scopes, [Scope::Read]);
    let value = key.to_proto().to_value();
    let secret = &text.expose().as_bytes()[30..];
    assert!(!value.windows(8).any(|part| secret.starts_with(part)));
    let random = BASE64URL.decode(secret).unwrap();
    assert!(!value.windows(32).any(|part| part == random));
    let shown = format!("{key:?} {:?} {text:?}", key.to_proto());
    assert!(!shown.contains("hash") && shown.len() < 80, "{shown}");
}

#[test]
fn a_key_that_cannot_be_is_refused_by_its_field() {
    let id = KeyId::from_bytes([1; 16]);
    let refused = |new| {
        ApiKey::make(id, [1; 32], new, NOW)
            .expect_err("refused")
            .param
    };
    let scopes = vec![Scope::Read];
    assert_eq!(refused(NewKey::default()), "scopes");
    assert_eq!(
        refused(NewKey {
            scopes: scopes.clone(),
            tenant: Some("a/b".to_owned()),
            ..NewKey::default()
        }),
        "tenant"
    );
    assert_eq!(
        refused(NewKey {
            scopes,
            description: "x".repeat(KEY_DESCRIPTION_BYTES_MAX + 1),
            ..NewKey::default()
        }),
        "description"
    );
    let mut keys = Keys::default();
    let mut record = make(1, &[Scope::Read], None).0.to_proto();
    record.scopes.push("everything".to_owned());
    let key = key_key(KeyId::from_bytes(record.id.as_ref().try_into().unwrap()));
    assert!(keys.apply(&key, &record.to_value()).is_err());
    assert!(keys.apply(b"k/pk_", &Bytes::new()).is_err());
    assert_eq!(keys.apply(b"e/x", &Bytes::new()), Ok(false));
    assert_eq!(keys.iter().len(), 0);
}

#[test]
fn a_portal_token_is_good_for_its_tenant_until_it_expires() {
    let (key, _) = make(1, &[Scope::Admin], None);
    let mut keys = folded(&[&key]);
    let until = NOW.after(Duration::from_secs(60));
    let token = portal_token(
        &key,
        "a.b-ü".trim_end_matches('ü'),
        &[Capability::Read],
        until,
    );
    let text = token.expose();
    let grant = keys.admit(text, NOW).expect("it is right");
    assert!(grant.portal && grant.may(Need::Read) && !grant.may(Need::Endpoints));
    assert_eq!(grant.tenant.as_deref(), Some("a.b-"));
    let last = Timestamp::from_millis(until.as_millis() - 1);
    assert!(keys.admit(text, last).is_ok());
    let late = keys.admit(text, until).expect_err("expired");
    assert!(late.expired && late.claimed == Some(key.id));
    let more = portal_token(&key, "acme", &[Capability::Endpoints], until);
    let grant = keys.admit(more.expose(), NOW).expect("it is right");
    let may = [Need::Read, Need::Publish, Need::Endpoints, Need::Admin].map(|n| grant.may(n));
    assert_eq!(may, [true, false, true, false]);
    keys.apply(&key_key(key.id), &Bytes::new()).unwrap();
    assert!(keys.admit(text, NOW).is_err(), "its key is revoked");
}

#[test]
fn a_portal_token_cannot_be_changed_in_any_character() {
    let (key, _) = make(1, &[Scope::Admin], None);
    let (other, _) = make(2, &[Scope::Admin], None);
    let keys = folded(&[&key, &other]);
    let until = NOW.after(Duration::from_secs(60));
    let token = portal_token(&key, "acme", &[Capability::Read], until);
    let text = token.expose();
    for at in 0..text.len() {
        for with in ["A", "9", ".", "e", ""] {
            let mut changed = text.to_owned();
            changed.replace_range(at..=at, with);
            if changed != text && !changed.eq_ignore_ascii_case(text) {
                assert!(keys.admit(&changed, NOW).is_err(), "{changed}");
            }
        }
    }
    let foreign = portal_token(&other, "acme", &[Capability::Read], until);
    let (_, tag) = foreign.expose().rsplit_once('.').unwrap();
    let (signed, _) = text.rsplit_once('.').unwrap();
    assert!(keys.admit(&format!("{signed}.{tag}"), NOW).is_err());
}
