use super::*;
use crate::rng::Rng;
use crate::target::corpus::{Expected, POLICY, at_port, rows};
use crate::target::{Host, Target};

fn wall(allow: &[&str], deny: &[&str]) -> Wall {
    Wall::new(
        allow.iter().map(|text| text.parse().unwrap()).collect(),
        deny.iter().map(|text| text.parse().unwrap()).collect(),
    )
}

fn at(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 443)
}

fn reason(wall: &Wall, text: &str) -> Option<Reason> {
    wall.judge(at(text)).err().map(|refused| refused.reason)
}

/// The address a target names itself, if it names one.
fn literal(target: &Target) -> Option<SocketAddr> {
    match target.host() {
        Host::Name(_) => None,
        Host::V4(address) => Some(SocketAddr::new(IpAddr::V4(*address), target.port())),
        Host::V6(address) => Some(SocketAddr::new(IpAddr::V6(*address), target.port())),
    }
}

#[test]
fn every_address_of_the_corpus_is_judged_as_it_says() {
    let wall = Wall::default();
    let mut counts = [0; 3];
    for row in rows() {
        let parsed = Target::parse(&row.url, &POLICY);
        match row.expected {
            Expected::RefuseParse => {}
            Expected::RefuseAddress => {
                let passed = parsed.is_ok_and(|target| {
                    let address = literal(&target).expect("the row names an address");
                    wall.judge(address).is_ok()
                });
                assert!(!passed, "{}: {}", row.url, row.why);
                counts[0] += 1;
            }
            Expected::RefuseDns => {
                let target = parsed.unwrap();
                let refused = row
                    .lookups
                    .iter()
                    .any(|answers| wall.judge_all(&at_port(answers, target.port())).is_err());
                assert!(refused, "{}: {}", row.url, row.why);
                counts[1] += 1;
            }
            Expected::Allow | Expected::RefuseAttempt => {
                let target = parsed.unwrap();
                if let Some(address) = literal(&target) {
                    assert_eq!(wall.judge(address), Ok(()), "{}: {}", row.url, row.why);
                } else {
                    assert!(
                        !row.lookups.is_empty(),
                        "{}: a name without answers",
                        row.url
                    );
                }
                for answers in &row.lookups {
                    let answers = at_port(answers, target.port());
                    assert_eq!(wall.judge_all(&answers), Ok(()), "{}", row.url);
                }
                counts[2] += 1;
            }
        }
    }
    assert_eq!(counts, [90, 22, 55]);
}

/// A look-up is judged as it comes: one that turns bad after two good ones is
/// refused then, and not before.
#[test]
fn each_look_up_stands_alone() {
    let wall = Wall::default();
    let row = rows()
        .into_iter()
        .find(|row| row.why.contains("public twice"))
        .unwrap();
    let verdicts: Vec<_> = row
        .lookups
        .iter()
        .map(|answers| wall.judge_all(&at_port(answers, 443)).is_ok())
        .collect();
    assert_eq!(verdicts, [true, true, false]);
}

#[test]
fn reasons_are_named() {
    let wall = Wall::default();
    for (text, expected) in [
        ("8.8.8.8", None),
        ("2606:4700:4700::1111", None),
        ("0.0.0.0", Some(Reason::Loopback)),
        ("127.0.0.1", Some(Reason::Loopback)),
        ("100.64.0.1", Some(Reason::Private)),
        ("169.254.169.254", Some(Reason::LinkLocal)),
        ("168.63.129.16", Some(Reason::CloudHost)),
        ("203.0.113.1", Some(Reason::SpecialPurpose)),
        ("192.88.99.1", Some(Reason::Transition)),
        ("224.0.0.1", Some(Reason::Multicast)),
        ("255.255.255.255", Some(Reason::Reserved)),
        ("::", Some(Reason::Loopback)),
        ("::1", Some(Reason::Loopback)),
        ("::2", Some(Reason::Transition)),
        ("::ffff:8.8.8.8", Some(Reason::Transition)),
        ("64:ff9b::808:808", Some(Reason::Transition)),
        ("2606:4700::5efe:a00:1", Some(Reason::Transition)),
        ("2606:4700::200:5efe:a00:1", Some(Reason::Transition)),
        ("fd00:ec2::254", Some(Reason::Private)),
        ("fe80::1", Some(Reason::LinkLocal)),
        ("fec0::1", Some(Reason::LinkLocal)),
        ("ff02::1", Some(Reason::Multicast)),
        ("3ffe::1", Some(Reason::Reserved)),
        ("4000::1", Some(Reason::Reserved)),
    ] {
        assert_eq!(reason(&wall, text), expected, "{text}");
    }
    let nothing = wall.judge_all(&[]).unwrap_err();
    assert_eq!(nothing.reason, Reason::NoAddress);
}

#[test]
fn blocks_end_where_they_end() {
    let wall = Wall::default();
    for (last_in, first_out) in [
        ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
        ("2001:db8:ffff:ffff::", "2001:db9::"),
        ("2002:ffff:ffff::", "2003::"),
        ("2620:4f:8000:ffff::", "2620:4f:8001::"),
        ("3fff:fff:ffff::", "3fff:1000::"),
        ("100.127.255.255", "100.128.0.0"),
        ("172.31.255.255", "172.32.0.0"),
        ("198.19.255.255", "198.20.0.0"),
        ("168.63.129.16", "168.63.129.17"),
    ] {
        assert!(reason(&wall, last_in).is_some(), "{last_in}");
        assert_eq!(reason(&wall, first_out), None, "{first_out}");
    }
    assert_eq!(reason(&wall, "1fff:ffff::"), Some(Reason::Reserved));
    assert_eq!(reason(&wall, "2000::"), None);
}

#[test]
fn a_customer_learns_nothing_of_the_address() {
    let wall = wall(&[], &["93.184.216.34"]);
    let texts: Vec<_> = ["127.0.0.1", "10.1.2.3", "fe80::1", "93.184.216.34"]
        .into_iter()
        .map(|text| wall.judge(at(text)).unwrap_err().to_string())
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert!(!texts[0].bytes().any(|byte| byte.is_ascii_digit()));
}

#[test]
fn the_allow_list_is_the_only_way_through() {
    let wall = wall(
        &["127.0.0.0/8", "10.1.0.0/16:8080", "[fd00::1]:9000", "::/0"],
        &["93.184.216.0/24", "127.0.0.1"],
    );
    let judge = |text: &str| wall.judge(text.parse().unwrap());
    let refused = |reason| Err(Refused { reason });
    assert_eq!(judge("127.0.0.1:1"), Ok(()));
    assert_eq!(judge("10.1.255.255:8080"), Ok(()));
    assert_eq!(judge("10.1.255.255:8081"), refused(Reason::Private));
    assert_eq!(judge("10.2.0.0:8080"), refused(Reason::Private));
    assert_eq!(judge("93.184.216.34:443"), refused(Reason::Denied));
    assert_eq!(judge("93.184.217.1:443"), Ok(()));
    assert_eq!(judge("[fe80::1]:443"), Ok(()));
    assert_eq!(judge("[::ffff:127.0.0.1]:443"), refused(Reason::Transition));
    let mixed = [
        "127.0.0.1:1".parse().unwrap(),
        "10.2.0.0:1".parse().unwrap(),
    ];
    assert_eq!(wall.judge_all(&mixed), refused(Reason::Private));
}

#[test]
fn blocks_are_read_as_written_or_refused_with_the_right_form() {
    for text in [
        "127.0.0.0/8",
        "10.1.0.0/16:8080",
        "fd00::/8",
        "fd00::/8:443",
        "0.0.0.0/0",
        "::/0",
    ] {
        assert_eq!(text.parse::<Allow>().unwrap().to_string(), text);
    }
    for (text, form) in [
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.1:80", "10.0.0.1/32:80"),
        ("::1", "::1/128"),
        ("[::1]:80", "::1/128:80"),
    ] {
        assert_eq!(text.parse::<Allow>().unwrap().to_string(), form);
    }
    let error = |text: &str| text.parse::<Allow>().unwrap_err();
    for text in [
        "",
        "localhost",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "10.0.0/8",
        "[fd00::/8]:443",
        "a/8:80",
    ] {
        assert!(matches!(error(text), CidrError::Syntax(_)), "{text}");
    }
    assert!(matches!(
        error("10.0.0.0/33"),
        CidrError::Prefix { max: 32, .. }
    ));
    assert!(matches!(
        error("fd00::/129"),
        CidrError::Prefix { max: 128, .. }
    ));
    assert!(
        error("10.1.2.3/16:80")
            .to_string()
            .ends_with("expected `10.1.0.0/16`")
    );
    for text in [
        "10.0.0.0/8:",
        "10.0.0.0/8:0",
        "10.0.0.0/8:+1",
        "10.0.0.0/8:65536",
        "10.0.0.1:0",
    ] {
        assert!(matches!(error(text), CidrError::Port(_)), "{text}");
    }
}

/// The standard library's own idea of what is not public, over many addresses.
#[test]
fn nothing_the_standard_library_calls_special_passes() {
    let wall = Wall::default();
    let mut rng = Rng::new(20);
    let mut special = 0;
    for _ in 0..200_000 {
        let bits = u32::try_from(rng.next_u64() >> 32).unwrap();
        let v4 = Ipv4Addr::from_bits(bits);
        let private = v4.is_private() || v4.is_loopback() || v4.is_link_local();
        let other = v4.is_multicast() || v4.is_documentation() || v4.is_unspecified();
        if private || other || v4.is_broadcast() {
            assert!(reason(&wall, &v4.to_string()).is_some(), "{v4}");
            special += 1;
        }
        let v6 = Ipv6Addr::from_bits((u128::from(rng.next_u64()) << 64) | u128::from(bits));
        let global = v6.segments()[0] >> 13 == 1;
        let judged = wall.judge(SocketAddr::new(IpAddr::V6(v6), 443));
        assert!(global || judged.is_err(), "{v6}");
    }
    assert!(special > 10_000, "{special}");
}
