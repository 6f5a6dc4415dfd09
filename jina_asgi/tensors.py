"""Numbers on the wire: JSON lists and packed buffers to numpy arrays, and back. Dense numeric dtypes only.

Every array made here is writable and owns its memory, as those that docarray makes do.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

#: The dtypes that cross a wire; a packed tensor names one by its place here, so the order is part of the format.
DTYPES = tuple(np.dtype(name) for name in "? i1 u1 <i2 <u2 <i4 <u4 <i8 <u8 <f2 <f4 <f8".split())
_CODES = {dtype: code for code, dtype in enumerate(DTYPES)}
#: The code of a packed tensor that carries its shape.
SHAPED = 32
_STRUCT = {"<f4": "f", "<f8": "d"}
MAX_ELEMENTS = 2**26
MAX_AXES = 32


def from_json(value: Any, dtype: str | None) -> np.ndarray:
    """An array from nested lists of numbers, or from `{"data": ..., "dtype": ..., "shape": [...]}`.

    In the second form `data` is nested lists or the base64 of the little-endian buffer. `dtype` is the one the
    field declares; without it floats become float64 and integers int64, as in docarray.

    Raises:
        ValueError: what came is no dense array of numbers, or does not fit the dtype.
    """
    if type(value) is list:
        return _from_list(value, dtype)
    if isinstance(value, np.ndarray):
        return cast(value, dtype)
    if isinstance(value, Mapping) and "data" in value:
        return _from_object(value, dtype)
    if type(value) in (int, float, bool):
        return cast(np.array(value), dtype)
    raise ValueError(f"expected a list of numbers, got {type(value).__name__}")


def _from_list(value: list[Any], dtype: str | None) -> np.ndarray:
    code = _STRUCT.get(dtype or "<f8")
    if code is not None and value and (dtype is not None or type(value[0]) is float):
        try:  # one C loop; 1.3 times the cost of parsing the JSON, where np.asarray costs 1.7
            packed = bytearray(struct.pack(f"{len(value)}{code}", *value))
            return np.frombuffer(packed, DTYPES[10] if code == "f" else DTYPES[11])
        except (struct.error, OverflowError):
            pass  # nested, or not all numbers: numpy says which
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError("expected lists of one length along each axis (the array is ragged)") from None
    if array.size == 0 and array.dtype == DTYPES[11] and dtype is None:
        return array
    return cast(array, dtype)


def _from_object(value: Mapping[str, Any], declared: str | None) -> np.ndarray:
    named = value.get("dtype", declared)
    try:
        dtype = np.dtype(named).newbyteorder("<") if isinstance(named, str) and len(named) < 16 else None
    except TypeError:
        dtype = None
    if dtype not in _CODES:
        raise ValueError(f"expected a dtype among {', '.join(d.name for d in DTYPES)}")
    data = value["data"]
    if isinstance(data, str):
        try:
            buffer = bytearray(base64.b64decode(data, validate=True))
        except binascii.Error as error:
            raise ValueError(f"expected 'data' in base64: {error}") from None
    elif isinstance(data, bytes):
        buffer = bytearray(data)
    else:
        return cast(_from_list(data, dtype.str) if type(data) is list else np.asarray(data), declared or dtype.str)
    shape = value.get("shape", [len(buffer) // dtype.itemsize])
    if not isinstance(shape, list) or not all(type(axis) is int for axis in shape):
        raise ValueError("expected 'shape' as a list of integers")
    return cast(_view(buffer, dtype, tuple(shape), 0), declared)


def cast(array: np.ndarray, dtype: str | None) -> np.ndarray:
    """`array` in the declared dtype; refuses what loses more than precision (text, objects, floats as integers)."""
    if array.dtype.kind not in "biuf":
        raise ValueError("expected numbers only, nothing else among them")
    if dtype is None or array.dtype.str == dtype:
        return array
    target = np.dtype(dtype)
    if not (np.can_cast(array.dtype, target, "same_kind") or _fits(array, target)):
        raise ValueError(f"expected {target.name}, got {array.dtype.name}")
    with np.errstate(over="raise"):
        try:
            return array.astype(target)
        except FloatingPointError:
            raise ValueError(f"a number is out of range for {target.name}") from None


def _fits(array: np.ndarray, target: np.dtype[Any]) -> bool:
    """Whether integers all lie in a narrower integer type, as JSON's do when a field declares uint8."""
    if array.dtype.kind not in "iu" or target.kind not in "iu":
        return False
    bounds = np.iinfo(target)
    return bool(array.size == 0 or (array.min() >= bounds.min and array.max() <= bounds.max))


def pack(array: np.ndarray) -> tuple[int, bytes]:
    """An array as a code and a buffer.

    A vector is its dtype's place in `DTYPES` and its data; anything of another number of axes is `SHAPED`, with
    a head in the buffer: dtype code, number of axes, padding to 8 bytes, the axes.

    Raises:
        ValueError: a dtype that crosses no wire.
    """
    code = _CODES.get(array.dtype)
    if code is None:
        dtype = array.dtype.newbyteorder("<")
        code = _CODES.get(dtype)
        if code is None:
            raise ValueError(f"a tensor of dtype {dtype} crosses no wire; convert it to a number type first")
        array = array.astype(dtype)
    if array.ndim == 1:
        return code, array.tobytes()
    return SHAPED, struct.pack(f"<BB6x{array.ndim}Q", code, array.ndim, *array.shape) + array.tobytes()


def unpack(code: int, buffer: memoryview) -> np.ndarray:
    """The array that `pack` made a code and a buffer of.

    Raises:
        ValueError: the buffer lies about its dtype, axes or length; nothing is allocated then.
    """
    if 0 <= code < len(DTYPES):
        return np.frombuffer(buffer, DTYPES[code]).copy()
    if code != SHAPED or len(buffer) < 8 or buffer[0] >= len(DTYPES) or buffer[1] > MAX_AXES:
        raise ValueError("not a packed tensor")
    axes = buffer[1]
    if len(buffer) < 8 + 8 * axes:
        raise ValueError("a packed tensor ends within its shape")
    shape = struct.unpack_from(f"<{axes}Q", buffer, 8)
    return _view(buffer, DTYPES[buffer[0]], shape, 8 + 8 * axes).copy()


def _view(buffer: memoryview | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> np.ndarray:
    elements = math.prod(shape)
    if min(shape, default=0) < 0 or elements > MAX_ELEMENTS or len(shape) > MAX_AXES:
        raise ValueError(f"expected at most {MAX_ELEMENTS} elements in at most {MAX_AXES} axes")
    if elements * dtype.itemsize != len(buffer) - offset:
        raise ValueError(f"a shape of {list(shape)} does not match {len(buffer) - offset} bytes of {dtype.name}")
    return np.frombuffer(buffer, dtype, elements, offset).reshape(shape)
