"""Requests a second of one document through Flows of echoes over HTTP: one node, a chain of two, a diamond of four.

python tests/benchmarks/bench_flow_http.py --seconds 2 --rounds 3
"""

import load
from bench_echo import docs
from harness import Benchmark, System, main, parser


def flows(shape: str) -> Benchmark:
    systems = [
        System("jina_asgi, one node", "flow", args=["one"], **docs("/echo")),
        System(f"jina_asgi, {shape}", "flow", args=[shape], **docs("/echo")),
        System(f"Jina 3.34, {shape}", "jina_flow", args=[shape], peer="jina", **docs("/echo")),
    ]
    return Benchmark(
        title=f"A Flow over HTTP: {shape}",
        cells={"1 client": 1, "32 clients": 32},
        systems=systems,
        measure=load.requests,
        main="requests/s",
    )


if __name__ == "__main__":
    main([flows("chain"), flows("diamond")], parser(__doc__, seconds=2, rounds=3).parse_args())
