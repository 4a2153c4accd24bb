"""What the Python receivers share: an HTTP server on loopback that has each request verified, answers
it, and writes what it saw to standard output, a JSON object a line."""

import argparse
import http.server
import json
import pathlib
import threading


def serve(verify, answer=None):
    """Serves until it is killed.

    verify(body, headers, secret) raises if the request is not to be believed.
    answer(body) gives the body of a 200, where it matters.
    """
    words = argparse.ArgumentParser()
    words.add_argument("--secrets", type=pathlib.Path, required=True, help="a file, a secret a line; read each time")
    words.add_argument("--port", type=int, default=9000, help="0: any free one")
    words.add_argument("--fail", action="append", default=[], help="answer 503 to the first attempt of this webhook-id")
    args = words.parse_args()
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            refused = []
            for secret in args.secrets.read_text().splitlines():
                try:
                    verify(body, headers, secret)
                    refused = None
                    break
                except Exception as error:
                    refused.append(f"{type(error).__name__}: {error}")
            with lock:
                failing = refused is None and headers.get("webhook-id") in args.fail
                if failing:
                    args.fail.remove(headers["webhook-id"])
                status = 503 if failing else 401 if refused is not None else 200
                seen = {"status": status, "verified": refused is None, "refused": refused}
                print(json.dumps({**seen, "headers": headers, "body": body.decode()}), flush=True)
            reply = answer(body) if answer and status == 200 else b""
            self.send_response(status)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    server.daemon_threads = True
    print(json.dumps({"listening": server.server_address[1]}), flush=True)
    server.serve_forever()
