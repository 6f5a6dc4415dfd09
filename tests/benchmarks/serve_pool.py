"""This library, one pool behind several gunicorn workers. serve_pool.py PORT WORKERS MODEL REPLICAS [WEIGHT]."""

import os
import sys
from pathlib import Path

port, workers, model, replicas, *weight = sys.argv[1:]
os.environ["POOL"] = f"{model} {replicas} {weight[0] if weight else 0}"
os.environ["PYTHONPATH"] = str(Path(__file__).parent)
options = ["-c", "python:jina_asgi.gunicorn", "-w", workers, "-b", f"127.0.0.1:{port}", "--log-level", "warning"]
os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *options, "pooled_app:app"])
