"""Command-line options made from a settings class, which declares each with its default and description.

Text options are not parsed; others are parsed as YAML; mappings are YAML too, or KEY=VALUE, which can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from jina_asgi.errors import DefinitionError
from jina_asgi.serving.config.files import read_value
from jina_asgi.settings import ServingSettings
from jina_asgi.settings.base import Settings

F = TypeVar("F", bound=Callable[..., Any])
#: `--uses_with` is accepted as `--uses-with`.
CONTEXT: Mapping[str, Any] = {"token_normalize_func": lambda token: token.replace("_", "-")}


class SettingsCommand(click.Command):
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        parts: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                parts.setdefault(getattr(parameter, "part", "Options"), []).append(record)
        for part in sorted(parts, key=["Options", _SERVING, _ANSWERS].index):
            with formatter.section(part):
                formatter.write_dl(parts[part], col_max=34)


_SERVING, _ANSWERS = "Where it is served", "The server and its protocol"


class _SettingOption(click.Option):
    """A command-line option made from a settings field."""

    def __init__(self, name: str, field: FieldInfo, part: str) -> None:
        kinds = _kinds(field.annotation)
        self.part, self.kinds, self.texts = part, kinds, _text_values(field.annotation)
        flag = f"--{name.replace('_', '-')}"
        only = kinds - {NoneType}
        more: dict[str, Any] = {}
        if only == {bool}:
            flag = flag if name.startswith("no_") else f"{flag}/--no-{flag.removeprefix('--')}"
            more = {"is_flag": True}
        elif dict in only and str not in only:
            more = {"multiple": True, "metavar": "KEY=VALUE"}
        else:
            more = {"metavar": _metavar(only)}
            if bool in only:
                more |= {"is_flag": False, "flag_value": "true"}
        super().__init__([flag, name], default=None, help=_help(field), **more)


def setting_options(settings: type[Settings], *, without: Iterable[str] = ()) -> Callable[[F], F]:
    """Makes a decorator that gives a command the options of a settings class."""

    def given(command: F) -> F:
        declared = [
            _SettingOption(name, field, _SERVING if name in ServingSettings.model_fields else _ANSWERS)
            for name, field in settings.model_fields.items()
            if name not in without
        ]
        more = click.Option(
            ["--option"],
            multiple=True,
            metavar="NAME=VALUE",
            help="Any option by its name, also one of Jina's without effect here.",
        )
        vars(command).setdefault("__click_params__", []).extend(reversed([more, *declared]))
        return command

    return given


def chosen(context: click.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, converted for the settings.

    Raises:
        DefinitionError: a value cannot be parsed.
    """
    declared = {option.name: option for option in context.command.params if isinstance(option, _SettingOption)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in declared and value is not None and value != ():
            found[name] = _read(declared[name], value)
    for text in values.get("option", ()):
        name, separator, value = text.partition("=")
        if not separator:
            raise DefinitionError(f"--option {text!r}: expected NAME=VALUE")
        name = name.strip().replace("-", "_")
        found[name] = (
            _read(declared[name], (value,) if declared[name].multiple else value)
            if name in declared
            else read_value(value)
        )
    return found


def _read(option: _SettingOption, value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if option.multiple:
        merged: dict[str, Any] = {}
        for text in value:
            merged |= _pairs(option, text)
        return merged
    written = value.lstrip().startswith(("[", "{"))
    return value if str in option.kinds and not (written and option.kinds & {list, dict}) else _value(value)


def _value(text: str) -> Any:
    """Parses a value as YAML, but without comments: a `#` on the command line is literal."""
    found = read_value(text)
    is_text = isinstance(found, str) or (found is None and text.strip() not in ("", "~", "null", "Null", "NULL"))
    return text if is_text else found


def _pairs(option: _SettingOption, text: str) -> dict[str, Any]:
    """Parses one KEY=VALUE entry, or a mapping of several."""
    name, separator, value = text.partition("=")
    if separator and not text.lstrip().startswith("{"):
        return {name.strip(): value if option.texts else _value(value)}
    found = read_value(text)
    if not isinstance(found, dict):
        raise DefinitionError(f"{option.opts[0]} {text!r}: expected KEY=VALUE, or a mapping as JSON or YAML")
    return found


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation allows, without their type arguments."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return set().union(*(_kinds(item) for item in get_args(annotation)))
    if hasattr(annotation, "__metadata__"):
        return _kinds(annotation.__origin__)
    if origin is not None:
        return {origin} if isinstance(origin, type) else {type(item) for item in get_args(annotation)}
    return {annotation}


def _text_values(annotation: Any) -> bool:
    """Whether the values of a mapping are text."""
    arguments = get_args(annotation)
    return get_origin(annotation) is dict and str in _kinds(arguments[1])


def _metavar(kinds: set[Any]) -> str:
    names = {str: "TEXT", int: "NUMBER", float: "NUMBER", list: "LIST", dict: "MAPPING", bool: "BOOL"}
    return "|".join(dict.fromkeys(name for kind, name in names.items() if kind in kinds)) or "VALUE"


def _help(field: FieldInfo) -> str:
    said = (field.description or "").strip()
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, "", False, [], {}) else f"  [{default}]"
    return f"{said[:1].upper()}{said[1:]}.{shown}"
