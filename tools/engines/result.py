"""A result of `qualification.gpu.keep`, as far as engines are compared by it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tools.engines.words import wrong
from tools.reference.k_by_load import step

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 7: "seven", 8: "eight"}
METHODS = {"mtp": "MTP", "dspark": "DSpark"}
BACKEND = "--moe-runner-backend"
Row = Mapping[str, Any]
Figure: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Count: TypeAlias = Annotated[int, Field(ge=1, strict=True)]


def _zoned(text: str) -> str:
    try:
        known = datetime.fromisoformat(text).tzinfo
    except ValueError:
        known = None
    if known is None:
        raise ValueError("a date with its zone is needed, such as 2026-11-30T12:38:24+00:00")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Row(_Part):
    input: Count
    batch: Count
    output: Count
    requests: Count
    output_tokens_per_second: Figure
    tpot_p50: Figure
    ttft_p50: Figure
    ttft_p99: Figure
    drafted: Annotated[int, Field(ge=0, strict=True)]


class _Variant(_Part):
    engine: Literal["dsv4", "sglang"]
    flags: list[str]
    env: dict[str, str]
    tp: Count
    share: Count


class _Gpu(_Part):
    name: str


class _Machine(_Part):
    gpus: list[_Gpu] = []


class _Replica(_Part):
    versions: dict[str, str] = {}
    machine: _Machine = _Machine()
    env: dict[str, str] = {}
    settings: dict[str, dict[str, Any]] = {}


class _Family(_Part):
    name: str
    ms: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
    longest: str


class _Body(_Part):
    """What is read of a result; it may hold more."""

    date: Annotated[str, AfterValidator(_zoned)]
    weights: str
    variant: _Variant
    replica: _Replica
    ready_after: Figure | None
    rows: Annotated[list[_Row], Field(min_length=1)]
    kernels: dict[str, list[_Family]] = {}
    tokens_a_step: Figure | None = None


class At(NamedTuple):
    """Where a row is: tokens in, and requests at a time."""

    input: int
    batch: int


def named(at: At) -> str:
    """Return a row in words."""
    return f"{at.input:,} tokens in and {at.batch} request{'s' if at.batch > 1 else ''}"


def counted(number: int) -> str:
    """Return a number as a word where it is a small one."""
    return COUNTS.get(number, f"{number}")


@dataclass(frozen=True)
class Result:
    """A result by its file."""

    path: Path
    body: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Result:
        """Return the result of a file; raise ValueError, one sentence, where it is none."""
        if not path.is_file():
            raise ValueError(f"{path.name} is not in {path.parent.name}/: copy the result there, or correct its name.")
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path.name} is not JSON in UTF-8: {error}.") from error
        try:
            _Body.model_validate(body)
        except ValidationError as error:
            raise ValueError(f"{path.name}: {wrong(error, body)}.") from error
        found = cls(path, body)
        _ = found.rows
        return found

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def date(self) -> str:
        """When it was measured."""
        return str(self.body["date"])

    @property
    def variant(self) -> str:
        """The name of the variant, such as `ours-mtp`."""
        found = re.search(r"-dummy-(.+)-\d{8}T\d{6}Z$", self.path.stem)
        return found[1] if found else self.path.stem

    @property
    def link(self) -> str:
        """A link to the file from docs/results."""
        return f"[{self.variant}](../../qualification/results/bench/{self.name})"

    @property
    def engine(self) -> str:
        """Either dsv4, or the name of another engine."""
        return str(self.body["variant"]["engine"])

    @property
    def version(self) -> str:
        """The engine with its version."""
        own = {"dsv4": ("vllm", "vLLM"), "sglang": ("sglang", "SGLang")}[self.engine]
        return f"{own[1]} {self.body['replica'].get('versions', {}).get(own[0], 'of an unknown version')}"

    @cached_property
    def rows(self) -> dict[At, Row]:
        """Its rows; raise ValueError for one that is there twice."""
        found = {At(row["input"], row["batch"]): row for row in self.body["rows"]}
        if len(found) != len(self.body["rows"]):
            raise ValueError(f"{self.name} has a row twice.")
        return found

    @property
    def gpus(self) -> str:
        """How many GPUs served, in words."""
        how = self.body["variant"]
        if how["share"] > 1:
            return f"one GPU's share of {counted(how['share'])}"
        return f"{counted(how['tp'])} GPU{'s' if how['tp'] > 1 else ''}"

    @property
    def where(self) -> str:
        """The GPUs with their number, and how they share the model."""
        how = self.body["variant"]
        return (
            f"{how['tp']} x {self.card or 'unknown GPU'}, {'TP=' + str(how['tp']) if how['share'] == 1 else self.gpus}"
        )

    @property
    def card(self) -> str:
        """The name of its GPU; empty where that is not known."""
        found = self.body["replica"].get("machine", {}).get("gpus", [])
        return str(found[0]["name"]) if found else ""

    @property
    def weights(self) -> str:
        """What the weights were, such as dummy weights."""
        return str(self.body["weights"]).partition(",")[0]

    @property
    def acceptance(self) -> str:
        """How many of the draft tokens are accepted, as the result says it."""
        found = re.search(r"acceptance ([\d., ]*\d)", self.body["weights"])
        return f"acceptance {found[1]}" if found else "no drafts"

    @property
    def drafts(self) -> int:
        """The draft tokens of a step; a result without a plan has as many as rates."""
        return int(self._setting("speculative-config.num_speculative_tokens") or 0)

    @property
    def kind(self) -> str:
        """Our drafts, and how many GPUs served, as a heading."""
        method = self._setting("speculative-config.method")
        many = f"{counted(self.drafts)} draft token{'s' if self.drafts > 1 else ''}"
        what = f"{METHODS.get(method, method)}, {many}" if self.drafts else "No drafts"
        return f"{what}, {self.gpus}"

    def _setting(self, name: str) -> Any:
        return self.body["replica"].get("settings", {}).get(name, {}).get("value")

    @property
    def experts(self) -> str:
        """The inputs of our experts and whether the plan had measured kernels, or the backend that SGLang was given."""
        if self.engine != "dsv4":
            flags = [*self.body["variant"]["flags"], ""]
            return f"`{flags[flags.index(BACKEND) + 1]}`" if BACKEND in flags else "its own choice"
        env = self.body["replica"].get("env", {})
        inputs = "FP8" if "float8" in env.get("VLLM_HUMMING_INPUT_QUANT_CONFIG", "") else "BF16"
        return f"{inputs} inputs, {'' if env.get('VLLM_TUNED_CONFIG_FOLDER') else 'no '}measured kernels"

    @property
    def routing(self) -> str:
        """The simulated routing of the experts."""
        found = re.search(r"experts (\w+)", self.body["weights"])
        return found[1] if found else ""

    @property
    def ready(self) -> str:
        """The seconds until it was ready; empty where it waited for another's GPU."""
        return "" if self.body["ready_after"] is None else f"{self.body['ready_after']:.0f}"

    @property
    def traces(self) -> Mapping[str, list[Row]]:
        """The families of kernels of each trace."""
        return self.body.get("kernels", {})  # type: ignore[no-any-return]

    def fits(self, trace: str, steps: int) -> bool:
        """Tell whether a trace can be of so many steps: most families' longest kernel ran a multiple of it."""
        found = [re.match(r"\d+% (\d+) x ", one["longest"]) for one in self.traces[trace]]
        calls = [int(match[1]) for match in found if match]
        return 2 * sum(not number % steps for number in calls) > len(calls)

    def tokens(self, at: At) -> float | None:
        """Return the tokens of a step in a row; None where the engine does not count drafts by row."""
        row = self.rows[at]
        return step(row, self.drafts).tokens if row["drafted"] and self.drafts else None

    def tokens_a_step(self) -> str:
        """Return the tokens of a step over all rows, with the least and the most of a row where they are counted."""
        if self.body.get("tokens_a_step"):
            return f"{self.body['tokens_a_step']}"
        each = [one for one in map(self.tokens, self.rows) if one]
        if not each:
            return ""
        rows = self.rows.values()
        total = sum(row["requests"] * (row["output"] - 1) for row in rows) * self.drafts
        mean, least, most = (f"{n:.2f}" for n in (total / sum(row["drafted"] for row in rows), min(each), max(each)))
        return mean if least == most == mean else f"{mean} ({least} to {most})"

    def reading(self) -> float | None:
        """Return the prompt tokens read in a second: by how much later the last first token of more prompts comes."""
        few, many = (self.rows.get(At(16000, batch)) for batch in (16, 64))
        if not few or not many or many["ttft_p99"] <= few["ttft_p99"]:
            return None
        prompts = many["requests"] - few["requests"]
        return float(prompts * 16000 / (many["ttft_p99"] - few["ttft_p99"]) * 1000)
