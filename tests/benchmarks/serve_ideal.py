"""No server at all, nearly: the model called back to back with full batches, while one request waits. serve_ideal.py PORT MODEL."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from batch_models import BATCH, MODELS

MODEL = MODELS[sys.argv[2]]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "seconds" in body:
            begun, items = time.perf_counter(), 0
            while time.perf_counter() < begun + body["seconds"]:
                items += len(MODEL([f"load{n}" for n in range(BATCH)]))
            answer: dict[str, float | str] = {"items": items, "seconds": time.perf_counter() - begun}
        else:
            answer = {"text": MODEL([body["text"]])[0]}
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
