"""Serve both, one after the other: python -m jina_asgi.compat flow.py"""

from executor import StableLM
from jina import Flow
from text_to_image import TextToImage

if __name__ == "__main__":
    flow = Flow(port=12345).add(uses=StableLM, timeout_ready=-1).add(uses=TextToImage, timeout_ready=-1)
    with flow:
        flow.block()
