"""Runs the examples and says whether they show what they are for: starts `posthaste serve` on the
embedded log and the receivers, all on loopback, makes the endpoints by the scripts a reader would run,
publishes the sample events, and holds what the receivers saw to what each provider promises.

    check.py --posthaste PROGRAM [--only SYSTEM]

Wants the libraries of requirements.txt and of github-like/package-lock.json; `ops/check examples`
installs them. Exits with 1 at the first thing that is not so, and shows what the receivers saw.
"""

import argparse
import base64
import http.client
import json
import os
import pathlib
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
# Far more than anything here takes: a first retry comes after 6 s, its policy's second after a minute.
PATIENCE_S = 45


class Wrong(Exception):
    """Something is not as it should be."""


def expect(so, what):
    if not so:
        raise Wrong(what)
    print(f"  {what}", flush=True)


class Lines:
    """What a process writes to a stream, a JSON object a line, as far as it has come."""

    def __init__(self, stream):
        self.seen = []
        self.ended = False
        self.news = threading.Condition()
        threading.Thread(target=self.read, args=(stream,), daemon=True).start()

    def read(self, stream):
        for line in stream:
            with self.news:
                self.seen.append(json.loads(line))
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def wait(self, found, what):
        """What `found` makes of them, as soon as it is true."""
        with self.news:
            self.news.wait_for(lambda: self.ended or found(self.seen), PATIENCE_S)
            made = found(self.seen)
        if not made:
            raise Wrong(f"{what}: not " + ("before it ended" if self.ended else f"within {PATIENCE_S} s"))
        return made


class Receiver:
    """One of the examples' receivers, and the file that tells it its secrets."""

    def __init__(self, system, folder, known, fail):
        self.file = folder / f"{system}.secrets"
        self.knows(known)
        script = next((HERE / system).glob("receiver.*"))
        program = ["node"] if script.suffix == ".mjs" else [sys.executable, "-B"]
        words = [script, "--secrets", self.file, "--port", "0", *(w for id in fail for w in ("--fail", id))]
        self.process = subprocess.Popen([*program, *words], stdout=subprocess.PIPE)
        self.lines = Lines(self.process.stdout)
        self.port = self.lines.wait(lambda seen: seen and seen[0]["listening"], f"{system}'s receiver listens")
        self.url = f"http://127.0.0.1:{self.port}/hooks"

    def knows(self, known):
        self.file.write_text("".join(f"{secret}\n" for secret in known))

    def requests(self):
        return self.lines.seen[1:]

    def request(self, number):
        """The request of that number, from 1, once it came."""
        return self.lines.wait(lambda seen: seen[number:] and seen[number], f"request {number}")

    def of(self, id):
        return [one for one in self.requests() if one["headers"].get("webhook-id") == id]

    def taken(self, id):
        """All requests of an event, once one of them was answered 200."""
        came = lambda _: any(one["status"] == 200 for one in self.of(id))
        self.lines.wait(came, f"{id} is delivered")
        return self.of(id)

    def send(self, headers, body):
        """Sends a request as the sender would; how it was answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request("POST", "/hooks", body, headers)
        return connection.getresponse().status


class Engine:
    """A running `posthaste serve`, and the command line that speaks to it."""

    def __init__(self, program, folder):
        self.receivers = []
        config = folder / "posthaste.toml"
        # The reader's, on any free port.
        config.write_text((HERE / "posthaste.toml").read_text() + '\n[http]\nlisten = "127.0.0.1:0"\n')
        self.folder = folder
        self.env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        self.env.pop("POSTHASTE_API_KEY", None)
        serve = ["posthaste", "serve", "--json", "--config", config]
        self.process = subprocess.Popen(serve, cwd=folder, env=self.env, stderr=subprocess.PIPE)
        self.log = Lines(self.process.stderr)

    def start(self):
        """Waits until it runs."""
        running = lambda seen: next((one["fields"]["api"] for one in seen if "api" in one["fields"]), None)
        self.env["POSTHASTE_SERVER"] = "http://" + self.log.wait(running, "posthaste is running")

    def run(self, *words):
        done = subprocess.run(words, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=PATIENCE_S)
        if done.returncode != 0:
            raise Wrong(f"{' '.join(map(str, words))}: {done.stderr}")
        return done.stdout

    def receiver(self, system, known, fail):
        """A receiver that knows these secrets and fails at the first attempt of these events."""
        receiver = Receiver(system, self.folder, known, fail)
        self.receivers.append(receiver)
        return receiver

    def configure(self, system, receiver, secret):
        """Makes the endpoint, as a reader would; what was said of it."""
        file = self.folder / f"{system}.secret"
        file.write_text(secret)
        return self.run(HERE / system / "configure.sh", receiver.url, file)

    def publish(self, system):
        return self.run("posthaste", "publish", "--tenant", system, "--file", HERE / system / "events.ndjson")

    def publish_one(self, system, id):
        """The first of its sample events again, as another event."""
        event = samples(system)[0]
        words = ["--tenant", system, "--type", event["type"], "--id", id, "--data", json.dumps(event["data"])]
        return self.run("posthaste", "publish", *words)

    def rotate(self, system, uid):
        """Has a new secret sign; answers it."""
        secret = new_secret(system)
        file = self.folder / f"{system}.new"
        file.write_text(secret)
        self.run("posthaste", "endpoints", "rotate-secret", "--tenant", system, uid, "--secret-file", file)
        return secret


def samples(system):
    return [json.loads(line) for line in (HERE / system / "events.ndjson").read_text().splitlines()]


def new_secret(system):
    if system in ("standard-webhooks", "stripe-like"):
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_hex(16)


def all_arrive(receiver, system, unwanted):
    """Each wanted event arrives, is believed, and with the bytes that were published."""
    wanted = [event for event in samples(system) if event["type"] not in unwanted]
    came = [(event, one) for event in wanted for one in receiver.taken(event["id"])]
    expect(all(one["verified"] for _, one in came), f"every delivery is verified by the provider's own library")
    expect(all(json.loads(one["body"]) == event["data"] for event, one in came), "and is what was published")
    types = [event["type"] for event in samples(system) if receiver.of(event["id"])]
    expect(not set(types) & set(unwanted), f"only the types asked for arrive, not {', '.join(unwanted)}")


def forgeries_are_refused(receiver, taken, timestamp=None):
    """What the library believed, it believes again; with another body, without a signature, or with
    another time where one is signed, in the header `timestamp`, never."""
    headers = {name: value for name, value in taken["headers"].items() if name not in ("host", "content-length")}
    body = taken["body"].encode()
    expect(receiver.send(headers, body) == 200, "the same bytes again are believed")
    status = receiver.send(headers, body.replace(b'"', b' "', 1))
    expect(status in (400, 401), f"a body with one more space in it is refused ({status})")
    unsigned = {name: value for name, value in headers.items() if "signature" not in name}
    status = receiver.send(unsigned, body)
    expect(status in (400, 401), f"a body without signature is refused ({status})")
    if timestamp:
        later = re.sub(r"\d{10}", lambda at: str(int(at[0]) + 1), headers[timestamp])
        status = receiver.send({**headers, timestamp: later}, body)
        expect(status == 401, f"a body that says it was signed a second later is refused ({status})")


def comes_again(receiver, id, same, fresh):
    """An event whose first attempt was answered 5xx comes again: (first, second)."""
    first, second = receiver.taken(id)[:2]
    expect(first["status"] >= 500 and second["status"] == 200, f"{id} fails once and comes again")
    for name in same:
        now, then = second["headers"][name], first["headers"][name]
        expect(now == then, f"with the same {name}: {now}")
    for name in fresh:
        expect(first["headers"][name] != second["headers"][name], f"with a fresh {name}")
    return first["headers"], second["headers"]


def comes_when_resent(engine, receiver, system, id, same):
    """What arrived comes once more when somebody asks for its delivery."""
    first = receiver.taken(id)
    of_event = ["--tenant", system, "--event", id, "--json"]
    [delivery] = json.loads(engine.run("posthaste", "deliveries", "list", *of_event))["data"]
    engine.run("posthaste", "resend", delivery["id"], "--tenant", system, "--follow")
    receiver.lines.wait(lambda _: len(receiver.of(id)) > len(first), f"{id} is resent")
    again = receiver.of(id)[-1]
    expect(again["verified"] and again["status"] == 200, f"{id} comes once more when it is asked for, and verified")
    expect(again["headers"][same] == first[0]["headers"][same], f"with the same {same}")


def standard_webhooks(engine):
    system, old = "standard-webhooks", new_secret("standard-webhooks")
    receiver = engine.receiver(system, [old], ["evt_2"])
    engine.configure(system, receiver, old)
    engine.publish(system)
    all_arrive(receiver, system, ["order.made"])
    forgeries_are_refused(receiver, receiver.taken("evt_1")[0], "webhook-timestamp")
    first, second = comes_again(receiver, "evt_2", ["webhook-id"], ["webhook-timestamp", "webhook-signature"])
    expect(int(second["webhook-timestamp"]) > int(first["webhook-timestamp"]), "which is later")
    new = engine.rotate(system, "billing")
    known_by_either(engine, receiver, system, new)
    signatures = receiver.taken("evt_rotated_new")[0]["headers"]["webhook-signature"]
    expect(signatures.count("v1,") == 2, "for there are two signatures while a secret is rotated")


def known_by_either(engine, receiver, system, new):
    """After a rotation a receiver verifies with the older secret, and with the newer one alone."""
    engine.publish_one(system, "evt_rotated_old")
    taken = receiver.taken("evt_rotated_old")
    expect(taken[0]["verified"], "after a rotation a receiver that has only the older secret goes on")
    receiver.knows([new])
    engine.publish_one(system, "evt_rotated_new")
    taken = receiver.taken("evt_rotated_new")
    expect(taken[0]["verified"], "and so does one that has only the newer")


def stripe_like(engine):
    system, old = "stripe-like", new_secret("stripe-like")
    id = samples(system)[1]["id"]
    receiver = engine.receiver(system, [old], [id])
    engine.configure(system, receiver, old)
    engine.publish(system)
    all_arrive(receiver, system, ["charge.refunded"])
    forgeries_are_refused(receiver, receiver.taken(samples(system)[0]["id"])[0], "stripe-signature")
    first, second = comes_again(receiver, id, ["webhook-id"], ["stripe-signature"])
    at = lambda headers: int(headers["stripe-signature"].split(",")[0].removeprefix("t="))
    expect(at(second) > at(first), "whose t= is later")
    comes_when_resent(engine, receiver, system, samples(system)[0]["id"], "webhook-id")
    new = engine.rotate(system, "billing")
    known_by_either(engine, receiver, system, new)
    signature = receiver.taken("evt_rotated_new")[0]["headers"]["stripe-signature"]
    expect(signature.count(",v1=") == 2, "for there are two v1 while a secret is rotated")


def github_like(engine):
    system, old = "github-like", new_secret("github-like")
    receiver = engine.receiver(system, [old], ["pull-request-1347"])
    said = engine.configure(system, receiver, old)
    ping = receiver.request(1)
    expect(ping["verified"] and ping["name"] == ping["headers"]["x-github-event"] == "ping", "a ping comes on create")
    expect("zen" in json.loads(ping["body"]) and "ping: passed" in said, "and the answer says that it was taken")
    engine.publish(system)
    all_arrive(receiver, system, ["star"])
    came = [(event, receiver.taken(event["id"])[-1]) for event in samples(system)[:3]]
    named = all(one["headers"]["x-github-event"] == one["name"] == event["type"] for event, one in came)
    expect(named, "X-GitHub-Event is the type, by which the library calls handlers")
    guids = {one["id"] for _, one in came}
    expect(guids == {one["headers"]["x-github-delivery"] for _, one in came}, "with X-GitHub-Delivery")
    expect(len(guids) == 3, "X-GitHub-Delivery is another one for each event")
    forgeries_are_refused(receiver, receiver.taken("push-6dcb09b5")[0])
    comes_when_resent(engine, receiver, system, "push-6dcb09b5", "x-github-delivery")
    comes_again(receiver, "pull-request-1347", ["webhook-id", "x-github-delivery", "x-github-hook-id"], [])
    new = engine.rotate(system, "hello-world")
    known_by_either(engine, receiver, system, new)
    by = [receiver.taken(id)[0].get("by") for id in ("evt_rotated_old", "evt_rotated_new")]
    expect(by == ["previous", None], "the older by X-Hub-Signature-256-Previous")
    comes_again_when_asked(engine, receiver, new)


def comes_again_when_asked(engine, receiver, secret):
    """GitHub's redelivery: what a receiver refused is kept, and comes again once somebody says so."""
    receiver.knows([new_secret("github-like")])
    engine.publish_one("github-like", "push-refused")
    of_tenant = ["--tenant", "github-like", "--json"]
    until = time.monotonic() + PATIENCE_S
    while "push-refused" not in engine.run("posthaste", "dead", "list", *of_tenant):
        if time.monotonic() > until:
            raise Wrong(f"what is refused is kept: not within {PATIENCE_S} s")
        time.sleep(0.1)
    receiver.knows([secret])
    engine.run("posthaste", "dead", "redrive", *of_tenant)
    first, again = receiver.taken("push-refused")
    expect((first["status"], first["verified"]) == (400, False), "what is refused with a 400 is kept at once")
    expect(again["verified"], "redelivered when somebody says so it is verified")
    name = "x-github-delivery"
    expect(first["headers"][name] == again["headers"][name], "with the same X-GitHub-Delivery")


def slack_like(engine):
    system, old = "slack-like", new_secret("slack-like")
    receiver = engine.receiver(system, [new_secret(system)], ["Ev08MFMKH7"])
    said = engine.configure(system, receiver, old)
    refused = "disabled: verification" in said and "challenge: http_4xx (401)" in said
    expect(refused, "a receiver that refuses the challenge gets no events")
    receiver.knows([old])
    said = engine.run("posthaste", "endpoints", "verify", "--tenant", system, "bot")
    expect(said == "challenge: passed\n", "one that answers it does")
    asked = receiver.request(2)
    kind = json.loads(asked["body"])["type"]
    expect(asked["verified"] and kind == "url_verification", "the challenge is a url_verification, and verified")
    engine.publish(system)
    all_arrive(receiver, system, ["reaction_added"])
    forgeries_are_refused(receiver, receiver.taken("Ev08MFMKH6")[0], "x-slack-request-timestamp")
    fresh = ["x-slack-request-timestamp", "x-slack-signature"]
    first, second = comes_again(receiver, "Ev08MFMKH7", ["webhook-id"], fresh)
    expect("x-slack-retry-num" not in first, "the first attempt has no X-Slack-Retry-Num")
    said = (second["x-slack-retry-num"], second["x-slack-retry-reason"])
    expect(said == ("1", "http_error"), f"the second has {said[0]}, and X-Slack-Retry-Reason {said[1]}")
    new = engine.rotate(system, "bot")
    receiver.knows([old, new])
    engine.publish_one(system, "Ev_rotated")
    expect(receiver.taken("Ev_rotated")[0]["verified"], "after a rotation a receiver that knows both secrets goes on")


SYSTEMS = {
    "standard-webhooks": standard_webhooks,
    "stripe-like": stripe_like,
    "github-like": github_like,
    "slack-like": slack_like,
}


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--posthaste", type=pathlib.Path, required=True)
    words.add_argument("--only", choices=SYSTEMS, action="append")
    args = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="posthaste-examples-") as folder:
        engine = Engine(args.posthaste.resolve(), pathlib.Path(folder))
        try:
            engine.start()
            for system in args.only or SYSTEMS:
                started = time.monotonic()
                print(f"{system}:", flush=True)
                SYSTEMS[system](engine)
                print(f"  in {time.monotonic() - started:.1f} s", flush=True)
        except Wrong as wrong:
            for line in [*(one for receiver in engine.receivers for one in receiver.requests()), *engine.log.seen]:
                print(json.dumps(line), file=sys.stderr)
            print(f"check.py: not so: {wrong}", file=sys.stderr)
            return 1
        finally:
            processes = [engine.process, *(receiver.process for receiver in engine.receivers)]
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(PATIENCE_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
