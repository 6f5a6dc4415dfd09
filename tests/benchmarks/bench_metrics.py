"""What metrics cost: an echo over HTTP with and without the option `metrics`.

python tests/benchmarks/bench_metrics.py --seconds 2 --rounds 9
"""

import load
from bench_echo import docs
from harness import Benchmark, System, main, parser

BENCHMARK = Benchmark(
    title="Echo of one document over HTTP, with and without metrics",
    cells={"1 client": 1, "32 clients": 32},
    systems=[
        System("without", "jina_asgi", **docs("/echo")),
        System("metrics=True", "jina_asgi", args=["metrics"], **docs("/echo")),
    ],
    measure=load.requests,
    main="requests/s",
)

if __name__ == "__main__":
    main([BENCHMARK], parser(__doc__, seconds=2, rounds=9).parse_args())
