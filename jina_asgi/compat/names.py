"""Jina's public names, and where this library has them.

A module of Jina's, its names, and "module:name" for each.
"""

from __future__ import annotations

from collections.abc import Mapping

_EXECUTOR = {
    "BaseExecutor": "jina_asgi.executors.executor:Executor",
    "Executor": "jina_asgi.executors.executor:Executor",
}
_FLOW = {"Flow": "jina_asgi.compat.flows:Flow"}
_ASYNC_FLOW = {"AsyncFlow": "jina_asgi.compat.flows:AsyncFlow"}
_DEPLOYMENT = {"Deployment": "jina_asgi.compat.members:Deployment"}
_CLIENT = {"Client": "jina_asgi.compat.clients:Client"}
_GATEWAY = {"Gateway": "jina_asgi.compat.gateways:Gateway"}
_DECORATORS = {
    "dynamic_batching": "jina_asgi.executors.batching:dynamic_batching",
    "monitor": "jina_asgi.executors.monitoring:monitor",
    "requests": "jina_asgi.executors.executor:requests",
}
_RESPONSE = "jina_asgi.clients.responses:Response"
_OURS = (
    "BadClient",
    "BadClientCallback",
    "BadClientInput",
    "BadServer",
    "BaseJinaException",
    "NotSupportedError",
    "PortAlreadyUsed",
)
#: Jina's errors that other classes stand for here.
_IN_PLACE = {
    **dict.fromkeys(("BadConfigSource", "BadDocType", "BadYAMLVersion"), "DefinitionError"),
    **dict.fromkeys(("FlowBuildLevelError", "FlowMissingDeploymentError", "FlowTopologyError"), "DefinitionError"),
    **dict.fromkeys(("EstablishGrpcConnectionError", "InternalNetworkError"), "Unavailable"),
    **dict.fromkeys(("ExecutorError", "ExecutorFailToLoad"), "ExecutorError"),
    "RuntimeFailToStart": "RuntimeFailToStart",
}
_NEVER = (
    "BadImageNameError",
    "BadRequestType",
    "BadServerFlow",
    "DockerVersionError",
    "NoAvailablePortError",
    "NoContainerizedError",
    "RuntimeRunForeverEarlyError",
    "RuntimeTerminated",
)

MODULES: Mapping[str, Mapping[str, str]] = {
    "jina": {
        **_ASYNC_FLOW,
        **_CLIENT,
        **_DEPLOYMENT,
        "Document": "jina_asgi.documents.document_types:BaseDoc",
        "DocumentArray": "jina_asgi.documents.document_types:DocList",
        "Executor": _EXECUTOR["Executor"],
        **_FLOW,
        **_GATEWAY,
        "__version__": "jina_asgi.compat.names:VERSION",
        **_DECORATORS,
    },
    "jina.clients": _CLIENT,
    "jina.clients.base": {"CallbackFnType": "jina_asgi.clients.posts:Callback"},
    "jina.enums": {
        name: f"jina_asgi.compat.enums:{name}" for name in ("GatewayProtocolType", "PollingType", "ProtocolType")
    },
    "jina.excepts": {
        **{name: f"jina_asgi.excepts:{name}" for name in _OURS},
        **{name: f"jina_asgi.errors:{ours}" for name, ours in _IN_PLACE.items()},
        **{name: f"jina_asgi.compat.excepts:{name}" for name in _NEVER},
    },
    "jina.helper": {
        "batch_iterator": "jina_asgi.compat.batches:batch_iterator",
        **{name: f"jina_asgi.compat.identities:{name}" for name in ("random_identity", "random_port", "random_uuid")},
    },
    "jina.logging": {},
    "jina.logging.logger": {"JinaLogger": "jina_asgi.settings.jina_logger:JinaLogger"},
    "jina.logging.predefined": {"default_logger": "jina_asgi.settings.jina_logger:default_logger"},
    "jina.logging.profile": {"TimeContext": "jina_asgi.compat.profiling:TimeContext"},
    "jina.orchestrate": {},
    "jina.orchestrate.deployments": _DEPLOYMENT,
    "jina.orchestrate.flow": {},
    "jina.orchestrate.flow.asyncio": _ASYNC_FLOW,
    "jina.orchestrate.flow.base": _FLOW,
    "jina.serve": {},
    "jina.serve.executors": {**_EXECUTOR, "__dry_run_endpoint__": "jina_asgi.compat.executors:DRY_RUN"},
    "jina.serve.executors.decorators": {**_DECORATORS, "write": "jina_asgi.compat.executors:write"},
    "jina.serve.executors.metas": {"get_default_metas": "jina_asgi.compat.executors:get_default_metas"},
    "jina.types": {},
    "jina.types.request": {"Request": _RESPONSE},
    "jina_commons": {"get_logger": "jina_asgi.compat.batches:get_logger"},
    "jina_commons.batching": {"get_docs_batch_generator": "jina_asgi.compat.batches:get_docs_batch_generator"},
    "jina.types.request.data": dict.fromkeys(("DataRequest", "Response", "SingleDocumentRequest"), _RESPONSE),
}

#: The version of Jina whose interface this is, for programs that check it.
VERSION = "3.34.0"
