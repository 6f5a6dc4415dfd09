"""The JSON Schema of the YAML of Executors, Deployments and Flows, generated from the settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from jina_asgi.serving.config.executor import ExecutorKeys
from jina_asgi.serving.config.models import FlowKeys, NodeKeys
from jina_asgi.settings import AROUND, BatchingSettings, DeploymentSettings, FlowSettings
from jina_asgi.settings.jina_options import CHANGES_NOTHING

#: An expression, which substitution may replace by a value of the right type.
_EXPRESSION = {"type": "string", "pattern": r"\$"}
#: A key without a value, which means the default.
_NOTHING = {"type": "null"}
#: Jina's options that are accepted under another name, with its meaning.
_JINAS = {
    "disable_reduce": {"type": "boolean", "description": "no_reduce"},
    "ports": {"description": "port"},
    "protocols": {"description": "protocol"},
    "timeout_ready": {"type": "number", "description": "milliseconds that a replica may take to load; -1: for ever"},
}


def yaml_schema() -> dict[str, Any]:
    """The schema, of draft 2020-12."""
    executor = {"type": "object", "additionalProperties": False, "required": ["jtype"], "properties": _executor()}
    flow = {"type": "object", "additionalProperties": False, "required": ["jtype"], "properties": _flow()}
    deployment = {**_with_options(_options()), "required": ["jtype"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "YAML of jina_asgi",
        "if": {"properties": {"jtype": {"const": "Flow"}}, "required": ["jtype"]},
        "then": {"$ref": "#/$defs/Flow"},
        "else": {
            "if": {"properties": {"jtype": {"const": "Deployment"}}, "required": ["jtype"]},
            "then": {"$ref": "#/$defs/Deployment"},
            "else": {"$ref": "#/$defs/Executor"},
        },
        "$defs": {
            "Deployment": deployment,
            "Executor": executor,
            "Flow": flow,
            "Node": {"anyOf": [{"type": "string"}, _with_options(_node())]},
            "Uses": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Executor"}]},
        },
    }


def _executor() -> dict[str, Any]:
    batching = {"type": "object", "additionalProperties": False, "properties": _properties(BatchingSettings)}
    keys = _properties(ExecutorKeys)
    keys["dynamic_batching"] |= {"type": ["object", "null"], "additionalProperties": batching}
    return keys


def _flow() -> dict[str, Any]:
    own = {**_properties(FlowSettings), **_jina_options()}
    options = {"type": "object", "additionalProperties": False, "properties": own}
    nodes = {"type": "array", "items": {"$ref": "#/$defs/Node"}}
    return {
        **_properties(FlowKeys),
        "jtype": {"const": "Flow"},
        "with": options,
        "gateway": {**options, "properties": {"jtype": {}, **own}},
        "executors": nodes,
        "deployments": nodes,
    }


def _options() -> dict[str, Any]:
    options = _properties(DeploymentSettings)
    around = {name: {**options[name], "anyOf": [{"$ref": "#/$defs/Uses"}, _NOTHING]} for name in AROUND}
    return {"uses": {"$ref": "#/$defs/Uses"}, **options, **around, **_jina_options()}


def _node() -> dict[str, Any]:
    return {**_options(), **_properties(NodeKeys)}


def _with_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options below `with`, beside it, or both."""
    below = {"type": "object", "additionalProperties": False, "properties": options}
    beside = {"jtype": {"enum": ["Deployment"]}, "version": {}, "with": below}
    return {"type": "object", "additionalProperties": False, "properties": {**beside, **options}}


def _jina_options() -> dict[str, Any]:
    """Jina's own options; each one without effect has its reason as description."""
    nothing = {name: {"description": f"changes nothing here: {why}"} for name, why in CHANGES_NOTHING.items()}
    return {**nothing, **_JINAS}


class _LenientSchema(GenerateJsonSchema):
    """Allows any value for types that JSON Schema cannot express, such as functions."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {}


def _properties(settings: type[BaseModel]) -> dict[str, Any]:
    """The options of a settings class; the value of each may also be an expression."""
    properties = settings.model_json_schema(schema_generator=_LenientSchema)["properties"]
    made = {}
    for name, field in ((field.alias or name, field) for name, field in settings.model_fields.items()):
        value = {key: item for key, item in properties[name].items() if key not in ("title", "default", "description")}
        described = {"description": field.description} if field.description else {}
        made[name] = {**described, **({"anyOf": [value, _EXPRESSION, _NOTHING]} if value else {})}
    return made
