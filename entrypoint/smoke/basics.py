"""Check the plain API: names, a chat, a stream, a stop string, log-probabilities."""

from __future__ import annotations

from ..client.errors import Refused
from ..client.vllm import VllmClient
from .context import Context
from .outcome import Outcome, failed, passed, quoted, skipped

FINISHED = ("stop", "length")
STOP_TOKENS = 48
LOGPROB_TOKENS = 16


async def models(client: VllmClient, context: Context) -> Outcome:
    """Every served name is listed, and every listed name answers."""
    planned = (context.settings or {}).get("served-model-name") or []
    planned = [planned] if isinstance(planned, str) else planned
    if missing := [name for name in planned if name not in context.names]:
        return failed(
            f"/v1/models lists {', '.join(context.names)}, not {', '.join(missing)}",
            "--url and --health name different replicas, or one was restarted; name both URLs of one replica",
        )
    for name in context.names:
        try:
            await client.complete("Hello", 1, model=name)
        except Refused as error:
            return failed(
                f"the server lists the name {name}, but refuses it: {error.reason}",
                "a balancer mixes different replicas: see docs/how-to/smoke.md",
            )
    count = len(context.names)
    return passed(f"{count} name{'s' * (count > 1)} listed and answered: {', '.join(context.names)}", names=count)


async def chat(client: VllmClient, context: Context) -> Outcome:
    """A question in a chat, without thinking, is answered."""
    prompt = context.prompts["chat"]
    reply = await client.chat(prompt["question"], prompt["max-tokens"], **context.prompts["thinking"]["modes"]["chat"])
    figures = {"prompt_tokens": reply.prompt_tokens, "output_tokens": reply.tokens}
    if not reply.content:
        return failed(
            f"the answer is empty (finish_reason {reply.finish}, {reply.tokens} tokens)",
            "if the answer has reasoning instead, mode chat was ignored: serve with --tokenizer-mode deepseek_v4",
            **figures,
        )
    if reply.finish not in FINISHED or reply.total_tokens != reply.prompt_tokens + reply.tokens:
        return failed(
            f"finish_reason {reply.finish}; {reply.prompt_tokens} + {reply.tokens} tokens, total {reply.total_tokens}",
            "usage does not add up: a proxy between this client and vLLM changes answers",
            **figures,
        )
    if not context.record.constructed and prompt["answer"] not in reply.content:
        return failed(
            f"the question was {prompt['question']!r}, the answer {quoted(reply.content)}",
            "the weights or the kernels are wrong: `dsv4 weights verify`, `dsv4 patch verify`",
            **figures,
        )
    return passed(f"{quoted(reply.content)}, {reply.tokens} tokens", **figures)


async def streaming(client: VllmClient, context: Context) -> Outcome:
    """A stream has several pieces, then one finish reason, then the usage, then [DONE]."""
    question = context.prompts["acceptance"]["kinds"]["prose"][0]
    stream = await client.stream(question, STOP_TOKENS, **context.prompts["thinking"]["modes"]["chat"])
    figures = {"pieces": len(stream.pieces), "output_tokens": stream.tokens, "first_piece_s": round(stream.seconds, 3)}
    wrong = [
        *(["the whole answer arrived in one piece"] if len(stream.pieces) == 1 else []),
        *(["no text arrived"] if not stream.pieces else []),
        *([f"finish_reason was sent {len(stream.finish)} times"] if len(stream.finish) != 1 else []),
        *(["no usage after the last piece"] if not stream.tokens else []),
        *([] if stream.done else ["no [DONE] at the end"]),
    ]
    if wrong:
        return failed(
            "; ".join(wrong), "try vLLM's own port: a proxy that buffers or cuts event streams causes this", **figures
        )
    return passed(
        f"{len(stream.pieces)} pieces, the first after {stream.seconds:.2f} s; usage and [DONE] at the end", **figures
    )


async def stop(client: VllmClient, context: Context) -> Outcome:
    """A stop string that occurs in an answer ends it, and is not part of it."""
    prompt = context.prompts["acceptance"]["kinds"]["prose"][0]
    whole = await client.complete(prompt, STOP_TOKENS, ignore_eos=True)
    mark = _middle(whole.text)
    if not mark:
        return failed(
            f"the first {STOP_TOKENS} tokens are {quoted(whole.text)}",
            "the answer is not text: see garbling in docs/explanation/health.md",
        )
    cut = await client.complete(prompt, STOP_TOKENS, ignore_eos=True, stop=[mark])
    if cut.finish != "stop" or cut.stop != mark or mark in cut.text:
        return failed(
            f"with stop string {quoted(mark)}, the end is {quoted(cut.text[-40:])}, finish_reason {cut.finish}",
            "if the text differs each time, see the check parallel, else vLLM's log",
        )
    return passed(f"ended before {quoted(mark)}, {len(cut.text)} of {len(whole.text)} characters")


def _middle(text: str) -> str:
    """Return a word from the middle of a text, or three characters where it has few words."""
    words = [word for word in text.split() if len(word) > 1]
    return words[len(words) // 2] if len(words) > 3 else text[len(text) // 2 :][:3].strip()


async def logprobs(client: VllmClient, context: Context) -> Outcome:
    """Log-probabilities are finite numbers, one for each token."""
    prompt = context.prompts["acceptance"]["kinds"]["prose"][0]
    answer = await client.complete(prompt, LOGPROB_TOKENS, logprobs=True)
    if answer.broken:
        return failed(answer.broken, "the kernels compute NaN: `dsv4 patch verify`, then another --moe-backend")
    if not answer.logprobs:
        return skipped("the server returns no log-probabilities")
    if len(answer.logprobs) != len(answer.tokens):
        return failed(f"{len(answer.logprobs)} log-probabilities for {len(answer.tokens)} tokens", "see vLLM's log")
    worst = min(answer.logprobs)
    return passed(f"{len(answer.logprobs)} numbers, all finite, the lowest {worst:.2f}", lowest_logprob=worst)
