"""Fewer dimensions, fewer bits."""

from __future__ import annotations

import numpy as np
import pytest

from jina_asgi.contrib.text_embedding.documents import Precision
from jina_asgi.contrib.text_embedding.vectors import finished

GIVEN = np.random.default_rng(1).standard_normal((5, 48)).astype(np.float32)


def test_fewer_dimensions_are_the_first_and_of_length_one_again() -> None:
    found, scales = finished(GIVEN, dimensions=16, normalize=True, precision="float32")
    expected = GIVEN[:, :16] / np.linalg.norm(GIVEN[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found.dtype, scales) == (np.float32, None)


def test_without_normalising_they_are_as_they_were() -> None:
    found, _ = finished(GIVEN, dimensions=None, normalize=False, precision="float32")
    np.testing.assert_array_equal(found, GIVEN)


def test_a_vector_of_zeros_stays_one() -> None:
    for precision in ("float32", "float16", "int8"):
        found, _ = finished(np.zeros((1, 8), np.float32), dimensions=None, normalize=True, precision=precision)
        assert not found.any()


@pytest.mark.parametrize(("precision", "error"), [("float16", 1e-3), ("int8", 5e-3)])
def test_fewer_bits_keep_directions_and_lengths(precision: Precision, error: float) -> None:
    found, scales = finished(GIVEN, dimensions=None, normalize=True, precision=precision)
    exact, _ = finished(GIVEN, dimensions=None, normalize=True, precision="float32")
    assert found.dtype == np.dtype(precision)
    back = found.astype(np.float32) * (1 if scales is None else scales[:, None])
    np.testing.assert_allclose(back, exact, atol=error)
    cosines = (back * exact).sum(1) / np.linalg.norm(back, axis=1)
    assert np.all(cosines > 0.9999)
