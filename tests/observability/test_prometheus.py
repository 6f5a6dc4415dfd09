"""What Prometheus reads: its own tools find nothing to say, a registry of the host's shows it, the page of docs has all of it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from jina_asgi import DefinitionError, Deployment, JinaASGI
from jina_asgi.observability.metrics import METRICS, OF_JINA
from jina_asgi.testing import client
from tests.doubles.metered import Model, of, samples
from tests.observability import metric_pages

BODY = {"data": [{"text": "x"}]}


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    page = metric_pages.FILE.read_text(encoding="utf-8")
    assert page == metric_pages.written(), "run python -m tests.observability.metric_pages"
    assert metric_pages.table() in page


def test_every_metric_has_a_name_of_its_own_and_base_units() -> None:
    names = [metric.name for metric in (*METRICS, *OF_JINA)]
    assert len({*names}) == len(names)
    for metric in (*METRICS, *OF_JINA):
        assert metric.help.endswith("."), metric
        assert (metric.kind == "histogram") == bool(metric.buckets), metric
        assert [*metric.buckets] == sorted(metric.buckets), metric


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
async def test_promtool_has_nothing_to_say() -> None:
    async with client(JinaASGI(Deployment(Model, name="checked"), metrics=True, wait_ready=True)) as http:
        for path in ("/echo", "/bad", "/batched", "/stream"):
            await http.post(path, json=BODY)
        page = (await http.get("/-/metrics")).content
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (0, b"", b"") == (checked.returncode, checked.stdout, checked.stderr)


async def test_a_registry_of_the_hosts_shows_its_own_metrics_and_ours() -> None:
    registry = CollectorRegistry()
    own = Counter("of_the_host", "A count of the host's.", registry=registry)
    own.inc(3)
    applications = [
        JinaASGI(Deployment(Model, name="joined"), metrics=True, registry=registry, wait_ready=True) for _ in range(2)
    ]
    async with client(applications[0]) as http:
        await http.post("/echo", json=BODY)
        found = samples(generate_latest(registry).decode())
        assert "of_the_host" not in (await http.get("/-/metrics")).text
    assert {(): 3} == of(found, "of_the_host_total")
    labels = ("deployment=joined", "endpoint=/echo", "protocol=http", "outcome=ok")
    assert {(): 1} == of(found, "jina_asgi_requests_total", *labels)


@pytest.mark.parametrize("registry", ["mine", 3])
def test_what_is_no_registry_is_refused(registry: object) -> None:
    with pytest.raises(DefinitionError, match="expected a CollectorRegistry"):
        JinaASGI(Deployment(Model), metrics=True, registry=registry)


def test_a_registry_with_a_metric_of_the_same_name_is_refused() -> None:
    registry = CollectorRegistry()
    Counter("jina_asgi_requests", "Of the host's.", registry=registry)
    with pytest.raises(DefinitionError, match="Duplicated"):
        JinaASGI(Deployment(Model), metrics=True, registry=registry)
