"""Encodes numpy arrays as JSON lists or packed buffers, and decodes them. Dense numeric dtypes only.

Every decoded array is writable and owns its memory, as docarray's arrays do.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from jina_asgi.documents import pydantic_facts

#: The dtypes that can be encoded; a packed tensor has the index of one, so the order is part of the format.
DTYPES = tuple(np.dtype(name) for name in "? i1 u1 <i2 <u2 <i4 <u4 <i8 <u8 <f2 <f4 <f8".split())
_CODES = {dtype: code for code, dtype in enumerate(DTYPES)}
_NAMES = {dtype: dtype.str for dtype in DTYPES}
_SIZED = tuple((dtype, dtype.itemsize) for dtype in DTYPES)
_COUNT, _ndarray = len(DTYPES), np.ndarray
#: Names of dtypes: numpy's name, or its short form with or without a byte order.
_NAMED = {name: d for d in DTYPES for name in (d.name, d.str, d.str[1:], f"<{d.str[1:]}", f"={d.str[1:]}")} | {
    f">{d.str[1:]}": d.newbyteorder(">") for d in DTYPES
}
#: The code of a packed tensor that carries its shape.
SHAPED = 32
_STRUCT = {"<f4": "f", "<f8": "d"}
MAX_ELEMENTS = 2**26
MAX_AXES = 32
#: Tensors of this many bytes or more are not copied if possible.
LARGE = 64 << 10
#: Numbers of a list that are read in one call; other threads run between calls.
_PIECE = 1 << 16


def from_json(value: Any, dtype: str | None) -> np.ndarray:
    """Reads an array from nested lists of numbers, or from `{"data": ..., "dtype": ..., "shape": [...]}`.

    In the second form `data` is nested lists, or the base64 of the buffer in the byte order that the dtype names
    (">f4": big-endian; little-endian else). `dtype` is the one the field declares; without it floats become float64
    and integers int64, as in docarray.

    Raises:
        ValueError: the value is not a dense array of numbers, or does not fit the dtype.
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
    flat, shape = _flattened(value)
    code = _STRUCT.get(dtype or "<f8")
    if code is not None and flat and (dtype is not None or type(flat[0]) is float):
        try:  # one C loop; 1.3 times the cost of parsing the JSON, where np.asarray costs 1.7
            packed = bytearray(len(flat) * struct.calcsize(code))
            for start in range(0, len(flat), _PIECE):
                part = flat[start : start + _PIECE]
                struct.pack_into(f"{len(part)}{code}", packed, start * struct.calcsize(code), *part)
            made = np.frombuffer(packed, DTYPES[10] if code == "f" else DTYPES[11])
            if code == "d" or np.isfinite(made).all():  # struct makes inf of 1e300
                return made if len(shape) == 1 else made.reshape(shape)
        except (struct.error, OverflowError):
            pass  # not all numbers, or out of range: `cast` says which
    try:
        parts = [_numbers(flat[start : start + _PIECE]) for start in range(0, len(flat) or 1, _PIECE)]
    except ValueError:
        raise ValueError("expected numbers only, nothing else among them") from None
    if any(part.ndim != 1 for part in parts):
        raise ValueError("expected lists of one length along each axis (the array is ragged)")
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return cast(array.reshape(shape), dtype)


def _numbers(part: list[Any]) -> np.ndarray:
    array = np.asarray(part)
    if array.dtype.kind not in "biuf":
        raise ValueError
    return array


def _flattened(value: list[Any]) -> tuple[list[Any], list[int]]:
    """Flattens nested lists of numbers, and returns their shape; numpy takes 20 times as long to find it."""
    shape = [len(value)]
    while value and type(value[0]) is list:
        if set(map(type, value)) != {list} or len(set(map(len, value))) > 1:
            raise ValueError("expected lists of one length along each axis (the array is ragged)")
        if len(shape) == MAX_AXES:
            raise ValueError(f"expected at most {MAX_AXES} axes")
        shape.append(len(value[0]))
        value = list(chain.from_iterable(value))
    return value, shape


def _from_object(value: Mapping[str, Any], declared: str | None) -> np.ndarray:
    named = value.get("dtype", declared)
    dtype = _NAMED.get(named) if isinstance(named, str) else None
    if dtype is None:
        raise ValueError(f"expected a dtype among {', '.join(d.name for d in DTYPES)}")
    data, shape = value["data"], value.get("shape")
    if shape is not None and not (isinstance(shape, list) and all(type(axis) is int for axis in shape)):
        raise ValueError("expected 'shape' as a list of integers")
    if isinstance(data, str | bytes):
        try:
            buffer = bytearray(base64.b64decode(data, validate=True) if isinstance(data, str) else data)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"expected 'data' in base64: {error}") from None
        axes = [len(buffer) // dtype.itemsize] if shape is None else shape
        made = _view(buffer, dtype, tuple(axes), 0)
        return cast(made if dtype.isnative else made.astype(dtype.newbyteorder("=")), declared)
    if type(data) is not list:
        raise ValueError(f"expected 'data' as a list of numbers or base64, got {type(data).__name__}")
    return shaped(
        cast(_from_list(data, dtype.newbyteorder("<").str), declared), None if shape is None else tuple(shape)
    )


def shaped(array: np.ndarray, shape: tuple[int | None, ...] | None) -> np.ndarray:
    """Returns `array` in a declared shape (None: any length of an axis); reshaped if the sizes agree, as in docarray.

    Raises:
        ValueError: it has another shape.
    """
    if shape is None or array.shape == shape:
        return array
    if array.ndim == len(shape) and all(w in (None, got) for w, got in zip(shape, array.shape, strict=True)):
        return array
    sizes = [axis for axis in shape if axis is not None]
    if len(sizes) == len(shape) and min(sizes, default=0) >= 0 and math.prod(sizes) == array.size:
        return array.reshape(sizes)
    wanted = ["any" if axis is None else axis for axis in shape[:MAX_AXES]]
    raise ValueError(f"expected a tensor of shape {wanted}, got {list(array.shape)}")


def cast(array: np.ndarray, dtype: str | None) -> np.ndarray:
    """Converts `array` to the declared dtype; refuses conversions that lose more than precision (text, objects, floats to integers)."""
    if array.dtype.kind not in "biuf":
        raise ValueError("expected numbers only, nothing else among them")
    if array.ndim > MAX_AXES:
        raise ValueError(f"expected at most {MAX_AXES} axes, got {array.ndim}")
    if dtype is None or array.dtype.str == dtype:
        return array
    target = np.dtype(dtype)
    if not (np.can_cast(array.dtype, target, "same_kind") or _fits(array, target)):
        raise ValueError(f"expected {target.name}, got {array.dtype.name}")
    with np.errstate(over="ignore"):
        made = array.astype(target)
    if target.kind == "f" and np.isinf(made).sum() != np.isinf(array).sum():
        raise ValueError(f"a number is out of range for {target.name}")
    return made


def _fits(array: np.ndarray, target: np.dtype[Any]) -> bool:
    """Whether all integers fit a narrower integer type, such as JSON's integers in a field of uint8."""
    if array.dtype.kind not in "iu" or target.kind not in "iu":
        return False
    bounds = np.iinfo(target)
    return bool(array.size == 0 or (array.min() >= bounds.min and array.max() <= bounds.max))


def pack(array: np.ndarray) -> tuple[int, bytes]:
    """Packs an array into a code and a buffer.

    For a vector these are its dtype's index in `DTYPES` and its data. For other numbers of axes the code is `SHAPED`, and
    the buffer has a head: dtype code, number of axes, padding to 8 bytes, the axes.

    Raises:
        ValueError: the dtype cannot be encoded, or there are more axes than `MAX_AXES`.
    """
    code, array = _writable(array)
    if array.ndim == 1:
        return code, array.tobytes()
    return SHAPED, _shape_of(code, array) + array.tobytes()


def pack_parts(array: np.ndarray) -> tuple[int, bytes, memoryview]:
    """As `pack`, but returns the head and the data separately, without copying the data if its order allows.

    Raises:
        ValueError: as `pack`.
    """
    code, array = _writable(array)
    data = np.ascontiguousarray(array).data.cast("B")
    return (code, b"", data) if array.ndim == 1 else (SHAPED, _shape_of(code, array), data)


def _writable(array: np.ndarray) -> tuple[int, np.ndarray]:
    """The code of an array's encoded dtype, and the array in it."""
    code = _CODES.get(array.dtype)
    if code is None:
        dtype = array.dtype.newbyteorder("<")
        code = _CODES.get(dtype)
        if code is None:
            raise ValueError(f"a tensor of dtype {dtype} cannot be encoded; convert it to a number type first")
        array = array.astype(dtype)
    if array.ndim > MAX_AXES:
        raise ValueError(f"a tensor of {array.ndim} axes cannot be encoded; at most {MAX_AXES} can")
    return code, array


def _shape_of(code: int, array: np.ndarray) -> bytes:
    return struct.pack(f"<BB6x{array.ndim}Q", code, array.ndim, *array.shape)


def unpack(code: int, buffer: memoryview) -> np.ndarray:
    """Unpacks an array from a code and a buffer; a large writable buffer is not copied.

    Raises:
        ValueError: dtype, axes or length do not match the buffer; nothing is allocated then.
    """
    if 0 <= code < _COUNT:
        dtype, size = _SIZED[code]
        if len(buffer) % size:
            raise ValueError(f"a packed tensor of {dtype.name} ends within a number")
        array = _ndarray(len(buffer) // size, dtype, _own(buffer, 0))
        return array if code else _booleans(array)
    if code != SHAPED or len(buffer) < 8 or buffer[0] >= len(DTYPES) or buffer[1] > MAX_AXES:
        raise ValueError("not a packed tensor")
    axes = buffer[1]
    if len(buffer) < 8 + 8 * axes:
        raise ValueError("a packed tensor ends within its shape")
    shape = struct.unpack_from(f"<{axes}Q", buffer, 8)
    return _view(_own(buffer, 8 + 8 * axes), DTYPES[buffer[0]], shape, 8 + 8 * axes)


def named(array: np.ndarray) -> tuple[str, np.ndarray]:
    """The name of an array's encoded dtype ("<f4"), and the array in it, in C order.

    Raises:
        ValueError: as `pack`.
    """
    name = _NAMES.get(array.dtype)
    if name is None or array.ndim > MAX_AXES:
        code, array = _writable(array)
        name = DTYPES[code].str
    return name, array if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(array.shape)


def of_named(name: str, shape: Sequence[int], size: int) -> Callable[[bytes, int, int], np.ndarray]:
    """Builds a function that makes an array of a named dtype and shape from `size` bytes at a place in a buffer.

    Raises:
        ValueError: dtype and shape do not match the size, or the dtype cannot be encoded; nothing is allocated then.
    """
    dtype = _NAMED.get(name)
    if dtype is None:
        raise ValueError(f"expected a dtype among {', '.join(d.name for d in DTYPES)}")
    axes = tuple(shape[: MAX_AXES + 1])
    _check(axes, dtype, size)
    if not dtype.isnative:
        return lambda raw, start, end: _ndarray(axes, dtype, raw[start:end]).astype(dtype.newbyteorder("="))
    if dtype == DTYPES[0]:
        return lambda raw, start, end: _booleans(_ndarray(axes, dtype, raw[start:end]))
    if size >= LARGE:
        return lambda raw, start, end: _ndarray(axes, dtype, bytearray(memoryview(raw)[start:end]))
    return lambda raw, start, end: _ndarray(axes, dtype, bytearray(raw[start:end]))


def _own(buffer: memoryview, offset: int) -> bytearray | memoryview:
    """A buffer of our own: this one if it is large, writable and aligned, else a copy."""
    if len(buffer) < LARGE or buffer.readonly:
        return bytearray(buffer)
    address = np.frombuffer(buffer, np.uint8, 1, offset).ctypes.data if len(buffer) > offset else 0
    return bytearray(buffer) if address % 8 else buffer


def _view(buffer: memoryview | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> np.ndarray:
    elements = _check(shape, dtype, len(buffer) - offset)
    array = np.frombuffer(buffer, dtype, elements, offset).reshape(shape)
    return array if dtype != DTYPES[0] else _booleans(array)


def _check(shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> int:
    """Checks that a buffer of `size` bytes holds a shape; returns its number of elements."""
    elements = math.prod(shape)
    if min(shape, default=0) < 0 or elements > MAX_ELEMENTS or len(shape) > MAX_AXES:
        raise ValueError(f"expected at most {MAX_ELEMENTS} elements in at most {MAX_AXES} axes")
    if elements * dtype.itemsize != size:
        raise ValueError(f"a shape of {list(shape)} does not match {size} bytes of {dtype.name}")
    return elements


def _booleans(array: np.ndarray) -> np.ndarray:
    """Makes booleans of received bytes: numpy relies on 0 and 1 without checking."""
    return np.asarray(array.view(np.uint8) != 0)  # without axes the comparison is not an array


def from_tensor(value: Any) -> np.ndarray | None:
    """Converts a docarray or torch tensor to a numpy array on the host; None for other values. Imports neither library."""
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    kind = type(value)
    if hasattr(value, "detach") and pydantic_facts.is_torch(value):
        return _of_torch(value)
    if hasattr(kind, "_docarray_to_ndarray"):
        return np.asarray(value._docarray_to_ndarray())
    return None


def numeric(array: np.ndarray) -> np.ndarray:
    """Converts an array of numbers to this machine's byte order and C order, to write JSON.

    Raises:
        ValueError: the dtype cannot be encoded.
    """
    return np.asarray(_writable(array)[1], order="C")  # `ascontiguousarray` would add an axis to a number


def _of_torch(value: Any) -> np.ndarray:
    """Converts a torch tensor; dtypes that numpy lacks become float32, which holds all their values."""
    held = value.detach().cpu()
    if str(held.dtype).startswith(("torch.bfloat16", "torch.float8")):
        held = held.float()
    return np.asarray(held.numpy())
