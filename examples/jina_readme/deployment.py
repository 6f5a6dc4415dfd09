"""Serve the language model: python -m jina_asgi.compat deployment.py"""

from executor import StableLM
from jina import Deployment

if __name__ == "__main__":
    dep = Deployment(uses=StableLM, timeout_ready=-1, port=12345)
    with dep:
        dep.block()
