"""mosec. serve_mosec.py PORT ENDPOINT."""

import sys

import numpy as np
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


WORKERS = {"echo": Echo, "stream": Stream, "double": Double, "double_bytes": DoubleBytes}

if __name__ == "__main__":
    port, name = sys.argv[1:]
    # mosec reads the command line itself, in each of its processes.
    sys.argv[1:] = ["--port", port, "--address", "127.0.0.1", "--timeout", "60000", "--log-level", "warning"]
    server = Server()
    batch = {"max_batch_size": 32, "max_wait_time": 5} if name == "stream" else {}
    server.append_worker(WORKERS[name], **batch)
    server.run()
