"""Ask through the OpenAI client, and measure the answer."""

import time
from dataclasses import dataclass

from ..entrypoint.client import counters, http
from ..entrypoint.client.counters import Counters
from ..entrypoint.client.local_replica import ServeProcess
from .errors import DemoError


@dataclass(frozen=True)
class MeasuredAnswer:
    """One answer: its thought and text, output tokens, wall seconds, draft tokens proposed and accepted during it."""

    reasoning: str
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


def ask(server: ServeProcess, question: str) -> MeasuredAnswer:
    """
    Ask the first served model in a chat, and read time and draft counters around the request.

    Raise DemoError on failure.
    """
    from openai import DefaultHttpxClient, OpenAI, OpenAIError  # not at the top: it takes half a second

    before = _counters(server)
    began = time.monotonic()
    try:
        with OpenAI(
            base_url=f"{server.endpoint.url}/v1", api_key="none", http_client=DefaultHttpxClient(trust_env=False)
        ) as client:
            model = client.models.list().data[0].id
            reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    except OpenAIError as error:
        raise DemoError(f"the request failed: {error}; its log is {server.log}") from error
    seconds = time.monotonic() - began
    after = _counters(server)
    message = reply.choices[0].message
    return MeasuredAnswer(
        reasoning=getattr(message, "reasoning", None) or "",
        text=message.content or "",
        tokens=reply.usage.completion_tokens if reply.usage else 0,
        seconds=seconds,
        drafted=after.drafted - before.drafted,
        accepted=after.accepted - before.accepted,
    )


def _counters(server: ServeProcess) -> Counters:
    return counters.read(http.get_accepted(f"{server.endpoint.url}/metrics", server.endpoint.key).text)
