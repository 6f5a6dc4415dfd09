"""What the soaks serve: an application whose model lives in a pool, and loads in no time."""

from __future__ import annotations

import os

from jina_asgi import Deployment, JinaASGI

asgi = JinaASGI(
    Deployment(
        "tests.faults.soaked_model.Model",
        name="soaked",
        replicas=int(os.environ.get("SOAKED_REPLICAS", "2")),
        env={"JOURNAL": os.environ.get("JOURNAL", "")},
        grace=5.0,
    )
)
