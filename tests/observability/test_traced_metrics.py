"""Metrics and traces of the same requests."""

from __future__ import annotations

from jina_asgi import Deployment, JinaASGI
from jina_asgi.testing import client
from tests.doubles.metered import of, samples
from tests.doubles.otlp_receiver import Receiver, named
from tests.doubles.traced_executors import Traced


async def test_a_request_has_a_span_and_is_counted(receiver: Receiver) -> None:
    source = Deployment(uses=Traced, name="of-both", tracing=True, traces_exporter_port=receiver.port)
    async with client(JinaASGI(source, metrics=True, wait_ready=True)) as http:
        assert (await http.post("/sync", json={"data": [{"text": "hi"}]})).status_code == 200
        found = samples((await http.get("/-/metrics")).text)
    spans = receiver.wait_for_names("POST /sync", "/sync")
    assert named(spans, "POST /sync").id == named(spans, "/sync").parent
    assert {("endpoint=/sync", "outcome=ok"): 1} == of(
        found, "jina_asgi_requests_total", "deployment=of-both", "protocol=http"
    )
