//! The sink as a process: real sockets, real signals.

#[expect(clippy::unwrap_used, reason = "only tests call it")]
mod client;
mod wire;

use std::time::{Duration, Instant};

use client::{Client, SECRET, Sink, post, signed};

const ALL: [&str; 4] = ["--verify", "all", "--secret", SECRET];

#[test]
fn deliveries_are_verified_counted_and_gaps_are_named() {
    let sink = Sink::start(&[&ALL[..], &["--endpoints", "4"]].concat());
    let mut client = sink.client();
    for n in (0..8).filter(|n| *n != 5) {
        let path = format!("/e/{}", n % 4);
        assert_eq!(
            client.ask(&signed(&path, &format!("load-{n}"), "{}")).0,
            200
        );
    }
    assert_eq!(client.ask(&signed("/e/1", "load-1", "{}")).0, 200);
    let unsigned = "POST /e/1 HTTP/1.1\r\nwebhook-id: load-5\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(client.ask(unsigned).0, 401);
    let mut forged = signed("/e/1", "load-5", "{}");
    forged = forged.replace("\r\n\r\n{}", "\r\n\r\n[]");
    assert_eq!(client.ask(&forged).0, 401);
    let report = sink.report("from=0&to=8");
    assert_eq!(report["deliveries"], 8);
    assert_eq!(
        (&report["unique"], &report["duplicates"]),
        (&7.into(), &1.into())
    );
    assert_eq!(
        report["expected"]["missing_examples"],
        serde_json::json!([5])
    );
    assert_eq!(report["signatures"]["failed"], 2);
    let failures = &report["signatures"]["failures"];
    assert!(
        failures[0]["reason"]
            .to_string()
            .contains("webhook-timestamp")
    );
    assert!(
        failures[1]["reason"]
            .to_string()
            .contains("no signature in the header matches")
    );
    assert_eq!(report["endpoints"][0]["path"], "/e/1");
    assert_eq!(report["endpoints"][0]["refused"], 2);
}

#[test]
fn many_connections_lose_nothing() {
    let sink = Sink::start(&["--endpoints", "1"]);
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let sink = &sink;
            scope.spawn(move || {
                let mut client = sink.client();
                // Every id twice, by different connections.
                for n in (0..500).map(|n| (n + lane * 125) % 1_000) {
                    assert_eq!(client.ask(&post("/e/0", &format!("run-{n}"))).0, 200);
                }
            });
        }
    });
    let report = sink.report("from=0&to=1000");
    let half: u64 = report["unique"].as_u64().unwrap();
    assert_eq!(report["deliveries"], 4_000);
    assert_eq!(half + report["duplicates"].as_u64().unwrap(), 4_000);
    assert_eq!((half, &report["expected"]["missing"]), (1_000, &0.into()));
    assert_eq!(report["connections"], 9);
}

#[test]
fn rules_make_it_misbehave_and_end_by_themselves() {
    let sink = Sink::start(&[]);
    let webhook = |id: &str| post("/e/7", id);
    sink.behave("path=/e/7&do=status:429:5&for=1");
    let (status, head) = sink.client().ask(&webhook("a-0"));
    assert_eq!(status, 429);
    assert!(head.contains("retry-after: 5\r\n"));
    assert_eq!(sink.client().ask(&webhook("a-0")).0, 200);

    sink.behave("path=/e/7&do=delay:300&for=1");
    let mut client = sink.client();
    let before = Instant::now();
    // The second is pipelined behind the delayed one and keeps its place.
    client.send(&format!("{}{}", webhook("a-1"), post("/other", "a-2")));
    assert_eq!((client.answer().0, client.answer().0), (200, 200));
    assert!(before.elapsed() >= Duration::from_millis(300));

    sink.behave("path=/e/7&do=drip:5&for=1");
    let mut client = sink.client();
    let before = Instant::now();
    assert_eq!(client.ask(&webhook("a-3")).0, 200);
    assert!(before.elapsed() >= Duration::from_millis(64 * 5));
    assert_eq!(client.ask(&webhook("a-4")).0, 200);

    for (act, gone) in [("close", true), ("reset", true), ("hang", false)] {
        sink.behave(&format!("path=/e/7&do={act}&for=1"));
        let mut client = sink.client();
        client.send(&webhook("b-0"));
        assert_eq!(client.is_gone(Duration::from_millis(300)), gone, "{act}");
    }
    sink.behave("do=close-after&for=1");
    let mut client = sink.client();
    assert_eq!(client.ask(&webhook("a-5")).0, 200);
    assert!(client.is_gone(Duration::from_secs(10)));

    let report = sink.report("");
    assert_eq!(
        (&report["refused"], &report["unique"]),
        (&4.into(), &6.into())
    );
    assert_eq!(report["duplicates"], 0);
}

#[test]
fn stamped_bodies_tell_how_old_they_are() {
    let sink = Sink::start(&["--latency"]);
    let mut client = sink.client();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let long_ago = since.unwrap().as_millis() - 60_000;
    let body = format!("{{\"sent_ms\":{long_ago}}}");
    assert_eq!(client.ask(&signed("/e/0", "a-0", &body)).0, 200);
    assert_eq!(client.ask(&signed("/e/0", "a-1", "{}")).0, 200);
    let (status, told) = sink.ask("POST", "/_sink/latency");
    assert_eq!((status, &told["count"]), (200, &1.into()));
    let oldest = told["max_ms"].as_u64().unwrap();
    assert!((60_000..90_000).contains(&oldest), "{told}");
    // Asked again, it begins anew.
    assert_eq!(sink.ask("POST", "/_sink/latency").1["count"], 0);
}

#[test]
fn commands_are_checked_and_reset_forgets_all() {
    let sink = Sink::start(&[]);
    let ask = |method: &str, target: &str| sink.ask(method, target).0;
    assert_eq!(ask("POST", "/_sink/behave?do=explode"), 400);
    assert_eq!(ask("GET", "/_sink/behave?do=ok"), 404);
    assert_eq!(ask("GET", "/_sink/report?from=x"), 400);
    assert_eq!(ask("GET", "/e/1"), 405);
    sink.behave("do=status:503");
    assert_eq!(sink.client().ask(&post("/e/1", "a-1")).0, 503);
    assert_eq!(ask("POST", "/_sink/reset"), 200);
    assert_eq!(sink.client().ask(&post("/e/1", "a-1")).0, 200);
    assert_eq!(sink.report("")["refused"], 0);
    let (status, cpu) = sink.ask("GET", "/_sink/cpu");
    assert_eq!(status, 200);
    assert!(cpu["user_us"].is_u64() && cpu["sys_us"].is_u64());
}

#[test]
fn a_killed_sink_has_forgotten_nothing_it_answered_for() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let journal = journal.to_str().unwrap();
    let arguments = ["--endpoints", "1", "--journal", journal];
    let mut answered = 0;
    for life in 0..5 {
        let mut sink = Sink::start(&arguments);
        let lanes: Vec<_> = (0..4)
            .map(|lane| {
                let mut client = sink.client();
                std::thread::spawn(move || {
                    let id = |n| format!("run-{}", (life * 4 + lane) * 100_000 + n);
                    (0..)
                        .take_while(|n| client.try_ask(&post("/e/0", &id(*n))))
                        .count()
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        sink.kill();
        answered += lanes
            .into_iter()
            .map(|lane| lane.join().unwrap())
            .sum::<usize>();
    }
    let sink = Sink::start(&arguments);
    let written = sink.report("")["unique"].as_u64().unwrap();
    let answered = u64::try_from(answered).unwrap();
    assert!(
        answered > 0 && written >= answered,
        "{written} written, {answered} answered"
    );
    assert!(
        written <= answered + 5 * 4,
        "{written} written, {answered} answered"
    );
}

#[test]
fn a_signal_ends_it_with_the_report_and_the_exit_code_tells() {
    for (sent, code) in [(3, 0), (2, 3)] {
        let sink = Sink::start(&["--endpoints", "1", "--expect", "0..3"]);
        let mut client = sink.client();
        for n in 0..sent {
            client.ask(&post("/e/0", &format!("run-{n}")));
        }
        let (exit, report) = sink.terminate();
        assert_eq!(exit, Some(code));
        assert_eq!(report["unique"], sent);
        assert_eq!(report["expected"]["missing"], 3 - sent);
    }
}

#[test]
fn wrong_usage_and_a_taken_address_end_it() {
    assert_eq!(client::exit_code(&["--verify", "some"]), Some(2));
    assert_eq!(client::exit_code(&["--verify", "all"]), Some(1));
    let taken = Sink::start(&[]);
    let address = taken.address.to_string();
    assert_eq!(client::exit_code(&["--listen", &address]), Some(1));
}

#[test]
fn one_wildcard_listener_is_every_loopback_address() {
    let sink = Sink::start(&["--listen", "0.0.0.0:0"]);
    for host in ["127.0.0.1", "127.1.0.1", "127.3.9.250"] {
        let address = format!("{host}:{}", sink.address.port());
        let mut client = Client::connect(address.parse().unwrap());
        assert_eq!(client.ask(&post("/e/0", "a-0")).0, 200);
    }
}
