"""Reads one document with pydantic, after preparing what pydantic cannot read: bytes and tensors of JSON, integers over 64
bits, defaults that do not fit their own type. All errors are listed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from jina_asgi.documents import pydantic_facts
from jina_asgi.documents.conversions import Read, integer
from jina_asgi.documents.mismatch import Mismatch, errors_of

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
