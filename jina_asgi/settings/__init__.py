"""All settings classes; each option is declared once, here. What the options do is implemented elsewhere."""

from jina_asgi.settings.application import AppSettings, Auth, Bind, GrpcSettings, Limits
from jina_asgi.settings.base import MIB
from jina_asgi.settings.batching import BatchingSettings
from jina_asgi.settings.deployment import AROUND, DeploymentSettings, FlowSettings
from jina_asgi.settings.serving import ClientSettings, ServingSettings

__all__ = [
    "AROUND",
    "MIB",
    "AppSettings",
    "Auth",
    "BatchingSettings",
    "Bind",
    "ClientSettings",
    "DeploymentSettings",
    "FlowSettings",
    "GrpcSettings",
    "Limits",
    "ServingSettings",
]
