"""Tensors of every class, dtype and shape arrive as they were sent; what is no dense array of numbers is refused."""

import base64
import importlib.util
from typing import Annotated, Any

import docarray.typing as types
import numpy as np
import pytest
from docarray import BaseDoc
from docarray.typing import AnyTensor, NdArray
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import create_model

from jina_asgi.documents import tensors
from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidDocs
from tests.doubles.round_trips import JSON_PATHS, MSGPACK_PATHS, PATHS, assert_round_trips, json_of

torch: Any = None
if importlib.util.find_spec("torch"):
    torch = importlib.import_module("torch")

DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]
NUMPY = ["NdArray", "AnyTensor", "NdArrayEmbedding", "AnyEmbedding", "ImageNdArray", "ImageTensor", "AudioNdArray"]
NUMPY += ["AudioTensor", "VideoNdArray", "VideoTensor"]
TORCH = ["TorchTensor", "TorchEmbedding", "ImageTorchTensor", "AudioTorchTensor", "VideoTorchTensor"]
URLS = {"AnyUrl": "", "ImageUrl": ".png", "AudioUrl": ".mp3", "VideoUrl": ".mp4", "TextUrl": ".txt"}
URLS |= {"Mesh3DUrl": ".obj", "PointCloud3DUrl": ".ply"}

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")


def sample(name: str) -> np.ndarray:
    shape = (6,) if "Embedding" in name else (2, 2, 2, 3) if "Video" in name else (2, 3)
    return np.arange(np.prod(shape), dtype=float).reshape(shape)


def with_field(annotation: Any) -> Any:
    return create_model("Some", __base__=BaseDoc, value=(annotation, ...))


def around(kind: Any, value: Any) -> list[tuple[Any, list[Any]]]:
    """A type alone, optional and in a list, each with values to send."""
    return [(kind, [value]), (kind | None, [value, None]), (list[kind], [[value], []])]


@pytest.mark.parametrize("name", NUMPY)
def test_a_tensor_of_numpy_arrives_in_its_own_class(name: str) -> None:
    for annotation, values in around(getattr(types, name), sample(name)):
        Some = with_field(annotation)
        assert_round_trips(Some, *[Some(value=value) for value in values])


@needs_torch
@pytest.mark.parametrize("name", TORCH)
def test_a_tensor_of_torch_arrives_in_its_own_class(name: str) -> None:
    for annotation, values in around(getattr(types, name), torch.tensor(sample(name))):
        Some = with_field(annotation)
        assert_round_trips(Some, *[Some(value=value) for value in values])


@needs_torch
def test_any_tensor_arrives_as_numpys_as_a_wire_carries_numbers_and_no_framework() -> None:
    Some = with_field(AnyTensor)
    for path in PATHS.values():
        (received,) = path(schema_of(Some), [Some(value=torch.ones(2, 3))])
        assert type(received.value) is NdArray
        assert received.value.shape == (2, 3)


@pytest.mark.parametrize("name", URLS)
def test_a_url_arrives_in_its_own_class(name: str) -> None:
    Some = with_field(getattr(types, name))
    assert_round_trips(Some, Some(value=f"http://a.b/c{URLS[name]}"))


@pytest.mark.parametrize("name", ["ImageBytes", "AudioBytes", "VideoBytes"])
def test_bytes_arrive_in_their_own_class(name: str) -> None:
    Some, Many = with_field(getattr(types, name)), with_field(around(getattr(types, name), None)[2][0])
    assert_round_trips(Some, Some(value=b"abc\xff"), Some(value=b""))
    assert_round_trips(Many, Many(value=[b"abc\xff"]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_declared_dtype_is_kept_on_every_path(dtype: str) -> None:
    kind, value = np.dtype(dtype).type, np.array([0, 1, 1 if dtype == "bool" else 100], dtype)
    for annotation in (
        Annotated[NdArray, kind],
        Annotated[NdArray[3], kind],  # type: ignore[valid-type]
        Annotated[NdArray | None, kind],
        Annotated[NdArray[3], kind] | None,  # type: ignore[valid-type]
        list[Annotated[NdArray, kind]],
    ):
        Some = with_field(annotation)
        assert_round_trips(Some, Some(value=[value] if "list" in str(annotation) else value))


@pytest.mark.parametrize("dtype", DTYPES)
def test_msgpack_keeps_any_dtype_and_json_has_integers_floats_and_booleans(dtype: str) -> None:
    Some, value = with_field(NdArray), np.array([[0, 1]], dtype)
    assert_round_trips(Some, Some(value=value), paths=MSGPACK_PATHS)
    wide = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}[value.dtype.kind]
    for path in JSON_PATHS.values():
        assert [d.value.dtype for d in path(schema_of(Some), [Some(value=value)])] == [wide]


@pytest.mark.parametrize("shape", [(2, 3), (2, "x"), ("x", "x"), (2, ...)])
def test_a_declared_shape_is_checked(shape: tuple[Any, ...]) -> None:
    Some = with_field(NdArray[shape])  # type: ignore[valid-type]
    assert_round_trips(Some, Some(value=np.zeros((2, 2) if shape == ("x", "x") else (2, 3))))
    bad = Some.model_construct(id="a", value=np.zeros((5, 7)))
    for path in (*JSON_PATHS.values(), *MSGPACK_PATHS.values()):
        with pytest.raises(InvalidDocs):
            path(schema_of(Some), [bad])


def test_a_tensor_is_reshaped_where_the_sizes_agree() -> None:
    Some = with_field(NdArray[2, 3])  # type: ignore[valid-type,misc]
    for path in PATHS.values():
        (received,) = path(schema_of(Some), [Some.model_construct(id="a", value=np.arange(6.0))])
        assert received.value.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("value", [np.array(3.0), np.zeros(0), np.zeros((3, 0)), np.zeros((1,) * 32)])
def test_no_axis_and_none_too_many_arrive(value: np.ndarray) -> None:
    for annotation in (NdArray, Annotated[NdArray, np.float64]):
        Some = with_field(annotation)
        assert_round_trips(Some, Some(value=value))


def test_an_empty_first_axis_has_no_others_in_json() -> None:
    Some = with_field(NdArray)
    assert_round_trips(Some, Some(value=np.zeros((0, 3))), paths=MSGPACK_PATHS)
    for path in JSON_PATHS.values():
        assert [d.value.shape for d in path(schema_of(Some), [Some(value=np.zeros((0, 3)))])] == [(0,)]


@pytest.mark.parametrize("value", [np.array([1.0, 2.0], ">f8"), np.arange(12.0).reshape(3, 4).T[::2], np.ones(3)[::-1]])
def test_byte_order_and_strides_are_not_kept_but_values_are(value: np.ndarray) -> None:
    Some = with_field(NdArray)
    for path in PATHS.values():
        (received,) = path(schema_of(Some), [Some(value=value)])
        assert received.value.dtype == np.float64
        assert np.array_equal(received.value, value)


def test_tensors_of_several_shapes_arrive_in_columns() -> None:
    Some = with_field(NdArray)
    assert_round_trips(Some, Some(value=np.zeros(3)), Some(value=np.zeros((2, 2))))


def test_what_is_read_may_be_written_to() -> None:
    Some = with_field(Annotated[NdArray, np.float32])
    for path in PATHS.values():
        for doc in path(schema_of(Some), [Some(value=np.zeros(3, np.float32))] * 5):
            doc.value[0] = 1.0


@given(
    array=arrays.arrays(st.sampled_from(DTYPES), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
def test_any_array_unpacks_as_it_was_packed(array: np.ndarray) -> None:
    code, data = tensors.pack(array)
    unpacked = tensors.unpack(code, memoryview(data))
    assert (unpacked.dtype, unpacked.shape) == (array.dtype, array.shape)
    assert unpacked.tobytes() == array.tobytes()


@given(array=arrays.arrays(st.sampled_from(["int64", "float64"]), arrays.array_shapes(max_dims=4, max_side=4)))
def test_any_nested_list_is_the_array_that_numpy_makes_of_it(array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        return
    made = tensors.from_json(array.tolist(), None)
    assert (made.dtype, made.shape) == (array.dtype, array.shape)
    assert np.array_equal(made, array)


@pytest.mark.parametrize("order", ["<", ">", ""])
def test_the_packed_form_of_json_names_its_dtype_and_byte_order(order: str) -> None:
    array = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    data = base64.b64encode(array.astype(f"{order}f4").tobytes()).decode()
    made = tensors.from_json({"data": data, "dtype": f"{order}f4", "shape": [2, 2]}, None)
    assert (made.dtype, made.tolist()) == (np.dtype(np.float32), array.tolist())


def test_the_packed_form_of_json_takes_lists_and_the_declared_dtype() -> None:
    assert tensors.from_json({"data": [1, 2], "dtype": "uint8", "shape": [2, 1]}, None).tolist() == [[1], [2]]
    assert tensors.from_json({"data": [1, 2]}, "<f4").dtype == np.float32


@pytest.mark.parametrize(
    "dtype", ["object", "O", "V9", "U9", "i4,O", "datetime64", "f", "\0", "é", "x" * 10**6, 5, None]
)
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype among") as told:
        tensors.from_json({"data": "AAAAAA==", "dtype": dtype}, None)
    assert len(str(told.value)) < 300


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.array([1j]), np.zeros(1, "M8[s]")])
def test_arrays_of_anything_but_numbers_cross_no_wire(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be encoded"):
        tensors.pack(array)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([1.5], "<i8"),
        ([300], "|u1"),
        ([-1], "|u1"),
        ([1e300], "<f4"),
        ([[1e300], [0.0]], "<f4"),
        ({"data": [1e300]}, "<f4"),
        (["1"], "<f4"),
        ([None], "<f4"),
        ([{}], None),
        ([[1], [2, 3]], None),
        ([1, [2]], None),
        ([[1], 2], None),
        ("[1]", None),
        (None, None),
        ({}, None),
        ({"data": None}, "<f4"),
        ({"data": {"data": [1]}}, "<f4"),
        ({"data": [1, 2], "shape": [3]}, "<f4"),
        ({"data": "AAAA", "shape": [1]}, "<f4"),
        ({"data": "AAAAAA==", "shape": [-1]}, "<f4"),
        ({"data": "AAAAAA==", "shape": [True]}, "<f4"),
        ({"data": "AAAAAA==", "shape": [1.0]}, "<f4"),
        ({"data": "", "shape": [10**6, 10**6]}, "<f4"),
        ({"data": "", "shape": [2**63]}, "<f4"),
        ({"data": "", "shape": [0] * 10**5}, "<f4"),
        ({"data": "*"}, "<f4"),
        ({"data": "é"}, "<f4"),
    ],
)
def test_what_is_no_dense_array_of_its_dtype_is_refused(value: Any, dtype: str | None) -> None:
    with pytest.raises(ValueError) as told:
        tensors.from_json(value, dtype)
    assert len(str(told.value)) < 400


def test_too_many_axes_are_refused() -> None:
    value: Any = 1.0
    for _ in range(33):
        value = [value]
    with pytest.raises(ValueError, match="axes"):
        tensors.from_json(value, None)
    with pytest.raises(ValueError, match="axes"):
        tensors.pack(np.zeros((1,) * 33))


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (10, b"\0" * 5),
        (12, b"\0" * 8),
        (-1, b""),
        (32, b""),
        (32, b"\x0a\x01" + b"\0" * 6),
        (32, b"\x0a\x01" + b"\0" * 6 + b"\x01" + b"\0" * 7),
        (32, b"\x0a\x02" + b"\0" * 6 + b"\xff" * 16),
        (32, b"\x63\x01" + b"\0" * 14),
        (32, b"\x0a\x63" + b"\0" * 6 + b"\0" * 8 * 99),
    ],
)
def test_a_packed_tensor_that_lies_is_refused(code: int, data: bytes) -> None:
    with pytest.raises(ValueError):
        tensors.unpack(code, memoryview(data))


@given(code=st.integers(-128, 127), data=st.binary(max_size=200))
def test_any_bytes_unpack_to_an_array_or_are_refused(code: int, data: bytes) -> None:
    try:
        array = tensors.unpack(code, memoryview(data))
    except ValueError:
        return
    assert array.nbytes <= len(data)


def test_bytes_other_than_0_and_1_are_true() -> None:
    assert tensors.unpack(0, memoryview(b"\x00\x01\x02\xff")).view(np.uint8).tolist() == [0, 1, 1, 1]


def test_an_answer_with_a_number_that_json_has_not_says_null() -> None:
    Some = with_field(NdArray)
    assert b'"value":[1.0,null,null]' in json_of(codec(schema_of(Some)), [Some(value=np.array([1, np.nan, np.inf]))])
    assert_round_trips(Some, Some(value=np.array([1, np.nan, np.inf])), paths=MSGPACK_PATHS)
