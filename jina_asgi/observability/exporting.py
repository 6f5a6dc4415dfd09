"""Exports spans by OTLP where the host has set no provider: one exporter for each receiver, shared by all services."""

from __future__ import annotations

import os
import re
import threading
import time

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from jina_asgi.errors import DefinitionError

_RATIO = re.compile(r"(?:ParentBased{root:)?TraceIdRatioBased{([-+.e\d]+)}")
_lock = threading.Lock()
_processors: dict[tuple[str | None, int | None], _Processor | None] = {}
_providers: dict[tuple[str, str | None, int | None], ExportingProvider] = {}


class ExportingProvider(TracerProvider):
    """A provider of ours.

    Attributes:
        bound: the traces are recorded whose id has smaller lower 64 bits; None: the sampler has another rule.
        ids: makes the ids of spans.
    """

    def __init__(self, resource: Resource) -> None:
        self.ids = ChosenIds()
        super().__init__(resource=resource, id_generator=self.ids)
        ratio = _RATIO.match(self.sampler.get_description())
        self.bound = None if ratio is None else round(float(ratio[1]) * 2**64)


class ChosenIds(RandomIdGenerator):
    """Random ids, but for a trace whose id has been chosen in this thread."""

    def __init__(self) -> None:
        self._next = threading.local()

    def choose(self, trace: int) -> None:
        """Choose the id of the next trace."""
        self._next.trace = trace

    def generate_trace_id(self) -> int:
        chosen: int | None = vars(self._next).pop("trace", None)
        return super().generate_trace_id() if chosen is None else chosen


def exporting_provider(service: str, host: str | None, port: int | None) -> ExportingProvider:
    """The provider of a service, which exports to a receiver; OpenTelemetry's environment variables give the rest.

    Raises:
        DefinitionError: they name a protocol or an exporter that is not known.
    """
    with _lock:
        if (service, host, port) not in _providers:
            if (host, port) not in _processors:
                exporter = _exporter(host, port)
                _processors[host, port] = None if exporter is None else _Processor(exporter)
            name = os.environ.get("OTEL_SERVICE_NAME") or service
            provider = ExportingProvider(Resource.create({"service.name": name, "process.pid": os.getpid()}))
            if (processor := _processors[host, port]) is not None:
                provider.add_span_processor(processor)
            _providers[service, host, port] = provider
        return _providers[service, host, port]


def flush(seconds: float) -> None:
    """Export what has not been exported, for so many seconds at most: a receiver may be gone."""
    with _lock:
        processors = [processor for processor in _processors.values() if processor is not None]
    threads = [threading.Thread(target=one.force_flush, name="jina-asgi-spans", daemon=True) for one in processors]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread, processor in zip(threads, processors, strict=True):
        thread.join(max(0.0, end - time.monotonic()))
        processor.is_stuck = thread.is_alive()


class _Processor(BatchSpanProcessor):
    """Exports in a thread. If its receiver is gone, it ends without trying again."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(exporter)
        self.is_stuck, self._exports = False, exporter

    def shutdown(self) -> None:
        if self.is_stuck:
            self._exports.shutdown()
        super().shutdown()  # type: ignore[no-untyped-call]  # of the SDK


def _exporter(host: str | None, port: int | None) -> SpanExporter | None:
    named = os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    if named == "none":
        return None
    if named == "console":
        return ConsoleSpanExporter()
    if named != "otlp":
        raise DefinitionError(f"OTEL_TRACES_EXPORTER={named!r}: expected otlp, console or none")
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
    named_here = host is not None or port is not None
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        if not named_here:
            return GrpcExporter()
        return GrpcExporter(endpoint=f"http://{host or 'localhost'}:{port or 4317}", insecure=True)
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        if not named_here:
            return HttpExporter()
        return HttpExporter(endpoint=f"http://{host or 'localhost'}:{port or 4318}/v1/traces")
    raise DefinitionError(f"the OTLP protocol {protocol!r}: expected grpc or http/protobuf")
