"""Serve what a YAML says: python -m jina_asgi.compat serve.py deployment.yml"""

import sys

from jina import Deployment, Flow

if __name__ == "__main__":
    [name] = sys.argv[1:]
    kind = Flow if name.startswith("flow") else Deployment
    with kind.load_config(name) as served:
        served.block()
