"""What spans cost: one document echoed over HTTP, untraced, traced at 1 %, and with each request's spans exported.

The receiver of OTLP is in this process, and reads nothing of what it gets.

python tests/benchmarks/bench_tracing.py --seconds 2 --rounds 5
"""

from concurrent.futures import ThreadPoolExecutor

import grpc
import load
from bench_echo import docs
from harness import Benchmark, System, main, parser


def receiver() -> tuple[grpc.Server, int]:
    """A server of OTLP over gRPC, and its port."""
    server = grpc.server(ThreadPoolExecutor(1))
    method = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"Export": method})])
    return server, server.add_insecure_port("127.0.0.1:0")


if __name__ == "__main__":
    server, port = receiver()
    server.start()
    modes = {"off": "off", "sampled at 1 %": "sampled", "every request": "every"}
    benchmark = Benchmark(
        title="Echo of one document over HTTP with spans",
        cells={"1 client": 1, "32 clients": 32},
        systems=[System(name, "tracing", args=[mode, str(port)], **docs("/echo")) for name, mode in modes.items()],
        measure=load.requests,
        main="requests/s",
    )
    main([benchmark], parser(__doc__, seconds=2, rounds=5).parse_args())
    server.stop(None)
