"""Pictures as arrays, by pillow, of the extra `uploads`."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from jina_asgi.errors import TooLarge

Image.init()
#: Formats that pillow reads by itself: none that starts another program.
_FORMATS = tuple(name for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN)


def array_of(data: bytes, mode: str, limit: int) -> np.ndarray:
    """The picture in a file, of one of pillow's modes; of several in one, the first.

    Raises:
        ValueError: there is none. TooLarge: it has more than `limit` elements, which is known before it is decoded.
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
