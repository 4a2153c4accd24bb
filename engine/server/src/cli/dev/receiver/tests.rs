use posthaste_core::signature::{Signer, SigningKey, VerifyingKey};

use super::super::board::Board;
use super::super::board::tests::endpoint;
use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn receiver() -> Receiver {
    let demos = ["orders", "flaky"]
        .iter()
        .zip(1..)
        .map(|(uid, number)| Demo {
            endpoint: endpoint(number, uid, &[]),
            verifier: Verifier::new(vec![VerifyingKey::parse(SECRET).unwrap()]),
        });
    let demos: Vec<_> = demos.collect();
    let board = Board::new(demos.iter().map(|demo| demo.endpoint.clone()));
    Receiver::new(demos, Shared::new(board), Clock::start())
}

fn signed(receiver: &Receiver, path: &str, id: &str, body: &'static str) -> Request<Full<Bytes>> {
    let now_s = receiver.clock.now().as_secs();
    let mut signature = Vec::new();
    Signer::new(vec![SigningKey::parse(SECRET).unwrap()]).sign_into(
        id.as_bytes(),
        now_s,
        body.as_bytes(),
        &mut signature,
    );
    Request::post(path)
        .header("webhook-id", id)
        .header("webhook-timestamp", now_s)
        .header("webhook-signature", signature)
        .body(Full::from(body))
        .unwrap()
}

async fn status(receiver: &Receiver, request: Request<Full<Bytes>>) -> u16 {
    receiver.answer(request).await.status().as_u16()
}

#[tokio::test]
async fn a_signed_delivery_is_verified_and_again_a_duplicate() {
    let receiver = receiver();
    for _ in 0..2 {
        let request = signed(&receiver, "/orders", "evt_1", "{}");
        assert_eq!(status(&receiver, request).await, 200);
    }
    let totals = receiver.board.lock().totals();
    assert_eq!(
        (totals.verified, totals.duplicates, totals.refused),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn a_changed_body_another_id_or_no_signature_is_refused() {
    let receiver = receiver();
    let changed = signed(&receiver, "/orders", "evt_1", "{}").map(|_| Full::from("{ }"));
    assert_eq!(status(&receiver, changed).await, 401);
    let mut renamed = signed(&receiver, "/orders", "evt_1", "{}");
    renamed
        .headers_mut()
        .insert("webhook-id", "evt_2".parse().unwrap());
    assert_eq!(status(&receiver, renamed).await, 401);
    let mut bare = signed(&receiver, "/orders", "evt_1", "{}");
    bare.headers_mut().remove("webhook-signature");
    assert_eq!(status(&receiver, bare).await, 401);
    let totals = receiver.board.lock().totals();
    assert_eq!((totals.verified, totals.refused), (0, 3));
}

#[tokio::test]
async fn the_flaky_endpoint_asks_for_a_second_then_takes_it() {
    let receiver = receiver();
    for id in ["e1", "e2", "e3", "e4"] {
        assert!(receiver.board.lock().expect(id, "order.created"));
    }
    let failed = receiver
        .answer(signed(&receiver, "/flaky", "e4", "{}"))
        .await;
    assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(failed.headers()[header::RETRY_AFTER], "1");
    let again = signed(&receiver, "/flaky", "e4", "{}");
    assert_eq!(status(&receiver, again).await, 200);
}

#[tokio::test]
async fn other_paths_methods_and_oversized_bodies_are_told_apart() {
    let receiver = receiver();
    let nowhere = signed(&receiver, "/nowhere", "evt_1", "{}");
    assert_eq!(status(&receiver, nowhere).await, 404);
    let mut get = signed(&receiver, "/orders", "evt_1", "{}");
    *get.method_mut() = Method::GET;
    assert_eq!(status(&receiver, get).await, 405);
    let large = signed(&receiver, "/orders", "evt_1", "{}")
        .map(|_| Full::from(vec![b' '; BODY_BYTES_MAX + 1]));
    assert_eq!(status(&receiver, large).await, 413);
}
