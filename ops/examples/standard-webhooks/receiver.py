"""A receiver of Standard Webhooks: verifies by the library `standardwebhooks`."""

import pathlib
import sys

from standardwebhooks import Webhook

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from loopback import serve


def verify(body, headers, secret):
    Webhook(secret).verify(body, headers)


serve(verify)
