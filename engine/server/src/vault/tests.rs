use std::os::unix::fs::PermissionsExt as _;

use posthaste_core::endpoint::{CustomHeader, Secret};
use posthaste_core::registry::{Table, table_key};
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::*;

const TEXT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ENDPOINT: EndpointId = EndpointId::from_bytes([7; 16]);

fn vault(keys: &[u8]) -> Vault {
    let mut keys = keys.iter().map(|&byte| MasterKey::new(&[byte; 32]));
    Vault {
        first: keys.next().unwrap(),
        others: keys.collect(),
    }
}

fn sealed(vault: &Vault, endpoint: EndpointId, id: &str) -> Secret {
    let held = Held::Sealed(vault.seal(endpoint, id, TEXT).unwrap());
    Secret::new(id.to_owned(), TEXT, held, Timestamp::default())
}

fn with(secrets: Vec<Secret>) -> Endpoint {
    let record = proto::Endpoint {
        id: ENDPOINT.as_bytes().to_vec().into(),
        tenant: "acme".into(),
        url: "https://example.com/".into(),
        secrets: secrets.iter().map(Secret::to_proto).collect(),
        ..Default::default()
    };
    Endpoint::from_proto(record).unwrap()
}

#[test]
fn what_is_sealed_opens_for_its_endpoint_and_id_alone() {
    let vault = vault(&[1]);
    let secret = sealed(&vault, ENDPOINT, "sec_a");
    assert_eq!(
        vault
            .open(ENDPOINT, &secret.id, &secret.held)
            .unwrap()
            .as_str(),
        TEXT
    );
    let elsewhere = EndpointId::from_bytes([8; 16]);
    assert_eq!(
        vault.open(elsewhere, &secret.id, &secret.held),
        Err(OpenError::Damaged)
    );
    let renamed = Secret {
        id: "sec_b".into(),
        ..secret.clone()
    };
    assert_eq!(
        vault.open(ENDPOINT, &renamed.id, &renamed.held),
        Err(OpenError::Damaged)
    );
    // The same text is never the same bytes.
    let (Held::Sealed(one), Held::Sealed(two)) =
        (secret.held, sealed(&vault, ENDPOINT, "sec_a").held)
    else {
        panic!("sealed");
    };
    assert!(one.nonce != two.nonce && one.text != two.text);
}

#[test]
fn every_changed_bit_is_noticed() {
    let vault = vault(&[1]);
    let secret = sealed(&vault, ENDPOINT, "sec_a");
    let Held::Sealed(good) = &secret.held else {
        panic!("sealed");
    };
    let refused = |bad: Sealed| {
        let secret = Secret {
            held: Held::Sealed(bad),
            ..secret.clone()
        };
        assert_eq!(
            vault.open(ENDPOINT, &secret.id, &secret.held),
            Err(OpenError::Damaged)
        );
    };
    for bit in 0..good.text.len() * 8 {
        let mut text = good.text.to_vec();
        text[bit / 8] ^= 1 << (bit % 8);
        refused(Sealed {
            text: text.into(),
            ..good.clone()
        });
    }
    for bit in 0..NONCE_BYTES * 8 {
        let mut nonce = good.nonce.to_vec();
        nonce[bit / 8] ^= 1 << (bit % 8);
        refused(Sealed {
            nonce: nonce.into(),
            ..good.clone()
        });
    }
    for short in 0..good.text.len() {
        refused(Sealed {
            text: good.text.slice(..short),
            ..good.clone()
        });
    }
    refused(Sealed {
        nonce: good.nonce.slice(1..),
        ..good.clone()
    });
}

#[test]
fn the_first_key_seals_and_all_open() {
    let old = vault(&[1]);
    let both = vault(&[2, 1]);
    let secret = sealed(&old, ENDPOINT, "sec_a");
    assert_eq!(
        both.open(ENDPOINT, &secret.id, &secret.held)
            .unwrap()
            .as_str(),
        TEXT
    );
    assert!(old.has_sealed(&secret.held) && !both.has_sealed(&secret.held));
    let clear = Held::Clear(Zeroizing::new(TEXT.to_owned()));
    let clear = Secret::new("sec_b".into(), TEXT, clear, Timestamp::default());
    assert!(!both.has_sealed(&clear.held));

    let mut endpoint = with(vec![secret.clone(), clear]);
    endpoint.headers.push(CustomHeader {
        name: "authorization".into(),
        held: Held::Clear(Zeroizing::new(TEXT.to_owned())),
    });
    both.reseal(&mut endpoint).unwrap();
    let new = vault(&[2]);
    assert!(both.is_current(&endpoint));
    for (id, held) in endpoint.kept() {
        assert_eq!(new.open(ENDPOINT, &id, held).unwrap().as_str(), TEXT);
    }
    assert_eq!(endpoint.kept().count(), 3);
    let before = endpoint.to_proto();
    both.reseal(&mut endpoint).unwrap();
    assert_eq!(endpoint.to_proto(), before, "nothing is left to seal");
    let unknown = new.open(ENDPOINT, &secret.id, &secret.held);
    let text = unknown.unwrap_err().to_string();
    assert!(text.contains(&old.first.id), "{text}");
    assert!(new.reseal(&mut with(vec![secret])).is_err());
}

#[test]
fn a_table_of_another_key_is_refused_by_name() {
    let (old, new) = (vault(&[1]), vault(&[2]));
    let mut table = Table::default();
    let endpoint = with(vec![sealed(&old, ENDPOINT, "sec_a")]);
    let value = endpoint.to_proto().to_value();
    table.apply(&table_key(ENDPOINT), &value).unwrap();
    let registry = table.snapshot();
    let now = Timestamp::from_millis(1);
    assert_eq!(old.judge(&registry, now).unwrap(), 0);
    assert_eq!(vault(&[2, 1]).judge(&registry, now).unwrap(), 1);
    let refused = new.judge(&registry, now).unwrap_err().to_string();
    for part in [
        "secrets.keys: ",
        &ENDPOINT.to_string(),
        &old.first.id,
        &new.first.id,
    ] {
        assert!(refused.contains(part), "no `{part}` in: {refused}");
    }
}

#[test]
fn a_folder_has_one_key_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(KEY_FILE);
    std::fs::write(path.with_extension("key.new"), "left by a crash").unwrap();
    let made = Vault::beside(dir.path()).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Vault::beside(dir.path()).unwrap();
    assert_eq!(made.first.id, again.first.id);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(Vault::beside(other.path()).unwrap().first.id, made.first.id);
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 1, "nothing else is left");
}

#[test]
fn a_source_without_a_key_is_named_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let refused = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let keys = format!(
            "log = \"kafka://a:1\"\n[secrets]\nkeys = [\"file:{}\"]",
            path.display()
        );
        let refused = Vault::configured(&Config::parse(&keys).unwrap());
        refused.unwrap_err().to_string()
    };
    for (text, problem) in [
        (None, "cannot be read: No such file"),
        (Some("hunter2!"), "does not hold base64"),
        (Some(""), "holds 0 bytes"),
        (Some("aHVudGVyMg=="), "holds 7 bytes"),
    ] {
        let refused = refused(text);
        assert!(refused.contains(problem), "{refused}");
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
        assert!(!refused.contains("hunter2") && !refused.contains("aHVudGVyMg"));
    }
    let none = Vault::configured(&Config::parse("log = \"kafka://a:1\"").unwrap());
    let none = none.unwrap_err().to_string();
    assert!(none.starts_with("secrets.keys: none is set"), "{none}");
    let unset = "[secrets]\nkeys = [\"env:POSTHASTE_NO_SUCH_KEY\"]";
    let unset = Vault::configured(&Config::parse(unset).unwrap());
    let unset = unset.unwrap_err().to_string();
    assert!(
        unset.contains("`env:POSTHASTE_NO_SUCH_KEY` is not set"),
        "{unset}"
    );
}

#[test]
fn the_configured_keys_are_taken_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let place = |byte: u8| {
        use base64::Engine as _;
        let path = dir.path().join(byte.to_string());
        let text = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        format!("\"file:{}\"", path.display())
    };
    let text = format!("[secrets]\nkeys = [{}, {}]", place(2), place(1));
    let read = Vault::configured(&Config::parse(&text).unwrap()).unwrap();
    let read = read.expect("keys are set");
    assert_eq!(format!("{read:?}"), format!("{:?}", vault(&[2, 1])));
    assert!(Vault::configured(&Config::default()).unwrap().is_none());
}
