"""The Executor: a thread that tokenises, a thread that computes, and batches that pass from one to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from docarray import BaseDoc, DocList

from jina_asgi import Context, Executor, ExecutorError, ExecutorInputError, dynamic_batching, requests
from jina_asgi.contrib.cores import default_threads

from .documents import Embedding, EncoderState, Encoding, Text
from .encoder import Encoder
from .loading import load
from .recipe import POOLINGS, Pooling
from .tokens import Tokenizer, Tokens
from .vectors import finished


class TextEmbedding(Executor):
    """Any encoder of transformers: a vector for each text, those of many requests in one pass.

    Args:
        model: "minilm" (all-MiniLM-L6-v2, fetched at the first start), the folder of a model, or a name that
            transformers knows.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        dtype: "auto" (as the weights are stored), "float32", "bfloat16" or "float16".
        pooling: "mean", "cls", "max" or "lasttoken"; None: as the model's files say, else "mean".
        normalize_embeddings: what a request gets that does not say; None: as the model's files say, else True.
        max_length: tokens that are read of a text; never more than the model was made for. None: as its files say.
        prompts: by name, what may be put before texts, beside those of the model's files.
        default_prompt_name: which of them a request gets that does not say.
        max_batch_tokens: tokens in one pass of the model at most, padding among them.
        pass_tokens: what a pass costs beside its tokens, as so many tokens; None: it is measured when the model loads.
        threads: CPU threads of the model's arithmetic; None leaves one core to others (see `contrib/cores.py`).
    """

    def __init__(
        self,
        *,
        model: str = "minilm",
        device: str = "auto",
        dtype: str = "auto",
        pooling: Pooling | None = None,
        normalize_embeddings: bool | None = None,
        max_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        max_batch_tokens: int = 16_384,
        pass_tokens: float | None = None,
        threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if pooling not in (None, *POOLINGS):
            raise ValueError(f"pooling={pooling!r} is none of {', '.join(POOLINGS)}")
        loaded = load(model, device=device, dtype=dtype)
        recipe = loaded.recipe
        self.model_name = loaded.name
        self.normalize = recipe.normalize if normalize_embeddings is None else normalize_embeddings
        self.prompts = {**recipe.prompts, **(prompts or {})}
        self.prompt = self._prompt_named(default_prompt_name or recipe.default_prompt_name)
        longest = min(length for length in (max_length or recipe.max_length, loaded.longest) if length)
        self.tokenizer = Tokenizer(loaded.tokenizer, longest, lowers=recipe.lowers)
        padding = loaded.tokenizer.pad_token_id
        self.encoder = Encoder(
            loaded.model,
            pooling=pooling or recipe.pooling,
            padding=0 if padding is None else padding,
            max_tokens=max_batch_tokens,
            pass_tokens=pass_tokens,
        )
        self._threads = default_threads() if threads is None else threads
        self._tokenizing = ThreadPoolExecutor(1, "tokenizer")
        self._computing = ThreadPoolExecutor(1, "encoder", self._first)

    def warmup(self) -> None:
        """Time a few passes: what one costs by itself decides how much padding is worth it."""
        self._computing.submit(self.encoder.measure).result()

    @requests(on=("/embed", "/default"), idempotent=True)
    @dynamic_batching(preferred_batch_size=32, cost="len:text", max_cost=65_536, prefetch=1)
    async def embed(self, docs: DocList[Text], parameters: Encoding, context: Context) -> DocList[Embedding]:
        """A vector for each text, in order. The next full batch is tokenised while one is computed."""
        self._check(parameters)
        prompt = self._prompt(parameters)
        loop = asyncio.get_running_loop()
        texts = [prompt + doc.text for doc in docs]
        tokens = await loop.run_in_executor(self._tokenizing, self.tokenizer.read, texts)
        if not parameters.truncate:
            self._refuse_long(tokens)
        vectors = await loop.run_in_executor(self._computing, self._vectors, tokens, context)
        return DocList[Embedding](self._embeddings(docs, tokens, vectors, parameters))

    @requests(on="/state")
    async def state(self, doc: BaseDoc) -> EncoderState:
        """What the encoder is, and what it has done."""
        encoder = self.encoder
        return EncoderState(
            model=self.model_name,
            dimensions=encoder.dimensions,
            max_length=self.tokenizer.max_length,
            texts=encoder.texts,
            tokenizer_calls=self.tokenizer.calls,
            passes=encoder.passes,
            tokens=encoder.tokens,
            padded_tokens=encoder.padded_tokens,
        )

    def close(self) -> None:
        """End both threads, once what they run has returned."""
        self._tokenizing.shutdown(cancel_futures=True)
        self._computing.shutdown(cancel_futures=True)
        super().close()

    def _first(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)

    def _vectors(self, tokens: Sequence[Tokens], context: Context) -> np.ndarray:
        found = self.encoder.vectors([one.ids for one in tokens], lambda: not context.cancelled)
        if found is None:
            raise ExecutorError("nobody waits for these vectors any more; stopped between two passes")
        return found

    def _embeddings(
        self, docs: Sequence[Text], tokens: Sequence[Tokens], vectors: np.ndarray, wanted: Encoding
    ) -> list[Embedding]:
        normalize = self.normalize if wanted.normalize_embeddings is None else wanted.normalize_embeddings
        made, scales = finished(vectors, dimensions=wanted.dimensions, normalize=normalize, precision=wanted.precision)
        as_bytes = wanted.encoding_format == "base64"
        return [
            Embedding.model_construct(  # what is known to be right is not checked again
                id=None if doc.id is None else str(doc.id),
                embedding=None if as_bytes else vector,
                buffer=vector.tobytes() if as_bytes else None,
                scale=None if scales is None else float(scales[at]),
                tokens=len(tokens[at].ids),
            )
            for at, (doc, vector) in enumerate(zip(docs, made, strict=True))
        ]

    def _check(self, wanted: Encoding) -> None:
        if wanted.dimensions is not None and wanted.dimensions > self.encoder.dimensions:
            raise ExecutorInputError(
                f"expected dimensions of at most {self.encoder.dimensions}, got {wanted.dimensions}"
            )

    def _refuse_long(self, tokens: Sequence[Tokens]) -> None:
        if not all(one.whole for one in tokens):
            raise ExecutorInputError(
                f"a text is longer than {self.tokenizer.max_length} tokens; leave truncate out, or send less of it"
            )

    def _prompt(self, wanted: Encoding) -> str:
        if wanted.prompt is not None:
            return wanted.prompt
        return self.prompt if wanted.prompt_name is None else self._prompt_named(wanted.prompt_name)

    def _prompt_named(self, name: str | None) -> str:
        if name is None:
            return ""
        try:
            return self.prompts[name]
        except KeyError:
            known = ", ".join(self.prompts) or "none"
            raise ExecutorInputError(f"expected the name of a prompt among: {known}; got {name!r}") from None
