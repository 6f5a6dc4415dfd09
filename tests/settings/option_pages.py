"""docs/options.md, made from the settings: `python -m tests.settings.option_pages` writes it anew; a test compares."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from jina_asgi.settings import (
    AppSettings,
    BatchingSettings,
    ClientSettings,
    DeploymentSettings,
    GrpcSettings,
    Limits,
    ServingSettings,
)
from jina_asgi.settings.jina_options import CHANGES_NOTHING
from tests.settings.option_types import fields

FILE = Path(__file__).parents[2] / "docs" / "options.md"

HEAD = """# All options

Made from the settings of the package. An option that does not exist is an error which names the nearest one; so is a value
that does not fit. mypy and pyright know them, too.
"""

OF_A_FLOW = """`Flow(...)` takes the same, but `uses_with`, `uses_before` and `uses_after`, as defaults for its nodes. Jina's
`timeout_ready` (milliseconds) is `startup_timeout`, and `disable_reduce` is `no_reduce`.
"""


def written() -> str:
    """The whole page."""
    serving = set(ServingSettings.model_fields)
    own = [name for name in DeploymentSettings.model_fields if name not in serving]
    return "\n".join(
        [
            HEAD,
            table("Deployment, and each node of a Flow", DeploymentSettings, own),
            OF_A_FLOW,
            table("Serving a Deployment or a Flow by itself", ServingSettings, list(ServingSettings.model_fields)),
            table("JinaASGI, mount and include", AppSettings, list(AppSettings.model_fields)),
            limits(),
            table("gRPC: the dict that `grpc=` takes, and GRPCSidecar", GrpcSettings, list(GrpcSettings.model_fields)),
            table("dynamic_batching", BatchingSettings, list(BatchingSettings.model_fields)),
            table("Client", ClientSettings, list(ClientSettings.model_fields)),
            jinas(),
        ]
    )


def table(title: str, settings: type[BaseModel], names: list[str]) -> str:
    """The options of these names."""
    kinds, said = fields(settings), attributes(settings.__doc__ or "")
    rows = [
        row(name, kinds[name], default(field), field.description or said[name])
        for name in names
        for field in [settings.model_fields[name]]
    ]
    return "\n".join([f"## {title}\n", "| option | type | default | |", "|---|---|---|---|", *rows, ""])


def limits() -> str:
    """The limits of one request."""
    said = attributes(Limits.__doc__ or "")
    rows = [row(one.name, str(one.type), repr(one.default), said[one.name]) for one in dataclasses.fields(Limits)]
    return "\n".join(["## Limits\n", "| limit | type | default | |", "|---|---|---|---|", *rows, ""])


def jinas() -> str:
    """Jina's options that change nothing."""
    rows = [f"| `{name}` | {reason} |" for name, reason in CHANGES_NOTHING.items()]
    return "\n".join(["## Options of Jina's that change nothing here\n", "| option | why |", "|---|---|", *rows, ""])


def row(name: str, kind: str, default: str, said: str) -> str:
    cells = [f"`{name}`", f"`{kind}`", f"`{default}`" if default else "", said]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def default(field: Any) -> str:
    """As it is written; empty where the option must be given."""
    if field.default_factory is not None:
        return repr(field.default_factory())
    if field.default is PydanticUndefined:
        return ""
    return "Limits()" if isinstance(field.default, Limits) else repr(field.default).replace("'", '"')


def attributes(docstring: str) -> dict[str, str]:
    """What a docstring says below "Attributes" of each."""
    _, _, below = docstring.partition("Attributes:")
    found: dict[str, str] = {}
    for names, text in re.findall(r"^        (\w[\w, ]*): (.*(?:\n            .*)*)", below, re.MULTILINE):
        found.update(dict.fromkeys(names.split(", "), " ".join(text.split()).rstrip(".")))
    return found


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
