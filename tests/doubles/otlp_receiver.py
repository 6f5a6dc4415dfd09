"""A real receiver of OTLP: opentelemetry-proto's own servicer over gRPC, and the same requests over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived; ids are in hex, times in nanoseconds."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    events: tuple[str, ...]
    failed: bool
    resource: Mapping[str, Any]

    @property
    def service(self) -> str:
        return str(self.resource["service.name"])


class Receiver(TraceServiceServicer):  # type: ignore[misc]  # it has no types
    """Receives spans on a port for each protocol; used as `with`."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self._changed = threading.Condition()
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(self, self._grpc)
        self.port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http_port = self._http.server_address[1]

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        self._take(request)
        return ExportTraceServiceResponse()

    def __enter__(self) -> Self:
        self._grpc.start()
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(0).wait()

    def wait_for(self, found: Callable[[list[ReceivedSpan]], Any], timeout: float = 30.0) -> list[ReceivedSpan]:
        """The spans so far, once these suffice."""
        with self._changed:
            has = self._changed.wait_for(lambda: found(self.spans), timeout)
            assert has, f"received only {sorted((span.service, span.name) for span in self.spans)}"
            return list(self.spans)

    def wait_for_names(self, *names: str) -> list[ReceivedSpan]:
        """The spans so far, once there is one of each name."""
        return self.wait_for(lambda spans: {*names} <= {span.name for span in spans})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver._take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        return Handler

    def _take(self, request: ExportTraceServiceRequest) -> None:
        made = [
            ReceivedSpan(
                span.name,
                KINDS[span.kind],
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                _plain(span.attributes),
                tuple(link.span_id.hex() for link in span.links),
                tuple(event.name for event in span.events),
                span.status.code == 2,
                _plain(resource.resource.attributes),
            )
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._changed:
            self.spans += made
            self._changed.notify_all()


def _plain(attributes: Iterable[Any]) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def named(spans: Iterable[ReceivedSpan], name: str) -> ReceivedSpan:
    """The only span of this name."""
    (found,) = [span for span in spans if span.name == name]
    return found
