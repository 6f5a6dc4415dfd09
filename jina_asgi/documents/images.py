"""Decodes pictures to arrays with pillow, of the extra `uploads`."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from jina_asgi.errors import TooLarge

Image.init()
#: Formats that pillow reads itself, without starting another program.
_FORMATS = tuple(name for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN)


def array_of(data: bytes, mode: str, limit: int) -> np.ndarray:
    """Decodes the picture in a file, the first of several, to one of pillow's modes.

    Raises:
        ValueError: there is no picture. TooLarge: it has more than `limit` elements, which is checked before decoding.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height * len(mode) > limit:
                raise TooLarge(f"expected a picture of at most {limit // len(mode)} pixels, got {width} by {height}")
            return np.array(picture.convert(mode))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"expected a picture of at most {limit // len(mode)} pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as error:
        raise ValueError(f"expected a picture ({', '.join(_FORMATS)}): {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Why pillow cannot read it, without the buffer's address."""
    return "it cannot be identified" if isinstance(error, UnidentifiedImageError) else str(error)[:200]
