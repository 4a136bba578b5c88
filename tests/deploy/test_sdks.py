"""The SDKs of both APIs through the balancer, over TLS, against real vLLM: answers, streams, tools, and the class of each error."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dsv4_serve.demo import llama
from tests.deploy.test_tls import sign
from tests.support.balancer import KEY, Names, balancer
from tests.support.patience import slowness, until
from tests.support.replica import Replica
from tests.support.running_demo import NAME

if TYPE_CHECKING:  # each test imports what it uses: both take a second and a half in every process of a run
    import anthropic
    import openai

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
QUESTION: list[Any] = [{"role": "user", "content": "How does speculative decoding work?"}]
SCHEMA = {"type": "object", "required": ["station"], "properties": {"station": {"type": "string"}}}
START = llama.ANSWER[:20]


class Sdks:
    """Clients of both SDKs for one balancer with a certificate."""

    def __init__(self, url: str, certificate: Path, key: str) -> None:
        import httpx
        import httpx2

        self.url, self.key = url, key
        trusted = ssl.create_default_context(cafile=str(certificate))
        self.http, self.http2 = (
            httpx.Client(verify=trusted, timeout=300 * slowness()),
            httpx2.Client(verify=trusted, timeout=300 * slowness()),
        )

    def openai(self, key: str | None = None, retries: int = 0) -> openai.OpenAI:
        import openai

        settings: Any = {"http_client": self.http, "max_retries": retries}
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, **settings)

    def anthropic(self, key: str | None = None, retries: int = 0) -> anthropic.Anthropic:
        import anthropic

        settings: Any = {"http_client": self.http2, "max_retries": retries}
        return anthropic.Anthropic(base_url=self.url, api_key=key or self.key, **settings)  # as x-api-key


@pytest.fixture(scope="module")
def sdks(keyed_start: Callable[[], Replica], binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdks]:
    folder = tmp_path_factory.mktemp("sdks")
    sign(folder)
    keyed_demo = keyed_start()
    keyed_demo.until(keyed_demo.ready, 900, "ready")
    names = Names()
    names.running.append("127.0.0.1")
    key = (keyed_demo.run_folder.parent / "secrets/api-key").read_text().strip()
    env = {
        "REPLICA_PORT": str(keyed_demo.port),
        "REPLICA_HEALTH_PORT": str(keyed_demo.health_port),
        "BALANCER_CERTIFICATE": str(folder / "tls.crt"),
    }
    with balancer(folder, names, binary=binary, key=key, **env) as front:
        assert until(lambda: front.up() == {"127.0.0.1"}, 30)
        yield Sdks(f"https://localhost:{front.port}", folder / "tls.crt", key)


def test_models(sdks: Sdks) -> None:
    import openai

    client = sdks.openai()
    assert [model.id for model in client.models.list()] == [NAME]
    model = client.models.retrieve(NAME)
    assert (model.id, model.object) == (NAME, "model")
    for name in ("other", "lab/other"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert f"`{name}` does not exist" in caught.value.message
    assert sdks.anthropic().models.retrieve(NAME).id == NAME


def test_openai_answers_streams_and_calls_tools(sdks: Sdks) -> None:
    client = sdks.openai()
    assert START in (client.chat.completions.create(model=NAME, messages=QUESTION).choices[0].message.content or "")
    stream = client.chat.completions.create(model=NAME, messages=QUESTION, stream=True)
    pieces = [choice.delta.content for chunk in stream for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 5
    assert START in "".join(pieces)
    tools: Any = [{"type": "function", "function": {"name": "water_level", "parameters": SCHEMA}}]
    message = client.chat.completions.create(model=NAME, messages=QUESTION, tools=tools).choices[0].message
    assert [call.function.name for call in message.tool_calls or [] if call.type == "function"] == ["water_level"]


def test_responses_are_answered_and_not_stored(sdks: Sdks) -> None:
    import openai

    client = sdks.openai()
    response = client.responses.create(model=NAME, input="Hello", reasoning={"effort": "none"}, store=True)
    assert START in response.output_text
    with pytest.raises(openai.NotFoundError, match="not stored"):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError, match="not stored"):
        client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match=f"'{response.id}' not found"):
        client.responses.create(model=NAME, input="And then?", previous_response_id=response.id)
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.create(model=NAME, input="Hello", background=True)


def test_errors_of_openai(sdks: Sdks) -> None:
    import openai

    client = sdks.openai()
    with pytest.raises(openai.AuthenticationError) as wrong:
        sdks.openai("wrong").models.list()
    assert (wrong.value.code, wrong.value.type) == ("invalid_api_key", "authentication_error")
    with pytest.raises(openai.NotFoundError, match="This route is closed"):
        client.embeddings.create(model=NAME, input="x")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="other", messages=QUESTION)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=NAME, messages=QUESTION, max_tokens=-1)
    with pytest.raises(openai.APIStatusError) as method:
        client.post("/models", cast_to=object)
    assert (method.value.status_code, method.value.response.headers["allow"]) == (405, "GET")


def test_anthropic_answers_streams_and_calls_tools(sdks: Sdks) -> None:
    client = sdks.anthropic()
    asked: Any = {"model": NAME, "max_tokens": 1024, "messages": QUESTION}
    assert [block.type for block in client.messages.create(**asked).content] == ["thinking", "text"]
    with client.messages.stream(**asked, thinking={"type": "disabled"}) as stream:
        assert START in "".join(stream.text_stream)
    tools: Any = [{"name": "water_level", "input_schema": SCHEMA}]
    assert client.messages.create(**asked, tools=tools).stop_reason == "tool_use"
    assert client.messages.count_tokens(model=NAME, messages=QUESTION).input_tokens > 5


def test_errors_of_anthropic(sdks: Sdks) -> None:
    import anthropic

    client = sdks.anthropic()
    asked: Any = {"model": NAME, "max_tokens": 8, "messages": QUESTION}
    failures: list[tuple[type[anthropic.APIStatusError], str, Any]] = [
        (
            anthropic.AuthenticationError,
            "authentication_error",
            lambda: sdks.anthropic("wrong").messages.create(**asked),
        ),
        (anthropic.NotFoundError, "not_found_error", lambda: client.messages.create(**{**asked, "model": "other"})),
        (
            anthropic.BadRequestError,
            "invalid_request_error",
            lambda: client.messages.create(**{**asked, "max_tokens": -1}),
        ),
        (
            anthropic.BadRequestError,
            "invalid_request_error",
            lambda: client.messages.create(**{**asked, "messages": "x"}),
        ),
        (anthropic.NotFoundError, "not_found_error", client.messages.batches.list),
    ]
    for kind, name, call in failures:
        with pytest.raises(kind) as caught:
            call()
        body: Any = caught.value.body
        assert (body["type"], body["error"]["type"], caught.value.type) == ("error", name, name)


def test_without_a_replica_both_sdks_wait_as_retry_after_says(binary: str, tmp_path: Path) -> None:
    import anthropic
    import openai

    sign(tmp_path)
    with balancer(tmp_path, Names(), binary=binary, BALANCER_CERTIFICATE=str(tmp_path / "tls.crt")) as front:
        alone = Sdks(f"https://localhost:{front.port}", tmp_path / "tls.crt", KEY)
        for call, kind in (
            (alone.openai(retries=1).models.list, openai.InternalServerError),
            (
                lambda: alone.anthropic(retries=1).messages.create(model="a", max_tokens=1, messages=QUESTION),
                anthropic.InternalServerError,
            ),
        ):
            began = time.monotonic()
            with pytest.raises(kind, match="No replica is ready"):
                call()
            assert time.monotonic() - began >= 5


def test_over_a_limit_both_sdks_raise_their_rate_limit_error(binary: str, tmp_path: Path) -> None:
    import anthropic
    import openai

    sign(tmp_path)
    keys, certificate = f"slow {KEY} 1\n", tmp_path / "tls.crt"
    with balancer(tmp_path, Names(), binary=binary, key=keys, BALANCER_CERTIFICATE=str(certificate)) as front:
        limited = Sdks(f"https://localhost:{front.port}", certificate, KEY)
        with pytest.raises(openai.InternalServerError):  # admitted, and there is no replica
            limited.openai().models.list()
        with pytest.raises(openai.RateLimitError) as slow:
            limited.openai().models.list()
        assert (slow.value.code, slow.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        with pytest.raises(anthropic.RateLimitError) as too:
            limited.anthropic().messages.create(model="a", max_tokens=1, messages=QUESTION)
        assert too.value.type == "rate_limit_error"
        assert 1 <= int(too.value.response.headers["retry-after"]) <= 60
