"""Vectors of texts with transformers: an Executor that batches by length, on CPU or GPU."""

try:
    from .documents import Embedding, EncoderState, Encoding, Text
    from .executor import TextEmbedding
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"jina_asgi.contrib.text_embedding needs {missing.name}; install it with: pip install 'jina-asgi[text]'",
        name=missing.name,
    ) from missing

__all__ = ["Embedding", "EncoderState", "Encoding", "Text", "TextEmbedding"]
