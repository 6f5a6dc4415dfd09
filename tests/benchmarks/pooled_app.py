"""What gunicorn serves in the benchmarks of the pool; POOL says how: "MODEL REPLICAS WEIGHT"."""

import os

from jina_asgi import Deployment, JinaASGI

model, replicas, weight = os.environ["POOL"].split()
app = JinaASGI(
    Deployment(
        "pooled_work.Work",
        name="lm",
        placement="pool",
        replicas=int(replicas),
        uses_with={"model": model, "weight": int(weight)},
    )
)
