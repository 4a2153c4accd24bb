use std::collections::HashMap;

use proptest::prelude::*;

use super::report::Question;
use super::*;

fn ask(range: Range<u64>) -> Question {
    Question {
        expected: Some(range),
        endpoints_max: 10,
    }
}

#[test]
fn gaps_and_duplicates_are_found_by_number() {
    let mut tally = Tally::new(4);
    for n in (0..40_u64).filter(|n| ![7, 8, 39].contains(n)) {
        tally.accept(&format!("/e/{}", n % 4), &format!("load-{n}"));
    }
    tally.accept("/e/1", "load-5");
    tally.accept("/e/2", "load-42");
    let report = tally.report(&ask(0..40));
    let expected = report.expected.expect("asked for");
    assert_eq!((expected.missing, expected.outside), (3, 1));
    assert_eq!(expected.missing_examples, [7, 8, 39]);
    assert_eq!(report.run.as_deref(), Some("load"));
    assert_eq!((report.totals.unique, report.totals.duplicates), (38, 1));
    assert_eq!(report.totals.deliveries, 39);
    let worst = &report.endpoints[0];
    assert_eq!((worst.path.as_str(), worst.missing), ("/e/3", 2));
}

#[test]
fn an_endpoint_that_had_nothing_is_missing_all_of_its_numbers() {
    let mut tally = Tally::new(3);
    tally.accept("/e/0", "load-0");
    let expected = tally.report(&ask(0..7)).expected.expect("asked for");
    assert_eq!(expected.missing_examples, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn with_one_endpoint_every_path_owes_every_number() {
    let mut tally = Tally::new(1);
    for path in ["/a", "/b"] {
        for n in 0..10 {
            tally.accept(path, &format!("r-{n}"));
        }
    }
    tally.accept("/c", "r-1");
    let expected = tally.report(&ask(0..10)).expected.expect("asked for");
    assert_eq!((expected.missing, expected.outside), (9, 0));
    assert_eq!(tally.totals.unique, 21);
}

#[test]
fn ids_of_another_form_are_told_apart_too() {
    let mut tally = Tally::new(1);
    for id in ["load-1", "load-01", "load-+1", "load-", "-1", "other-1"] {
        tally.accept("/e", id);
        tally.accept("/e", id);
    }
    tally.accept("/e", "load-99999999999999999999");
    tally.accept("/e", "load-18446744073709551615");
    assert_eq!(tally.totals.unique, 8);
    assert_eq!(tally.totals.unnumbered, 7);
    assert_eq!(tally.totals.duplicates, 6);
    tally.accept("/e", "");
    assert_eq!(tally.totals.without_id, 1);
}

#[test]
fn a_path_past_the_bound_is_counted_but_not_judged() {
    let mut tally = Tally::new(1);
    for path in 0..=PATHS_MAX {
        tally.accept(&format!("/{path}"), "load-0");
    }
    tally.refuse("/one more");
    assert_eq!(tally.totals.unjudged, 1);
    assert_eq!(tally.totals.refused, 1);
    assert_eq!(tally.paths.len(), PATHS_MAX);
}

#[test]
fn a_bitmap_past_its_bound_leaves_the_id_to_the_set() {
    let mut tally = Tally::new(1);
    tally.bitmap_bytes = BITMAP_BYTES_MAX - 64;
    tally.accept("/a", "load-0");
    tally.accept("/a", "load-513");
    tally.accept("/a", "load-513");
    assert_eq!(tally.bitmap_bytes, BITMAP_BYTES_MAX);
    assert_eq!(tally.totals.unnumbered, 1);
    assert_eq!((tally.totals.unique, tally.totals.duplicates), (2, 1));
}

proptest! {
    #[test]
    fn agrees_with_a_plain_map(
        endpoints in 1..5_u64,
        arrivals in proptest::collection::vec((0..4_u64, 0..60_u64, any::<bool>()), 0..200),
        range in (0..40_u64, 0..40_u64),
    ) {
        let mut tally = Tally::new(endpoints);
        let mut model: HashMap<(u64, String), u64> = HashMap::new();
        for (path, n, numbered) in arrivals {
            let id = if numbered { format!("run-{n}") } else { format!("odd{n}") };
            tally.accept(&format!("/{path}"), &id);
            *model.entry((path, id)).or_default() += 1;
        }
        let deliveries: u64 = model.values().sum();
        let unique = u64::try_from(model.len()).expect("small");
        prop_assert_eq!(tally.totals.deliveries, deliveries);
        prop_assert_eq!(tally.totals.unique, unique);
        prop_assert_eq!(tally.totals.duplicates, deliveries - unique);
        let report = tally.report(&ask(range.0..range.0 + range.1));
        let listed: u64 = report.endpoints.iter().map(|e| e.counts.unique).sum();
        prop_assert_eq!(listed, unique);
        let expected = report.expected.expect("asked for");
        prop_assert!(expected.missing_examples.is_sorted());
        let in_range: u64 = unique - report.totals.unnumbered - expected.outside;
        // Paths share residues here, so each owes its own numbers.
        prop_assert!(in_range + expected.missing >= range.1);
    }
}
