"""Text generation with transformers: an Executor with continuous batching and token streaming, on CPU or GPU."""

from .documents import EngineState, Generation, Prompt, Sampling, Token
from .executor import TextGeneration

__all__ = ["EngineState", "Generation", "Prompt", "Sampling", "TextGeneration", "Token"]
