"""Reads one document with pydantic, after preparing what pydantic cannot read: bytes and tensors of JSON, integers over 64
bits, defaults that do not fit their own type. All errors are listed together.

Validates one large document with pydantic while other threads can run; of a list only the first error is listed.

pydantic holds the GIL while it reads a document, and listing a wrong item costs as much as reading a hundred right ones.
So its schema is changed here: between two items it calls a Python function, which does nothing.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, SchemaValidator, core_schema, to_json

from jina_asgi.documents import pydantic_facts
from jina_asgi.documents.conversions import Mismatch, Read, errors_of, integer

Entries = list[dict[str, Any]]


class PydanticReader:
    """Reads documents of one class.

    Args:
        model: the class.
        converters: prepare the value of a field for pydantic, by each name of the field.
        validator: the class's own, or an equivalent one.
        from_json: the class is strict, and accepts a datetime's text from JSON only.
    """

    __slots__ = ("_converters", "_from_json", "_integers", "_is_plain", "_model", "_unfit", "_validator")

    def __init__(
        self, model: type[BaseModel], converters: Mapping[str, Read], validator: Any, *, from_json: bool
    ) -> None:
        self._model, self._converters, self._from_json = model, converters, from_json
        self._unfit = pydantic_facts.unfit_defaults(model)
        self._validator = validator
        self._integers = tuple(key for key, convert in converters.items() if convert is integer)
        #: Whether values go to pydantic unchanged, except for integers as text.
        self._is_plain = len(self._integers) == len(converters) and not self._unfit and not from_json

    def __call__(self, value: Any, known: Sequence[tuple[str, Mismatch]] = ()) -> Any:
        """Reads a document.

        Args:
            value: a dict of its fields; pydantic refuses anything else.
            known: errors that were found already, by field; these fields are no longer in `value`.

        Raises:
            ValidationError, Mismatch: with all errors.
        """
        if type(value) is not dict:
            return self._validator.validate_python(value, by_alias=True, by_name=True)
        if self._is_plain and not known:
            for key in self._integers:
                if type(value.get(key)) is str:
                    break
            else:
                try:
                    return self._validator.validate_python(value, by_alias=True, by_name=True)
                except ArithmeticError:
                    pass  # the field is found below
        value, wrong = self._converted(value, dict(known))
        held: set[str] = set()
        if self._unfit:
            value, held = self._without_defaults(value)
        try:
            doc = self._validated(value)
        except ValidationError as error:
            if not wrong:
                raise
            raise self._all(wrong, error) from None
        except ArithmeticError as error:  # of one value, which ended the reading of the others
            raise self._all({**wrong, **self._overflowing(value, error)}, None) from None
        if wrong:
            raise self._all(wrong, None)
        if held:
            doc.__pydantic_fields_set__.update(held)
        return doc

    def _converted(
        self, value: dict[str, Any], wrong: dict[str, Mismatch]
    ) -> tuple[dict[str, Any], dict[str, Mismatch]]:
        """Prepares the values for pydantic, without the wrong ones."""
        changed: dict[str, Any] = {}
        for key, convert in self._converters.items():
            if key in value:
                given = value[key]
                try:
                    made = convert(given)
                except (ValueError, TypeError, OverflowError) as error:
                    wrong[key] = Mismatch.within(error, key)
                else:
                    if made is not given:
                        changed[key] = made
        if changed:
            value = {**value, **changed}
        if any(key in value for key in wrong):
            value = {key: item for key, item in value.items() if key not in wrong}
        return value, wrong

    def _without_defaults(self, value: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """Removes the defaults that the class itself would refuse; also returns the names of their fields."""
        held = {
            key: name
            for key, (name, default) in self._unfit.items()
            if key in value and type(value[key]) is type(default) and value[key] == default
        }
        return {key: item for key, item in value.items() if key not in held} if held else value, set(held.values())

    def _validated(self, value: dict[str, Any]) -> Any:
        if self._from_json:
            try:
                raw = to_json(value, inf_nan_mode="constants")
            except PydanticSerializationError:
                pass  # values of Python's own
            else:
                return self._validator.validate_json(raw, by_alias=True, by_name=True)
        return self._validator.validate_python(value, by_alias=True, by_name=True)

    def _overflowing(self, value: dict[str, Any], error: ArithmeticError) -> dict[str, Mismatch]:
        """The fields whose values overflow their types, found by reading each alone."""
        found = {}
        for key, item in value.items():
            try:
                self._validated({key: item})
            except ValidationError:
                continue
            except ArithmeticError as own:
                found[key] = Mismatch.within(Mismatch(f"out of range: {own}"), key)
        return found or {"": Mismatch(f"out of range: {error}")}

    def _all(self, wrong: Mapping[str, Mismatch], error: ValidationError | None) -> Mismatch:
        """Merges all errors in the order of the fields; removed fields do not count as missing."""
        taken = {name for key in wrong for name in pydantic_facts.accepted_names(self._model, key)} | {*wrong}
        entries: Entries = [entry for mismatch in wrong.values() for entry in mismatch.errors]
        if error is not None:
            entries += [
                e for e in errors_of(error) if not (e["type"] == "missing" and e["loc"][:1] in [[t] for t in taken])
            ]
        places = {
            n: at
            for at, f in enumerate(self._model.model_fields)
            for n in pydantic_facts.accepted_names(self._model, f)
        }
        return Mismatch("wrong within", errors=sorted(entries, key=lambda e: places.get(_first(e), len(places))))


def _first(entry: Mapping[str, Any]) -> Any:
    return entry["loc"][0] if entry["loc"] else None


_CALLED = "function-before[breathe(), "
#: The keys under which a schema has other schemas: one, or several by name or in a list.
_INNER = {"schema", "items_schema", "keys_schema", "values_schema", "extras_schema", "choices", "fields", "definitions"}
_INNER |= {"lax_schema", "strict_schema", "json_schema", "python_schema", "steps", "arguments_schema"}
_ITEMS = {"list": "items_schema", "set": "items_schema", "frozenset": "items_schema", "dict": "values_schema"}
_KINDS: dict[str, Any] = {
    "list": core_schema.ListSchema,
    "set": core_schema.SetSchema,
    "frozenset": core_schema.FrozenSetSchema,
    "tuple": core_schema.TupleSchema,
    "dict": core_schema.DictSchema,
}
#: The kinds of schemas that can stop at the first error, in this version of pydantic.
_FAILS_FAST = {kind for kind, of in _KINDS.items() if "fail_fast" in typing.get_type_hints(of)}


def breathe(value: Any) -> Any:
    """Does nothing; calling a Python function lets other threads run."""
    return value


def yielding_validator(model: type[BaseModel]) -> Any:
    """Builds a validator that is equivalent to the model's own."""
    schema = model.__pydantic_core_schema__
    if not isinstance(schema, dict):  # it is not complete yet
        return model.__pydantic_validator__
    try:  # without those that its classes have made already, which are used again else
        return SchemaValidator(_changed(schema), None, _use_prebuilt=False)
    except TypeError:  # this pydantic_core does not support it
        return SchemaValidator(_changed(schema))


def plain_place(place: str | int) -> str | int:
    """A step of an error's place as the model's own validator names it."""
    while isinstance(place, str) and _CALLED in place:
        before, _, after = place.partition(_CALLED)
        depth = 0
        for at, letter in enumerate(after):
            depth += (letter == "[") - (letter == "]")
            if depth < 0:
                place = before + after[:at] + after[at + 1 :]
                break
        else:
            return place
    return place


def _changed(schema: Any) -> Any:
    """A copy of a schema, changed at all levels."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_changed, schema))
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    is_schema = isinstance(made.get("type"), str)  # else they are fields by name
    made |= {key: _changed(held) for key, held in schema.items() if key in _INNER or not is_schema}
    kind = made.get("type")
    if kind in _FAILS_FAST:
        made["fail_fast"] = True
    item = _ITEMS.get(kind) if isinstance(kind, str) else None
    if item is not None and item in made:
        made[item] = core_schema.no_info_before_validator_function(breathe, made[item])
    return made
