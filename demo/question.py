"""Ask through the OpenAI client, and measure the answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from openai import DefaultHttpxClient, OpenAI, OpenAIError

from ..entrypoint.client import counters, http
from ..entrypoint.client.counters import Counters
from ..entrypoint.client.local_replica import ServeProcess
from .errors import DemoError


@dataclass(frozen=True)
class MeasuredAnswer:
    """One answer: its text, output tokens, wall seconds, and draft tokens proposed and accepted during it."""

    text: str
    tokens: int
    seconds: float
    drafted: int
    accepted: int

    @property
    def tokens_per_second(self) -> float:
        """Output tokens per second of wall time, the prompt's processing included."""
        return self.tokens / self.seconds

    @property
    def acceptance(self) -> float:
        """Accepted by drafted tokens; 0 when nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0


def ask(server: ServeProcess, question: str, max_tokens: int) -> MeasuredAnswer:
    """Ask in a chat, greedily, and return the answer. Raise DemoError on failure."""

    def chat(client: OpenAI, model: str) -> tuple[str, int]:
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=max_tokens
        )
        return reply.choices[0].message.content or "", reply.usage.completion_tokens if reply.usage else 0

    return _measured(server, chat)


def complete(server: ServeProcess, prompt: list[int], max_tokens: int) -> MeasuredAnswer:
    """Continue token ids greedily; the answer's text is the new ids. Raise DemoError on failure."""

    def continuation(client: OpenAI, model: str) -> tuple[str, int]:
        reply = client.completions.create(
            model=model,
            prompt=prompt,
            temperature=0,
            max_tokens=max_tokens,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        )
        ids = (reply.choices[0].model_extra or {}).get("token_ids") or []
        return " ".join(map(str, ids)), len(ids)

    return _measured(server, continuation)


def _counters(server: ServeProcess) -> Counters:
    return counters.read(http.get_accepted(f"{server.endpoint.url}/metrics", server.endpoint.key).text)


def _measured(server: ServeProcess, request: Callable[[OpenAI, str], tuple[str, int]]) -> MeasuredAnswer:
    """Send one request for the first served model, and read time and draft counters around it."""
    before = _counters(server)
    began = time.monotonic()
    try:
        with OpenAI(
            base_url=f"{server.endpoint.url}/v1", api_key="none", http_client=DefaultHttpxClient(trust_env=False)
        ) as client:
            text, tokens = request(client, client.models.list().data[0].id)
    except OpenAIError as error:
        raise DemoError(f"the request failed: {error}; its log is {server.log}") from error
    seconds = time.monotonic() - began
    after = _counters(server)
    return MeasuredAnswer(text, tokens, seconds, after.drafted - before.drafted, after.accepted - before.accepted)
