"""What type checkers know of the options: `jina_asgi/settings/options.py`, made from the settings.

`python -m tests.settings.option_types` writes it anew; a test compares.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

import jina_asgi
from jina_asgi.settings import (
    AROUND,
    AppSettings,
    BatchingSettings,
    ClientSettings,
    DeploymentSettings,
    GrpcSettings,
    ServingSettings,
)
from jina_asgi.settings.jina_options import CHANGES_NOTHING

FILE = Path(jina_asgi.__file__).parent / "settings" / "options.py"

HEAD = '''"""The options of the public classes, for type checkers: made by `python -m tests.settings.option_types`.

Meanings and defaults are declared in the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Literal, TypedDict

from jina_asgi.settings.application import GrpcSettings, Limits
'''

#: Where more is taken than the settings hold in the end.
TAKEN: Mapping[tuple[str, str], str] = {
    ("DeploymentSettings", "env"): "Mapping[str, str | int | float]",
    ("DeploymentSettings", "devices"): "Any",
    **{("DeploymentSettings", name): "type | str | PathLike[str] | Mapping[str, Any] | None" for name in AROUND},
    ("AppSettings", "auth"): "Callable[[Mapping[str, str], str], Any] | None",
    ("AppSettings", "limits"): "Limits | None",
    ("AppSettings", "grpc"): "str | Mapping[str, Any] | GrpcSettings | None",
}
#: What `Flow.add` has as arguments of its own.
OF_ADD = ("name", "no_reduce")
#: Jina's, by other names than ours, or with no effect here.
JINAS = {
    "disable_reduce": "bool",
    "ports": "int | list[int] | None",
    "protocols": "str | list[str]",
    "timeout_ready": "float",
    **dict.fromkeys(CHANGES_NOTHING, "Any"),
}


def written() -> str:
    """The whole file."""
    blocks = [
        block("ServingOptions", "How a Deployment or a Flow is served by itself.", fields(ServingSettings)),
        block("JinaOptions", "Options of Jina's that are named otherwise here, or change nothing.", JINAS),
        block(
            "NodeOptions",
            "Those of a node of a Flow, beside the arguments of `Flow.add`.",
            without(fields(DeploymentSettings), *ServingSettings.model_fields, *JINAS, *OF_ADD),
            "ServingOptions, JinaOptions",
        ),
        block(
            "DeploymentOptions",
            "Those of a Deployment, and of a Flow for all its nodes.",
            {name: kind for name, kind in fields(DeploymentSettings).items() if name in OF_ADD},
            "NodeOptions",
        ),
        block("BatchingOptions", "Those of dynamic batching.", fields(BatchingSettings)),
        block("AppOptions", "Those of a JinaASGI.", fields(AppSettings)),
        block(
            "SidecarOptions",
            "Those of a GRPCSidecar.",
            without(fields(GrpcSettings), "bind", *AppSettings.model_fields),
            "AppOptions",
        ),
        block("ClientOptions", "Those of a Client, beside where its server is.", fields(ClientSettings)),
    ]
    return "\n\n".join([HEAD, *blocks])


def without(kinds: Mapping[str, str], *names: str) -> dict[str, str]:
    """All but those of these names."""
    return {name: kind for name, kind in kinds.items() if name not in names}


def block(name: str, doc: str, kinds: Mapping[str, str], bases: str = "TypedDict") -> str:
    """One class."""
    lines = [f"    {option}: {taken}\n" for option, taken in kinds.items()]
    return f'class {name}({bases}, total=False):\n    """{doc}"""\n\n{"".join(lines)}'


def fields(settings: type[BaseModel]) -> dict[str, str]:
    """The options that settings have, and the type of each, in words of Python."""
    return {
        name: TAKEN.get((settings.__name__, name)) or kind(field.annotation)
        for name, field in settings.model_fields.items()
    }


def kind(annotation: Any) -> str:
    """A type as it is written. A mapping of any kind is taken where the settings hold a dict."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(kind(one) for one in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments)).replace(chr(39), chr(34))}]"
    if origin is Callable:
        taken, answer = arguments
        return f"Callable[[{', '.join(kind(one) for one in taken)}], {kind(answer)}]"
    if origin is not None:
        name = "Mapping" if origin is dict else origin.__name__
        return f"{name}[{', '.join(kind(one) for one in arguments)}]"
    if annotation is Any:
        return "Any"
    return "None" if annotation is type(None) else str(annotation.__name__)


if __name__ == "__main__":
    FILE.write_text(written())
