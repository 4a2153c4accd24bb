use proptest::prelude::{BoxedStrategy, Just, ProptestConfig, Strategy, any, prop};
use proptest::sample::select;
use proptest::{prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value as Json, json};

use super::*;
use crate::limits::{
    FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_ELEMENTS_MAX, FILTER_NODES_MAX,
    FILTER_VALUE_BYTES_MAX,
};

use Truth::{No, Unknown, Yes};

fn view<'a>(headers: &'a [(ByteString, Bytes)], body: &'a [u8]) -> View<'a> {
    View {
        event_type: "invoice.paid",
        headers,
        body,
    }
}

fn judged(filter: &str, body: &str) -> Truth {
    let headers = [
        ("X-Plan".into(), Bytes::from_static(b"free")),
        ("x-plan".into(), Bytes::from_static(b"gold")),
        ("x-raw".into(), Bytes::from_static(b"\xff")),
    ];
    let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let view = view(&headers, body.as_bytes());
    let truth = filter.judge(&view);
    assert_eq!(filter.explain(&view).is_empty(), truth == Yes, "{filter:?}");
    truth
}

#[test]
fn values_compare_as_documented() {
    let body = r#"{"n": 100, "f": 1.50, "big": 9007199254740993, "s": "paid", "no": null,
        "yes": true, "tags": ["a", "b", 3, ["x"], {"k": 1}], "o": {"k": "v", "0": 1},
        "esc": "a\"\u00e9", "half": "\ud800"}"#;
    for (filter, truth) in [
        (r#"{}"#, Yes),
        (r#"{"n": 100}"#, Yes),
        (r#"{"n": 1e2}"#, Yes),
        (r#"{"n": "100"}"#, No),
        (r#"{"n": {"$gte": 100, "$lt": 100.01}}"#, Yes),
        (r#"{"n": {"$gt": 100}}"#, No),
        (r#"{"n": {"$lte": 99.9}}"#, No),
        (r#"{"n": {"$gt": "1"}}"#, No),
        (r#"{"f": 1.5}"#, Yes),
        (r#"{"big": 9007199254740993}"#, Yes),
        (r#"{"big": 9007199254740992}"#, No),
        (r#"{"big": {"$gt": 9007199254740992}}"#, Yes),
        (r#"{"s": {"$gt": "pa", "$lt": "pb"}}"#, Yes),
        (r#"{"s": {"$startsWith": "pa", "$endsWith": "id"}}"#, Yes),
        (r#"{"s": {"$startsWith": "id"}}"#, No),
        (r#"{"n": {"$startsWith": "1"}}"#, No),
        (r#"{"s": {"$in": [1, "paid"]}}"#, Yes),
        (r#"{"s": {"$nin": [1, "paid"]}}"#, No),
        (r#"{"no": null}"#, Yes),
        (r#"{"no": {"$exists": true}}"#, Yes),
        (r#"{"no": {"$lte": 0}}"#, No),
        (r#"{"yes": true}"#, Yes),
        (r#"{"yes": {"$ne": false}}"#, Yes),
        (r#"{"gone": null}"#, No),
        (r#"{"gone": {"$ne": 1}}"#, Yes),
        (r#"{"gone": {"$nin": [1]}}"#, Yes),
        (r#"{"gone": {"$lt": 1}}"#, No),
        (r#"{"gone": {"$exists": false}}"#, Yes),
        (r#"{"s.deeper": {"$exists": true}}"#, No),
        (r#"{"tags": "b"}"#, Yes),
        (r#"{"tags": {"$gt": 2}}"#, Yes),
        (r#"{"tags": "x"}"#, No),
        (r#"{"tags": {"$ne": "b"}}"#, No),
        (r#"{"tags": {"$ne": "c"}}"#, Yes),
        (r#"{"tags": {"$nin": ["c", "a"]}}"#, No),
        (r#"{"tags.1": "b"}"#, Yes),
        (r#"{"/tags/3/0": "x"}"#, Yes),
        (r#"{"tags.4.k": 1}"#, Yes),
        (r#"{"tags.5": {"$exists": false}}"#, Yes),
        (r#"{"tags.01": {"$exists": false}}"#, Yes),
        (r#"{"tags.k": {"$exists": false}}"#, Yes),
        (r#"{"o": {"$exists": true}, "o.k": "v"}"#, Yes),
        (r#"{"o.0": 1}"#, Yes),
        (r#"{"o": "v"}"#, No),
        (r#"{"o": {"$ne": "v"}}"#, Yes),
        (r#"{"esc": "a\"é"}"#, Yes),
        (r#"{"half": {"$ne": "x"}}"#, Yes),
        (r#"{"$type": "invoice.paid"}"#, Yes),
        (r#"{"$type": {"$startsWith": "order."}}"#, No),
        (r#"{"$headers.X-PLAN": "gold"}"#, Yes),
        (r#"{"$headers.x-raw": {"$exists": true, "$ne": "x"}}"#, Yes),
        (r#"{"$headers.x-none": {"$exists": false}}"#, Yes),
        (r#"{"$or": [{"n": 1}, {"s": "paid"}]}"#, Yes),
        (r#"{"$and": [{"n": 1}, {"s": "paid"}]}"#, No),
        (r#"{"$not": {"n": 1, "s": "paid"}}"#, Yes),
        (r#"{"$not": {"n": 100}}"#, No),
    ] {
        assert_eq!(judged(filter, body), truth, "{filter}");
    }
}

#[test]
fn names_are_met_however_they_are_written() {
    assert_eq!(judged(r#"{"/a.b/~1~0": 1}"#, r#"{"a.b":{"/~":1}}"#), Yes);
    assert_eq!(judged(r#"{"é": 1}"#, r#"{"\u00e9":1}"#), Yes);
    assert_eq!(judged(r#"{"/": 1}"#, r#"{"":1}"#), Yes);
    assert_eq!(judged(r#"{"/$id": 1}"#, r#"{"$id":1}"#), Yes);
    // Of two members of one name the first counts, whole.
    let twice = r#"{"a":{"b":1},"a":{"b":2,"c":3},"z":1}"#;
    assert_eq!(judged(r#"{"a.b": 1, "z": 1}"#, twice), Yes);
    assert_eq!(judged(r#"{"a.c": {"$exists": false}}"#, twice), Yes);
    let elements = r#"[0,1,2,3,4,5,6,7,8,9,{"x":10}]"#;
    assert_eq!(judged(r#"{"10.x": 10, "2": 2, "9": 9}"#, elements), Yes);
}

#[test]
fn what_cannot_be_read_is_undecided() {
    let (first, not) = (r#"{"a": 1}"#, r#"{"$not": {"b": 1}}"#);
    for body in [
        "",
        "a=1",
        "{",
        r#"{"b":2"#,
        r#"{"b" 2}"#,
        "<a>1</a>",
        "[1,]",
    ] {
        assert_eq!(judged(first, body), Unknown, "{body}");
        let by_type = r#"{"$or": [{"$type": "invoice.paid"}, {"a": 1}]}"#;
        assert_eq!(judged(by_type, body), Yes, "{body}");
        assert_eq!(judged(r#"{"$type": "x", "a": 1}"#, body), No, "{body}");
    }
    assert_eq!(judged(not, "nonsense"), Unknown);
    // What stands before the place where it breaks counts.
    assert_eq!(judged(first, r#"{"a":1, nonsense"#), Yes);
    assert_eq!(judged(not, r#"{"a":1} nonsense"#), Unknown);
    assert_eq!(
        judged(r#"{"a.x": {"$exists": false}}"#, r#"{"a":{},?"#),
        Yes
    );
    // … also inside what another condition wants whole.
    let both = r#"{"$or": [{"a.b.c": 1}, {"a": 1}, {"a.b": 1}]}"#;
    assert_eq!(judged(both, r#"{"a":{"b":{"c":1},?"#), Yes);
    for body in ["1", "null", "\"a\"", "true", "1.5", "[]", "{}", "-1"] {
        assert_eq!(judged(first, body), No, "{body}");
    }
}

#[test]
fn what_is_too_long_is_only_there() {
    let long = "x".repeat(FILTER_VALUE_BYTES_MAX);
    let many = vec![1; FILTER_ELEMENTS_MAX + 1];
    for value in [json!(long), json!(many), json!([long])] {
        let body = json!({ "a": value }).to_string();
        assert_eq!(judged(r#"{"a": {"$exists": true}}"#, &body), Yes);
        assert_eq!(judged(r#"{"a": 1}"#, &body), Unknown);
        assert_eq!(judged(r#"{"a": {"$ne": 1}}"#, &body), Unknown);
    }
    let body = json!({ "a": &many[1..], "b": &long[2..] }).to_string();
    assert_eq!(judged(r#"{"a": 1, "b": {"$endsWith": "x"}}"#, &body), Yes);
    let deep = [&"[".repeat(5_000), "1", &"]".repeat(5_000)].concat();
    let body = format!(r#"{{"deep":{deep},"a":1}}"#);
    assert_eq!(judged(r#"{"a": 1, "deep": {"$exists": true}}"#, &body), Yes);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let nested = |depth| {
        let (open, close) = (r#"{"$not":"#.repeat(depth), "}".repeat(depth));
        format!("{open}{{}}{close}")
    };
    let wide = |count| json!({ "a": { "$in": vec![1; count] } }).to_string();
    let prefixes = (0..FILTER_NODES_MAX / 2).map(|n| format!(r#"{{"a{n}":{{"$exists":true}}}}"#));
    let prefixes = format!(r#"{{"$or":[{}]}}"#, prefixes.collect::<Vec<_>>().join(","));
    assert!(Filter::parse(&nested(FILTER_DEPTH_MAX)).is_ok());
    assert!(Filter::parse(&wide(FILTER_NODES_MAX - 2)).is_ok());
    for (text, place, words) in [
        ("", "", "expected JSON"),
        ("{} x", "", "expected JSON"),
        ("[]", "", "expected an object, such as"),
        (r#"{"a": {"$gtee": 1}}"#, "/a/$gtee", "`$gte`"),
        (r#"{"a": {"b": 1}}"#, "/a/b", "goes on by `.b`"),
        (r#"{"a": {}}"#, "/a", "expected an operator"),
        (r#"{"a": [1]}"#, "/a", "`$in`"),
        (
            r#"{"a": {"$eq": {}}}"#,
            "/a/$eq",
            "expected a string, a number",
        ),
        (r#"{"a": {"$gt": null}}"#, "/a/$gt", "number or a string"),
        (r#"{"a": {"$in": []}}"#, "/a/$in", "one at least"),
        (
            r#"{"a": {"$in": [1, []]}}"#,
            "/a/$in/1",
            "expected a string",
        ),
        (
            r#"{"a": {"$exists": 1}}"#,
            "/a/$exists",
            "`true` or `false`",
        ),
        (r#"{"a": {"$startsWith": 1}}"#, "/a/$startsWith", "a string"),
        (
            r#"{"a": {"$not": {"$eq": 1}}}"#,
            "/a/$not",
            "around the path",
        ),
        (r#"{"a": 1, "a": 2}"#, "/a", "stands twice"),
        (r#"{"a..b": 1}"#, "/a..b", "names separated by dots"),
        (r#"{"/a~2": 1}"#, "/~1a~02", "`~0` for `~`"),
        (r#"{"$typ": "x"}"#, "/$typ", "`$type`"),
        (r#"{"$headers.": "x"}"#, "/$headers.", "a header's name"),
        (r#"{"$type": 1}"#, "/$type", "expected a string"),
        (r#"{"$or": {}}"#, "/$or", "an array of filters"),
        (r#"{"$or": [{}, 1]}"#, "/$or/1", "expected an object"),
        (&nested(FILTER_DEPTH_MAX + 1), "/$not", "at most 16 filters"),
        (&wide(FILTER_NODES_MAX - 1), "/a/$in", "at most 256"),
        (&prefixes, "/$or", "at most 256"),
        (&" ".repeat(FILTER_BYTES_MAX + 1), "", "at most 4096 bytes"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        let said = error.to_string();
        assert!(error.place.starts_with(place), "{text}: {said}");
        assert!(said.contains(words), "{text}: {said}");
        assert!(said.contains(&error.place), "{said}");
    }
}

#[test]
fn people_are_told_what_stood_in_the_way() {
    let reasons = |filter: &str, body: &[u8]| -> Vec<_> {
        let filter = Filter::parse(filter).unwrap();
        let reasons = filter.explain(&view(&[], body)).into_iter();
        reasons.map(|r| (r.place, r.problem)).collect()
    };
    let said = |place: &str, problem: &str| (place.to_owned(), problem.to_owned());
    let filter = r#"{"a": {"$gte": 100}, "$or": [{"b": 1}, {"$headers.x": "y"}],
        "$not": {"$type": "invoice.paid"}, "c": 1}"#;
    assert_eq!(
        reasons(filter, br#"{"a": 42, "b": "1", "c": 1}"#),
        [
            said("/a/$gte", "`/a` is 42"),
            said("/$or/0/b", "`/b` is \"1\""),
            said("/$or/1/$headers.x", "header `x` is missing"),
            said("/$not", "what it must not be holds"),
        ]
    );
    let unread = "`/b` cannot be read: the body is no JSON up to there";
    assert_eq!(
        reasons(r#"{"$not": {"$or": [{"b": 1}, {"$type": "x"}]}}"#, b"?"),
        [said("/$not/$or/0/b", unread)]
    );
}

/// A filter as the model has it: the plain words of the documentation over the
/// tree `serde_json` builds.
#[derive(Debug, Clone)]
enum Model {
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Test(Vec<&'static str>, &'static str, Json),
}

const NAMES: [&str; 6] = ["a", "b", "a.b", "0", "1", "~/é"];
const COMPARE: [&str; 10] = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$startsWith",
    "$endsWith",
];

fn scalar() -> BoxedStrategy<Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-3..4_i64).prop_map(Json::from),
        (-4..5_i32).prop_map(|halves| Json::from(f64::from(halves) / 2.0)),
        // Where doubles no longer tell integers apart.
        (0..3_i64).prop_map(|n| Json::from(9_007_199_254_740_992 + n)),
        (0..2_u64).prop_map(|n| Json::from(u64::MAX - n)),
        select(vec!["", "a", "ab", "b", "1", "a\"\\é"]).prop_map(Json::from),
    ]
    .boxed()
}

fn body() -> impl Strategy<Value = Json> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        let members = prop::collection::vec((select(&NAMES[..]), inner.clone()), 0..4);
        let members = members.prop_map(|m| m.into_iter().collect::<Json>());
        prop_oneof![2 => members, 1 => prop::collection::vec(inner, 0..4).prop_map(Json::from)]
    })
}

fn model() -> impl Strategy<Value = Model> {
    let path = prop::collection::vec(select(&NAMES[..]), 1..4);
    let test = (
        path,
        0..11_usize,
        scalar(),
        scalar(),
        select(vec!["", "a", "b", "é"]),
    );
    let test = test.prop_map(|(path, operator, one, two, text)| {
        let Some(operator) = COMPARE.get(operator) else {
            return Model::Test(path, "$exists", Json::from(one.is_string()));
        };
        let constant = match *operator {
            "$in" | "$nin" => json!([one, two]),
            "$startsWith" | "$endsWith" => json!(text),
            "$gt" | "$gte" | "$lt" | "$lte" if !one.is_number() => json!(text),
            _ => one,
        };
        Model::Test(path, operator, constant)
    });
    test.prop_recursive(3, 12, 3, |inner| {
        let some = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            some.clone().prop_map(Model::And),
            some.prop_map(Model::Or),
            inner.prop_map(|model| Model::Not(Box::new(model))),
        ]
    })
}

impl Model {
    fn written(&self) -> Json {
        match self {
            Self::And(all) => json!({ "$and": all.iter().map(Self::written).collect::<Vec<_>>() }),
            Self::Or(any) => json!({ "$or": any.iter().map(Self::written).collect::<Vec<_>>() }),
            Self::Not(inner) => json!({ "$not": inner.written() }),
            Self::Test(path, operator, constant) => {
                json!({ pointer(path): { *operator: constant } })
            }
        }
    }

    fn holds(&self, body: &Json) -> bool {
        match self {
            Self::And(all) => all.iter().all(|model| model.holds(body)),
            Self::Or(any) => any.iter().any(|model| model.holds(body)),
            Self::Not(inner) => !inner.holds(body),
            Self::Test(path, operator, constant) => {
                test(body.pointer(&pointer(path)), operator, constant)
            }
        }
    }
}

fn pointer(path: &[&str]) -> String {
    path.iter()
        .map(|name| format!("/{}", path::escape(name)))
        .collect()
}

fn test(value: Option<&Json>, operator: &str, constant: &Json) -> bool {
    match (operator, value) {
        ("$exists", _) => json!(value.is_some()) == *constant,
        ("$ne", _) => !test(value, "$eq", constant),
        ("$nin", _) => !test(value, "$in", constant),
        (_, None) => false,
        (_, Some(Json::Array(elements))) => {
            let mut plain = elements.iter().filter(|e| !e.is_array());
            plain.any(|element| test(Some(element), operator, constant))
        }
        ("$in", Some(_)) => {
            let constants = constant.as_array().unwrap();
            constants
                .iter()
                .any(|constant| test(value, "$eq", constant))
        }
        ("$startsWith", Some(value)) => value
            .as_str()
            .is_some_and(|text| text.starts_with(constant.as_str().unwrap())),
        ("$endsWith", Some(value)) => value
            .as_str()
            .is_some_and(|text| text.ends_with(constant.as_str().unwrap())),
        ("$eq", Some(value)) if !value.is_number() => value == constant,
        (_, Some(value)) => order(value, constant).is_some_and(|order| match operator {
            "$eq" => order.is_eq(),
            "$gt" => order.is_gt(),
            "$gte" => order.is_ge(),
            "$lt" => order.is_lt(),
            _ => order.is_le(),
        }),
    }
}

fn order(one: &Json, two: &Json) -> Option<Ordering> {
    if let (Some(one), Some(two)) = (one.as_str(), two.as_str()) {
        return Some(one.cmp(two));
    }
    Some(halves(one)?.cmp(&halves(two)?))
}

/// Every number here is a whole number of halves.
fn halves(number: &Json) -> Option<i128> {
    let whole = number
        .as_i64()
        .map(i128::from)
        .or(number.as_u64().map(i128::from));
    whole.map(|n| 2 * n).or_else(|| {
        let halves = format!("{:.0}", 2.0 * number.as_f64()?);
        halves.parse().ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_agrees_with_the_tree(
        models in prop::collection::vec(model(), 1..5),
        body in body(),
        pretty in any::<bool>(),
        cut in 0..400_usize,
    ) {
        let text = if pretty { format!("{body:#}") } else { body.to_string() };
        let parse = |model: &Model| Filter::parse(&model.written().to_string()).unwrap();
        let filters: Vec<_> = models.iter().map(parse).collect();
        for (model, filter) in models.iter().zip(&filters) {
            let truth = filter.judge(&view(&[], text.as_bytes()));
            prop_assert_eq!(truth, model.holds(&body).into(), "{:?} {}", model, text);
            // Behind the end it is no JSON any more.
            let broken = format!("{text}?");
            let still = filter.judge(&view(&[], broken.as_bytes()));
            assert!(still == truth || still == Unknown, "{model:?} {text}");
        }
        // Together they see what each sees alone, also of a body that breaks off.
        let cut = &text.as_bytes()[..cut.min(text.len())];
        let event = view(&[], cut);
        let mut together: Vec<_> = (0..filters.len()).collect();
        let undecided = retain(&mut together, &event, |&n| filters.get(n));
        let alone: Vec<_> = filters.iter().map(|filter| filter.judge(&event)).collect();
        let passed: Vec<_> = (0..filters.len()).filter(|&n| alone[n] == Yes).collect();
        prop_assert_eq!(together, passed);
        prop_assert_eq!(undecided, alone.contains(&Unknown));
    }
}
