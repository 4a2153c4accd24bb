use super::super::board::tests::{attempt, board};
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_750_000_083_000);

fn head(colours: bool) -> Head {
    Head {
        api: "http://127.0.0.1:8400".into(),
        data: "posthaste-data".into(),
        receiver: "http://127.0.0.1:40000".into(),
        program: "posthaste".into(),
        api_is_default: true,
        since: Timestamp::from_millis(1_750_000_000_000),
        colours,
    }
}

/// What a terminal shows of a line.
fn shown(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    out + rest
}

fn busy() -> Board {
    let mut board = board();
    board.expect("a", "order.created");
    board.accepted("a");
    board.received(0, "a");
    board.attempted(&attempt(1, "a", 1, 200));
    board.attempted(&attempt(2, "a", 1, 503));
    board
}

#[test]
fn the_table_shows_the_figures() {
    let frame = head(false).frame(&busy(), NOW, "running").join("\n");
    for wanted in [
        "running 00:01:23   1 events published, 1 deliveries owed",
        "API       http://127.0.0.1:8400",
        "orders           1          1         1         0        0    1.5 ms    1.5 ms",
        "flaky            1          0         0         1        0    1.5 ms    1.5 ms",
        "15:06:40  order.created          orders      1        200 verified      1.5 ms",
        "15:06:40  order.created          flaky       1        503 http_5xx      1.5 ms",
        "posthaste publish --tenant demo --type order.created --data '{\"id\":1}'",
    ] {
        assert!(frame.contains(wanted), "no `{wanted}` in\n{frame}");
    }
    assert!(!frame.contains('\x1b'), "no colours were asked for");
}

#[test]
fn it_fits_80_columns_by_24_lines_and_stays_in_place() {
    let empty = head(true).frame(&board(), NOW, "running");
    let mut board = busy();
    for number in 0..20 {
        board.attempted(&attempt(1, &format!("e{number}"), 1, 200));
    }
    let full = head(true).frame(&board, NOW, "stopping");
    assert_eq!((empty.len(), full.len()), (24, 24));
    for line in empty.iter().chain(&full) {
        let width = shown(line).chars().count();
        assert!(width <= 80, "{width} columns: {line}");
    }
}

#[test]
fn colours_change_no_text() {
    let plain = head(false).frame(&busy(), NOW, "running");
    let coloured = head(true).frame(&busy(), NOW, "running");
    let stripped: Vec<_> = coloured.iter().map(|line| shown(line)).collect();
    assert_eq!(stripped, plain);
    assert_ne!(coloured, plain);
}

#[test]
fn what_others_wrote_cannot_steer_the_terminal() {
    let mut board = board();
    let mut hostile = attempt(1, "\x1b[2Jid", 1, 200);
    hostile.event_type = "\x1b]0;owned\x07order.created.with.a.very.long.name".into();
    hostile.cause = "\x1b[31mcause".into();
    let line = board.attempted(&hostile);
    let frame = head(false).frame(&board, NOW, "running").join("\n");
    assert!(!frame.contains(['\x1b', '\x07']), "{frame:?}");
    assert!(!line.text().contains(['\x1b', '\x07']));
    assert!(!line.json().to_string().contains(['\x1b', '\x07']));
    assert!(frame.contains("\u{2026}"), "a long type is cut\n{frame}");
}

#[test]
fn the_summary_tells_what_is_owed_and_what_was_refused() {
    let mut board = busy();
    let text = board.totals().text();
    assert!(
        text.contains("1 still owed\nwhat is owed stays in the log"),
        "{text}"
    );
    assert!(!text.contains("not right"), "{text}");
    board.refused(0);
    let text = board.totals().text();
    assert!(
        text.contains("1 requests had a signature that is not right"),
        "{text}"
    );
}
