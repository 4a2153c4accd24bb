"""A receiver of Stripe's webhooks: verifies by the library `stripe`."""

import pathlib
import sys

import stripe

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from loopback import serve


def verify(body, headers, secret):
    event = stripe.Webhook.construct_event(body, headers.get("stripe-signature"), secret)
    if event.object != "event":
        raise ValueError("not an event of Stripe's form")


serve(verify)
