"""A receiver of Slack's Events API: verifies by `slack_sdk`, and answers the challenge that comes first."""

import json
import pathlib
import sys

from slack_sdk.signature import SignatureVerifier

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from loopback import serve


def verify(body, headers, secret):
    if not SignatureVerifier(secret).is_valid_request(body, headers):
        raise ValueError("the signature is not valid")


def answer(body):
    event = json.loads(body)
    return event["challenge"].encode() if event["type"] == "url_verification" else b""


serve(verify, answer)
