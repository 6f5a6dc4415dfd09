"""Jina 3.34, a Flow of echoes over HTTP. serve_jina_flow.py PORT SHAPE, a shape of `work`."""

import sys
import warnings

warnings.filterwarnings("ignore")

from jina import Flow
from serve_jina import Work
from work import SHAPES

if __name__ == "__main__":
    flow = Flow(protocol="http", port=int(sys.argv[1]), host="127.0.0.1")
    for name, needs in SHAPES[sys.argv[2]].items():
        flow = flow.add(uses=Work, name=name, needs=needs)
    with flow:
        flow.block()
