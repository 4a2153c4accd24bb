use std::time::Duration;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

fn claim(caller: &str, key: &str, body: &str, request: u8, at: Timestamp) -> Claim {
    let parts = [b"/v1/keys".as_slice(), body.as_bytes()];
    Claim::new(
        caller,
        key,
        &parts,
        RequestId::from_bytes([request; 16]),
        at,
    )
}

fn sealed(length: usize) -> Sealed {
    Sealed {
        key_id: "m".to_owned(),
        nonce: Bytes::from_static(&[1; 24]),
        text: vec![b'x'; length].into(),
    }
}

impl Answers {
    fn fold(&mut self, claim: &Claim, answer: Option<usize>) -> Applied {
        let value = claim.to_proto(answer.map(sealed)).to_value();
        self.apply(&claim.key(), &value).unwrap().unwrap()
    }

    fn length(&self, claim: &Claim) -> Result<Option<usize>, Refused> {
        let answer = self.look(claim)?;
        Ok(answer.map(|answer| answer.text.len()))
    }
}

const REFUSED: Applied = Applied::Refused { present: None };

#[test]
fn an_answer_is_given_again_until_a_day_is_over() {
    let mut answers = Answers::default();
    let one = claim("a", "1", "{}", 1, NOW);
    assert_eq!(answers.length(&one), Ok(None));
    assert_eq!(answers.fold(&one, None), Applied::Taken);
    assert_eq!(answers.length(&one), Err(Refused::UnderWay));
    assert_eq!(answers.fold(&one, Some(3)), Applied::Taken);
    let again = |after| claim("a", "1", "{}", 2, NOW.after(after));
    let late = ANSWERS_KEPT - Duration::from_millis(1);
    assert_eq!(answers.length(&again(late)), Ok(Some(3)));
    assert_eq!(answers.over(NOW.after(late)).count(), 0);
    let other = claim("a", "1", "[]", 2, NOW);
    assert_eq!(answers.length(&other), Err(Refused::Another));
    assert_eq!(answers.length(&claim("b", "1", "[]", 2, NOW)), Ok(None));

    let over = again(ANSWERS_KEPT);
    assert_eq!(answers.length(&over), Ok(None));
    assert_eq!(answers.over(over.at).collect::<Vec<_>>(), [one.key()]);
    assert_eq!(answers.fold(&over, None), Applied::Taken);
    assert_eq!(answers.over(over.at).count(), 0);
    assert_eq!(
        answers.apply(&one.key(), &Bytes::new()),
        Ok(Some(Applied::Taken))
    );
    let empty = answers.known.is_empty() && answers.ages.is_empty();
    assert!(empty && answers.callers.is_empty());
    assert_eq!(answers.all, Usage::default());
}

#[test]
fn of_two_claims_the_first_stands_unless_it_is_never_answered() {
    let mut answers = Answers::default();
    let (first, second) = (claim("a", "1", "", 1, NOW), claim("a", "1", "", 2, NOW));
    assert_eq!(answers.fold(&first, None), Applied::Taken);
    // A copy, as an append that was repeated leaves one.
    assert_eq!(answers.fold(&first, None), Applied::Nothing);
    assert_eq!(answers.fold(&second, None), REFUSED);
    // What compaction keeps is the last record, so the first is written again.
    let restated = answers.restated(&first.key()).unwrap();
    let mut compacted = Answers::default();
    compacted.apply(&first.key(), &restated).unwrap();
    assert_eq!(compacted.fold(&second, None), REFUSED);

    let late = claim("a", "1", "", 3, NOW.after(CLAIM_HELD));
    assert_eq!(answers.length(&late), Ok(None));
    assert_eq!(answers.fold(&late, None), Applied::Taken);
    // The first was only slow: its answer is to nothing that stands.
    assert_eq!(answers.fold(&first, Some(1)), REFUSED);
    assert_eq!(answers.fold(&late, Some(2)), Applied::Taken);
    assert_eq!(answers.fold(&late, None), Applied::Nothing);
    assert_eq!(answers.length(&second), Ok(Some(2)));
}

#[test]
fn what_runs_into_each_other_is_told_apart() {
    let mut answers = Answers::default();
    answers.fold(&claim("a", "bc", "", 1, NOW), Some(1));
    assert_eq!(answers.length(&claim("ab", "c", "", 2, NOW)), Ok(None));
    let parted = |parts: &[&[u8]]| Claim::new("a", "1", parts, RequestId::from_bytes([1; 16]), NOW);
    answers.fold(&parted(&[b"x", b"yz"]), Some(1));
    assert_eq!(
        answers.length(&parted(&[b"xy", b"z"])),
        Err(Refused::Another)
    );
}

#[test]
fn one_caller_fills_its_part_alone() {
    let mut answers = Answers::default();
    for number in 0..ANSWERS_MAX / ANSWERS_CALLER_PART {
        answers.fold(&claim("a", &number.to_string(), "", 1, NOW), None);
    }
    let more = |caller| claim(caller, "more", "", 1, NOW);
    assert_eq!(answers.length(&more("a")), Err(Refused::Full));
    assert_eq!(answers.length(&more("b")), Ok(None));
    let first = claim("a", "0", "", 1, NOW);
    answers.apply(&first.key(), &Bytes::new()).unwrap();
    assert_eq!(answers.length(&more("a")), Ok(None));

    let most = ANSWERS_BYTES_MAX / ANSWERS_CALLER_PART;
    answers.fold(&claim("c", "1", "", 1, NOW), Some(most));
    assert_eq!(answers.length(&more("c")), Err(Refused::Full));
    assert_eq!(answers.length(&more("b")), Ok(None));
}

#[test]
fn what_is_no_record_of_it_changes_nothing() {
    let mut answers = Answers::default();
    assert_eq!(answers.apply(b"e/ep_1", &Bytes::new()), Ok(None));
    assert!(answers.apply(b"i/short", &Bytes::new()).is_err());
    let one = claim("a", "1", "", 1, NOW);
    let short = proto::Answered {
        asked: Bytes::from_static(b"x"),
        ..one.to_proto(None)
    };
    assert!(answers.apply(&one.key(), &short.to_value()).is_err());
    assert_eq!(answers.restated(b"e/ep_1"), None);
    assert_eq!(answers.restated(&one.key()), Some(Bytes::new()));
}
