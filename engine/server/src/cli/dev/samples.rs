//! Sample events of a small shop.

use posthaste_core::rng::Rng;
use serde_json::{Value, json};

/// One event to publish.
pub(super) struct Sample {
    pub(super) event_type: &'static str,
    pub(super) body: Value,
}

type Template = (&'static str, fn(&mut Rng) -> Value);

const TEMPLATES: [Template; 12] = [
    ("order.created", order_created),
    ("invoice.paid", |rng| invoice(rng, "paid")),
    ("customer.updated", |rng| customer(rng, &["address"])),
    ("order.paid", |rng| order(rng, "paid")),
    ("order.shipped", order_shipped),
    ("invoice.created", |rng| invoice(rng, "open")),
    ("customer.created", |rng| customer(rng, &[])),
    ("payment.failed", payment_failed),
    ("order.delivered", |rng| order(rng, "delivered")),
    ("invoice.overdue", |rng| invoice(rng, "overdue")),
    ("subscription.renewed", subscription_renewed),
    ("refund.issued", refund_issued),
];

/// A random one of them, filled in.
pub(super) fn sample(rng: &mut Rng) -> Sample {
    let place = usize::try_from(rng.below(TEMPLATES.len() as u64)).unwrap_or(0);
    let (event_type, body) = TEMPLATES[place];
    Sample {
        event_type,
        body: body(rng),
    }
}

fn order_created(rng: &mut Rng) -> Value {
    let count = 1 + rng.below(3);
    let items: Vec<_> = (0..count)
        .map(|_| {
            json!({
                "sku": pick(rng, &["mug-blue", "tee-m-black", "poster-a2", "socks-42"]),
                "quantity": 1 + rng.below(4),
                "unit_cents": cents(rng),
            })
        })
        .collect();
    let mut order = order(rng, "created");
    order["items"] = items.into();
    order
}

fn order_shipped(rng: &mut Rng) -> Value {
    let mut order = order(rng, "shipped");
    order["shipment"] = json!({
        "carrier": pick(rng, &["DHL", "UPS", "PostNL"]),
        "tracking": id("trk", rng),
    });
    order
}

fn order(rng: &mut Rng, status: &str) -> Value {
    json!({
        "id": id("ord", rng),
        "customer": id("cus", rng),
        "status": status,
        "total_cents": cents(rng),
        "currency": pick(rng, &["EUR", "USD", "GBP"]),
    })
}

fn invoice(rng: &mut Rng, status: &str) -> Value {
    json!({
        "id": id("inv", rng),
        "order": id("ord", rng),
        "status": status,
        "amount_cents": cents(rng),
        "currency": pick(rng, &["EUR", "USD", "GBP"]),
    })
}

fn customer(rng: &mut Rng, changed: &[&str]) -> Value {
    let number = rng.below(10_000);
    json!({
        "id": id("cus", rng),
        "email": format!("customer{number}@example.com"),
        "city": pick(rng, &["Lisbon", "Oslo", "Utrecht", "Montréal"]),
        "changed": changed,
    })
}

fn payment_failed(rng: &mut Rng) -> Value {
    json!({
        "id": id("pay", rng),
        "invoice": id("inv", rng),
        "reason": pick(rng, &["card_declined", "expired_card", "insufficient_funds"]),
    })
}

fn subscription_renewed(rng: &mut Rng) -> Value {
    json!({
        "id": id("sub", rng),
        "plan": pick(rng, &["starter", "team", "business"]),
        "seats": 1 + rng.below(50),
    })
}

fn refund_issued(rng: &mut Rng) -> Value {
    json!({
        "id": id("ref", rng),
        "payment": id("pay", rng),
        "amount_cents": cents(rng),
        "reason": pick(rng, &["requested_by_customer", "duplicate", "damaged"]),
    })
}

fn id(kind: &str, rng: &mut Rng) -> String {
    format!("{kind}_{:012x}", rng.next_u64() >> 16)
}

fn cents(rng: &mut Rng) -> u64 {
    199 + rng.below(25_000)
}

fn pick(rng: &mut Rng, of: &[&'static str]) -> &'static str {
    let place = usize::try_from(rng.below(of.len() as u64)).unwrap_or(0);
    of[place]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_an_object_and_comes_up() {
        let mut rng = Rng::new(7);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let sample = sample(&mut rng);
            assert!(sample.body.is_object(), "{}", sample.event_type);
            seen.insert(sample.event_type);
        }
        assert_eq!(seen.len(), TEMPLATES.len());
    }
}
