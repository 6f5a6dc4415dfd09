"""The Executor in a Deployment, in process and over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from docarray import DocList
from docarray.documents import TextDoc
from transformers import AutoModel

from jina_asgi import BatchFailed, Client, Deployment, ExecutorInputError, InvalidDocs, JinaASGI
from jina_asgi.contrib.text_embedding import EncoderState, Text, TextEmbedding
from jina_asgi.contrib.text_embedding.tests.doubles import DIMENSIONS, LONGEST, WORDS, save_tiny, text_of
from jina_asgi.testing import client

SENTENCE = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "1_Pooling/config.json": {"pooling_mode_cls_token": True},
    "sentence_bert_config.json": {"max_seq_length": 10},
    "config_sentence_transformers.json": {"prompts": {"query": "w50 "}},
}


def deployment(folder: Path, **options: Any) -> Deployment:
    return Deployment(uses=TextEmbedding, uses_with={"model": str(folder), **options})


def texts(*given: str) -> list[Text]:
    return [Text(text=text) for text in given]


def reference(folder: Path, text: str) -> np.ndarray:
    """Mean pooling over transformers' own forward pass, of length 1."""
    ids = [2, *(WORDS.index(word) if word in WORDS else 1 for word in text.split()), 3]
    model: Any = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        mean = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
    found: np.ndarray = (mean / mean.norm()).numpy()
    return found


async def state_of(model: Deployment) -> EncoderState:
    [found] = await model.call("/state", [{}])
    assert isinstance(found, EncoderState)
    return found


async def test_each_text_gets_its_vector_in_order_and_under_its_id(tiny_folder: Path) -> None:
    asked = texts(text_of(3), text_of(40), "", "nothing known", text_of(3))
    async with deployment(tiny_folder) as model:
        found = await model.call("/embed", asked)
    assert [doc.id for doc in found] == [doc.id for doc in asked]
    assert [doc.tokens for doc in found] == [5, 42, 2, 4, 5]
    for given, doc in zip(asked, found, strict=True):
        np.testing.assert_allclose(doc.embedding, reference(tiny_folder, given.text), atol=1e-5)


async def test_many_texts_in_one_call_are_as_each_alone(tiny_folder: Path) -> None:
    asked = texts(*(text_of(count % 50, count) for count in range(500)))
    async with deployment(tiny_folder) as model:
        together = await model.call("/embed", asked)
        made = await state_of(model)
        alone = [(await model.call("/embed", [asked[at]]))[0] for at in (0, 1, 49, 499)]
    for at, doc in zip((0, 1, 49, 499), alone, strict=True):
        np.testing.assert_allclose(together[at].embedding, doc.embedding, atol=1e-5)
    assert made.texts == 500
    assert made.tokenizer_calls <= 50


async def test_calls_at_once_share_tokenizer_calls_and_passes(tiny_folder: Path) -> None:
    async with deployment(tiny_folder) as model:
        await asyncio.gather(*(model.call("/embed", texts(text_of(5, at))) for at in range(320)))
        made = await state_of(model)
    assert made.texts == 320
    assert made.tokenizer_calls <= 32
    assert made.padded_tokens == made.tokens


async def test_the_next_full_batch_is_tokenised_while_one_is_computed(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model waits, in its first pass, until the tokenizer has been asked twice."""
    computing, twice = threading.Event(), threading.Event()

    class Watched(TextEmbedding):
        def warmup(self) -> None:
            run, read, asked = self.encoder.vectors, self.tokenizer.read, []

            def vectors(*given: Any) -> Any:
                computing.set()
                assert twice.wait(20)
                return run(*given)

            def reading(given: Any) -> Any:
                asked.append(len(given))
                if len(asked) == 2:
                    assert computing.wait(20)
                    twice.set()
                return read(given)

            monkeypatch.setattr(self.encoder, "vectors", vectors)
            monkeypatch.setattr(self.tokenizer, "read", reading)

    async with Deployment(uses=Watched, uses_with={"model": str(tiny_folder)}) as model:
        assert len(await model.call("/embed", texts(*(text_of(3, at) for at in range(64))))) == 64


@pytest.mark.parametrize("options", [{"max_padding": 1.5}, {"buckets": [20, 100]}, {"single_flight": True}], ids=str)
async def test_whatever_rides_together_each_gets_its_own(tiny_folder: Path, options: dict[str, Any]) -> None:
    asked = texts(*(["", "w1", text_of(40), text_of(1000), "w1"] * 20))
    model = Deployment(
        uses=TextEmbedding, uses_with={"model": str(tiny_folder)}, uses_dynamic_batching={"/embed": options}
    )
    async with model:
        found = await asyncio.gather(*(model.call("/embed", [text]) for text in asked))
    assert [doc.id for [doc] in found] == [text.id for text in asked]
    expected = [reference(tiny_folder, text) for text in ("", "w1", text_of(40), text_of(LONGEST - 2), "w1")]
    np.testing.assert_allclose(np.stack([doc.embedding for [doc] in found]), np.tile(expected, (20, 1)), atol=1e-5)


async def test_a_caller_that_leaves_ends_its_work_and_nobody_elses(tiny_folder: Path) -> None:
    async with deployment(tiny_folder) as model:
        left = asyncio.create_task(model.call("/embed", texts(*(text_of(5, at) for at in range(5000)))))
        stays = asyncio.create_task(model.call("/embed", texts(text_of(7))))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        [doc] = await stays
        made = await state_of(model)
    np.testing.assert_allclose(doc.embedding, reference(tiny_folder, text_of(7)), atol=1e-5)
    assert made.texts < 1000


async def test_over_http_vectors_come_as_numbers_as_base64_and_as_bytes(tiny_folder: Path) -> None:
    expected = reference(tiny_folder, "w1 w2")
    async with client(JinaASGI(deployment(tiny_folder), wait_ready=True)) as http:

        async def asked(accept: str = "application/json", **parameters: Any) -> Any:
            answer = await http.post(
                "/embed", json={"data": [{"text": "w1 w2"}], "parameters": parameters}, headers={"accept": accept}
            )
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == accept
            return answer.content

        [numbers] = json.loads(await asked())["data"]
        [half] = json.loads(await asked(encoding_format="base64", precision="float16"))["data"]
        packed = msgspec.msgpack.decode(await asked("application/msgpack"))
    np.testing.assert_allclose(numbers["embedding"], expected, atol=1e-5)
    assert (half["embedding"], half["scale"]) == (None, None)
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(half["buffer"]), "<f2"), expected, atol=1e-3)
    np.testing.assert_allclose(np.frombuffer(packed["data"][0]["embedding"].data, "<f4"), expected, atol=1e-5)


def test_a_client_gets_one_array(tiny_folder: Path) -> None:
    asked = texts(*(text_of(at % 9, at) for at in range(250)))
    with Client(app=JinaASGI(deployment(tiny_folder))) as asking:
        found = asking.post("/embed", asked, parameters={"dimensions": 16, "precision": "int8"}, return_type=np.ndarray)
        exact = asking.post("/embed", asked, return_type=np.ndarray)
    assert (found.shape, found.dtype) == ((250, 16), np.int8)
    assert (exact.shape, exact.dtype) == ((250, DIMENSIONS), np.float32)
    np.testing.assert_allclose(exact[9], reference(tiny_folder, asked[9].text), atol=1e-5)


def test_a_client_reads_docarrays_own_documents(tiny_folder: Path) -> None:
    """As Jina's programs ask: a TextDoc to '/', and a TextDoc back."""
    with Client(app=JinaASGI(deployment(tiny_folder))) as asking:
        [found] = asking.post("/", TextDoc(text="w1"), return_type=DocList[TextDoc])
    np.testing.assert_allclose(found.embedding, reference(tiny_folder, "w1"), atol=1e-5)


async def test_the_files_of_sentence_transformers_hold_unless_options_say_otherwise(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, SENTENCE)
    async with deployment(folder) as model, deployment(folder, pooling="mean", max_length=1000) as other:
        [own] = await model.call("/embed", texts(text_of(30)))
        [query] = await model.call("/embed", texts("w1"), {"prompt_name": "query"})
        [same] = await model.call("/embed", texts("w50 w1"))
        [given] = await model.call("/embed", texts("w1"), {"prompt": "w50 "})
        [one] = await model.call("/embed", texts("w1"), {"normalize_embeddings": True})
        [mean] = await other.call("/embed", texts(text_of(100)), {"normalize_embeddings": True})
    assert own.tokens == 10
    assert abs(np.linalg.norm(own.embedding) - 1) > 0.01, "it has no module that normalises"
    np.testing.assert_array_equal(query.embedding, same.embedding)
    np.testing.assert_array_equal(given.embedding, same.embedding)
    assert np.linalg.norm(one.embedding) == pytest.approx(1)
    assert mean.tokens == LONGEST, "never more than the model was made for"
    np.testing.assert_allclose(mean.embedding, reference(folder, text_of(LONGEST - 2)), atol=1e-5)


async def test_a_default_prompt_is_put_before_every_text_that_asks_for_no_other(tiny_folder: Path) -> None:
    prompts = {"query": "w7 ", "passage": "w8 "}
    async with deployment(tiny_folder, prompts=prompts, default_prompt_name="query") as model:
        [default] = await model.call("/embed", texts("w1"))
        [passage] = await model.call("/embed", texts("w1"), {"prompt_name": "passage"})
        [bare] = await model.call("/embed", texts("w1"), {"prompt": ""})
        with pytest.raises(ExecutorInputError, match="among: query, passage; got 'quest'"):
            await model.call("/embed", texts("w1"), {"prompt_name": "quest"})
    for found, text in ((default, "w7 w1"), (passage, "w8 w1"), (bare, "w1")):
        np.testing.assert_allclose(found.embedding, reference(tiny_folder, text), atol=1e-5)


async def test_a_text_that_is_too_long_is_cut_or_refused_and_then_alone(tiny_folder: Path) -> None:
    async with deployment(tiny_folder) as model:
        [cut] = await model.call("/embed", texts(text_of(1000)))
        outcomes = await asyncio.gather(
            *(model.call("/embed", texts(text_of(words)), {"truncate": False}) for words in (62, 63, 5)),
            return_exceptions=True,
        )
    assert cut.tokens == LONGEST
    fits, refused, short = outcomes
    assert isinstance(refused, ExecutorInputError)
    assert "a text is longer than 64 tokens" in str(refused)
    assert not isinstance(fits, BaseException)
    assert not isinstance(short, BaseException)
    assert (fits[0].tokens, short[0].tokens) == (LONGEST, 7)


HOSTILE = [
    "\x00",
    "\u202e\u200f",
    "é́́́",
    "👩‍👩‍👧‍👦" * 500,
    "w1\ud7ff\ufffe",
    " \t\r\n",
    "[SEP] [CLS] [PAD] [MASK]",
    "ẞ" * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
async def test_whatever_text_it_is_it_gets_a_vector_of_length_one(tiny_folder: Path, text: str) -> None:
    async with deployment(tiny_folder) as model:
        [found] = await model.call("/embed", texts(text))
    assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-5)


async def test_no_texts_are_no_vectors(tiny_folder: Path) -> None:
    async with deployment(tiny_folder) as model:
        assert await model.call("/embed", []) == []


@pytest.mark.parametrize(
    "wrong",
    [{"dimensions": 0}, {"dimensions": "8"}, {"precision": "int4"}, {"encoding_format": "hex"}, {"truncat": False}],
    ids=str,
)
async def test_a_parameter_that_is_none_is_refused(tiny_folder: Path, wrong: dict[str, Any]) -> None:
    async with deployment(tiny_folder) as model:
        with pytest.raises(InvalidDocs, match="parameters do not match Encoding"):
            await model.call("/embed", texts("w1"), wrong)


async def test_more_dimensions_than_there_are_is_refused_by_number(tiny_folder: Path) -> None:
    async with deployment(tiny_folder) as model:
        with pytest.raises(ExecutorInputError, match=f"at most {DIMENSIONS}, got {DIMENSIONS + 1}"):
            await model.call("/embed", texts("w1"), {"dimensions": DIMENSIONS + 1})


async def test_a_model_that_fails_is_told_and_the_next_call_works(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TextEmbedding] = []

    class Kept(TextEmbedding):
        def warmup(self) -> None:
            made.append(self)

    async with Deployment(uses=Kept, uses_with={"model": str(tiny_folder)}) as model:
        with monkeypatch.context() as broken:
            broken.setattr(made[0].encoder, "vectors", None)
            with pytest.raises(Exception, match="NoneType") as raised:
                await model.call("/embed", texts("w1"))
        assert not isinstance(raised.value, BatchFailed)
        assert len(await model.call("/embed", texts("w1"))) == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"dtype": "float8"}, "'float8' is none of auto, float32, bfloat16, float16"),
        ({"pooling": "sum"}, "'sum' is none of mean, cls, max, lasttoken"),
    ],
    ids=str,
)
def test_an_option_that_does_not_exist_is_named(tiny_folder: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TextEmbedding(model=str(tiny_folder), **options)


def test_without_the_extra_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None; import jina_asgi.contrib.text_embedding"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr.strip().endswith(
        "text_embedding needs transformers; install it with: pip install 'jina-asgi[text]'"
    )
