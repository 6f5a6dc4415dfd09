"""The pooled example: one language model behind two web workers, neither of which has it."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from tests.doubles.rig import ROOT, Served

pytestmark = pytest.mark.model

PROMPT = {"data": {"text": "What is the capital of France?"}}
LOADED = 300.0  # seconds: the first start on a machine fetches and converts the model


def test_one_model_streams_from_whichever_worker_is_asked() -> None:
    command = ["gunicorn", "-c", "python:jina_asgi.gunicorn", "-w", "2", "-b", "127.0.0.1:0", "{app}"]
    with Served("", "one_model:app", command=command, cwd=ROOT / "examples") as server:
        each = httpx.Limits(max_keepalive_connections=0)  # a connection a request: any worker may take it
        with server.client(limits=each) as http:
            end = time.monotonic() + LOADED
            while http.get("/lm/-/ready").status_code != 200:
                assert time.monotonic() < end, server.log
                time.sleep(0.1)  # readiness is asked for over HTTP
            texts, workers = set(), dict[int, list[str]]()
            while len(workers) < 2:
                texts.add(streamed(http))
                worker = http.get("/worker").json()
                workers[worker["pid"]] = worker["imported"]
                assert time.monotonic() < end, server.log
        assert len(texts) == 1  # the same model, greedily
        assert "Paris" in texts.pop()
        assert list(workers.values()) == [[], []]


def streamed(http: httpx.Client) -> str:
    """The text of one streamed answer."""
    with http.stream("POST", "/lm/stream", json={**PROMPT, "parameters": {"temperature": 0}}) as answer:
        assert answer.status_code == 200
        *docs, end = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert end is None
    return "".join(doc["text"] for doc in docs)
