"""A Flow with a node in the web worker and a pool behind it, traced to the receiver at $RECEIVER."""

from __future__ import annotations

import os

from jina_asgi import Flow, JinaASGI
from tests.doubles.traced_executors import Plain

flow = Flow(name="flow", tracing=True, traces_exporter_port=int(os.environ["RECEIVER"]))
app = JinaASGI(flow.add(uses=Plain, name="one").add(uses=Plain, name="two", replicas=2), startup_wait=60)
