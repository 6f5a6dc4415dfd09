"""What Jina's README shows runs as examples/jina_readme says, with a port and models of the test's own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from jina_asgi import Client
from tests.doubles.uvicorn_server import free_port

pytestmark = [pytest.mark.model, pytest.mark.processes]

EXAMPLES = Path(__file__).parents[2] / "examples" / "jina_readme"
PORT, LANGUAGE, IMAGE = "12345", "HuggingFaceTB/SmolLM2-135M-Instruct", "stable-diffusion-v1-5/stable-diffusion-v1-5"
ENVIRONMENT = {**os.environ, "CUDA_TOTAL_DEVICES": "2", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for the models that the examples name: SmolLM2 as it is on this machine, and a tiny pipeline."""
    from jina_asgi.contrib.text_generation.loading import default_folder
    from jina_asgi.contrib.text_to_image.tests.doubles import save_tiny

    return {LANGUAGE: str(default_folder()), IMAGE: str(save_tiny(tmp_path_factory.mktemp("tiny-diffusion")))}


class Text(BaseModel):
    text: str


class Prompted(BaseModel):
    prompt: str
    text: str


class Question(BaseModel):
    prompt: str
    max_tokens: int


class Example:
    """A copy of the folder, with a port of its own."""

    pid = 0

    def __init__(self, folder: Path, models: dict[str, str]) -> None:
        self.folder, self.port = folder, str(free_port())
        for file in EXAMPLES.iterdir():
            if file.suffix in (".py", ".yml"):
                text = file.read_text()
                for name, here in {**models, PORT: self.port}.items():
                    text = text.replace(name, here)
                (folder / file.name).write_text(text)

    @contextmanager
    def serving(self, *words: str) -> Iterator[Any]:
        """Serve as the README says, until SIGTERM; gives a Client of it."""
        with subprocess.Popen(
            self._command(*words), cwd=self.folder, env=ENVIRONMENT, stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            self.pid = server.pid
            try:
                assert f"answers at grpc://127.0.0.1:{self.port}" in server.stdout.readline().decode()
                with Client(port=int(self.port)) as client:
                    yield client
            finally:
                server.send_signal(signal.SIGTERM)
                server.communicate(timeout=60)
        assert server.returncode == 0

    def run(self, *words: str, module: str = "jina_asgi.compat") -> str:
        """What a program prints."""
        done = subprocess.run(
            self._command(*words, module=module),
            cwd=self.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pooled(self) -> list[dict[str, Any]]:
        """What `jina-asgi pool` tells of the deployments that are served."""
        hosts = json.loads(self.run("pool", "--json", module="jina_asgi"))
        own = [host for host in hosts if host["instance"].startswith(f"{self.pid}-")]
        return [deployment for host in own for deployment in host["deployments"].values()]

    def _command(self, *words: str, module: str = "jina_asgi.compat") -> list[str]:
        return [sys.executable, "-m", module, *words]


@pytest.fixture
def example(tmp_path: Path, models: dict[str, str]) -> Example:
    return Example(tmp_path, models)


@pytest.mark.parametrize("words", [("deployment.py",), ("serve.py", "deployment.yml")], ids=" ".join)
def test_the_language_model_answers_a_client_and_http(example: Example, words: tuple[str, ...]) -> None:
    with example.serving(*words) as client:
        said = example.run("client.py")
        answers = client.post("/default", [Text(text="One, two,"), Text(text="Red, green,")])
    assert said.startswith("A lighthouse at night,")
    assert len(said) > 30
    assert [doc.prompt for doc in answers] == ["One, two,", "Red, green,"]
    assert all(doc.text.startswith(doc.prompt) and doc.text != doc.prompt for doc in answers)


@pytest.mark.parametrize("words", [("flow.py",), ("serve.py", "flow.yml")], ids=" ".join)
def test_the_flow_makes_a_picture_of_a_text(example: Example, words: tuple[str, ...]) -> None:
    from PIL import Image

    with example.serving(*words) as client:
        example.run("flow_client.py")
        [answer] = client.post("/default", [Text(text="A ship")])
    written = Image.open(io.BytesIO((example.folder / "lighthouse.png").read_bytes()))
    assert written.size == (64, 64)
    assert np.shape(answer.tensor) == (64, 64, 3)


def test_the_answer_grows_token_by_token(example: Example) -> None:
    with example.serving("streaming.py") as client:
        lines = example.run("stream_client.py").splitlines()
        steps = list(client.stream_doc("/stream", Question(prompt="The capital of France is", max_tokens=3)))
    assert len(lines) == 8
    assert "Paris" in lines[-1]
    assert [repr(doc.generated_text) for doc in steps] == lines[:3]


def test_two_replicas_have_a_device_each_and_take_batches_of_requests(example: Example) -> None:
    docs = [Prompted(prompt="", text="A ship")]
    answers: list[Any] = []
    devices: list[str] = []
    end = time.monotonic() + 60
    with example.serving("serve.py", "scaled.yml") as client, ThreadPoolExecutor(4) as threads:
        while len(devices) < 2:  # it answers as soon as one of them has loaded
            assert time.monotonic() < end, devices
            answers += threads.map(lambda _: client.post("/default", docs), range(4))
            [deployment] = example.pooled()
            devices = [found for replica in deployment["replicas"].values() if (found := replica["device"])]
        words = ("--on", "/default", "--data", json.dumps({"prompt": "", "text": "A ship"}))
        asked = json.loads(example.run("client", f"localhost:{example.port}", *words, module="jina_asgi"))
    assert sorted(devices) == ["0", "1"]
    assert {np.shape(picture.tensor) for [picture] in answers} == {np.shape(asked["tensor"])} == {(64, 64, 3)}
    assert deployment["batching"]["/default"]["batch_sizes"], "the figures are as the pool last told them"


def test_every_file_of_the_folder_is_run() -> None:
    """Directly, or as the module or the YAML that another names; and the names that the tests replace are there."""
    files = {file.name: file.read_text() for file in EXAMPLES.iterdir() if file.suffix in (".md", ".py", ".yml")}
    run = Path(__file__).read_text()
    readme = files.pop("README.md")
    for name in files:
        assert f'"{name}"' in run or f"from {name.removesuffix('.py')} import" in "".join(files.values()), name
        assert name in readme, name
    served = [name for name, text in files.items() if PORT in text]
    assert {"deployment.py", "deployment.yml", "flow.py", "flow.yml", "scaled.yml", "streaming.py"} <= set(served)
    assert LANGUAGE in files["executor.py"]
    assert LANGUAGE in files["streaming.py"]
    assert IMAGE in files["text_to_image.py"]
