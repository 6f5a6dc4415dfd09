"""Text generation with transformers: an Executor with continuous batching and token streaming, on CPU or GPU."""

try:
    from .documents import EngineState, Generation, Prompt, Sampling, Token
    from .executor import TextGeneration
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"jina_asgi.contrib.text_generation needs {missing.name}; install it with: pip install 'jina-asgi[text]'",
        name=missing.name,
    ) from missing

__all__ = ["EngineState", "Generation", "Prompt", "Sampling", "TextGeneration", "Token"]
