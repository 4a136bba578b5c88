"""
The child of `dsv4 eval`: one task of lm-evaluation-harness against a chat endpoint.

It runs as a file under a Python that has lm-eval but need not have dsv4, so it imports nothing of ours. It reads a job
(JSON, `evaluate._job`) from stdin and the key from DSV4_EVAL_KEY, writes one JSON line per event to stdout, and sends
lm-eval's output to stderr. Answers are appended to the job's `answers` file; a question that has an answer there is not
sent again.

lm-eval's own `local-chat-completions` keeps neither the finish reason nor the reasoning, so requests are sent here;
tasks, examples, filters and metrics are lm-eval's.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import requests
from lm_eval.api.filter import Filter  # type: ignore[import-not-found, import-untyped, unused-ignore]
from lm_eval.api.model import LM  # type: ignore[import-not-found, import-untyped, unused-ignore]
from lm_eval.api.registry import register_filter  # type: ignore[import-not-found, import-untyped, unused-ignore]
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

LONGEST = 4 * 3600.0
"""Seconds for one answer: 65,536 tokens at 4.6 a second."""
RETRY = Retry(
    total=2,
    backoff_factor=1,  # seconds: the second retry waits for 2
    status_forcelist=(429, *range(500, 600)),
    allowed_methods=None,  # POST too, as an answer is kept only once
    raise_on_status=False,
)
EVENTS = os.fdopen(os.dup(1), "w", buffering=1)
_IMPORT = re.compile(r"^(?:import|from) .+$", re.MULTILINE)
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


class RunFailed(Exception):
    """The run failed; the message is one sentence for the user."""


def send_event(**event: Any) -> None:
    """Write one event for the parent."""
    EVENTS.write(json.dumps(event, default=str) + "\n")


@register_filter("fenced-code")  # type: ignore[untyped-decorator, unused-ignore]
class FencedCode(Filter):  # type: ignore[misc, unused-ignore]
    """The last fenced block of an answer, below the imports that its prompt (`doc["prompt"]`) has."""

    def apply(self, resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        """Return a program for each answer; an answer without a block is taken whole."""
        return [
            [
                "\n".join([*_IMPORT.findall(doc["prompt"]), (_FENCED.findall(answer) or [answer])[-1]])
                for answer in answers
            ]
            for answers, doc in zip(resps, docs, strict=True)
        ]


class AnswerFile:
    """The answers of a run, by their request, in a file of JSON lines that survives being killed."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = path.open("r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunFailed(f"{path} is in use by another `dsv4 eval`; wait for it, or stop it.") from None
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        try:
            lines = list(map(json.loads, whole.splitlines()))
            self.known = {line["key"]: line for line in lines if "key" in line}
        except (ValueError, TypeError, RecursionError) as error:
            raise RunFailed(
                f"{path}: a line does not hold an answer ({str(error).splitlines()[0]}); move the folder away, or start"
                " again without --resume."
            ) from None
        self._file.truncate(len(whole))  # a kill may leave half a line
        self._file.seek(0, os.SEEK_END)

    def keep(self, answer: dict[str, Any]) -> None:
        """Write one answer immediately."""
        with self._lock:
            self.known[answer["key"]] = answer
            self._file.write(json.dumps(answer, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
            self._file.flush()


class ChatModel(LM):  # type: ignore[misc, unused-ignore]
    """The chat endpoint as a model of lm-eval's."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        super().__init__()
        self._job = job
        self.answers = AnswerFile(Path(job["answers"]))
        key = os.environ.get("DSV4_EVAL_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    tokenizer_name = "chat"

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the messages as JSON, as the replica applies its own chat template."""
        del add_generation_prompt
        return json.dumps([{"role": m["role"], "content": m["content"]} for m in chat_history], ensure_ascii=False)

    def payload(self, prompt: str) -> dict[str, Any]:
        """Return the request for a prompt of `apply_chat_template`; lm-eval's stop strings are left out."""
        return {"model": self._job["model"], "messages": json.loads(prompt), "seed": 1234, **self._job["sampling"]}

    def key(self, prompt: str) -> str:
        """Return the key of an answer: the hash of its whole request."""
        return hashlib.sha256(json.dumps(self.payload(prompt), sort_keys=True).encode()).hexdigest()

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the content of each answer, without the reasoning; empty if it was cut before."""
        del disable_tqdm
        prompts = [request.args[0] for request in requests]
        by_key = {self.key(prompt): prompt for prompt in prompts}
        remaining = [prompt for key, prompt in by_key.items() if key not in self.answers.known]
        send_event(planned=len(prompts), remaining=len(remaining))
        if self._job["dry-run"]:
            raise SystemExit(0)
        pool = ThreadPoolExecutor(self._job["concurrency"])
        try:
            for done in as_completed([pool.submit(self._ask, prompt) for prompt in remaining]):
                done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after a failure, other answers are not awaited
        return [self.answers.known[self.key(p)]["content"] for p in prompts]

    def _ask(self, prompt: str) -> None:
        began = time.monotonic()
        body = self._post(self.payload(prompt))
        try:
            choice = body["choices"][0]
            message = choice["message"]
            answer = {
                "key": self.key(prompt),
                "content": (message.get("content") or "").rpartition("</think>")[2],
                "reasoning": message.get("reasoning") or message.get("reasoning_content") or "",
                "finish_reason": choice["finish_reason"],
                "prompt_tokens": body["usage"]["prompt_tokens"],
                "completion_tokens": body["usage"]["completion_tokens"],
                "seconds": round(time.monotonic() - began, 3),
            }
        except (LookupError, TypeError, AttributeError):
            raise RunFailed(f"{self._job['url']}: not a chat completion: {str(body)[:200]}") from None
        self.answers.keep(answer)
        send_event(cut=answer["finish_reason"] == "length", tokens=answer["completion_tokens"])

    def _post(self, payload: Mapping[str, Any]) -> Any:
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy, as everywhere in dsv4
                for scheme in ("http://", "https://"):
                    session.mount(scheme, HTTPAdapter(max_retries=RETRY))
                answer = session.post(self._job["url"], json=payload, headers=self._headers, timeout=(10, LONGEST))
                if answer.ok:
                    return answer.json()
        except (requests.RequestException, ValueError) as error:
            raise RunFailed(f"{self._job['url']}: {error}") from None
        raise RunFailed(f"{self._job['url']}: HTTP {answer.status_code}: {answer.text[:300]}")

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Raise: a chat endpoint does not return the likelihood of a given text."""
        del requests
        raise RunFailed("This task needs likelihoods of given texts, which a chat endpoint does not return.")

    loglikelihood_rolling = loglikelihood


def main() -> int:
    """Run the job on stdin; the last event is `result` or `error`."""
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    job = json.load(sys.stdin)
    try:
        model = ChatModel(job)
        evaluated = _evaluate(job, model)
        send_event(result=_scored(job, model, evaluated))
    except RunFailed as error:
        send_event(error=str(error))
        return 1
    except Exception as error:
        traceback.print_exc()
        send_event(error=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
        return 1
    return 0


def _evaluate(job: Mapping[str, Any], model: ChatModel) -> Any:
    import lm_eval.tasks  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from lm_eval.evaluator import simple_evaluate  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if job["run-code"]:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    folder = job["folder"] and Path(lm_eval.tasks.__file__).parent / job["folder"]
    return simple_evaluate(
        model=model,
        task_manager=lm_eval.tasks.TaskManager(include_path=folder, include_defaults=folder is None),
        tasks=[
            {"group": "dsv4", "task": [{"task": name, **job["config"]} for name in job["ask"]]}
        ],  # merges our config
        limit=job["limit"],
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        bootstrap_iters=0,
        confirm_run_unsafe_code=job["run-code"],
    )


def _scored(job: Mapping[str, Any], model: ChatModel, evaluated: Any) -> dict[str, Any]:
    """Write the samples, one line for each, and return the counts of all metrics and of cut answers."""
    samples: dict[tuple[str, int], dict[str, Any]] = {}
    for task, logged in evaluated["samples"].items():
        for sample in logged:
            prompt = sample["arguments"][0][0]
            kept = model.answers.known[model.key(prompt)]
            about = {
                "task": task,
                "document": sample["doc_id"],
                "messages": json.loads(prompt),
                "target": sample["target"],
            }
            entry = samples.setdefault((task, sample["doc_id"]), {**about, **kept, "scores": {}})
            for name in sample["metrics"]:
                if isinstance(sample[name], (int, float)):
                    entry["scores"][f"{name},{sample['filter']}"] = float(sample[name])
    with Path(job["samples"]).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry, ensure_ascii=False, default=str) + "\n" for entry in samples.values())
    entries = list(samples.values())
    missing = [name for name in job["metrics"] if name not in entries[0]["scores"]]
    if missing:
        raise RunFailed(f"lm-eval returned no {', '.join(missing)}; it returned {', '.join(entries[0]['scores'])}.")
    return {
        "lm-eval": importlib.metadata.version("lm-eval"),
        "total": len(entries),
        "cut": sum(entry["finish_reason"] == "length" for entry in entries),
        "correct": {name: round(sum(entry["scores"][name] for entry in entries)) for name in job["metrics"]},
        "correct-of-whole": {
            name: round(sum(entry["scores"][name] for entry in entries if entry["finish_reason"] != "length"))
            for name in job["metrics"]
        },
        "prompt-tokens": sum(entry["prompt_tokens"] for entry in entries),
        "completion-tokens": sum(entry["completion_tokens"] for entry in entries),
        "answer-seconds": round(sum(entry["seconds"] for entry in entries), 1),
    }


if __name__ == "__main__":
    status = main()
    EVENTS.flush()
    sys.stderr.flush()
    os._exit(status)  # does not wait for threads that still await an answer
