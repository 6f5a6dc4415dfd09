"""Reads from a document class what readers and writers need: rules that only pydantic can run, wire names, serializers.

Each class is read once. `document_types` reads what is docarray's.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    FutureDatetime,
    Json,
    PastDatetime,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
)
from pydantic.fields import FieldInfo
from pydantic.types import EncodedBytes, EncodedStr, PathType

#: Modules whose types pydantic writes by the value's class alone.
_KNOWN = {"builtins", "collections", "datetime", "decimal", "docarray", "numpy", "pydantic", "pydantic_core", "torch"}
_KNOWN |= {"types", "typing", "uuid"}
#: The classes of secrets.
SECRETS = (SecretStr, SecretBytes, Secret)
_DATETIMES = (datetime.datetime, AwareDatetime, PastDatetime, FutureDatetime)
_MINUTE = datetime.timedelta(minutes=1)
_SERIALIZERS = ("PlainSerializer", "WrapSerializer")


def leaves(annotation: Any) -> Iterator[tuple[Any, bool]]:
    """The parts of an annotation: types (False), and the metadata in `Annotated` (True)."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield from leaves(inner)
        for item in metadata:
            yield item, True
    else:
        yield get_origin(annotation) or annotation, False
        if get_origin(annotation) is not None:
            for argument in get_args(annotation):
                yield from leaves(argument)


def metadata_of(info: FieldInfo) -> Iterator[Any]:
    """The metadata of a field's type and of the types within it; for a `Field(...)`, its constraints."""
    yield from info.metadata
    for item, added in leaves(info.annotation):
        if isinstance(item, FieldInfo):
            yield from item.metadata
        elif added:
            yield item


def has_rules(model: type[BaseModel], means_nothing: Callable[[Any], bool]) -> bool:
    """Whether a class has rules of its own: validators, constraints, aliases, strictness.

    Args:
        means_nothing: whether an item of metadata is not a rule (a dtype).
    """
    decorators = model.__pydantic_decorators__
    return bool(
        decorators.validators
        or decorators.field_validators
        or decorators.root_validators
        or decorators.model_validators
        or model.__pydantic_custom_init__
        or model.__pydantic_post_init__
        or model.__private_attributes__
        or model.model_config.get("extra", "ignore") != "ignore"
        or _transforms(model)
        or any(
            info.alias or info.validation_alias or not all(map(means_nothing, metadata_of(info)))
            for info in model.model_fields.values()
        )
    )


def _transforms(model: type[BaseModel]) -> bool:
    options = ("strict", "str_strip_whitespace", "str_to_lower", "str_to_upper", "str_min_length", "str_max_length")
    refuses_inf = model.model_config.get("allow_inf_nan", True) is False
    return refuses_inf or any(model.model_config.get(option) for option in options)


def is_strict(model: type[BaseModel]) -> bool:
    """Whether a class, or one of its fields, refuses conversions."""
    return bool(model.model_config.get("strict")) or any(
        getattr(item, "strict", False) for info in model.model_fields.values() for item in metadata_of(info)
    )


def accepted_names(model: type[BaseModel], name: str) -> list[str]:
    """The names by which a field can be given; the one that is written first."""
    for attribute, info in model.model_fields.items():
        alias = info.validation_alias or info.alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        names = [choice for choice in choices if isinstance(choice, str)] + [attribute]
        if name in (names[0], attribute):
            return names
    return [name]


def wire_name(model: type[BaseModel], attribute: str) -> str:
    """A field's name in encoded documents: its validation alias, or its own name."""
    return accepted_names(model, attribute)[0]


def unfit_defaults(model: type[BaseModel]) -> Mapping[str, tuple[str, Any]]:
    """The defaults that a class itself would refuse, such as None for a `str`: by each name of the field, its name in
    Python and the default.
    """
    found: dict[str, tuple[str, Any]] = {}
    for name, info in model.model_fields.items():
        if not info.validate_default and _is_plain(info.default) and not _fits(info):
            found |= dict.fromkeys(accepted_names(model, name), (name, info.default))
    return found


def _is_plain(default: Any) -> bool:
    return default is None or isinstance(default, str | int | float | bytes | list | dict)


def _fits(info: FieldInfo) -> bool:
    """Whether a field's default is valid for its type."""
    if type(info.default) is info.annotation and not info.metadata:
        return True
    try:
        _adapter(info).validate_python(info.default)
    except Exception:  # noqa: BLE001  # whatever a validator of the class's own raises: it does not take it
        return False
    return True


def has_own_json(model: type[BaseModel]) -> bool:
    """Whether a class defines its own JSON: serializers, computed fields, aliases."""
    aliased = any(info.serialization_alias or info.alias for info in model.model_fields.values())
    return aliased or model.model_config.get("extra") == "allow" or _serializes(model)


def json_differs(model: type[BaseModel]) -> bool:
    """Whether the JSON of a class differs from its field values by their wire names."""
    names = {name: info.serialization_alias or info.alias or name for name, info in model.model_fields.items()}
    aliased = any(alias != wire_name(model, name) for name, alias in names.items())
    return aliased or _serializes(model) or _holds_moments(model.__pydantic_core_schema__)


def _holds_moments(schema: Any) -> bool:
    """Whether a part of a class's schema is a datetime or a duration: pydantic and msgspec write these differently."""
    if isinstance(schema, dict):
        return schema.get("type") in ("datetime", "timedelta") or any(map(_holds_moments, schema.values()))
    return isinstance(schema, list | tuple) and any(map(_holds_moments, schema))


def _serializes(model: type[BaseModel]) -> bool:
    """Whether a class has serializers, computed fields or excluded fields."""
    decorators = model.__pydantic_decorators__
    return bool(decorators.field_serializers or decorators.model_serializers or decorators.computed_fields) or any(
        info.exclude or any(type(item).__name__ in _SERIALIZERS for item in metadata_of(info))
        for info in model.model_fields.values()
    )


def own_fields(model: type[BaseModel]) -> set[str]:
    """The fields that have a serializer, and those that JSON excludes."""
    decorators, fields = model.__pydantic_decorators__, model.model_fields
    named = {name for d in decorators.field_serializers.values() for name in d.info.fields}
    if "*" in named or decorators.model_serializers:
        return set(fields)
    serialized = {
        n
        for n, i in fields.items()
        if is_encoded(metadata_of(i)) or any(type(m).__name__ in _SERIALIZERS for m in metadata_of(i))
    }
    return named | serialized | {name for name, info in fields.items() if info.exclude}


def dumps_of(model: type[BaseModel]) -> Mapping[str, Callable[[Any], Any]]:
    """Builds functions that convert fields of types that only pydantic knows to plain values, which can be read again."""
    return {name: _dump_of(info) for name, info in model.model_fields.items() if _is_pydantics(info)}


def moments_of(model: type[BaseModel]) -> Mapping[str, Callable[[Any], Any]]:
    """Functions that write datetimes within fields as text if they have an offset, which msgpack's timestamps do not keep.

    Not for a union that could read the text as another type, and not for strict classes, which may refuse it.
    """
    fields = {} if is_strict(model) else model.model_fields
    return {
        name: _with_offsets
        for name, info in fields.items()
        if any(isinstance(leaf, type) and issubclass(leaf, _DATETIMES) for leaf, _ in leaves(info.annotation))
        and not _reads_other_text(info.annotation)
    }


def _reads_other_text(annotation: Any) -> bool:
    """Whether a union in an annotation has texts or bytes, or anything, among its types."""
    parts = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        types = [next(leaves(part))[0] for part in parts]
        if any(one is Any or (isinstance(one, type) and issubclass(one, str | bytes)) for one in types):
            return True
    return any(map(_reads_other_text, parts))


def _with_offsets(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        offset = value.utcoffset()
        return value.isoformat() if offset and not offset % _MINUTE else value  # pydantic reads no seconds of an offset
    if isinstance(value, dict):
        return {_with_offsets(key): _with_offsets(item) for key, item in value.items()}
    return list(map(_with_offsets, value)) if isinstance(value, list | tuple | set | frozenset | deque) else value


def _adapter(info: FieldInfo) -> TypeAdapter[Any]:
    """The TypeAdapter of a field's type and metadata."""
    annotation: Any = info.annotation
    for item in info.metadata:
        annotation = Annotated[annotation, item]
    return TypeAdapter(annotation)


def _dump_of(info: FieldInfo) -> Callable[[Any], Any]:
    adapter = _adapter(info)
    holds_bytes = any(isinstance(leaf, type) and issubclass(leaf, bytes) for leaf, _ in leaves(info.annotation))
    mode: Any = "python" if holds_bytes else "json"
    return lambda value: adapter.dump_python(value, mode=mode, round_trip=True, warnings=False)


def _is_pydantics(info: FieldInfo) -> bool:
    return is_encoded(metadata_of(info)) or any(
        not added and not _is_known(leaf) for leaf, added in leaves(info.annotation)
    )


def is_encoded(metadata: Iterable[Any]) -> bool:
    """Whether a type's encoded text differs from its value: pydantic's Base64Bytes, Json and the like."""
    return any(isinstance(item, EncodedBytes | EncodedStr | Json) or item is Json for item in metadata)


def _is_known(leaf: Any) -> bool:
    if not isinstance(leaf, type):
        return True
    if leaf is Json:
        return False
    plain = (BaseModel, enum.Enum, tuple, dict, str, bytes, int, float)
    return leaf.__module__.partition(".")[0] in _KNOWN or issubclass(leaf, plain) or dataclasses.is_dataclass(leaf)


def is_secret(annotation: Any) -> bool:
    """Whether an annotation is a secret's class, whose values are hidden in answers."""
    return isinstance(annotation, type) and issubclass(annotation, SECRETS)


def is_file_path(annotation: Any, metadata: Iterable[Any]) -> bool:
    """Whether an annotation is a `Path` that may be a file: not pydantic's DirectoryPath or NewPath."""
    kinds = {item.path_type for item in metadata if isinstance(item, PathType)}
    return isinstance(annotation, type) and issubclass(annotation, Path) and kinds <= {"file"}


def is_torch_type(annotation: Any) -> bool:
    """Whether an annotation is a torch class; works without torch."""
    return isinstance(annotation, type) and annotation.__module__.partition(".")[0] == "torch"


def is_torch(value: Any) -> bool:
    """Whether a value is a torch tensor, also docarray's subclass."""
    return any(is_torch_type(base) for base in type(value).__mro__)
