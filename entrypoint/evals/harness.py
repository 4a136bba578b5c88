"""
The child of `dsv4 eval`: one task of lm-evaluation-harness against a chat endpoint.

It is run as a file by a Python that has lm-eval (and need not have dsv4), so it imports nothing of ours. It reads a job
(JSON, `evaluate._job`) from stdin, the key from DSV4_EVAL_KEY, writes one JSON line per event to stdout, and leaves all
output of lm-eval to stderr. Answers go to the job's `answers` file as they come; those that are there already are not
asked again.

lm-eval's own `local-chat-completions` keeps neither why an answer ended nor its reasoning, so answers are asked here;
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
    allowed_methods=None,  # POST too: an answer is kept once
    raise_on_status=False,
)
EVENTS = os.fdopen(os.dup(1), "w", buffering=1)
_IMPORT = re.compile(r"^(?:import|from) .+$", re.MULTILINE)
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


class RunFailed(Exception):
    """What ends the run: one sentence for the user."""


def send_event(**event: Any) -> None:
    """Write one event for the parent."""
    EVENTS.write(json.dumps(event, default=str) + "\n")


@register_filter("fenced-code")  # type: ignore[untyped-decorator, unused-ignore]
class FencedCode(Filter):  # type: ignore[misc, unused-ignore]
    """The last fenced block of an answer, below the imports that its prompt (`doc["prompt"]`) has."""

    def apply(self, resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        """Return a program for each answer; an answer without a block is one as it stands."""
        return [
            ["\n".join([*_IMPORT.findall(doc["prompt"]), (_FENCED.findall(one) or [one])[-1]]) for one in answers]
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
            raise RunFailed(f"{path} is in use by another `dsv4 eval`; let it end, or end it.") from None
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.known = {line["key"]: line for line in map(json.loads, whole.splitlines()) if "key" in line}
        self._file.truncate(len(whole))  # what a kill left half written
        self._file.seek(0, os.SEEK_END)

    def keep(self, answer: dict[str, Any]) -> None:
        """Write one answer, at once."""
        with self._lock:
            self.known[answer["key"]] = answer
            self._file.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
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
        """Return the messages as JSON: the replica's own chat template is what is applied."""
        del add_generation_prompt
        return json.dumps([{"role": m["role"], "content": m["content"]} for m in chat_history], ensure_ascii=False)

    def payload(self, prompt: str) -> dict[str, Any]:
        """Return the request for a prompt of `apply_chat_template`; lm-eval's stop strings are left out."""
        return {"model": self._job["model"], "messages": json.loads(prompt), "seed": 1234, **self._job["sampling"]}

    def key(self, prompt: str) -> str:
        """Return what an answer is kept by: the hash of its whole request."""
        return hashlib.sha256(json.dumps(self.payload(prompt), sort_keys=True).encode()).hexdigest()

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the content of each answer: what comes after the reasoning, empty where it was cut before."""
        del disable_tqdm
        prompts = [one.args[0] for one in requests]
        left = [one for key, one in {self.key(p): p for p in prompts}.items() if key not in self.answers.known]
        send_event(planned=len(prompts), left=len(left))
        if self._job["dry-run"]:
            raise SystemExit(0)
        pool = ThreadPoolExecutor(self._job["concurrency"])
        try:
            for done in as_completed([pool.submit(self._ask, one) for one in left]):
                done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after a failure nobody waits for the other answers
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
            raise RunFailed(f"{self._job['url']}: not an answer of a chat: {str(body)[:200]}") from None
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
        """Refuse: a chat endpoint tells no likelihood of a given text."""
        del requests
        raise RunFailed("This task asks for likelihoods of given texts, which a chat endpoint does not tell.")

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
        tasks=[{"group": "dsv4", "task": [{"task": name, **job["config"]} for name in job["ask"]]}],  # lays config over
        limit=job["limit"],
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        bootstrap_iters=0,
        confirm_run_unsafe_code=job["run-code"],
    )


def _scored(job: Mapping[str, Any], model: ChatModel, evaluated: Any) -> dict[str, Any]:
    """Write the samples, one line for each, and return counts: of all metrics, and of cut answers."""
    samples: dict[tuple[str, int], dict[str, Any]] = {}
    for task, logged in evaluated["samples"].items():
        for one in logged:
            prompt = one["arguments"][0][0]
            kept = model.answers.known[model.key(prompt)]
            about = {"task": task, "document": one["doc_id"], "messages": json.loads(prompt), "target": one["target"]}
            entry = samples.setdefault((task, one["doc_id"]), {**about, **kept, "scores": {}})
            for name in one["metrics"]:
                if isinstance(one[name], (int, float)):
                    entry["scores"][f"{name},{one['filter']}"] = float(one[name])
    with Path(job["samples"]).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(one, ensure_ascii=False, default=str) + "\n" for one in samples.values())
    every = list(samples.values())
    missing = [name for name in job["metrics"] if name not in every[0]["scores"]]
    if missing:
        raise RunFailed(f"lm-eval gave no {', '.join(missing)}; it gave {', '.join(every[0]['scores'])}.")
    return {
        "lm-eval": importlib.metadata.version("lm-eval"),
        "total": len(every),
        "cut": sum(one["finish_reason"] == "length" for one in every),
        "correct": {name: round(sum(one["scores"][name] for one in every)) for name in job["metrics"]},
        "correct-of-whole": {
            name: round(sum(one["scores"][name] for one in every if one["finish_reason"] != "length"))
            for name in job["metrics"]
        },
        "prompt-tokens": sum(one["prompt_tokens"] for one in every),
        "completion-tokens": sum(one["completion_tokens"] for one in every),
        "answer-seconds": round(sum(one["seconds"] for one in every), 1),
    }


if __name__ == "__main__":
    status = main()
    EVENTS.flush()
    sys.stderr.flush()
    os._exit(status)  # threads that still wait for an answer are not waited for
