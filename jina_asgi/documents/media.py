"""Decodes pictures and sounds to arrays. Optional: pillow for pictures, soundfile for sounds other than WAV of integers.

Integers are those of the file; in a field of floats a picture's are 0 to 1, and a sound's -1 to 1.
"""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np

from jina_asgi.documents.tensors import MAX_ELEMENTS
from jina_asgi.errors import TooLarge, UnsupportedMedia
from jina_asgi.types import Field

_WAV = frozenset({"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"})
#: The modes of pictures by their number of channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def is_decodable(media: str) -> bool:
    """Whether a file of this type can hold an array."""
    return media.startswith(("image/", "audio/"))


def decoded(media: str, data: bytes, field: Field) -> np.ndarray:
    """Decodes a picture (height, width, channels) or a sound (samples, or samples and channels).

    If the field declares channels first, (3, height, width), so are a picture's.

    Raises:
        ValueError: the file is neither. TooLarge: it has too many elements. UnsupportedMedia: its decoder is missing.
    """
    as_float = field.dtype is not None and np.dtype(field.dtype).kind == "f"
    if media.startswith("image/"):
        return _picture(data, field.shape, as_float)
    if media in _WAV and (samples := _wave(data, as_float)) is not None:
        return samples
    return _sound(data, media, as_float)


def _picture(data: bytes, shape: tuple[int | None, ...] | None, as_float: bool) -> np.ndarray:
    try:
        from jina_asgi.documents import images  # with pillow, an extra
    except ModuleNotFoundError as error:
        raise UnsupportedMedia("pictures as tensors need the extra: pip install 'jina-asgi[uploads]'") from error

    axes = shape or ()
    first = len(axes) == 3 and axes[0] in _MODES and axes[-1] not in _MODES
    channels = 1 if len(axes) == 2 else (axes[0] if first else axes[-1]) if len(axes) == 3 else None
    array = images.array_of(data, _MODES.get(channels or 3, "RGB"), MAX_ELEMENTS)
    if len(axes) == 3 and array.ndim == 2:
        array = array[:, :, None]
    if first:
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    return array.astype(np.float32) / np.float32(255) if as_float else array


def _wave(data: bytes, as_float: bool) -> np.ndarray | None:
    """The samples of a WAV file; None if the standard library cannot read them, such as floats."""
    try:
        with wave.open(io.BytesIO(data)) as sound:
            width, channels = sound.getsampwidth(), sound.getnchannels()
            if not 1 <= width <= 4:
                return None
            _check_size(min(sound.getnframes() * channels, len(data) // width))
            raw = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        if str(error).startswith("unknown format") or "unknown extended format" in str(error):
            return None
        raise ValueError(f"expected a WAV file of PCM samples: {str(error) or 'it ends too early'}") from None
    if width == 3:  # 24 bits, for which numpy has no dtype: the upper three bytes of four
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(raw, np.uint8, len(raw) // 3 * 3).reshape(-1, 3)
        samples: np.ndarray = padded.view("<i4").reshape(-1)
    else:
        kind = np.dtype({1: "u1", 2: "<i2", 4: "<i4"}[width])
        samples = np.frombuffer(raw, kind, len(raw) // kind.itemsize).copy()
    if channels > 1:
        samples = samples[: len(samples) // channels * channels].reshape(-1, channels)
    if not as_float:
        return samples
    centred = samples.astype(np.float32) - (128 if width == 1 else 0)
    return centred / np.float32(2 ** (7 if width == 1 else 15 if width == 2 else 31))


def _check_size(samples: int) -> None:
    if samples > MAX_ELEMENTS:
        raise TooLarge(f"expected a sound of at most {MAX_ELEMENTS} samples")


def _sound(data: bytes, media: str, as_float: bool) -> np.ndarray:
    try:
        import soundfile  # not part of any extra of this library
    except (ModuleNotFoundError, OSError) as error:
        raise UnsupportedMedia(
            f"{media} as a tensor needs soundfile: pip install soundfile; or send WAV of PCM samples"
        ) from error
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            _check_size(sound.frames * sound.channels)
            samples: Any = sound.read(dtype="float32" if as_float else "int16")
    except (soundfile.SoundFileError, ValueError) as error:
        raise ValueError(f"expected a sound: {error}") from None
    return np.asarray(samples)
