"""mosec. serve_mosec.py PORT ENDPOINT."""

import os
import sys

import numpy as np
from batch_models import BATCH, MODELS, WINDOW_MS
from mosec import Server, SSEWorker, Worker
from work import TOKENS, token


class Echo(Worker):
    def forward(self, data):
        return data


class Stream(SSEWorker):
    def forward(self, data):  # one call at a time: streams share it as one batch
        for i in range(TOKENS):
            for index in range(len(data)):
                self.send_stream_event(token(i), index)
        return data


class Double(Worker):
    def forward(self, data):
        return {"vectors": (np.array(data["vectors"], np.float32) * 2).tolist()}


class DoubleBytes(Worker):
    def deserialize(self, data):
        return np.frombuffer(data, np.float32)

    def forward(self, data):
        return data * 2

    def serialize(self, data):
        return data.tobytes()


class Text(Worker):
    def forward(self, data):  # a list, as it batches
        model = MODELS[os.environ["MODEL"]]
        return [{"text": text} for text in model([one["text"] for one in data])]


WORKERS = {"sleep": Text, "matmul": Text, "echo": Echo, "stream": Stream, "double": Double, "double_bytes": DoubleBytes}

if __name__ == "__main__":
    port, os.environ["MODEL"] = sys.argv[1:]
    name = os.environ["MODEL"]
    # mosec reads the command line itself, in each of its processes.
    options = ["--address", "127.0.0.1", "--timeout", "60000", "--log-level", "warning"]
    sys.argv[1:] = ["--port", port, *options]
    server = Server()
    batches = name in ("stream", *MODELS)
    batch = {"max_batch_size": BATCH, "max_wait_time": WINDOW_MS} if batches else {}
    server.append_worker(WORKERS[name], **batch)
    server.run()
