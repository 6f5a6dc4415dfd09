"""An echo whose requests are traced, on uvicorn. serve_tracing.py PORT off|every|sampled RECEIVER."""

import os
import sys

import uvicorn
from serve_jina_asgi import Work

from jina_asgi import Deployment, JinaASGI

if __name__ == "__main__":
    port, mode, receiver = sys.argv[1:]
    if mode == "sampled":
        os.environ |= {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    app = JinaASGI(Deployment(uses=Work, tracing=mode != "off", traces_exporter_port=int(receiver)))
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
