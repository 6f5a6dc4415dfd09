"""`jina-asgi new`: creates a working project; its files are in `project/`."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from string import Template

import click

_EVERY = {
    "executor.py": "executor.py",
    "config.yml": "config.yml",
    "app.py": "app.py",
    "gunicorn.conf.py": "gunicorn.conf.py",
    "pyproject.toml": "pyproject.toml",
    "requirements.txt": "requirements.txt",
    "README.md": "README.md",
    "tests/test_executor.py": "test_executor.py",
    "tests/test_app.py": "test_app.py",
}
#: The additional files of each type, the YAML that its application mounts, and the code that loads it.
_TYPES: dict[str, tuple[dict[str, str], str, str, str]] = {
    "app": ({}, "config.yml", "Deployment", ""),
    "deployment": ({"deployment.yml": "deployment.yml"}, "deployment.yml", "Deployment", ".load_config"),
    "flow": ({"flow.yml": "flow.yml", "executor.py": "flow_executor.py"}, "flow.yml", "Flow", ".load_config"),
}
_SERVED = '\nWithout an application around it: `jina-asgi {kind} --uses {yaml}`, then `jina-asgi client localhost:12345 --on /shout --data \'{{"text": "hi"}}\'`.\n'
_LINK = "https://github.com/jina-asgi/jina-asgi"


@click.command(short_help="Make a project that passes its own tests.")
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path))
@click.option(
    "--type", "kind", type=click.Choice(list(_TYPES)), default="app", show_default=True, help="The kind of project."
)
def new(folder: Path, kind: str) -> None:
    """Make a project in a new folder NAME: an Executor, an application with it, and tests that pass.

    `app` is an Executor mounted into FastAPI; `deployment` and `flow` add a YAML with which it can be served alone.
    """
    name = folder.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise click.BadParameter(f"expected letters, digits, - and _, got {name!r}", param_hint="NAME")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.BadParameter(f"{folder} exists already; choose a new folder", param_hint="NAME")
    for path, text in project(name, kind).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    click.echo(f"{folder} is ready:\n\n  cd {folder}\n  pip install -r requirements.txt\n  pytest\n  gunicorn app:app")


def project(name: str, kind: str) -> dict[str, str]:
    """The files of a project, by path."""
    more, yaml, source, load = _TYPES[kind]
    words = [word for word in re.split(r"[-_]+", name) if word]
    made = "".join(word[:1].upper() + word[1:] for word in words)
    facts = {
        "name": name,
        "Class": made if made not in ("Clean", "Text", "Executor") else f"{made}Model",
        "identifier": name.replace("-", "_"),
        "yaml": yaml,
        "check": f"jina-asgi check {yaml}".ljust(32),
        "Source": source,
        "load": load,
        "link": _LINK,
        "served": "" if kind == "app" else _SERVED.format(kind=kind, yaml=yaml),
    }
    folder = resources.files("jina_asgi.cli") / "project"
    return {
        path: Template((folder / f"{file}.txt").read_text(encoding="utf-8")).substitute(facts).rstrip("\n") + "\n"
        for path, file in {**_EVERY, **more}.items()
    }
