"""LitServe. serve_litserve.py PORT ENDPOINT."""

import sys

import litserve
import numpy as np
from batch_models import BATCH, MODELS, WINDOW_MS
from work import TOKENS, token


class Echo(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["text"]

    def predict(self, text):
        return text

    def encode_response(self, output):
        return {"text": output}


class Double(Echo):
    def decode_request(self, request):
        return np.array(request["vectors"], np.float32)

    def predict(self, vectors):
        return vectors * 2

    def encode_response(self, output):
        return {"vectors": output.tolist()}


class Batched(Echo):
    def predict(self, texts):
        return MODELS[sys.argv[2]](texts)


class Stream(litserve.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request):
        return request["text"]

    async def predict(self, text):
        for i in range(TOKENS):
            yield f"data: {token(i)}\n\n"

    async def encode_response(self, output):
        async for event in output:
            yield event


if __name__ == "__main__":
    port, name = sys.argv[1:]
    if name in MODELS:
        api = Batched(max_batch_size=BATCH, batch_timeout=WINDOW_MS / 1000)
    else:
        api = {"echo": Echo, "double": Double}[name]() if name != "stream" else Stream(stream=True, enable_async=True)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(port), num_api_servers=1, log_level="warning", generate_client_file=False)
