"""The options of metrics, which a Deployment, a Flow and a JinaASGI have alike."""

from __future__ import annotations

from pydantic import Field

from jina_asgi.settings.base import Settings


class MetricsSettings(Settings):
    """Jina's options of metrics for Prometheus."""

    metrics: bool = Field(False, description="the whole server's metrics are at `/-/metrics` (extra `metrics`)")
    monitoring: bool = Field(False, description="Jina's: as `metrics`, and they are at a port of their own too")
    port_monitoring: int | None = Field(
        None, ge=0, le=65535, description="the port of `monitoring`; None: a free one, which the log names"
    )

    @property
    def has_metrics(self) -> bool:
        return self.metrics or self.has_own_port

    @property
    def has_own_port(self) -> bool:
        return self.monitoring or self.port_monitoring is not None
